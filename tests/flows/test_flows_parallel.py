"""Several campaigns at once: everything measured once, one progress, one end; on scripted backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.flows.parallel import Share, merged_results, run_together
from lanaprof.lut.keys import operator_key
from lanaprof.lut.records import Measurement
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.batch import dealt
from lanaprof.profiler.campaign import Campaign, CampaignResult, Progress, Provenance, Target
from lanaprof.profiler.protocol import HOT
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import LocalRig, Rig, TimedRun
from lanaprof.profiler.sampling import PlannedVisit
from lanaprof.profiler.testing import FakeClock, ScriptedBackend, scripted_latency_s


def graph_of_size(width: int, op: str = "Relu") -> dict[str, Any]:
    """Return the canonical graph of one node; its scripted latency grows with the width."""
    tensor = {"type": "float32", "shape": [1, width]}
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
        "nodes": [{"op": op, "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}], "outputs": ["n0.0"],
    }  # fmt: skip


GRAPHS = {operator_key(graph): graph for graph in (graph_of_size(1000 * n) for n in range(1, 13))}
KEYS = list(GRAPHS)


def campaign(folder: Path, kept: list[Measurement], **changes: Any) -> Campaign:
    """Return a campaign with a clock of its own."""
    clock = FakeClock()
    settings: dict[str, Any] = {
        "environment": "e" * 32,
        "threads": 1,
        "protocol": replace(HOT, spread_s=0.0),
        "provenance": Provenance(team="lab", host="0123456789ab", tool_version="0"),
        "journals": folder,
        "graph_of": GRAPHS.__getitem__,
        "new_rig": lambda: LocalRig(ScriptedBackend(Settings(), clock), clock),
        "emit": kept.append,
        "clock": clock,
        "beside": frozenset(KEYS),
    }
    return Campaign(**{**settings, **changes})


def shares(folder: Path, kept: list[Measurement], *changes: Mapping[str, Any]) -> list[Share]:
    """Return as many shares as there are changes."""
    parts = dealt([Target(key) for key in KEYS], len(changes))
    return [
        Share(campaign(folder, kept, **change), part) for change, part in zip(changes, parts, strict=True)
    ]


def test_three_workers_measure_everything_once(tmp_path: Path) -> None:
    """Each operator has one record with its latency; no journal is left."""
    kept: list[Measurement] = []

    result = run_together(shares(tmp_path, kept, {}, {}, {}))

    assert {key: pytest.approx(scripted_latency_s(GRAPHS[key])) for key in KEYS} == {
        record.operator: record.latency_s for record in kept
    }
    assert (len(KEYS), {"ok": len(KEYS)}, 3) == (len(kept), result.counts, result.workers)
    assert set(KEYS) == set(result.measurements)
    assert [] == list(tmp_path.glob("*"))


def test_progress_is_that_of_all(tmp_path: Path) -> None:
    """The total is everything from the first report on, and done never falls."""
    told: list[Progress] = []

    run_together(shares(tmp_path, [], {"report": told.append}, {"report": told.append}))

    assert {len(KEYS)} == {progress.total for progress in told}
    assert sorted(progress.done for progress in told) == [progress.done for progress in told]
    assert len(KEYS) == told[-1].done


def test_companions_are_timed_by_the_first_worker_alone(tmp_path: Path) -> None:
    """The teacher as a whole is one record, though it belongs to no share's targets."""
    teacher = graph_of_size(500)
    graphs = {**GRAPHS, operator_key(teacher): teacher}
    kept: list[Measurement] = []
    first = {"companions": (operator_key(teacher),), "graph_of": graphs.__getitem__}

    result = run_together(shares(tmp_path, kept, first, {}))

    assert 1 == sum(record.operator == operator_key(teacher) for record in kept)
    assert len(KEYS) + 1 == result.counts["ok"]


class Endless(LocalRig):
    """A rig whose rounds end only when it is killed."""

    def __init__(self, began: threading.Event) -> None:
        clock = FakeClock()
        super().__init__(ScriptedBackend(Settings(), clock), clock)
        self._began, self._killed = began, threading.Event()

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        """Wait to be killed, and answer as if nothing had happened."""
        self._began.set()
        assert self._killed.wait(300)
        return super().run(visits)

    def kill(self) -> None:
        """Let the round end."""
        self._killed.set()


def failing(began: threading.Event, error: BaseException) -> Callable[[Progress], None]:
    """Return a report that fails once another worker is in the middle of a round."""

    def report(_progress: Progress) -> None:
        assert began.wait(300)
        raise error

    return report


@pytest.mark.parametrize("error", [OSError(28, "no space left"), KeyboardInterrupt()])
def test_the_first_error_ends_all(tmp_path: Path, error: BaseException) -> None:
    """The other worker is killed in its round, records nothing more, and the error is the one told."""
    kept: list[Measurement] = []
    began = threading.Event()

    with pytest.raises(type(error)) as caught:
        run_together(
            shares(tmp_path, kept, {"report": failing(began, error)}, {"new_rig": lambda: Endless(began)})
        )

    assert caught.value is error
    assert [] == kept


def test_a_killed_worker_is_no_failed_operator(tmp_path: Path) -> None:
    """Ended while its process builds an operator, a campaign writes no row that blames the operator."""
    hanging = graph_of_size(3, "Hang")
    key = operator_key(hanging)
    kept: list[Measurement] = []
    began = threading.Event()

    def graph_of(_key: str) -> Mapping[str, Any]:
        began.set()
        return hanging

    def worker() -> Rig:
        return RemoteRig(WorkerSettings("scripted", 1, (), locks=None))

    first = Share(campaign(tmp_path, kept, report=failing(began, OSError("full"))), (Target(KEYS[0]),))
    second = Share(campaign(tmp_path, kept, graph_of=graph_of, new_rig=worker), (Target(key),))
    with pytest.raises(OSError, match="full"):
        run_together([first, second])

    assert [] == kept


def test_an_ended_share_goes_on_later(tmp_path: Path) -> None:
    """The rounds that all workers finished before the end are used by one worker afterwards."""
    kept: list[Measurement] = []
    stop = threading.Barrier(2)

    def report(progress: Progress) -> None:
        if progress.text.endswith("round 2"):
            raise KeyboardInterrupt

    def rig() -> Rig:
        class Together(LocalRig):
            def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
                stop.wait(300)
                return super().run(visits)

            def kill(self) -> None:
                stop.abort()

        clock = FakeClock()
        return Together(ScriptedBackend(Settings(), clock), clock)

    with pytest.raises(KeyboardInterrupt):
        run_together(shares(tmp_path, kept, *[{"report": report, "new_rig": rig}] * 2))
    assert [] == kept
    assert 2 == len(list(tmp_path.glob("*.jsonl")))

    result = campaign(tmp_path, kept).run([Target(key) for key in KEYS])

    assert {"ok": len(KEYS)} == result.counts
    assert {HOT.rounds_min} == {len(set(record.rounds)) for record in kept}
    assert [] == list(tmp_path.glob("*"))


def test_a_time_limit_holds_for_all(tmp_path: Path) -> None:
    """Each worker stops at the limit, and the whole is incomplete."""
    result = run_together(shares(tmp_path, [], {}, {}), limit_s=1e-6)

    assert (True, {}) == (result.incomplete, result.counts)


def test_results_are_merged() -> None:
    """Counts add up, the drift spans all, and one incomplete part makes the whole incomplete."""
    one = CampaignResult(counts={"ok": 2}, clean=5, rejected=1, drift=(0.99, 1.02))
    two = CampaignResult(counts={"ok": 1, "failed": 1}, clean=3, drift=(0.98, 1.01), incomplete=True)

    whole = merged_results([one, two])

    assert ({"ok": 3, "failed": 1}, 8, 1) == (whole.counts, whole.clean, whole.rejected)
    assert ((0.98, 1.02), True) == (whole.drift, whole.incomplete)
