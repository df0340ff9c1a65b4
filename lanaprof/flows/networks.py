"""Whole networks: timing them beside each other, calibrating on them, checking predictions against them."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lanaprof.errors import BackendError, UserError
from lanaprof.flows.bench import Bench
from lanaprof.flows.operators import Choices, export_networks
from lanaprof.flows.predicting import Predictor, open_predictor, table_digest
from lanaprof.flows.project import Project
from lanaprof.lut import Calibration, Measurement, utc_now
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import FitResult, Prediction, fit
from lanaprof.profiler.campaign import Target
from lanaprof.profiler.protocol import NETWORK
from lanaprof.space import Architecture, random_architecture

__all__ = [
    "CalibrateReport",
    "TimedNetworks",
    "VerifiedNetwork",
    "VerifyReport",
    "calibrate",
    "calibration_networks",
    "time_networks",
    "verify",
]

_GOOD = ("ok", "noisy")
_TOO_NOISY_MEDIAN = 0.010  # two builds of one network differ by more than this in the median: judge nothing
_TOO_NOISY_P95 = 0.025
_TWICE_LEAST = 8  # networks built twice


@dataclass(frozen=True, slots=True)
class CalibrateReport:
    """A calibration with what it rests on; errors are leave-one-out, relative.

    Attributes:
        networks: how many.
        residual_sd: standard deviation of the error.
        weights: of the features.
        seconds: that it took.
        repeatability, repeatability_p95: median and 95 % point of the difference between two builds.
        too_noisy: the machine repeated itself too badly to calibrate well.
    """

    networks: int
    residual_sd: float
    weights: tuple[float, ...]
    seconds: float
    repeatability: float
    repeatability_p95: float
    too_noisy: bool


@dataclass(frozen=True, slots=True)
class TimedNetworks:
    """Networks timed beside each other in one campaign.

    Attributes:
        measurements: by architecture.
        differences: of a second build to the first, as shares, for some of them: how well the machine repeats.
    """

    measurements: Mapping[Choices, Measurement]
    differences: tuple[float, ...] = ()

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
    """Return a new measurement of each network, all interleaved in one campaign.

    Args:
        project: whose networks.
        bench: where.
        architectures: the networks.
        twice: how many of them, evenly spread, are built and timed a second time.
        exporting: told (done, total).

    Raises:
        BackendError: a network could not be timed; the message names the reason.
    """
    keys = export_networks(project, bench.device, bench.store, architectures, progress=exporting)
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
        if record is None or record.status not in _GOOD:
            why = record.message if record is not None else "the campaign was cut short"
            raise BackendError(f"a whole network could not be timed: {why}")
        timed[choices] = record
    differences = [
        copy_s / _latency_s(result.measurements[key]) - 1
        for key, copy_s in result.copies.items()
        if key in result.measurements and result.measurements[key].status in _GOOD
    ]
    return TimedNetworks(timed, tuple(differences))


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


def calibrate(
    project: Project,
    bench: Bench,
    *,
    count: int = 16,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> CalibrateReport:
    """Time whole architectures, fit the calibration and store it.

    Raises:
        UserError: fewer than two networks, or a space with too few architectures.
        MissingMeasurement: the operators are not measured yet.
    """
    if count < 5:
        raise UserError(
            f"a calibration needs at least 5 networks, not {count}", hint="lanaprof calibrate -n 16"
        )
    began_s = time.monotonic()
    team = bench.provenance.team
    predictor = open_predictor(
        project, bench.device, bench.store, team=team, environment=bench.environment.id
    )
    predictor.expect_teacher()
    networks = calibration_networks(predictor, count, project.config.seed)
    found = time_networks(project, bench, networks, twice=_TWICE_LEAST, exporting=exporting)
    timed = found.measurements
    rows = [predictor.features(choices) for choices in networks]
    fitted = fit(rows, [_latency_s(timed[choices]) for choices in networks])
    store_calibration(predictor, bench, fitted, [timed[choices].id for choices in networks])
    return CalibrateReport(
        len(networks),
        fitted.residual_sd,
        fitted.weights,
        time.monotonic() - began_s,
        *found.repeatability,
        found.too_noisy,
    )


def store_calibration(predictor: Predictor, bench: Bench, fitted: FitResult, networks: Sequence[str]) -> None:
    """Add a calibration to the database."""
    device = predictor.device
    bench.store.add(
        [
            Calibration(
                environment=bench.environment.id,
                space=predictor.project.space.relay_digest(device.batch, precision=device.precision),
                table=table_digest(predictor.table, predictor.operators),
                weights=fitted.weights,
                features=predictor.feature_names,
                covariance=fitted.covariance,
                residual_sd=fitted.residual_sd,
                degrees=fitted.degrees,
                networks=tuple(dict.fromkeys(networks)),
                team=bench.provenance.team,
                time=utc_now(),
            )
        ]
    )


@dataclass(frozen=True, slots=True)
class VerifiedNetwork:
    """One network, predicted and measured.

    Attributes:
        choices: its operations.
        table_s: what the table and the stored calibration say.
        predicted: what the calibration says when its networks are timed beside this one, with its interval.
        measured: what it took.
    """

    choices: Choices
    table_s: float
    predicted: Prediction
    measured: Measurement

    @property
    def error(self) -> float:
        """Return predicted over measured, minus 1."""
        return self.predicted.latency_s / _latency_s(self.measured) - 1

    @property
    def is_inside(self) -> bool:
        """Say whether the measured latency lies in the predicted interval."""
        return self.predicted.low_s <= _latency_s(self.measured) <= self.predicted.high_s

    @property
    def width(self) -> float:
        """Return the interval's width as a share of the measured latency."""
        return (self.predicted.high_s - self.predicted.low_s) / _latency_s(self.measured)


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Predictions against measurements.

    Attributes:
        networks: those verified.
        common_factor: measured over predicted by the stored calibration, mean of its networks timed beside them:
            how much faster or slower the machine is now as a whole.
        bias, median_error, p95_error: of the errors with the calibration's networks timed again.
        coverage: share of measurements inside their interval.
        interval_width: median width of the intervals, as a share.
        repeatability, repeatability_p95: median and 95 % point of the difference between two builds of one network
            in the same campaign.
        too_noisy: the machine repeated itself so badly that the errors say nothing.
        seconds: that it took.
    """

    networks: tuple[VerifiedNetwork, ...]
    common_factor: float
    bias: float
    median_error: float
    p95_error: float
    coverage: float
    interval_width: float
    repeatability: float
    repeatability_p95: float
    too_noisy: bool
    seconds: float


def verify(
    project: Project,
    bench: Bench,
    architectures: Sequence[Choices],
    *,
    anchors: int = 16,
    level: float = 0.9,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> VerifyReport:
    """Build and time networks, the calibration's networks re-timed beside them.

    Args:
        project: whose networks.
        bench: where to time them.
        architectures: what to verify.
        anchors: how many calibration networks are timed again.
        level: of the intervals.
        exporting: told (done, total).
    """
    began_s = time.monotonic()
    team = bench.provenance.team
    predictor = open_predictor(
        project, bench.device, bench.store, team=team, environment=bench.environment.id
    )
    predictor.expect_teacher()
    wanted = list(dict.fromkeys(architectures))
    beside = calibration_networks(predictor, anchors, project.config.seed)
    everything = [*wanted, *(choices for choices in beside if choices not in set(wanted))]
    twice = max(_TWICE_LEAST, len(everything) // 4)
    timed = time_networks(project, bench, everything, twice=twice, exporting=exporting)
    measured = timed.measurements
    again = {choices: measured[choices] for choices in beside}
    # A machine at another speed is not slower in everything alike: what waits for memory shifts more. So the
    # calibration is fitted to what its networks take now; the factor only says how far that is from the stored one.
    fitted = fit([predictor.features(c) for c in beside], [_latency_s(again[c]) for c in beside])
    here = replace(predictor, fitted=fitted)
    rows = [
        VerifiedNetwork(
            choices,
            predictor.predict(choices).latency_s,
            here.predict(choices, level=level, common=False),
            measured[choices],
        )
        for choices in wanted
    ]
    errors = np.array([row.error for row in rows])
    median, high = timed.repeatability
    return VerifyReport(
        networks=tuple(rows),
        common_factor=common_factor(predictor, again),
        bias=float(np.median(errors)),
        median_error=float(np.median(np.abs(errors))),
        p95_error=float(np.quantile(np.abs(errors), 0.95)),
        coverage=float(np.mean([row.is_inside for row in rows])),
        interval_width=float(np.median([row.width for row in rows])),
        repeatability=median,
        repeatability_p95=high,
        too_noisy=timed.too_noisy,
        seconds=time.monotonic() - began_s,
    )


def common_factor(predictor: Predictor, timed: Mapping[Choices, Measurement]) -> float:
    """Return the mean of measured over predicted, outliers pulled in.

    The calibration's own errors on these networks average out by construction, so the mean loses less than the
    median would; one network that met a disturbance must not decide.
    """
    logs = np.array(
        [math.log(_latency_s(record) / predictor.predict(c).latency_s) for c, record in timed.items()]
    )
    middle = float(np.median(logs))
    spread = 3 * 1.4826 * float(np.median(np.abs(logs - middle)))  # three standard deviations of a normal
    return math.exp(float(np.clip(logs, middle - spread, middle + spread).mean()))


def _latency_s(record: Measurement) -> float:
    assert record.latency_s is not None
    return record.latency_s
