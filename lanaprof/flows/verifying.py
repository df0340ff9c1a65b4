"""Predictions checked against whole networks that are built and timed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lanaprof.flows.bench import Bench
from lanaprof.flows.networks import (
    TWICE_LEAST,
    calibration_networks,
    common_factor,
    latency_of,
    time_networks,
)
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import open_predictor
from lanaprof.flows.project import Project
from lanaprof.flows.refusing import Refused, refusal_lines, refusals, too_few
from lanaprof.lut import Measurement
from lanaprof.profiler.calibration import Prediction, fit

__all__ = ["VerifiedNetwork", "VerifyReport", "verify"]


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
        return self.predicted.latency_s / latency_of(self.measured) - 1

    @property
    def is_inside(self) -> bool:
        """Say whether the measured latency lies in the predicted interval."""
        return self.predicted.low_s <= latency_of(self.measured) <= self.predicted.high_s

    @property
    def width(self) -> float:
        """Return the interval's width as a share of the measured latency."""
        return (self.predicted.high_s - self.predicted.low_s) / latency_of(self.measured)


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
        refused: networks left out, those of the calibration among them, with the reasons.
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
    refused: tuple[Refused, ...] = ()


def verify(
    project: Project,
    bench: Bench,
    architectures: Sequence[Choices],
    *,
    anchors: int = 16,
    level: float = 0.9,
    exporting: Callable[[int, int], None] = lambda _done, _total: None,
) -> VerifyReport:
    """Build and time networks, the calibration's networks re-timed beside them; what is refused is left out.

    Args:
        project: whose networks.
        bench: where to time them.
        architectures: what to verify.
        anchors: how many calibration networks are timed again.
        level: of the intervals.
        exporting: told (done, total).

    Raises:
        UserError: the runtime refused all of them, or all of the calibration's.
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
    twice = max(TWICE_LEAST, len(everything) // 4)
    timed = time_networks(project, bench, everything, twice=twice, exporting=exporting)
    measured = timed.measurements
    again = {choices: measured[choices] for choices in beside if choices in measured}
    if not again or not any(choices in measured for choices in wanted):
        raise too_few(project.space, timed, "nothing can be verified")
    for line in refusal_lines(project.space, timed):
        bench.notice(line)
    # A machine at another speed is not slower in everything alike: what waits for memory shifts more. So the
    # calibration is fitted to what its networks take now; the factor only says how far that is from the stored one.
    fitted = fit([predictor.features(c) for c in again], list(map(latency_of, again.values())))
    here = replace(predictor, fitted=fitted)
    rows = [
        VerifiedNetwork(
            choices,
            predictor.predict(choices).latency_s,
            here.predict(choices, level=level, common=False),
            measured[choices],
        )
        for choices in wanted
        if choices in measured
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
        refused=refusals(project.space, timed),
    )
