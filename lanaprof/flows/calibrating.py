"""Fitting the table to whole networks that were timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lanaprof.errors import UserError
from lanaprof.flows.bench import Bench
from lanaprof.flows.networks import (
    LEAST_NETWORKS,
    TWICE_LEAST,
    calibration_networks,
    latency_of,
    time_networks,
)
from lanaprof.flows.predicting import Predictor, open_predictor, table_digest
from lanaprof.flows.project import Project
from lanaprof.flows.refusing import Refused, refusal_lines, refusals, too_few
from lanaprof.lut import Calibration, utc_now
from lanaprof.profiler.calibration import FitResult, fit

__all__ = ["CalibrateReport", "calibrate"]


@dataclass(frozen=True, slots=True)
class CalibrateReport:
    """A calibration with what it rests on; errors are leave-one-out, relative.

    Attributes:
        networks: how many it was fitted to.
        residual_sd: standard deviation of the error.
        weights: of the features.
        seconds: that it took.
        repeatability, repeatability_p95: median and 95 % point of the difference between two builds.
        too_noisy: the machine repeated itself too badly to calibrate well.
        refused: networks left out, with the reasons.
    """

    networks: int
    residual_sd: float
    weights: tuple[float, ...]
    seconds: float
    repeatability: float
    repeatability_p95: float
    too_noisy: bool
    refused: tuple[Refused, ...] = ()


def calibrate(
    project: Project,
    bench: Bench,
    *,
    count: int = 16,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> CalibrateReport:
    """Time whole architectures, fit the calibration and store it; what the runtime refuses is left out.

    Raises:
        UserError: fewer than 5 networks asked for, or left.
        MissingMeasurement: the operators are not measured yet.
    """
    if count < LEAST_NETWORKS:
        raise UserError(
            f"a calibration needs at least {LEAST_NETWORKS} networks, not {count}",
            hint="lanaprof calibrate -n 16",
        )
    began_s = time.monotonic()
    team = bench.provenance.team
    predictor = open_predictor(
        project, bench.device, bench.store, team=team, environment=bench.environment.id
    )
    predictor.expect_teacher()
    drawn = calibration_networks(predictor, count, project.config.seed)
    found = time_networks(project, bench, drawn, twice=TWICE_LEAST, exporting=exporting)
    timed = found.measurements
    if len(timed) < min(LEAST_NETWORKS, len(drawn)):
        raise too_few(project.space, found, f"a calibration needs at least {LEAST_NETWORKS} networks")
    for line in refusal_lines(project.space, found):
        bench.notice(line)
    fitted = fit([predictor.features(choices) for choices in timed], list(map(latency_of, timed.values())))
    _store(predictor, bench, fitted, [record.id for record in timed.values()])
    return CalibrateReport(
        len(timed),
        fitted.residual_sd,
        fitted.weights,
        time.monotonic() - began_s,
        *found.repeatability,
        found.too_noisy,
        refusals(project.space, found),
    )


def _store(predictor: Predictor, bench: Bench, fitted: FitResult, networks: Sequence[str]) -> None:
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
