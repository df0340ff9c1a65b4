"""A bench with several core sets: probe, shares and campaigns in real processes, on the scripted runtime."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import Device
from lanaprof.flows.bench import Bench, _spread, open_bench
from lanaprof.lut import Operator, Store, open_store
from lanaprof.profiler.campaign import Target
from lanaprof.profiler.disturbances import Disturbance
from lanaprof.profiler.protocol import HOT, NETWORK

ANYWHERE: tuple[int, ...] = ()  # a worker that is pinned to no core: two of them run on any machine
DEVICE = Device(name="script", text="script", backend="scripted")


def graph_of_size(width: int) -> dict[str, Any]:
    """Return the canonical graph of one node."""
    tensor = {"type": "float32", "shape": [1, width]}
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
        "nodes": [{"op": "Relu", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}], "outputs": ["n0.0"],
    }  # fmt: skip


OPERATORS = [Operator(graph=graph_of_size(1000 * number)) for number in range(1, 8)]
TARGETS = [Target(operator.id) for operator in OPERATORS]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A database with seven operators; pauses between rounds are left out."""
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0")
    with open_store(tmp_path / "lut.db", create=True) as opened:
        opened.add(OPERATORS)
        yield opened


def bench_with(store: Store, folder: Path, workers: int, told: list[str]) -> Bench:
    """Return a bench with room for so many workers; that another test is measuring meanwhile is not told."""

    def notice(text: str) -> None:
        if not text.startswith("waiting: "):
            told.append(text)

    bench = open_bench(DEVICE, store, team="lab", state=folder, notice=notice)
    return replace(bench, core_sets=(ANYWHERE,) * workers)


def test_all_is_measured_once_whatever_the_probe_finds(store: Store, tmp_path: Path) -> None:
    """Two workers where they do not slow each other, else one: it is said, and every operator has one record."""
    told: list[str] = []

    result = bench_with(store, tmp_path, 2, told).run(HOT, TARGETS)

    rows = store.measurements()
    assert sorted(target.operator for target in TARGETS) == sorted(row.operator for row in rows)
    assert told[0].startswith(
        "measuring with 2 workers" if result.workers == 2 else "2 workers slow each other by"
    )
    assert (result.workers == 2) == (result.slowdown is not None)
    assert [] == list((tmp_path / "journals").glob("*"))


def test_a_time_limit_includes_the_probe(store: Store, tmp_path: Path) -> None:
    """A limit that the probe uses up leaves nothing measured, and says so."""
    result = bench_with(store, tmp_path, 2, []).run(HOT, TARGETS, limit_s=0.01)

    assert (True, {}) == (result.incomplete, result.counts)


def test_a_kind_of_disturbance_is_told_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop of campaigns on a busy machine says so once, not in every round."""
    told: list[str] = []
    bench = bench_with(store, tmp_path, 1, told)
    for share in (0.4, 0.6):
        busy = Disturbance("shared", share, f"others had the core for {share:.0%} of the time", "stop them")
        monkeypatch.setattr("lanaprof.flows.bench.judge", lambda *_, busy=busy, **__: [busy])
        bench.run(HOT, TARGETS[:1])

    assert told == ["others had the core for 40% of the time: stop them"]


def test_one_operator_needs_one_worker(store: Store, tmp_path: Path) -> None:
    """There is nothing to share: no probe, one record."""
    told: list[str] = []

    result = bench_with(store, tmp_path, 3, told).run(HOT, TARGETS[:1])

    assert (1, None, 1) == (result.workers, result.slowdown, sum(result.counts.values()))
    assert set(result.counts) <= {"ok", "noisy"}
    assert [] == [text for text in told if "workers" in text]


def test_a_worker_more_is_worth_it_for_enough_operators(store: Store, tmp_path: Path) -> None:
    """Seven operators, four at least for each worker: one measures."""
    told: list[str] = []

    result = replace(bench_with(store, tmp_path, 3, told), share_least=4).run(HOT, TARGETS)

    assert (1, 7) == (result.workers, sum(result.counts.values()))
    assert [] == [text for text in told if "workers" in text]


def test_a_probe_that_cannot_run_leaves_one_worker(store: Store, tmp_path: Path) -> None:
    """Operators that no worker can build say nothing about interference; they become rows all the same."""
    told: list[str] = []
    refused = [
        Operator(graph={**graph, "nodes": [{**graph["nodes"][0], "op": "Unsupported"}]})
        for graph in (graph_of_size(5), graph_of_size(6))
    ]
    store.add(refused)

    result = bench_with(store, tmp_path, 2, told).run(HOT, [Target(each.id) for each in refused])

    assert (1, {"unsupported": 2}) == (result.workers, result.counts)
    assert "cannot be told" in told[0]


def test_a_long_spread_is_not_cut_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for rounds over two minutes gets them: the longest time of a batch gives way."""
    monkeypatch.setenv("LANAPROF_SPREAD_S", "120")

    assert (120.0, 120.0) == (_spread(NETWORK).spread_s, _spread(NETWORK).longest_s)


def test_a_short_spread_leaves_the_longest_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noisy operators still get their rounds."""
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0.5")

    assert (0.5, NETWORK.longest_s) == (_spread(NETWORK).spread_s, _spread(NETWORK).longest_s)


@pytest.mark.parametrize(("builds", "every"), [("1", 60), ("2", 30), ("7", 9)])
def test_a_device_chooses_how_often_operators_are_built(
    store: Store, tmp_path: Path, builds: str, every: int
) -> None:
    """The last build begins before the rounds end; the environment stays the same."""
    plain = bench_with(store, tmp_path, 1, [])
    device = replace(DEVICE, options=(("builds", builds),))
    protocol = replace(HOT, rounds_max=60)

    bench = open_bench(device, store, team="lab", state=tmp_path)

    assert bench.campaign(protocol).protocol.rebuild_every == every
    assert plain.campaign(protocol).protocol.rebuild_every == HOT.rebuild_every
    assert bench.environment.id == plain.environment.id


def test_the_clock_of_a_cpu_is_left_alone(store: Store, tmp_path: Path) -> None:
    """It is said, and nothing else changes."""
    told: list[str] = []

    bench = open_bench(replace(DEVICE, lock_clocks=0), store, team="lab", state=tmp_path, notice=told.append)

    assert told == ["device 'script' is a CPU, whose clock lanaprof does not fix"]
    assert bench.sm_clock_mhz == 0
    assert bench.environment.id == bench_with(store, tmp_path, 1, []).environment.id
