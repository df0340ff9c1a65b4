"""The self-test of doctor: how well numbers repeat here and now, found by measuring as a campaign does.

Two operators of fixed shapes, one that computes and one that reads its weights from memory, are timed for about two
seconds in the same kind of process that campaigns use. The rounds are dealt to groups in turn; each group's estimate is
what one short measurement would have said, so their scatter is how well measurements repeat.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from lanaprof.config import Device
from lanaprof.flows.machine import NoiseReading, noise_from_durations
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.conditions import Snapshot, take_snapshot
from lanaprof.profiler.disturbances import Disturbance, judge

__all__ = ["CoresBusy", "Repeatability", "SelfTest", "repeatability", "self_test"]

_QUANTILE = 0.10
_ROUND_RUNS = 4  # recorded runs of each operator a round, after one that is not
_GROUP_ROUNDS = 12  # with as many samples as a campaign takes of an operator
_LEAST_ROUNDS = 4 * _GROUP_ROUNDS
_MOST_ROUNDS = 4000
_WIDTH = 1.96  # standard deviations that hold 95 %


class CoresBusy(Exception):
    """Another process measures on the cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatability:
    """How well equal measurements agree.

    Attributes:
        spread: half the width that holds 95 % of repeated estimates, as a share; the worse operator's.
        halves: how much the estimates of two interleaved halves differ, as a share; the worse operator's.
        drift: 5 % and 95 % point of the visits' drift factors; the extremes are single moments.
        clean, rejected: samples that count, and that do not.
        noise: of single runs of the operator that computes.
    """

    spread: float
    halves: float
    drift: tuple[float, float]
    clean: int
    rejected: int
    noise: NoiseReading

    @property
    def drift_range(self) -> float:
        """Return by how much the machine's speed moved, as a share."""
        return self.drift[1] / self.drift[0] - 1.0


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What the self-test found: how well numbers repeat, what disturbed it, and the machine at its end."""

    repeatability: Repeatability
    disturbances: tuple[Disturbance, ...]
    after: Snapshot


def repeatability(samples: Mapping[str, Sequence[tuple[int, RawSample]]], *, threads: int) -> Repeatability:
    """Return how well the estimates of interleaved groups of rounds agree.

    Args:
        samples: operator → (round, sample) pairs, every operator in every round.
        threads: threads of a run.
    """
    import numpy as np  # not needed by the checks that only look

    from lanaprof.profiler.statistics import Visit, clean_samples, drift_factors

    visits: list[tuple[int, Visit]] = []
    for operator, pairs in samples.items():
        rounds: dict[int, list[RawSample]] = {}
        for number, sample in pairs:
            rounds.setdefault(number, []).append(sample)
        for number, found in rounds.items():
            fastest_s = max(min(sample.wall_ns for sample in found), 1) / 1e9
            visits.append((number, Visit(operator, found[0].start_ns / 1e9, fastest_s)))
    visits.sort(key=lambda each: each[1].start_s)
    factors = drift_factors([visit for _, visit in visits])
    slow = {(visit.operator, number): float(f) for (number, visit), f in zip(visits, factors, strict=True)}
    spreads, halves, clean, rejected = [], [], 0, 0
    for operator, pairs in samples.items():
        kept = clean_samples(pairs, threads=threads)
        clean, rejected = clean + len(kept.seconds), rejected + kept.rejected
        rounds_of = np.array(kept.rounds)
        logs = np.log([s / slow[operator, n] for s, n in zip(kept.seconds, kept.rounds, strict=True)])

        def estimates(count: int, rounds_of: Any = rounds_of, logs: Any = logs) -> list[float]:
            groups = [logs[rounds_of % count == place] for place in range(count)]
            return [float(np.quantile(group, _QUANTILE)) for group in groups if group.size]

        groups, (even, *odd) = estimates(max(2, (max(kept.rounds) + 1) // _GROUP_ROUNDS)), estimates(2)
        centre = fmean(groups)
        variance = sum((each - centre) ** 2 for each in groups) / max(1, len(groups) - 1)
        spreads.append(_WIDTH * math.sqrt(variance))
        halves.append(abs(math.expm1(odd[0] - even)) if odd else 0.0)
    first = next(iter(samples.values()))
    return Repeatability(
        spread=max(spreads),
        halves=max(halves),
        drift=(float(np.quantile(factors, 0.05)), float(np.quantile(factors, 0.95))),
        clean=clean,
        rejected=rejected,
        noise=noise_from_durations([sample.wall_ns / 1e9 for _, sample in first]),
    )


def self_test(device: Device, *, seconds: float = 2.0) -> SelfTest:
    """Return how well numbers of a device repeat on this machine, and what disturbed the test.

    Raises:
        CoresBusy: another process measures on the device's cores.
        BackendError: the runtime does not run.
        DeviceUnavailable: the cores are not here.
    """
    from lanaprof.profiler.environment import choose_cores
    from lanaprof.profiler.remote import RemoteRig, WorkerSettings
    from lanaprof.profiler.sampling import PlannedVisit, Run

    cores = choose_cores(device)

    def waiting(holder: str) -> None:
        raise CoresBusy(holder)

    settings = WorkerSettings(
        backend=device.backend, threads=device.threads, cores=cores, options=device.options
    )
    rig = RemoteRig(settings, None, waiting)
    try:
        graphs = {"compute": _convolution(64, 64, 28, 3), "memory": _convolution(1024, 1024, 4, 1)}
        for name, graph in graphs.items():
            rig.build(name, graph, seed=0)
        plan = [PlannedVisit((Run(name),), 1, _ROUND_RUNS) for name in graphs]
        rig.run(plan * 4)  # the clock rises, caches and pages settle
        timed = rig.run(plan * 4)
        round_s = sum(run.sample.wall_ns for run in timed) / 4 / 1e9 * (1 + 1 / _ROUND_RUNS)
        count = round(min(_MOST_ROUNDS, max(_LEAST_ROUNDS, seconds / max(round_s, 1e-6))))
        before = take_snapshot(cores)
        timed = rig.run(plan * count)
        after = take_snapshot(cores)
    finally:
        rig.close()
    samples: dict[str, list[tuple[int, RawSample]]] = {name: [] for name in graphs}
    for run in timed:
        pairs = samples[run.operator]
        pairs.append((len(pairs) // _ROUND_RUNS, run.sample))
    found = repeatability(samples, threads=device.threads)
    disturbances = judge(
        before,
        after,
        clean=found.clean,
        rejected=found.rejected,
        drift=found.drift,
        threads=device.threads,
    )
    return SelfTest(found, disturbances, after)


def _convolution(inputs: int, outputs: int, size: int, kernel: int) -> dict[str, Any]:
    """Return the canonical graph of one convolution on square images."""
    image = {"type": "float32", "shape": [1, inputs, size, size]}
    made = {"type": "float32", "shape": [1, outputs, size, size]}
    return {
        "format": "lanaprof-graph/1",
        "opset": 18,
        "inputs": [image],
        "constants": [{"type": "float32", "shape": [outputs, inputs, kernel, kernel]}],
        "nodes": [
            {
                "op": "Conv",
                "attributes": {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4},
                "inputs": ["i0", "c0"],
                "outputs": [made],
            }
        ],
        "outputs": ["n0.0"],
    }
