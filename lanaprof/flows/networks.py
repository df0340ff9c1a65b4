"""Whole networks: timing them beside each other, calibrating on them, checking predictions against them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lanaprof.errors import BackendError, UserError
from lanaprof.flows.bench import Bench
from lanaprof.flows.operators import Choices, export_networks
from lanaprof.flows.predicting import Predictor, open_predictor, table_digest
from lanaprof.flows.project import Project
from lanaprof.lut import Calibration, Measurement, utc_now
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import FEATURES, FitResult, Prediction, fit
from lanaprof.profiler.campaign import Target
from lanaprof.profiler.protocol import NETWORK
from lanaprof.space import random_architecture

__all__ = [
    "CalibrateReport",
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


@dataclass(frozen=True, slots=True)
class CalibrateReport:
    """A calibration with what it rests on; errors are leave-one-out, relative."""

    networks: int
    residual_sd: float
    weights: tuple[float, ...]
    seconds: float


def time_networks(
    project: Project,
    bench: Bench,
    architectures: Sequence[Choices],
    *,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> dict[Choices, Measurement]:
    """Return a new measurement of each network, all interleaved in one campaign.

    Raises:
        BackendError: a network could not be timed; the message names the reason.
    """
    keys = export_networks(project, bench.device, bench.store, architectures, progress=exporting)
    # Two architectures may be one network (skip where a candidate is the identity): timed once.
    result = bench.campaign(NETWORK).run([Target(key) for key in dict.fromkeys(keys.values())])
    timed = {}
    for choices, key in keys.items():
        record = result.measurements.get(key)
        if record is None or record.status not in _GOOD:
            why = record.message if record is not None else "the campaign was cut short"
            raise BackendError(f"a whole network could not be timed: {why}")
        timed[choices] = record
    return timed


def calibration_networks(predictor: Predictor, count: int, seed: int) -> list[Choices]:
    """Return the teacher and random measured architectures, seeded, distinct."""
    space = predictor.project.space
    allowed = predictor.measured_candidates()
    generator = random.Random(f"calibration {seed}")
    chosen: dict[Choices, None] = {(TEACHER,) * len(space.layers): None}
    for _ in range(50 * count):
        if len(chosen) >= count:
            break
        chosen.setdefault(random_architecture(space, generator, allowed).complete(space))
    return list(chosen)


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
    timed = time_networks(project, bench, networks, exporting=exporting)
    rows = [predictor.features(choices) for choices in networks]
    fitted = fit(rows, [_latency_s(timed[choices]) for choices in networks])
    store_calibration(predictor, bench, fitted, [timed[choices].id for choices in networks])
    return CalibrateReport(len(networks), fitted.residual_sd, fitted.weights, time.monotonic() - began_s)


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
                features=FEATURES,
                covariance=fitted.covariance,
                residual_sd=fitted.residual_sd,
                degrees=fitted.degrees,
                networks=tuple(dict.fromkeys(networks)),
                team=bench.provenance.team,
                time=utc_now(),
            )
        ]
    )


def _latency_s(record: Measurement) -> float:
    assert record.latency_s is not None
    return record.latency_s


@dataclass(frozen=True, slots=True)
class VerifiedNetwork:
    """One network, predicted from the table and measured."""

    choices: Choices
    predicted: Prediction
    measured: Measurement


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """Predictions against measurements.

    Attributes:
        networks: those verified.
        common_factor: measured over predicted, median of the calibration networks timed beside them: how much
            faster or slower the machine is now as a whole.
        bias, median_error, p95_error: of predicted · common factor / measured − 1.
        coverage: share of measurements inside their interval (shifted by the common factor).
        repeatability: median difference of two halves of the same campaign, as a share.
        too_noisy: the machine repeated itself so badly that the errors say nothing.
    """

    networks: tuple[VerifiedNetwork, ...]
    common_factor: float
    bias: float
    median_error: float
    p95_error: float
    coverage: float
    repeatability: float
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
    predictions = {choices: predictor.predict(choices, level=level) for choices in wanted}
    beside = calibration_networks(predictor, anchors, project.config.seed)
    timed = time_networks(
        project, bench, [*wanted, *(c for c in beside if c not in predictions)], exporting=exporting
    )
    factor = common_factor(predictor, {choices: timed[choices] for choices in beside})
    rows = tuple(VerifiedNetwork(choices, predictions[choices], timed[choices]) for choices in wanted)
    errors = np.array([row.predicted.latency_s * factor / _latency_s(row.measured) - 1 for row in rows])
    inside = [
        row.predicted.low_s * factor <= _latency_s(row.measured) <= row.predicted.high_s * factor
        for row in rows
    ]
    differences = _half_differences(bench, list(timed.values()))
    noisy = (
        float(np.median(differences)) > _TOO_NOISY_MEDIAN
        or float(np.quantile(differences, 0.95)) > _TOO_NOISY_P95
    )
    return VerifyReport(
        networks=rows,
        common_factor=factor,
        bias=float(np.median(errors)),
        median_error=float(np.median(np.abs(errors))),
        p95_error=float(np.quantile(np.abs(errors), 0.95)),
        coverage=float(np.mean(inside)),
        repeatability=float(np.median(differences)),
        too_noisy=noisy,
        seconds=time.monotonic() - began_s,
    )


def common_factor(predictor: Predictor, timed: Mapping[Choices, Measurement]) -> float:
    """Return the median of measured over predicted."""
    ratios = [_latency_s(record) / predictor.predict(choices).latency_s for choices, record in timed.items()]
    return float(np.median(ratios))


def _half_differences(bench: Bench, records: Sequence[Measurement]) -> npt.NDArray[np.float64]:
    """Return, per network, how much its even and odd rounds differ, the machine's common shift taken out."""
    full = bench.store.find_measurements([record.id for record in records])
    differences = []
    for record in full.values():
        seconds, rounds = np.array(record.samples), np.array(record.rounds)
        even, odd = seconds[rounds % 2 == 0], seconds[rounds % 2 == 1]
        if len(even) and len(odd):
            differences.append(float(np.quantile(even, 0.1) / np.quantile(odd, 0.1) - 1))
    if not differences:
        return np.zeros(1)
    found = np.array(differences, dtype=np.float64)
    spread: npt.NDArray[np.float64] = np.abs(found - np.median(found))
    return spread
