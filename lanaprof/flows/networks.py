"""Whole networks: which are timed to calibrate, and timing them beside each other."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lanaprof.errors import BackendError
from lanaprof.flows.bench import Bench
from lanaprof.flows.operators import Choices, export_networks
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.lut import Measurement
from lanaprof.ops import TEACHER
from lanaprof.profiler.campaign import Target
from lanaprof.profiler.protocol import NETWORK
from lanaprof.space import Architecture, random_architecture

__all__ = [
    "LEAST_NETWORKS",
    "TWICE_LEAST",
    "TimedNetworks",
    "calibration_networks",
    "common_factor",
    "latency_of",
    "time_networks",
]

LEAST_NETWORKS = 5  # fewer fit nothing
TWICE_LEAST = 8  # networks built twice
_GOOD = ("ok", "noisy")
_TOO_NOISY_MEDIAN = 0.010  # two builds of one network differ by more than this in the median: judge nothing
_TOO_NOISY_P95 = 0.025


@dataclass(frozen=True, slots=True)
class TimedNetworks:
    """Networks timed beside each other in one campaign.

    Attributes:
        measurements: by architecture.
        differences: of a second build to the first, as shares, for some of them: how well the machine repeats.
        refused: networks that could not be exported, built or run, each with the reason.
    """

    measurements: Mapping[Choices, Measurement]
    differences: tuple[float, ...] = ()
    refused: Mapping[Choices, str] = field(default_factory=dict)

    @property
    def repeatability(self) -> tuple[float, float]:
        """Return the median and the 95 % point of the differences' sizes; zeros when nothing was built twice."""
        if not self.differences:
            return 0.0, 0.0
        sizes = np.abs(self.differences)
        return float(np.median(sizes)), float(np.quantile(sizes, 0.95))

    @property
    def too_noisy(self) -> bool:
        """Say whether two builds of one network differ so much that nothing can be judged."""
        median, high = self.repeatability
        return median > _TOO_NOISY_MEDIAN or high > _TOO_NOISY_P95


def time_networks(
    project: Project,
    bench: Bench,
    architectures: Sequence[Choices],
    *,
    twice: int = 0,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> TimedNetworks:
    """Return a new measurement of each network, all interleaved in one campaign; what is refused is left out.

    Args:
        project: whose networks.
        bench: where.
        architectures: the networks.
        twice: how many of them, evenly spread, are built and timed a second time.
        exporting: told (done, total).

    Raises:
        BackendError: the campaign was cut short.
    """
    refused: dict[Choices, str] = {}
    keys = export_networks(
        project,
        bench.device,
        bench.store,
        architectures,
        progress=exporting,
        refuse=refused.setdefault,
    )
    # Two architectures may be one network (skip where a candidate is the identity): timed once.
    distinct = list(dict.fromkeys(keys.values()))
    again = set(distinct[:: max(1, len(distinct) // twice)][:twice] if twice else ())
    targets = []
    for key in distinct:
        targets += [Target(key), Target(key, copy=1)] if key in again else [Target(key)]
    result = bench.run(NETWORK, targets)
    timed = {}
    for choices, key in keys.items():
        record = result.measurements.get(key)
        if record is None:
            raise BackendError("a whole network could not be timed: the campaign was cut short")
        if record.status in _GOOD:
            timed[choices] = record
        else:
            refused[choices] = record.message or record.status
    differences = [
        copy_s / latency_of(result.measurements[key]) - 1
        for key, copy_s in result.copies.items()
        if key in result.measurements and result.measurements[key].status in _GOOD
    ]
    return TimedNetworks(timed, tuple(differences), refused)


def calibration_networks(predictor: Predictor, count: int, seed: int) -> list[Choices]:
    """Return the teacher, random measured architectures, and cheap ones; seeded, distinct.

    A quarter of them lean towards cheap candidates, the last as far as the cheapest of all: selections lie where
    random architectures hardly ever do, and a line is no good far from its points.
    """
    space = predictor.project.space
    allowed = predictor.measured_candidates()
    generator = random.Random(f"calibration {seed}")
    chosen: dict[Choices, None] = {(TEACHER,) * len(space.layers): None}
    cheap = count // 4
    for number in range(cheap):
        chosen.setdefault(_leaning(predictor, allowed, generator, 2.0 ** (number + 1)))
    for _ in range(50 * count):
        if len(chosen) >= count:
            break
        chosen.setdefault(random_architecture(space, generator, allowed).complete(space))
    return list(chosen)


def _leaning(
    predictor: Predictor, allowed: Mapping[str, Sequence[str]], generator: random.Random, strength: float
) -> Choices:
    """Return a random architecture in which a candidate's odds fall with its latency, relative to its layer's mean.

    A span's odds are against what was drawn for its layers.
    """
    space = predictor.project.space
    chosen: dict[str, tuple[str, float]] = {}
    for place in (*space.layers, *generator.sample(space.runs, len(space.runs))):
        operations = allowed[place.name]
        if not operations:  # a run none of whose spans is measured
            continue
        latencies = [predictor.candidate_features(place.name, operation)[0] for operation in operations]
        mean_s = sum(latencies) / len(latencies) or 1.0
        least_s = min(latencies)  # has odds of 1, so that at any strength something can be drawn
        odds = [math.exp(strength * (least_s - latency_s) / mean_s) for latency_s in latencies]
        drawn = generator.choices(range(len(operations)), odds)[0]
        covered = space.covered(place.name)
        if place in space.runs:
            if any(name not in chosen for name in covered):
                continue
            taken_s = sum(chosen[name][1] for name in covered)
            faster = strength * (taken_s - latencies[drawn]) / (taken_s or 1.0)
            if generator.random() > 1 / (1 + math.exp(-faster)):
                continue
            for name in covered:
                del chosen[name]
        chosen[place.name] = operations[drawn], latencies[drawn]
    named = tuple((name, operation) for name, (operation, _) in chosen.items())
    return Architecture("", named).complete(space)


def common_factor(predictor: Predictor, timed: Mapping[Choices, Measurement]) -> float:
    """Return the mean of measured over predicted, outliers pulled in.

    The calibration's own errors on these networks average out by construction, so the mean loses less than the
    median would; one network that met a disturbance must not decide.
    """
    logs = np.array(
        [math.log(latency_of(record) / predictor.predict(c).latency_s) for c, record in timed.items()]
    )
    middle = float(np.median(logs))
    spread = 3 * 1.4826 * float(np.median(np.abs(logs - middle)))  # three standard deviations of a normal
    return math.exp(float(np.clip(logs, middle - spread, middle + spread).mean()))


def latency_of(record: Measurement) -> float:
    """Return the latency of a good measurement, in seconds."""
    assert record.latency_s is not None
    return record.latency_s
