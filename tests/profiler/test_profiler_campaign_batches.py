"""What a batch of a campaign holds and when it ends: copies, ends together, limits of time and memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut.keys import operator_key
from lanaprof.lut.records import Measurement
from lanaprof.profiler import fitting
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.campaign import Campaign, CampaignResult, Progress, Provenance, Target
from lanaprof.profiler.protocol import HOT, Protocol
from lanaprof.profiler.rig import LocalRig, TimedRun
from lanaprof.profiler.sample_graphs import matmul_graph, relu_graph
from lanaprof.profiler.sampling import PlannedVisit
from lanaprof.profiler.testing import FakeClock, ScriptedBackend, scripted_latency_s

GRAPHS = {operator_key(graph): graph for graph in (relu_graph(1, 1000 * n) for n in range(1, 11))}
KEYS = list(GRAPHS)  # 2 µs to 11 µs
QUICK = replace(HOT, spread_s=0.0, rounds_max=96)
MIB = 1 << 20


class Rounds(LocalRig):
    """A rig that takes time for every round and remembers what was built for each batch."""

    def __init__(self, clock: FakeClock, round_s: float = 0.0) -> None:
        super().__init__(ScriptedBackend(Settings(), clock), clock)
        self.clock, self.round_s = clock, round_s
        self.batches: list[set[str]] = [set()]
        self.seeds: dict[str, list[int]] = {}

    def build(self, operator: str, graph: Any, *, seed: int, inside: bool = False) -> None:
        super().build(operator, graph, seed=seed, inside=inside)
        self.batches[-1].add(operator)
        self.seeds.setdefault(operator, []).append(seed)

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        self.clock.advance(self.round_s)
        return super().run(visits)

    def forget(self) -> None:
        super().forget()
        self.batches.append(set())


def noisy(high_s: float, seed: int = 0) -> FakeClock:
    """Return a clock that adds up to ``high_s`` to a run: much to a short one, little to a long one."""
    generator = random.Random(seed)
    return FakeClock(lambda _number: (generator.uniform(0, high_s), 0))


def measured(
    folder: Path, protocol: Protocol, targets: Sequence[Target], rig: Rounds, **changes: Any
) -> tuple[CampaignResult, list[Measurement]]:
    """Run a campaign; return what it did and the records it gave."""
    kept: list[Measurement] = []
    settings: dict[str, Any] = {
        "environment": "e" * 32,
        "threads": 1,
        "protocol": protocol,
        "provenance": Provenance(team="lab", host="0123456789ab", tool_version="0"),
        "journals": folder,
        "graph_of": GRAPHS.__getitem__,
        "new_rig": lambda: rig,
        "emit": kept.append,
        "clock": rig.clock,
    }
    return Campaign(**{**settings, **changes}).run(targets), kept


def rounds_of(records: Sequence[Measurement]) -> dict[str, int]:
    return {record.operator: len(set(record.rounds)) for record in records}


# ---------------------------------------------------------------------------------------------- copies


def test_copies_are_timed_and_are_no_records(tmp_path: Path) -> None:
    """A further build of an operator has a latency beside the record of the first, and counts nowhere."""
    targets = [Target(KEYS[0]), Target(KEYS[0], copy=1), Target(KEYS[1])]

    result, kept = measured(tmp_path, QUICK, targets, Rounds(FakeClock()))

    assert sorted(KEYS[:2]) == sorted(record.operator for record in kept)
    assert {"ok": 2} == result.counts
    assert {KEYS[0]: pytest.approx(scripted_latency_s(GRAPHS[KEYS[0]]))} == result.copies


def test_a_copy_is_a_build_of_its_own(tmp_path: Path) -> None:
    """Other weights at other addresses: that is what the comparison is about."""
    rig = Rounds(FakeClock())

    measured(tmp_path, QUICK, [Target(KEYS[0]), Target(KEYS[0], copy=1)], rig)

    assert [[0], [1]] == [rig.seeds[key] for key in (KEYS[0], f"{KEYS[0]}#1")]


def test_a_copy_that_fails_leaves_no_row(tmp_path: Path) -> None:
    """The operator's own failure is the row; its copy's adds nothing."""
    graph = {**GRAPHS[KEYS[0]], "nodes": [{**GRAPHS[KEYS[0]]["nodes"][0], "op": "Unsupported"}]}
    bad = operator_key(graph)
    targets = [Target(bad), Target(bad, copy=1), Target(KEYS[1])]

    result, kept = measured(
        tmp_path,
        QUICK,
        targets,
        Rounds(FakeClock()),
        graph_of={bad: graph, KEYS[1]: GRAPHS[KEYS[1]]}.__getitem__,
    )

    assert {"ok": 1, "unsupported": 1} == result.counts
    assert {bad, KEYS[1]} == {record.operator for record in kept}
    assert {} == result.copies


def test_a_batch_with_copies_is_resumed(tmp_path: Path) -> None:
    """Stopped after two rounds, all of it goes on with the third: the copy's samples were kept like the others."""
    targets = [Target(KEYS[0]), Target(KEYS[0], copy=1), Target(KEYS[1])]
    first, second = Rounds(FakeClock()), Rounds(FakeClock())
    ran: list[str] = []

    def stop(progress: Progress) -> None:
        if progress.text.endswith("round 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(tmp_path, QUICK, targets, first, report=stop)
    result, kept = measured(
        tmp_path, QUICK, targets, second, report=lambda progress: ran.append(progress.text)
    )

    assert "hot: round 3" == ran[0]
    assert {KEYS[0]: QUICK.rounds_min, KEYS[1]: QUICK.rounds_min} == rounds_of(kept)
    assert [KEYS[0]] == list(result.copies)
    assert [] == list(tmp_path.glob("*.jsonl"))


# ---------------------------------------------------------------------------------------- when a batch ends


def test_operators_end_on_their_own(tmp_path: Path) -> None:
    """Noise is a larger share of a short run: it needs more rounds, and the others do not wait for it."""
    _, kept = measured(tmp_path, QUICK, [Target(key) for key in KEYS], Rounds(noisy(0.5e-6)))

    rounds = rounds_of(kept)
    assert rounds[KEYS[0]] > rounds[KEYS[-1]]


def test_networks_end_together(tmp_path: Path) -> None:
    """Each is timed at all the times of the others, until nine of ten are narrow."""
    together = replace(QUICK, together=True, between=0.0)

    _, kept = measured(tmp_path, together, [Target(key) for key in KEYS], Rounds(noisy(0.5e-6)))

    (rounds,) = set(rounds_of(kept).values())
    assert len(KEYS) == len(kept)
    assert QUICK.rounds_min < rounds < QUICK.rounds_max
    wide = [
        r
        for r in kept
        if (r.ci_high_s or 0) - (r.ci_low_s or 0) > 2 * together.tolerance * (r.latency_s or 0)
    ]
    assert len(wide) <= 1


def test_a_recorded_interval_covers_other_campaigns(tmp_path: Path) -> None:
    """Without any noise in its rounds it is as wide as campaigns differ; the end of a batch does not wait for that."""
    apart = replace(QUICK, between=0.02)

    _, kept = measured(tmp_path, apart, [Target(KEYS[0])], Rounds(FakeClock()))

    (record,) = kept
    assert record.latency_s is not None
    assert 1 + 1.96 * 0.02 == pytest.approx((record.ci_high_s or 0) / record.latency_s)
    assert ("ok", QUICK.rounds_min) == (record.status, len(set(record.rounds)))


def test_a_batch_ends_after_its_longest_time(tmp_path: Path) -> None:
    """However wide the intervals are; the least rounds are done."""
    loud = replace(HOT, spread_s=0.0, longest_s=50.0)

    _, patient = measured(
        tmp_path, replace(loud, longest_s=1e9), [Target(KEYS[0])], Rounds(noisy(3e-6), 10.0)
    )
    _, hasty = measured(tmp_path, loud, [Target(KEYS[0])], Rounds(noisy(3e-6), 10.0))
    _, least = measured(tmp_path, replace(loud, longest_s=1.0), [Target(KEYS[0])], Rounds(noisy(3e-6), 10.0))

    assert loud.rounds_max == rounds_of(patient)[KEYS[0]]
    assert HOT.rounds_min == rounds_of(hasty)[KEYS[0]] == rounds_of(least)[KEYS[0]]


@pytest.mark.parametrize(("round_s", "rounds"), [(0.0, 24), (2.0, 14), (30.0, 6)])
def test_the_spread_is_reached_by_more_rounds(tmp_path: Path, round_s: float, rounds: int) -> None:
    """Narrow from the start, yet 24 s long: in 24 rounds a second apart, 14 of 2 s, or the 6 that take longer.

    Looked at after 6, 10, 14, … rounds; 12 rounds of 2 s reach 24 s, so the look after the 14th finds it done.
    """
    spread = replace(HOT, spread_s=24.0, longest_s=1e9, rounds_min=6, rounds_max=24)
    rig = Rounds(FakeClock(), round_s)

    _, kept = measured(tmp_path, spread, [Target(KEYS[0])], rig)

    assert {KEYS[0]: rounds} == rounds_of(kept)
    assert rig.clock.now_s() >= 23.0


# --------------------------------------------------------------------------------------------------- memory

HEAVY = {
    operator_key(graph): graph for graph in (matmul_graph(1, 256 + n, 1024) for n in range(7))
}  # 1 MiB each


@pytest.mark.parametrize(
    ("free_mib", "share", "sizes"),
    # a fifth of it may be weights
    [(1000, 1.0, [7]), (16, 1.0, [3, 3, 1]), (16, 0.5, [1] * 7), (0, 1.0, [1] * 7)],
)
def test_a_batch_is_bounded_by_free_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_mib: int, share: float, sizes: list[int]
) -> None:
    """What does not fit waits for the next batch; one operator at least is tried, however little there is."""
    monkeypatch.setattr(fitting, "find_free_bytes", lambda: free_mib * MIB)
    rig = Rounds(FakeClock())

    _, kept = measured(
        tmp_path, QUICK, [Target(key) for key in HEAVY], rig, graph_of=HEAVY.__getitem__, memory_share=share
    )

    assert sizes == [len(batch) for batch in rig.batches if batch]
    assert set(HEAVY) == {record.operator for record in kept}
