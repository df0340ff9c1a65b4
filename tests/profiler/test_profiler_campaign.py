"""Campaigns: rounds, stopping, failures as rows, resuming; exact on a fake clock, real in a child process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import OperatorTimeout, UnsupportedOperator
from lanaprof.lut.keys import operator_key
from lanaprof.lut.records import Measurement
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.campaign import Campaign, Progress, Provenance, Target
from lanaprof.profiler.circuit import Circuit, Step
from lanaprof.profiler.journal import JournalHeader, open_journal, unfinished_journals
from lanaprof.profiler.protocol import HOT, NETWORK, RELAY
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import LocalRig, Rig, WorkerDied
from lanaprof.profiler.sampling import plan_relay_round
from lanaprof.profiler.testing import FakeClock, ScriptedBackend, scripted_latency_s

PROVENANCE = Provenance(team="lab", host="0123456789ab", tool_version="0")
TENSOR = {"type": "float32", "shape": [1, 4]}


def graph_of_size(width: int, op: str = "Relu") -> dict[str, Any]:
    """Return the canonical graph of one node; its scripted latency grows with the width."""
    tensor = {"type": "float32", "shape": [1, width]}
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
        "nodes": [{"op": op, "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}], "outputs": ["n0.0"],
    }  # fmt: skip


GRAPHS = {operator_key(graph): graph for graph in (graph_of_size(1000 * n) for n in range(1, 7))}
KEYS = list(GRAPHS)


def campaign(folder: Path, clock: FakeClock, kept: list[Measurement], **changes: Any) -> Campaign:
    settings: dict[str, Any] = {
        "environment": "e" * 32,
        "threads": 1,
        "protocol": replace(HOT, spread_s=0.0),
        "provenance": PROVENANCE,
        "journals": folder,
        "graph_of": GRAPHS.__getitem__,
        "new_rig": lambda: LocalRig(ScriptedBackend(Settings(), clock), clock),
        "emit": kept.append,
        "clock": clock,
    }
    return Campaign(**{**settings, **changes})


def test_an_undisturbed_campaign_measures_exactly(tmp_path: Path) -> None:
    """On a clock without noise every estimate is the scripted latency, in the fewest rounds."""
    kept: list[Measurement] = []

    result = campaign(tmp_path, FakeClock(), kept).run([Target(key) for key in KEYS])

    assert {key: pytest.approx(scripted_latency_s(GRAPHS[key])) for key in KEYS} == {
        r.operator: r.latency_s for r in kept
    }
    assert {"ok": len(KEYS)} == result.counts
    assert {HOT.rounds_min} == {len(set(record.rounds)) for record in kept}
    assert {("hot", "hot/1", "")} == {(r.cache, r.protocol, r.space) for r in kept}


def test_disturbed_samples_do_not_move_the_estimate(tmp_path: Path) -> None:
    """Every third run is interrupted and takes five times as long: it is rejected, not averaged."""
    kept: list[Measurement] = []
    clock = FakeClock(lambda number: (5e-6, 1) if number % 3 == 0 else (0.0, 0))

    campaign(tmp_path, clock, kept).run([Target(KEYS[2])])

    assert scripted_latency_s(GRAPHS[KEYS[2]]) == pytest.approx(kept[0].latency_s)
    assert kept[0].rejected > 0


def test_a_noisy_operator_gets_more_rounds_and_says_so(tmp_path: Path) -> None:
    """Noise that no round agrees on runs to the limit and is marked."""
    kept: list[Measurement] = []
    generator = random.Random(0)
    clock = FakeClock(lambda _number: (generator.uniform(0, 3e-6), 0))

    campaign(tmp_path, clock, kept).run([Target(KEYS[0])])

    assert kept[0].status == "noisy"
    assert HOT.rounds_max == len(set(kept[0].rounds))


def test_failures_are_rows(tmp_path: Path) -> None:
    """What a runtime refuses is recorded with its reason, and the others are measured."""
    refused = graph_of_size(7, "Unsupported")
    graphs = {**GRAPHS, operator_key(refused): refused}
    kept: list[Measurement] = []

    result = campaign(tmp_path, FakeClock(), kept, graph_of=graphs.__getitem__).run(
        [Target(key) for key in graphs]
    )

    row = next(record for record in kept if record.operator == operator_key(refused))
    assert (row.status, row.latency_s) == ("unsupported", None)
    assert "no kernel" in row.message
    assert {"ok": len(KEYS), "unsupported": 1} == result.counts


def test_what_a_runtime_says_of_its_builds_is_recorded(tmp_path: Path) -> None:
    """Each text once, however many builds said it; nothing where it says nothing."""
    noted = graph_of_size(7, "Noted")
    graphs = {operator_key(noted): noted, KEYS[0]: GRAPHS[KEYS[0]]}
    kept: list[Measurement] = []
    protocol = replace(HOT, spread_s=0.0, rounds_min=6, rebuild_every=2)

    campaign(tmp_path, FakeClock(), kept, graph_of=graphs.__getitem__, protocol=protocol).run(
        [Target(key) for key in graphs]
    )

    assert {"seed 0; seed 1; seed 2", ""} == {record.message for record in kept}


def test_a_killed_campaign_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    """Stopped after two rounds, the next run starts at round two; the journal is gone at the end."""
    kept: list[Measurement] = []
    runs: list[int] = []

    def stop(progress: Progress) -> None:
        if progress.text.endswith("round 2"):
            raise KeyboardInterrupt

    def counted() -> Rig:
        class Counting(LocalRig):
            def run(self, visits: Any) -> Any:
                runs.append(len(visits))
                return super().run(visits)

        clock = FakeClock()
        return Counting(ScriptedBackend(Settings(), clock), clock)

    targets = [Target(key) for key in KEYS]
    with pytest.raises(KeyboardInterrupt):
        campaign(tmp_path, FakeClock(), kept, report=stop, new_rig=counted).run(targets)
    assert (kept, len(runs)) == ([], 2)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1

    clock = FakeClock()
    rig = LocalRig(ScriptedBackend(Settings(), clock), clock)
    campaign(tmp_path, clock, kept, new_rig=lambda: rig).run(targets)

    assert sorted(KEYS) == sorted(record.operator for record in kept)
    assert {HOT.rounds_min} == {len(set(record.rounds)) for record in kept}
    assert list(tmp_path.glob("*.jsonl")) == []


def test_what_another_process_measured_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Each batch asks again what is still wanted."""
    kept: list[Measurement] = []

    campaign(tmp_path, FakeClock(), kept).run(
        [Target(key) for key in KEYS], still_wanted=lambda key: key != KEYS[0]
    )

    assert set(KEYS[1:]) == {record.operator for record in kept}


def test_a_time_limit_keeps_what_is_there(tmp_path: Path) -> None:
    """At the limit the campaign is incomplete, nothing is lost, and the next one goes on."""
    kept: list[Measurement] = []
    clock = FakeClock()
    slow = replace(HOT, spread_s=60.0)

    result = campaign(tmp_path, clock, kept, protocol=slow).run([Target(key) for key in KEYS], limit_s=2.0)

    assert result.incomplete
    assert (kept, len(list(tmp_path.glob("*.jsonl")))) == ([], 1)  # two rounds, three are the least

    rest = campaign(tmp_path, clock, kept, protocol=slow).run([Target(key) for key in KEYS])

    assert not rest.incomplete
    assert sorted(KEYS) == sorted(record.operator for record in kept)


def test_a_campaign_that_is_told_to_stop_ends_its_round(tmp_path: Path) -> None:
    """Told during the second round it ends behind it, incomplete; its rounds are there for the next run."""
    kept: list[Measurement] = []
    clock, seen = FakeClock(), list[str]()
    given = {"report": lambda progress: seen.append(progress.text), "stopped": lambda: len(seen) >= 2}

    result = campaign(tmp_path, clock, kept, **given).run([Target(key) for key in KEYS])

    assert result.incomplete
    assert (kept, len(list(tmp_path.glob("*.jsonl")))) == ([], 1)
    assert seen[1].endswith("round 2")

    campaign(tmp_path, clock, kept).run([Target(key) for key in KEYS])

    assert {HOT.rounds_min} == {len(set(record.rounds)) for record in kept}


CIRCUIT = Circuit(
    (Step("", KEYS[0], ("x",), ("a",)), Step("one", "", ("a",), ("b",)), Step("two", "", ("b",), ("y",))),
    tuple((name, "float32", (1, 4)) for name in "xaby"),
)


def test_a_relay_round_visits_every_operator_in_its_layer() -> None:
    """Each operator stands at least once in one of its layers, the segment in every network."""
    places = {KEYS[1]: ("one",), KEYS[2]: ("one",), KEYS[3]: ("one", "two"), KEYS[4]: ("two",)}

    visits = plan_relay_round(
        CIRCUIT, places, {"one": (KEYS[5],), "two": (KEYS[5], "")}, RELAY, random.Random(3)
    )

    seen = {(run.operator, run.step) for visit in visits for run in visit.runs}
    assert set(places) <= {operator for operator, _ in seen}
    assert all(visit.runs[0].operator == KEYS[0] and visit.runs[0].step == 0 for visit in visits)
    assert {operator for operator, step in seen if step == 1} <= {KEYS[1], KEYS[2], KEYS[3], KEYS[5]}
    assert all([run.step for run in visit.runs] == sorted(run.step for run in visit.runs) for visit in visits)


def test_relay_records_name_their_space_and_networks_do_not(tmp_path: Path) -> None:
    """Operators and segments are recorded under relay, the teacher beside them as a whole network."""
    kept: list[Measurement] = []
    targets = [Target(KEYS[1], ("one",)), Target(KEYS[2], ("two",)), Target(KEYS[0], (), True)]

    campaign(
        tmp_path, FakeClock(), kept, protocol=replace(RELAY, spread_s=0.0), circuit=CIRCUIT, space="s" * 32,
        fillers={"one": (KEYS[1],), "two": (KEYS[2], "")}, companions=(KEYS[5],),
        new_rig=relay_rig,
    ).run(targets)  # fmt: skip

    named = {record.operator: (record.cache, record.space, record.protocol) for record in kept}
    relayed = ("relay", "s" * 32, RELAY.text)
    assert {KEYS[0]: relayed, KEYS[1]: relayed, KEYS[2]: relayed, KEYS[5]: ("hot", "", NETWORK.text)} == named


def relay_rig() -> Rig:
    clock = FakeClock()
    return LocalRig(ScriptedBackend(Settings(), clock), clock, CIRCUIT)


# ------------------------------------------------------------------------------------------ child processes


@pytest.fixture
def remote(tmp_path: Path) -> Any:
    rigs: list[RemoteRig] = []

    def start(**changes: Any) -> RemoteRig:
        settings: dict[str, Any] = {
            "backend": "scripted",
            "threads": 1,
            "cores": (),
            "locks": tmp_path / "locks",
        } | changes
        rigs.append(RemoteRig(WorkerSettings(**settings)))
        return rigs[-1]

    yield start
    for rig in rigs:
        rig.close()


def test_a_worker_refuses_what_its_runtime_refuses(remote: Callable[..., RemoteRig]) -> None:
    """The worker's error arrives as the same class, and the worker lives on."""
    rig = remote()

    with pytest.raises(UnsupportedOperator, match="no kernel"):
        rig.build("u", graph_of_size(4, "Unsupported"), seed=0)
    rig.build("ok", graph_of_size(4), seed=0)


def test_a_worker_tells_what_its_runtime_says(remote: Callable[..., RemoteRig]) -> None:
    """By operator, builds with another seed among them; an operator without notes has none."""
    rig = remote()

    for seed in (0, 1, 0):
        rig.build("noted", graph_of_size(4, "Noted"), seed=seed)
    rig.build("plain", graph_of_size(4), seed=0)

    assert {name: list(notes) for name, notes in rig.notes.items()} == {"noted": ["seed 0", "seed 1"]}


def test_a_crash_of_the_runtime_costs_one_operator(tmp_path: Path, remote: Callable[..., RemoteRig]) -> None:
    """A campaign survives an operator that kills its process."""
    crashing = graph_of_size(9, "Crash")
    graphs = {KEYS[0]: GRAPHS[KEYS[0]], operator_key(crashing): crashing, KEYS[1]: GRAPHS[KEYS[1]]}
    kept: list[Measurement] = []

    result = campaign(
        tmp_path / "journals", FakeClock(), kept, graph_of=graphs.__getitem__, new_rig=remote
    ).run([Target(key) for key in graphs])

    assert result.counts["failed"] == 1
    assert "code 70" in next(record.message for record in kept if record.status == "failed")
    assert {KEYS[0], KEYS[1]} == {record.operator for record in kept if record.latency_s is not None}


def test_a_lost_device_costs_one_operator_and_its_process(
    tmp_path: Path, remote: Callable[..., RemoteRig]
) -> None:
    """What breaks the device for everything after it is a row of failure; the next process measures the others."""
    losing = graph_of_size(9, "Lost")
    graphs = {KEYS[0]: GRAPHS[KEYS[0]], operator_key(losing): losing, KEYS[1]: GRAPHS[KEYS[1]]}
    kept: list[Measurement] = []

    result = campaign(
        tmp_path / "journals", FakeClock(), kept, graph_of=graphs.__getitem__, new_rig=remote
    ).run([Target(key) for key in graphs])

    assert result.counts["failed"] == 1
    assert [record.message for record in kept if record.status == "failed"] == ["the script lost its device"]
    assert {KEYS[0], KEYS[1]} == {record.operator for record in kept if record.latency_s is not None}


def test_a_hang_of_the_runtime_is_a_timeout(remote: Callable[..., RemoteRig]) -> None:
    """An operator that does not come back is given up after its time."""
    with pytest.raises(OperatorTimeout, match="no answer"):
        remote(build_timeout_s=3.0).build("h", graph_of_size(4, "Hang"), seed=0)


def test_a_killed_worker_is_noticed(remote: Callable[..., RemoteRig]) -> None:
    """kill -9 of the worker is an error of its own."""
    rig = remote()
    os.kill(rig._process.pid, signal.SIGKILL)

    with pytest.raises(WorkerDied):
        rig.build("a", graph_of_size(4), seed=0)


def test_a_worker_dies_with_its_parent(tmp_path: Path) -> None:
    """kill -9 of the measuring program leaves no process behind on the core."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom lanaprof.profiler.remote import RemoteRig, WorkerSettings\n"
        f"rig = RemoteRig(WorkerSettings('scripted', 1, (), locks=Path({str(tmp_path)!r})))\n"
        "print(rig._process.pid, flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())

    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()

    assert wait_until_gone(worker)


def wait_until_gone(process: int) -> bool:
    import time

    for _ in range(3000):  # five minutes
        try:
            state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_two_workers_never_share_a_core(tmp_path: Path, remote: Callable[..., RemoteRig]) -> None:
    """The second waits, says for whom, and goes on when the first is done."""
    core = (max(os.sched_getaffinity(0)),)
    first = remote(cores=core)
    told: list[str] = []

    def release(holder: str) -> None:
        told.append(holder)
        first.close()

    second = RemoteRig(WorkerSettings("scripted", 1, core, locks=tmp_path / "locks"), waiting=release)
    second.close()

    assert [f"process {first._process.pid} on core {core[0]}"] == told


# ------------------------------------------------------------------------------------------ journals

HEADER = JournalHeader(environment="e", protocol="hot/1", space="", operators=("a", "b"))


def test_a_half_written_round_is_dropped(tmp_path: Path) -> None:
    """A line without its end was never acknowledged; the journal goes on behind the last whole one."""
    from lanaprof.profiler.clock import RawSample
    from lanaprof.profiler.journal import Round

    with open_journal(tmp_path, HEADER) as journal:
        journal.append(Round(0, {"a": (RawSample(1, 2, 3, 0),)}))
        path = journal.path
    with path.open("a") as file:
        file.write('{"round": 1, "samp')

    with open_journal(tmp_path, HEADER) as journal:
        assert [finished.number for finished in journal.rounds] == [0]
        journal.append(Round(1, {}))
    with open_journal(tmp_path, HEADER) as journal:
        assert [finished.number for finished in journal.rounds] == [0, 1]


def test_journals_of_other_batches_are_left_alone(tmp_path: Path) -> None:
    """Another environment's journal is not ours; one whose operators nobody wants any more is deleted."""
    other = replace(HEADER, environment="f")
    for header in (HEADER, other):
        open_journal(tmp_path, header).__exit__(None, None, None)

    mine = unfinished_journals(tmp_path, environment="e", protocol="hot/1", space="", wanted=["b"])
    none = unfinished_journals(tmp_path, environment="e", protocol="hot/1", space="", wanted=["z"])

    assert (mine, none) == ((HEADER,), ())
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_journal_that_is_none_is_thrown_away(tmp_path: Path) -> None:
    """Garbage in the folder does not stop a campaign."""
    (tmp_path / "x.jsonl").write_bytes(b"\x00\xff garbage")

    assert unfinished_journals(tmp_path, environment="e", protocol="hot/1", space="", wanted=["a"]) == ()
