"""A worker of a measuring farm: takes operators off a device's queue, times them by campaigns, stores the rows.

Whatever is fetched together is timed together, as one batch of one campaign, because a batch costs its spread of
seconds however few operators it has. A row is in the database before its job counts as done; while the server is away
rows lie in a file beside the journals.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lanaprof.config import Device
from lanaprof.digest import digest
from lanaprof.errors import DeviceUnavailable, StoreError
from lanaprof.flows.bench import Bench
from lanaprof.flows.tally import Tally
from lanaprof.lut import Measurement, Store, environment_differences, record_from_json
from lanaprof.lut.jobs import Job
from lanaprof.lut.placelock import PlaceLock
from lanaprof.lut.queue import Queue
from lanaprof.lut.serving import GivenBack, Listener, Refused, lock_of, serve
from lanaprof.profiler.campaign import CampaignResult, Target
from lanaprof.profiler.circuit import circuit_from_json
from lanaprof.profiler.environment import choose_cores
from lanaprof.profiler.protocol import HOT, NETWORK, RELAY, Protocol

__all__ = ["JOBS_AT_ONCE", "FarmReport", "Outbox", "Worker", "listener_of", "place_of", "queue_of", "work"]

JOBS_AT_ONCE = (
    64  # held by a worker; a batch takes its spread of seconds whether it has one operator or sixty-four
)
_GATHER_S = 0.3  # nothing more was fetched for so long: what is there is timed
_PROTOCOLS = {each.text: each for each in (HOT, NETWORK, RELAY)}


def queue_of(device: Device) -> str:
    """Return the name of a device's queue: batch and precision are the operators' own, threads are the device's."""
    parts = [part for part in device.text.split(",") if not part.startswith(("batch=", "precision="))]
    return ",".join(parts)


def place_of(bench: Bench) -> str:
    """Return the part of this host that the bench measures on: its GPU, or its cores."""
    if bench.gpu:
        return f"host {bench.provenance.host} {bench.gpu}"
    return f"host {bench.provenance.host} core {','.join(map(str, choose_cores(bench.device)))}"


@dataclass(slots=True)
class FarmReport(Tally):
    """What a worker did: jobs by what became of them."""

    refused: int = 0
    given_back: int = 0
    seconds: float = 0.0


class Outbox:
    """Rows that could not be stored, in a file; sent before anything else is measured.

    Args:
        path: the file; made when needed, gone when it is empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self, record: Measurement) -> None:
        """Write a row and wait until the disk has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record.to_json(), sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def send(self, store: Store) -> int:
        """Store what lies here, and return how many rows that were; a line that was cut off is left out.

        What the database refuses is moved to a file beside this one.

        Raises:
            StoreError: the database cannot be reached; everything stays here.
        """
        if not self._path.exists():
            return 0
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        rows = [record_from_json(json.loads(line)) for line in lines if line.endswith("\n")]
        if store.add(rows).refused:
            self._path.replace(self._path.with_suffix(".refused"))
        else:
            self._path.unlink()
        return len(rows)


@dataclass(slots=True)
class _Batch:
    """Jobs of one protocol and context, with those who wait for them."""

    jobs: list[Job] = field(default_factory=list)
    waiting: dict[str, list[asyncio.Future[None]]] = field(default_factory=dict)


class Worker:
    """Times what it is handed, batch by batch, in a thread of its own.

    Args:
        bench: where; its store is the farm's server.
        queue: gives relay contexts.
        lock: of the bench's place: nothing is timed without it.
        report: counts what is done.
    """

    def __init__(self, bench: Bench, queue: Queue, lock: PlaceLock, report: FarmReport) -> None:
        # Workers of other places may run in the same folder: each has journals and an outbox of its own.
        mark = digest(place_of(bench))[:8]
        self._outbox = Outbox(bench.journals.parent / f"outbox-{mark}.jsonl")
        self._bench = replace(bench, journals=bench.journals / mark)
        self._queue, self._lock, self.report = queue, lock, report
        self._handed: list[tuple[Job, asyncio.Future[None]]] = []
        self._arrived = asyncio.Event()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the campaign at the end of its round; what has no row by then is given back."""
        self._stopped.set()
        self._arrived.set()

    async def handle(self, job: Job) -> None:
        """Return when a job's operator has a row in the database.

        Raises:
            GivenBack: the worker is stopped.
            Refused: it cannot be timed by this program, whoever tries.
            StoreError: the row could not be stored; it lies in the outbox.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handed.append((job, future))
        self._arrived.set()
        await future

    async def run(self) -> None:
        """Measure what is handed in until cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "measuring") as thread:
            while True:
                await self._arrived.wait()
                count = -1
                while count != len(self._handed) and not self._stopped.is_set():
                    count = len(self._handed)
                    await asyncio.sleep(_GATHER_S)
                batch = self._next()
                if batch.jobs:
                    await loop.run_in_executor(thread, self._measure_all, loop, batch)
                if not self._handed:
                    self._arrived.clear()

    def _next(self) -> _Batch:
        """Return the jobs that go with the first one; each operator once."""
        batch, rest = _Batch(), []
        for job, future in self._handed:
            first = batch.jobs[0] if batch.jobs else job
            if (job.protocol, job.context) != (first.protocol, first.context):
                rest.append((job, future))
                continue
            if job.operator not in batch.waiting:
                batch.jobs.append(job)
            batch.waiting.setdefault(job.operator, []).append(future)
        self._handed = rest
        return batch

    def _measure_all(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        """Settle every job of a batch: runs in the thread, tells the loop."""

        def settle(operator: str, error: Exception | None = None) -> None:
            for future in batch.waiting.pop(operator, ()):
                loop.call_soon_threadsafe(_settled, future, error)

        try:
            self._measure(batch, settle)
            left: Exception = GivenBack()
            self.report.given_back += len(batch.waiting)
        except Exception as error:  # told to the queue, which lets the jobs wait again
            left = error
            self._bench.notice(f"a batch broke off: {error}")
        for operator in list(batch.waiting):
            settle(operator, left)

    def _measure(self, batch: _Batch, settle: Callable[..., None]) -> None:
        # After a restart of the server the lock is taken anew; another worker may have been quicker.
        if self._stopped.is_set() or self._lock.take() != "taken":
            return
        bench, first = self._bench, batch.jobs[0]
        self._outbox.send(bench.store)
        protocol = _PROTOCOLS.get(first.protocol)
        if protocol is None:
            self._refuse_all(batch, settle, f"this lanaprof cannot time by protocol {first.protocol!r}")
            return
        for operator in bench.store.lacking("operator", [job.operator for job in batch.jobs]):
            self.report.refused += 1
            settle(operator, Refused(f"operator {operator} is not in the database"))
        context = self._queue.get_context(first.context) if first.context else {}
        jobs = [job for job in batch.jobs if job.operator in batch.waiting]
        wanted = self._wanted(jobs, protocol, context)
        for job in jobs:
            if job.operator not in wanted:
                self.report.reused += 1
                settle(job.operator)
        jobs = [job for job in jobs if job.operator in wanted]
        if jobs:
            self._campaign(jobs, protocol, context, settle)

    def _refuse_all(self, batch: _Batch, settle: Callable[..., None], why: str) -> None:
        self.report.refused += len(batch.waiting)
        for operator in list(batch.waiting):
            settle(operator, Refused(why))

    def _wanted(self, jobs: Sequence[Job], protocol: Protocol, context: Mapping[str, Any]) -> frozenset[str]:
        """Return the operators that nobody has timed in this environment yet, as their jobs want them timed."""
        wanted = set()
        for alone in (False, True):
            relayed = protocol.cache == "relay" and not alone
            asked = [job for job in jobs if (job.kind == "network") == alone]
            rows = self._bench.store.measurements(
                environment=self._bench.environment.id,
                operators=[job.operator for job in asked],
                cache=protocol.cache if relayed else "hot",
                space=context["space"] if relayed else None,
            )
            newest: dict[str, str] = {}
            for row in rows:
                newest[row.operator] = max(row.time, newest.get(row.operator, ""))
            wanted |= {job.operator for job in asked if newest.get(job.operator, "") < (job.since or "0")}
        return frozenset(wanted)

    def _campaign(
        self, jobs: Sequence[Job], protocol: Protocol, context: Mapping[str, Any], settle: Callable[..., None]
    ) -> CampaignResult:
        away: list[StoreError] = []

        def emit(record: Measurement) -> None:
            """Store a row, then let its job end; what cannot be stored is kept here, and its job tried again."""
            try:
                if not away:  # after the first minute of trying the others need not try as long
                    for refusal in self._bench.store.add([record]).refused:
                        settle(record.operator, Refused(f"the database refuses its row: {refusal.reason}"))
                        return
            except StoreError as error:
                away.append(error)
            if away:
                self._outbox.keep(record)
                settle(record.operator, away[0])
                return
            self.report.count(record)
            settle(record.operator)

        @cache
        def wanted_now() -> frozenset[str]:
            """Return what is still wanted once the cores are ours; somebody may have measured while we waited."""
            return self._wanted(jobs, protocol, context)

        relay: dict[str, Any] = {}
        if protocol.cache == "relay":
            relay = {
                "space": context["space"],
                "circuit": circuit_from_json(context["circuit"]),
                "fillers": {layer: tuple(keys) for layer, keys in context["fillers"].items()},
                "companions": tuple(job.operator for job in jobs if job.kind == "network"),
            }
        targets = [
            Target(job.operator, job.layers, job.kind == "segment")
            for job in jobs
            if not (relay and job.kind == "network")
        ]
        if relay and not targets:  # the teacher as a whole alone: it needs no relay
            protocol, relay = NETWORK, {}
            targets = [Target(job.operator) for job in jobs]
        return self._bench.run(
            protocol,
            targets,
            still_wanted=lambda key: key in wanted_now(),
            emit=emit,
            stopped=self._stopped.is_set,
            **relay,
        )


def _settled(future: asyncio.Future[None], error: Exception | None) -> None:
    if future.done():  # its worker was cancelled
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def listener_of(bench: Bench, queue: Queue, *, name: str | None = None, **settings: Any) -> Listener:
    """Return who listens for this bench's device.

    Raises:
        DeviceUnavailable: workers of other environments listen there: their numbers would not mix.
    """
    named = queue_of(bench.device)
    own = bench.environment
    for other in queue.overview().workers:
        if other.queue == named and not other.stalled and other.environment != own.id:
            theirs = next((e for e in bench.store.environments() if e.id == other.environment), None)
            found = environment_differences(theirs, own) if theirs else ()
            told = [f"{each.field} {each.a} there, {each.b} here" for each in found]
            raise DeviceUnavailable(
                f"worker {other.name} measures {named} in another environment ({'; '.join(told) or other.environment}):"
                " one table would not hold both",
                hint="install the same versions, or give this hardware a device of its own in devices.yaml",
            )
    return Listener(
        queue=named, name=name or socket.gethostname(), place=place_of(bench), environment=own.id, pid=os.getpid(),
        jobs=settings.pop("jobs", JOBS_AT_ONCE), **settings,
    )  # fmt: skip


def work(bench: Bench, queue: Queue, listener: Listener, *, limit_s: float | None = None) -> FarmReport:
    """Take jobs until a signal, the limit or, with ``listener.once``, the end of the queue; return what was done.

    The first SIGTERM or Ctrl-C ends the round in progress, stores what has enough of them, and gives the rest back;
    a second one ends the process at once, and the jobs are recovered by others.
    """
    report, lock = FarmReport(), lock_of(queue, listener)
    began_s = time.monotonic()

    async def main() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        worker = Worker(bench, queue, lock, report)

        def end() -> None:
            stop.set()
            worker.stop()

        def on_signal(number: int) -> None:
            bench.notice("stopping: the round in progress is ended, what is left is given back")
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            end()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
        if limit_s is not None:
            loop.call_later(limit_s, end)
        measuring = asyncio.create_task(worker.run())
        measuring.add_done_callback(lambda task: None if task.cancelled() else end())
        try:
            await serve(queue, listener, worker.handle, lock=lock, stop=stop, notice=bench.notice)
        finally:
            measuring.cancel()
            await asyncio.wait([measuring])
        if not measuring.cancelled():
            measuring.result()  # raises what ended it

    asyncio.run(main())
    report.seconds = time.monotonic() - began_s
    return report
