"""The probe: it finds what workers cost each other on a machine that is told to, and takes as many as do not."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.flows.probing import probe_plan, probe_workers
from lanaprof.lut.keys import operator_key
from lanaprof.profiler.batch import Target
from lanaprof.profiler.circuit import Circuit, Step
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.interference import Interference
from lanaprof.profiler.protocol import HOT, RELAY
from lanaprof.profiler.rig import Rig, TimedRun
from lanaprof.profiler.sampling import PlannedVisit

LATENCY_S = 0.02  # long, so that a phase is a few runs


def graph_of_size(width: int) -> dict[str, Any]:
    """Return the canonical graph of one node."""
    tensor = {"type": "float32", "shape": [1, width]}
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
        "nodes": [{"op": "Relu", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}], "outputs": ["n0.0"],
    }  # fmt: skip


GRAPHS = {operator_key(graph): graph for graph in (graph_of_size(1000 * n) for n in range(1, 20))}


class Machine:
    """A machine on which every other busy worker slows a run by a fixed share; no time passes on it."""

    def __init__(self, slowdown: float, refused: str = "") -> None:
        self.slowdown, self.refused = slowdown, refused
        self.first: tuple[int, ...] | None = None
        self.busy: set[tuple[int, ...]] = set()
        self.changed = threading.Condition()
        self.rounds = 0
        self.most_busy: list[int] = []
        self.closed: list[tuple[int, ...]] = []
        self.ran: set[str] = set()


class Worker:
    """A worker of the machine: the first one times, the others run for as long as it does."""

    def __init__(self, machine: Machine, cores: tuple[int, ...]) -> None:
        self.machine, self.cores = machine, cores

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}

    @property
    def notes(self) -> Mapping[str, Sequence[str]]:
        """Return nothing."""
        return {}

    def build(self, operator: str, graph: Mapping[str, Any], *, seed: int, inside: bool = False) -> None:
        """Refuse one operator."""
        del graph, seed, inside
        if operator == self.machine.refused:
            raise UnsupportedOperator("no kernel")

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        """Return runs as slow as the others make them."""
        machine = self.machine
        with machine.changed:
            if self.cores != machine.first:
                machine.busy.add(self.cores)
                before = machine.rounds
                assert machine.changed.wait_for(lambda: machine.rounds > before, 300)
                machine.busy.discard(self.cores)
                return []
            machine.most_busy.append(1 + len(machine.busy))
            wall_ns = round(1e9 * LATENCY_S * (1 + machine.slowdown * len(machine.busy)))
            machine.rounds += 1
            machine.changed.notify_all()
        machine.ran.update(run.operator for visit in visits for run in visit.runs)
        sample = RawSample(0, wall_ns, wall_ns, 0)
        return [TimedRun(run.operator, sample) for v in visits for run in v.runs for _ in range(v.recorded)]

    def forget(self) -> None:
        """Do nothing."""

    @property
    def device_bytes(self) -> int | None:
        """It is no GPU."""
        return None

    def kill(self) -> None:
        """Let everyone who waits go on."""
        with self.machine.changed:
            self.machine.rounds += 1
            self.machine.changed.notify_all()

    def close(self) -> None:
        """Say so."""
        self.machine.closed.append(self.cores)


def probed(machine: Machine, workers: int) -> tuple[Interference, ...]:
    """Probe a machine with so many workers."""
    sets = [(core,) for core in range(workers)]
    machine.first = sets[0]
    plan = probe_plan(HOT, [Target(key) for key in list(GRAPHS)[:3]], GRAPHS.__getitem__)

    def new_rig(cores: tuple[int, ...]) -> Rig:
        return Worker(machine, cores)

    return probe_workers(plan, sets, new_rig, GRAPHS.__getitem__, threads=1)


def test_workers_that_do_not_disturb_each_other_all_measure() -> None:
    """No slow-down: one look is enough, and every worker is closed."""
    machine = Machine(0.0)

    found = probed(machine, 3)

    assert [(3, 0.0, True)] == [(each.workers, each.slowdown, each.tolerable) for each in found]
    assert {1, 3} == set(machine.most_busy)
    assert [(0,), (1,), (2,)] == sorted(machine.closed)


def test_workers_are_halved_until_it_holds() -> None:
    """1.5 % for each other worker: four slow each other by 4.5 %, two by 1.5 %."""
    found = probed(Machine(0.015), 4)

    assert [4, 2] == [each.workers for each in found]
    assert [pytest.approx(0.045), pytest.approx(0.015)] == [each.slowdown for each in found]
    assert [False, True] == [each.tolerable for each in found]


def test_one_worker_is_left_where_two_disturb_each_other() -> None:
    """6 %: nothing that was found is tolerable."""
    found = probed(Machine(0.06), 2)

    assert [(2, False)] == [(each.workers, each.tolerable) for each in found]


def test_what_cannot_be_built_is_left_out() -> None:
    """The probe does with the other operators."""
    refused = next(iter(GRAPHS))
    machine = Machine(0.0, refused)

    found = probed(machine, 2)

    assert (2, True) == (found[0].operators, found[0].tolerable)
    assert refused not in machine.ran


def test_a_worker_that_dies_ends_the_probe() -> None:
    """The error is told, and no worker stays."""
    machine = Machine(0.0)

    class Dying(Worker):
        def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
            raise BackendError("it broke")

    plan = probe_plan(HOT, [Target(next(iter(GRAPHS)))], GRAPHS.__getitem__)
    with pytest.raises(BackendError, match="it broke"):
        probe_workers(plan, [(0,), (1,)], lambda c: Dying(machine, c), GRAPHS.__getitem__, threads=1)

    assert [(0,), (1,)] == sorted(machine.closed)


def test_hot_probes_run_operators_from_small_to_large() -> None:
    """Eight of nineteen, the smallest and the largest among them."""
    plan = probe_plan(HOT, [Target(key) for key in GRAPHS], GRAPHS.__getitem__)
    widths = [GRAPHS[key]["inputs"][0]["shape"][1] for key in plan.operators]

    assert 8 == len(widths)
    assert (1000, 19000) == (min(widths), max(widths))


def test_relay_probes_run_the_teacher_in_order() -> None:
    """Segments and the teacher's own operators, each at its step; a layer that has none is left out."""
    circuit = Circuit(
        (Step("", "stem", ("x",), ("a",)), Step("one", "", ("a",), ("b",)), Step("two", "", ("b",), ("c",))),
        (("a", "float32", (1, 4)),),
    )
    graphs = {"stem": graph_of_size(4), "own": graph_of_size(8)}
    plan = probe_plan(
        RELAY,
        [Target("z", ("one",))],
        graphs.__getitem__,
        circuit=circuit,
        fillers={"one": ("own", ""), "two": ("",)},
    )
    visits = plan.visits(random.Random(0), ["stem", "own"])

    assert ("stem", "own") == plan.operators
    assert [[("stem", 0), ("own", 1)]] == [[(run.operator, run.step) for run in v.runs] for v in visits]
