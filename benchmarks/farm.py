"""A measuring farm whose workers are killed and whose server crashes: is each job done, once, on one device at a time?

    python benchmarks/farm.py [--workers 16] [--rivals 4] [--jobs 2000] [--kills 24]

``farm``: so many workers, each on a scripted device of its own, and rivals that want the devices of the first of them,
take jobs off one queue. Workers are killed (kill -9) at random and started again; once the server crashes and comes
back. Nothing is measured: the devices are scripted, a clock that stands still times them, and a batch sleeps as long as
a real one waits. What is counted is real: the queue, its server, the workers' processes, locks and rows.

Rivals share a device with a worker and nothing else, no folder of locks either: only the server keeps them apart. Each
process notes when it begins and ends a batch; two that overlap on a device are counted.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness import Harness, ended, harness_from, parser_for, say

from lanaprof.config import Device
from lanaprof.errors import DeviceUnavailable, StoreError
from lanaprof.flows.bench import Bench
from lanaprof.flows.farming import listener_of, work
from lanaprof.lut import Environment, Measurement, Operator, Store, open_store
from lanaprof.lut.jobs import Job
from lanaprof.lut.queue import Queue, open_queue
from lanaprof.lut.testing import ThrowAwayServer, throw_away_server
from lanaprof.profiler.backends.base import Settings
from lanaprof.profiler.campaign import Campaign, CampaignResult, Provenance, Target
from lanaprof.profiler.protocol import HOT, Protocol
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.testing import FakeClock, ScriptedBackend

NAME = "farm"
QUEUE = "scripted"
SILENT_S = 15.0  # a worker silent for so long is dead; a third of the product's
BATCH_S = 0.6  # a batch of a real device waits 3 seconds at least
_FORKING = get_context(
    "forkserver"
)  # a worker starts at once: what it imports is there, and no connection is shared
_FORKING.set_forkserver_preload(
    [
        "__main__",
        "procrastinate.worker",
        "procrastinate.psycopg_connector",
        "sqlalchemy.dialects.postgresql.psycopg",
    ]
)
DEVICE = Device(name=QUEUE, text=QUEUE, backend="scripted")
ENVIRONMENT = Environment(
    backend="scripted", backend_version="1", cpu_model="scripted", isa="none", cores=1, smt=False, threads=1
)


def operators(count: int) -> list[Operator]:
    """Return so many operators, no two alike."""
    made = []
    for number in range(1, count + 1):
        image = {"type": "float32", "shape": [1, number]}
        graph = {
            "format": "lanaprof-graph/1", "opset": 18, "inputs": [image], "constants": [],
            "nodes": [{"op": "Relu", "attributes": {}, "inputs": ["i0"], "outputs": [image]}], "outputs": ["n0.0"],
        }  # fmt: skip
        made.append(Operator(graph=graph))
    return made


@dataclass(frozen=True, slots=True)
class ScriptedBench(Bench):
    """A bench whose device is scripted; it notes when it is used.

    Attributes:
        notes: the device's file of begins and ends.
    """

    notes: Path = Path()

    def note(self, what: str) -> None:
        """Append a line; short ones are appended whole, whoever else does."""
        with self.notes.open("a") as file:
            file.write(f"{what} {os.getpid()} {time.monotonic()}\n")

    def run(
        self,
        protocol: Protocol,
        targets: Sequence[Target],
        *,
        limit_s: float | None = None,
        still_wanted: Callable[[str], bool] | None = None,
        emit: Callable[[Measurement], None] = print,
        **settings: Any,
    ) -> CampaignResult:
        """Run a campaign on the scripted device, with pauses as long as rounds are."""
        clock = FakeClock()

        def slowly(record: Measurement) -> None:
            time.sleep(BATCH_S / len(targets))
            emit(record)

        campaign = Campaign(
            environment=self.environment.id, threads=1, protocol=replace(protocol, spread_s=0.0),
            provenance=self.provenance, journals=self.journals, graph_of=lambda key: self.store.get_operator(key).graph,
            new_rig=lambda: LocalRig(ScriptedBackend(Settings(threads=1, cores=(), gpu=""), clock), clock),
            emit=slowly, clock=clock, **settings,
        )  # fmt: skip
        self.note("begin")
        try:
            return campaign.run(targets, limit_s=limit_s, still_wanted=still_wanted)
        finally:
            self.note("end")


def be_worker(url: str, name: str, device: str, batch: int, folder: Path) -> None:
    """Serve until SIGTERM; a device that another one serves is waited for, as the owner's supervisor would."""
    stopped: list[int] = []
    while not stopped:
        try:
            with open_store(url) as store, open_queue(url) as queue:
                serve_once(store, queue, name, device, batch, folder)
                return
        except (DeviceUnavailable, StoreError):  # StoreError: started while the server is down
            signal.signal(signal.SIGTERM, lambda number, _frame: stopped.append(number))
            time.sleep(1.0)


def serve_once(store: Store, queue: Queue, name: str, device: str, batch: int, folder: Path) -> None:
    """Serve a device until SIGTERM."""
    bench = ScriptedBench(
        DEVICE, ENVIRONMENT, Provenance(team="farm", host=device, tool_version="0"), store, folder / name / "journals",
        notice=lambda text: say(f"{name}: {text}"), notes=folder / f"{device}.notes",
    )  # fmt: skip
    listener = listener_of(
        bench, queue, name=name, jobs=batch, beat_s=SILENT_S / 5, stalled_s=SILENT_S, poll_s=0.5
    )
    work(bench, queue, listener)


class Farm:
    """The processes of all workers and rivals, and what befalls them.

    Args:
        server: that they use.
        options: how many there are.
        folder: of notes and journals.
    """

    def __init__(self, server: ThrowAwayServer, options: dict[str, Any], folder: Path) -> None:
        self._url, self._options, self._folder = server.url(), options, folder
        count = options["workers"]
        self._devices = {f"w{i}": f"device-{i}" for i in range(count)}
        self._devices |= {f"rival{i}": f"device-{i}" for i in range(options["rivals"])}
        self._running = {name: self._start(name) for name in self._devices}
        self.killed: dict[int, float] = {}

    def _start(self, name: str) -> BaseProcess:
        words = (self._url, name, self._devices[name], self._options["batch"], self._folder)
        process = _FORKING.Process(target=be_worker, args=words, name=name)
        process.start()
        return process

    def kill(self, chance: random.Random) -> None:
        """Kill one at random, and start it again."""
        name = chance.choice(sorted(self._running))
        process = self._running[name]
        process.kill()
        process.join()
        assert process.pid is not None
        self.killed[process.pid] = time.monotonic()
        self._running[name] = self._start(name)

    def check(self) -> None:
        """Fail if one ended by itself."""
        for name, process in self._running.items():
            if process.exitcode is not None:
                raise RuntimeError(f"{name} ended with {process.exitcode}")

    def end(self) -> None:
        """End all in order; those that would not are killed."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            process.join(30)
            if process.exitcode is None:
                process.kill()
                process.join()


def overlaps(lines: Iterable[str], killed: dict[int, float]) -> tuple[int, int]:
    """Return how many batches a device ran, and how many of them began while another process was at one.

    >>> overlaps(["begin 1 0.0", "begin 2 0.5", "end 1 1.0", "end 2 2.0", "begin 3 3.0"], {})
    (3, 1)
    >>> overlaps(["begin 1 0.0", "begin 2 0.5"], {1: 0.4})
    (2, 0)
    """
    busy: set[int] = set()
    batches = bad = 0
    for line in lines:
        what, pid, at_s = line.split()
        if what == "end":
            busy.discard(int(pid))
            continue
        busy = {each for each in busy if killed.get(each, float("inf")) > float(at_s)} - {int(pid)}
        batches += 1
        bad += bool(busy)
        busy.add(int(pid))
    return batches, bad


def run_farm(options: dict[str, Any], folder: Path, limit_s: float = 900.0) -> dict[str, Any]:
    """Return what became of all jobs."""
    chance = random.Random(0)
    made = operators(options["jobs"])
    crashes = 0
    with throw_away_server(durable=True) as server:
        with open_store(server.url(), create=True) as store:
            store.add([*made, ENVIRONMENT])
        with open_queue(server.url(), create=True) as queue:
            jobs = [Job(operator=each.id, protocol=HOT.text) for each in made]
            # The last quarter comes behind the crash and a kill: both happen while there is work, however fast it goes.
            held = len(jobs) // 4
            report, again = (queue.enqueue(QUEUE, jobs[held:]) for _ in range(2))
            added = report.added + again.added
            began_s = time.monotonic()
            farm = Farm(server, options, folder)
            stalled_most = 0
            try:
                while True:
                    time.sleep(chance.uniform(0.3, 1.0))
                    farm.check()
                    (state,) = queue.overview(stalled_s=SILENT_S).queues
                    stalled_most = max(stalled_most, state.stalled)
                    if state.done + state.failed == options["jobs"]:
                        break
                    if time.monotonic() - began_s > limit_s:
                        raise RuntimeError(f"not done after {limit_s} s: {state}")
                    if not crashes and state.done >= options["jobs"] / 2:
                        server.stop("immediate")
                        time.sleep(1.0)
                        server.start()
                        crashes += 1
                    elif held and crashes and (farm.killed or not options["kills"]):
                        held, added = 0, added + queue.enqueue(QUEUE, jobs[:held]).added
                    elif len(farm.killed) < options["kills"] * min(1.0, state.done / (0.9 * options["jobs"])):
                        farm.kill(chance)
                seconds = time.monotonic() - began_s
            finally:
                farm.end()
            seen = queue.overview()
        with open_store(server.url(), readonly=True) as store:
            rows = [each.operator for each in store.measurements()]
    found = [overlaps(path.read_text().splitlines(), farm.killed) for path in folder.glob("*.notes")]
    (state,) = seen.queues
    return {
        "workers": options["workers"], "rivals": options["rivals"], "jobs": options["jobs"], "batch": options["batch"],
        "enqueued_twice": added - options["jobs"], "kills": len(farm.killed), "crashes": crashes,
        "done": state.done, "failed": state.failed, "left": state.waiting + state.running,
        "stalled_most": stalled_most, "lost": options["jobs"] - len(set(rows)),
        "rows_twice": len(rows) - len(set(rows)),
        "batches": sum(each[0] for each in found), "overlaps": sum(each[1] for each in found),
        "wall_s": seconds, "jobs_per_s": options["jobs"] / seconds,
    }  # fmt: skip


def run_part(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return the results of the one part."""
    return [run_farm(harness.options, harness.folder(part))]


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    for result in (run["result"] for run in runs):
        print(
            f"{result['workers']} workers, {result['rivals']} rivals, {result['jobs']} jobs, {result['kills']} killed, "
            f"{result['crashes']} crash of the server: {result['done']} done, {result['failed']} failed, "
            f"{result['lost']} lost, {result['rows_twice']} rows twice; {result['overlaps']} of {result['batches']} "
            f"batches overlapped on a device; {result['wall_s']:.0f} s"
        )


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument("--workers", type=int, default=16, help="each on a device of its own")
    parser.add_argument("--rivals", type=int, default=4, help="that want the devices of the first of them")
    parser.add_argument("--jobs", type=int, default=2_000, help="operators to be timed")
    parser.add_argument("--batch", type=int, default=16, help="jobs a worker holds at once")
    parser.add_argument("--kills", type=int, default=24, help="how often a worker or rival is killed")
    given = parser.parse_args()
    if given.quick:
        given.workers, given.rivals, given.jobs, given.batch, given.kills = 3, 1, 40, 4, 2
    names = ("workers", "rivals", "jobs", "batch", "kills")
    harness = harness_from(NAME, given, {name: getattr(given, name) for name in names})
    harness.parts(["farm"], lambda part: run_part(harness, part))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
