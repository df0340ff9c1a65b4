"""The probe before several workers measure at once: do they disturb each other, and how many do not?

One worker times some of the operators alone, then the same while all others run them too, in cycles of both. This is
repeated with half as many workers until the slow-down is tolerable.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from lanaprof.errors import BackendError, OperatorTimeout
from lanaprof.lut.graph import graph_statistics
from lanaprof.profiler.batch import Target
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.interference import SLOWDOWN_LIMIT, Interference, find_interference
from lanaprof.profiler.protocol import Protocol
from lanaprof.profiler.rig import Rig, TimedRun, WorkerDied
from lanaprof.profiler.sampling import PlannedVisit, plan_free_round, plan_relay_round

__all__ = ["ProbePlan", "describe_interference", "probe_plan", "probe_workers"]

_PHASE_S = 0.3  # of running alone, and again of running among all
_LONGER = 1.4  # the others run so much longer, to be there from the first run to the last
_HEAD_START_S = 0.05
_RUNS_MOST = 4000  # recorded in a phase: of small operators they say enough
_CYCLES_LEAST, _CYCLES_MOST = 6, 12  # even: every other cycle begins with the other phase
_OPERATORS = 8  # that stand for all, where there is no circuit
_LOOKED_AT = 256  # operators whose sizes are looked at to choose them


@dataclass(frozen=True, slots=True)
class ProbePlan:
    """What the probe runs.

    Attributes:
        operators: their keys.
        protocol: gives the passes where there is no circuit.
        circuit: with it, the teacher's own network is run piece by piece.
        own: layer → the teacher's operator there, under a circuit.
    """

    operators: tuple[str, ...]
    protocol: Protocol
    circuit: Circuit | None
    own: Mapping[str, tuple[str, ...]]

    def visits(self, generator: random.Random, built: Sequence[str]) -> tuple[PlannedVisit, ...]:
        """Return one pass over what could be built."""
        if self.circuit is None:
            return plan_free_round(built, self.protocol, generator)
        own = {layer: keys for layer, keys in self.own.items() if set(keys) <= set(built)}
        return plan_relay_round(self.circuit, {}, own, self.protocol, generator)


def probe_plan(
    protocol: Protocol,
    targets: Sequence[Target],
    graph_of: Callable[[str], Mapping[str, Any]],
    *,
    circuit: Circuit | None = None,
    fillers: Mapping[str, Sequence[str]] | None = None,
) -> ProbePlan:
    """Return a probe of the campaign's own operators: the teacher's in relay, else some from small to large."""
    if circuit is not None and protocol.cache == "relay":
        own = {layer: tuple(filter(None, keys))[:1] for layer, keys in (fillers or {}).items()}
        keys = dict.fromkeys([*circuit.segments, *(key for kept in own.values() for key in kept)])
        return ProbePlan(tuple(keys), protocol, circuit, own)
    some = targets[:: max(1, len(targets) // _LOOKED_AT)]
    sizes = {}
    for target in some:
        about = graph_statistics(graph_of(target.operator))
        sizes[target.operator] = about.weight_bytes + about.peak_bytes  # what comes from shared memory
    ordered = sorted(sizes, key=lambda key: (sizes[key], key))
    last, count = len(ordered) - 1, min(_OPERATORS, len(ordered))
    places = {round(last * number / max(1, count - 1)) for number in range(count)} if count > 1 else {last}
    return ProbePlan(tuple(ordered[place] for place in sorted(places)), protocol, None, {})


def probe_workers(
    plan: ProbePlan,
    core_sets: Sequence[tuple[int, ...]],
    new_rig: Callable[[tuple[int, ...]], Rig],
    graph_of: Callable[[str], Mapping[str, Any]],
    *,
    threads: int,
) -> tuple[Interference, ...]:
    """Return what was found for all core sets, then for half of them and so on, until it is tolerable.

    Args:
        plan: what to run.
        core_sets: at least two, those that share least first.
        new_rig: starts a worker on a core set.
        graph_of: operator key → canonical graph.
        threads: threads of a run.

    Raises:
        BackendError: the runtime does not run the operators.
    """
    graphs = {key: graph_of(key) for key in plan.operators}  # here: rigs are built in threads
    rigs: list[Rig] = []
    found: list[Interference] = []
    with ExitStack() as opened, ThreadPoolExecutor(len(core_sets)) as pool:

        def start(cores: tuple[int, ...]) -> tuple[Rig, list[str]]:
            rig = new_rig(cores)
            opened.callback(rig.close)
            rigs.append(rig)
            return rig, _build(rig, plan, graphs)

        try:
            # A worker ends with the thread that started it: all of this happens while the pool is open.
            started = list(pool.map(start, core_sets))
            built = [key for key in plan.operators if all(key in keys for _, keys in started)]
            left = [rig for rig, _ in started]
            while len(left) > 1:
                found.append(_compare(plan, left, built, pool, threads=threads))
                if found[-1].tolerable:
                    break
                left = left[: len(left) // 2]
        except BaseException:
            for rig in rigs:
                rig.kill()  # or the pool would wait for their answers
            raise
    return tuple(found)


def _build(rig: Rig, plan: ProbePlan, graphs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Build the operators and return those that run."""
    built = []
    for key, graph in graphs.items():
        try:
            rig.build(key, graph, seed=0, inside=plan.circuit is not None)
            built.append(key)
        except (WorkerDied, OperatorTimeout):
            raise
        except BackendError:  # the campaign will make a row of it; here another operator does as well
            continue
    return built


def _compare(
    plan: ProbePlan, rigs: Sequence[Rig], built: Sequence[str], pool: ThreadPoolExecutor, *, threads: int
) -> Interference:
    """Time the first worker alone and among all, in turn."""
    generator = random.Random(len(rigs))
    visits = plan.visits(generator, built)
    if not visits or not any(visit.runs for visit in visits):
        raise BackendError("none of the operators that the probe would run can be built")
    rigs[0].run(visits)
    recorded_s = sum(timed.sample.wall_ns for timed in rigs[0].run(visits)) / 1e9
    pass_s = recorded_s * (plan.protocol.warmups + plan.protocol.recorded) / plan.protocol.recorded
    runs = sum(len(visit.runs) for visit in visits) * plan.protocol.recorded
    passes = max(1, min(_RUNS_MOST // runs, round(_PHASE_S / max(1e-6, pass_s))))
    alone: dict[str, list[tuple[int, RawSample]]] = {}
    together: dict[str, list[tuple[int, RawSample]]] = {}

    def row(count: int) -> list[PlannedVisit]:
        return [visit for _ in range(count) for visit in plan.visits(generator, built)]

    for cycle in range(_CYCLES_MOST):
        phases = (alone, together) if cycle % 2 == 0 else (together, alone)
        for kept in phases:
            mine, others = row(passes), [row(round(passes * _LONGER) + 1) for _ in rigs[1:]]
            running = []
            if kept is together:
                running = [pool.submit(rig.run, each) for rig, each in zip(rigs[1:], others, strict=True)]
                time.sleep(_HEAD_START_S)
            _keep(kept, cycle, rigs[0].run(mine))
            for each in running:
                each.result()
        if cycle + 1 >= _CYCLES_LEAST and cycle % 2:
            found = find_interference(alone, together, workers=len(rigs), threads=threads)
            if found.decided:
                break
    return found


def _keep(kept: dict[str, list[tuple[int, RawSample]]], cycle: int, timed: Sequence[TimedRun]) -> None:
    for run in timed:
        kept.setdefault(run.operator, []).append((cycle, run.sample))


def describe_interference(found: Interference, taken: int) -> str:
    """Return what the probe found and what follows, in a sentence.

    >>> two = Interference(workers=2, slowdown=0.061, low=0.05, high=0.07, worst=0.2, operators=9)
    >>> describe_interference(two, 1)
    '2 workers slow each other by 6.1 % (shared cache or memory), beyond the 2 % allowed: measuring with one'
    """
    amount = f"{max(0.0, found.slowdown):.1%}".replace("%", " %")
    if found.tolerable:
        limits = (
            f"95 % interval {100 * found.low:.1f} to {100 * found.high:.1f} %, {found.operators} operators"
        )
        return f"measuring with {found.workers} workers, which slow each other by {amount} ({limits})"
    follows = "measuring with one" if taken == 1 else f"trying {taken}"
    limit = f"{SLOWDOWN_LIMIT:.0%}".replace("%", " %")
    cause = "(shared cache or memory)"
    return (
        f"{found.workers} workers slow each other by {amount} {cause}, beyond the {limit} allowed: {follows}"
    )
