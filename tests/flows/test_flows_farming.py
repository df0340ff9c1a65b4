"""A farm's workers: a real one on this CPU, and what becomes of jobs on a device that is scripted."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import Device, parse_device
from lanaprof.errors import DeviceUnavailable, StoreError
from lanaprof.flows.bench import Bench
from lanaprof.flows.farming import FarmReport, Outbox, Worker, listener_of, place_of, queue_of, work
from lanaprof.flows.queueing import Again, enqueue_gaps
from lanaprof.lut import Environment, Measurement, Operator, Store, open_store, utc_now
from lanaprof.lut.jobs import Job
from lanaprof.lut.queue import Queue, drop_queue, open_queue
from lanaprof.lut.serving import GivenBack, Refused, lock_of
from lanaprof.lut.testing import throw_away_server
from lanaprof.profiler.campaign import CampaignResult, Provenance, Target
from lanaprof.profiler.protocol import HOT, Protocol

pytest.importorskip("procrastinate", reason="the extra farm is not installed")

DEVICE = Device(name="cpu", text="cpu", backend="onnxruntime")
ENVIRONMENT = Environment(
    backend="onnxruntime", backend_version="1", cpu_model="Example", isa="none", cores=1, smt=False, threads=1
)
HEAVY = ("torch", "onnx", "timm", "pandas", "tensorrt")
CODE = """
import json, sys
from lanaprof.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as ended:
    code = ended.code
print(json.dumps([code, sorted(set(sys.argv[2].split()) & set(sys.modules))]), file=sys.stderr)
"""


def operator(width: int) -> Operator:
    """Return the operator of one node."""
    tensor = {"type": "float32", "shape": [1, width]}
    graph = {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
        "nodes": [{"op": "Relu", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}], "outputs": ["n0.0"],
    }  # fmt: skip
    return Operator(graph=graph)


OPERATORS = [operator(16 * number) for number in range(1, 5)]
JOBS = [Job(operator=each.id, protocol=HOT.text) for each in OPERATORS]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of a server's database with four operators."""
    with ExitStack() as stack:
        try:
            server = stack.enter_context(throw_away_server())
        except StoreError as error:
            pytest.skip(f"no PostgreSQL server: {error.message}")
        with open_store(server.url(), create=True) as store:
            store.add([*OPERATORS, ENVIRONMENT])
        yield server.url()


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    """An empty queue."""
    with open_queue(url, create=True) as opened:
        yield opened
    drop_queue(url)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A file with the operators: whoever handles jobs does not care where rows go."""
    with open_store(tmp_path / "lut.db", create=True) as opened:
        opened.add([*OPERATORS, ENVIRONMENT])
        yield opened


def row(key: str, **changes: Any) -> Measurement:
    """Return an operator's measurement."""
    given = {
        "operator": key, "environment": ENVIRONMENT.id, "cache": "hot", "protocol": "hot/1", "status": "ok",
        "latency_s": 1e-3, "ci_low_s": 1e-3, "ci_high_s": 1e-3, "samples": (1e-3,), "rounds": (0,), "team": "lab",
        "host": "h", "time": utc_now(), "tool_version": "0",
    }  # fmt: skip
    return Measurement(**{**given, **changes})


@dataclass(frozen=True, slots=True)
class ScriptedBench(Bench):
    """A bench on which every operator takes a millisecond; it writes down what it is asked for.

    Attributes:
        asked: a list per campaign.
        least: of so many operators at most a row is made; the others are left as by a campaign that was stopped.
    """

    asked: tuple[list[str], ...] = ([],)
    least: int = 99

    def run(
        self,
        protocol: Protocol,
        targets: Sequence[Target],
        *,
        limit_s: float | None = None,
        still_wanted: Callable[[str], bool] | None = None,
        **settings: Any,
    ) -> CampaignResult:
        """Make rows."""
        self.asked[0].extend(target.operator for target in targets)
        for target in targets[: self.least]:
            settings["emit"](row(target.operator))
        return CampaignResult()


def bench_of(store: Store, folder: Path, **changes: Any) -> ScriptedBench:
    """Return a bench whose rows go to a store."""
    provenance = Provenance(team="lab", host="0123456789ab", tool_version="0")
    return ScriptedBench(DEVICE, ENVIRONMENT, provenance, store, folder / "journals", asked=([],), **changes)


def handled(bench: Bench, queue: Queue, jobs: Sequence[Job]) -> tuple[list[Any], FarmReport]:
    """Hand a worker jobs; return what each ended with, and the worker's report."""
    report = FarmReport()
    lock = lock_of(queue, listener_of(bench, queue))

    async def main() -> list[Any]:
        worker = Worker(bench, queue, lock, report)
        measuring = asyncio.create_task(worker.run())
        ended = await asyncio.gather(*map(worker.handle, jobs), return_exceptions=True)
        measuring.cancel()
        await asyncio.wait([measuring])
        return list(ended)

    ended = asyncio.run(asyncio.wait_for(main(), 600))
    lock.give_back()
    return ended, report


def test_queue_is_named_after_device_and_threads() -> None:
    """Batch and precision are in the operators; threads are the environment's."""
    assert "cpu,threads=2" == queue_of(parse_device("cpu,threads=2,batch=8,precision=fp16"))


def test_a_real_worker_measures_without_torch(url: str, queue: Queue, tmp_path: Path) -> None:
    """What was enqueued outside a project is measured by ``worker --once`` with ONNX Runtime, from the graphs alone."""
    words = ["worker", "--device", "cpu", "--once", "--database", url, "--json"]
    with open_store(url) as there:
        enqueued = enqueue_gaps(DEVICE, there, queue, team="lab")
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(words), " ".join(HEAVY)],
        cwd=tmp_path, check=True, capture_output=True, text=True, env={**os.environ, "LANAPROF_SPREAD_S": "0"},
    )  # fmt: skip
    with open_store(url) as there:
        rows = there.measurements(operators=[each.id for each in OPERATORS])
        again = enqueue_gaps(DEVICE, there, queue, team="lab")

    assert [0, []] == json.loads(ran.stderr.splitlines()[-1]), ran.stderr
    assert 4 == enqueued.report.added
    assert 4 == json.loads(ran.stdout)["measured"]
    assert {each.id for each in OPERATORS} == {each.operator for each in rows if each.latency_s}
    assert (0, 4) == (again.report.added, again.reused)


def test_jobs_that_come_together_are_one_campaign(store: Store, queue: Queue, tmp_path: Path) -> None:
    """Rows are stored, every job ends, and each operator is asked for once."""
    bench = bench_of(store, tmp_path)

    ended, report = handled(bench, queue, JOBS)

    assert [None] * 4 == ended
    assert 4 == report.measured == len(store.measurements())
    assert sorted(bench.asked[0]) == sorted(each.id for each in OPERATORS)


def test_what_was_measured_meanwhile_is_not_measured_again(
    store: Store, queue: Queue, tmp_path: Path
) -> None:
    """A job whose operator has a row is done at once; one that wants a newer row is not."""
    bench = bench_of(store, tmp_path)
    store.add([row(each.id, time="2026-01-01T00:00:00Z") for each in OPERATORS[:2]])

    ended, report = handled(bench, queue, [JOBS[0], replace(JOBS[1], since=Again(force=True).since)])

    assert [None] * 2 == ended
    assert (1, 1) == (report.reused, report.measured)
    assert [OPERATORS[1].id] == bench.asked[0]


def test_what_no_attempt_can_make_right_is_refused(store: Store, queue: Queue, tmp_path: Path) -> None:
    """Unknown operators and protocols are told as such; the other jobs are done."""
    strange = [replace(JOBS[1], operator="0" * 32), replace(JOBS[2], protocol="hot/99")]

    ended, report = handled(bench_of(store, tmp_path), queue, [JOBS[0], *strange])

    assert ended[0] is None
    assert isinstance(ended[1], Refused)
    assert "hot/99" in str(ended[2])
    assert (1, 2) == (report.measured, report.refused)


def test_what_a_stopped_campaign_leaves_is_given_back(store: Store, queue: Queue, tmp_path: Path) -> None:
    """Jobs with a row end; the others wait again."""
    ended, report = handled(bench_of(store, tmp_path, least=1), queue, JOBS[:2])

    assert [True, False] == [each is None for each in ended]
    assert isinstance(ended[1], GivenBack)
    assert (1, 1) == (report.measured, report.given_back)


def test_rows_outlive_a_server_that_is_away(store: Store, queue: Queue, tmp_path: Path) -> None:
    """A row that cannot be stored is kept, its job is tried again; the next batch stores it first."""

    class Away:
        """A store whose server is away for rows."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def add(self, records: Any) -> None:
            raise StoreError("the server is away")

    away: Any = Away()
    lost, _ = handled(replace(bench_of(store, tmp_path), store=away), queue, JOBS[:2])
    (outbox,) = tmp_path.glob("outbox-*.jsonl")
    kept = outbox.read_text().count("\n")
    bench = bench_of(store, tmp_path)
    ended, report = handled(bench, queue, JOBS[:2])

    assert [StoreError] * 2 == [type(each) for each in lost]
    assert 2 == kept
    assert [None] * 2 == ended
    assert (2, 0, []) == (report.reused, report.measured, bench.asked[0])
    assert not outbox.exists()


def test_outbox_forgives_a_line_that_was_cut_off(store: Store, tmp_path: Path) -> None:
    """kill -9 in the middle of a line costs that line."""
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.keep(row(OPERATORS[0].id))
    with (tmp_path / "outbox.jsonl").open("a") as file:
        file.write('{"record": "meas')

    assert 1 == outbox.send(store)
    assert 1 == len(store.measurements())


def test_outbox_keeps_what_the_database_refuses(store: Store, tmp_path: Path) -> None:
    """Rows of an operator that is not there are moved aside; nothing is thrown away."""
    outbox = Outbox(tmp_path / "outbox.jsonl")
    outbox.keep(row("0" * 32))

    outbox.send(store)

    assert 1 == (tmp_path / "outbox.refused").read_text().count("\n")
    assert not (tmp_path / "outbox.jsonl").exists()


def test_a_worker_of_another_environment_is_refused(store: Store, queue: Queue, tmp_path: Path) -> None:
    """A queue is measured in one environment at a time; the message says what differs."""
    bench, told = bench_of(store, tmp_path), list[str]()
    other = replace(ENVIRONMENT, backend_version="2")
    store.add([other])

    @dataclass(frozen=True, slots=True)
    class Meeting(ScriptedBench):
        """While it measures, a worker with another version comes."""

        def run(self, *words: Any, **settings: Any) -> CampaignResult:
            with pytest.raises(DeviceUnavailable) as raised:
                listener_of(replace(bench, environment=other), queue)
            told.append(raised.value.message)
            return ScriptedBench.run(self, *words, **settings)

    queue.enqueue("cpu", JOBS[:1])
    meeting = Meeting(DEVICE, ENVIRONMENT, bench.provenance, store, bench.journals)
    report = work(meeting, queue, listener_of(meeting, queue, once=True, name="first"))

    assert 1 == report.measured
    assert ["first"] == [text.split()[1] for text in told]
    assert "backend_version 1 there, 2 here" in told[0]


def test_place_is_the_cores_of_a_host(store: Store, tmp_path: Path) -> None:
    """Two devices on other cores are two places."""
    bench = bench_of(store, tmp_path)

    assert place_of(bench).startswith("host 0123456789ab core ")
    assert "host 0123456789ab GPU-1" == place_of(replace(bench, gpu="GPU-1"))
