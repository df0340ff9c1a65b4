"""From table entries to whole networks: ridge regression on the relative error.

A network is not the sum of its layers: neighbours share layouts and caches, sessions cost overhead. The fit
minimises Σ (F·w / M − 1)² + λ Σ ((w − w₀) / s)² over whole networks with measured latency M and features
F = [Σ relay latencies, activation bytes at layer edges, number of operators, bytes of weights, 1], with the prior
w₀ = (1, 0, 0, 0, 0) and scales s = mean(M) / mean(F). Every feature is additive per candidate, so a solver still sees
one cost each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["FEATURES", "FitResult", "Prediction", "fit", "left_out", "predict", "student_quantile"]

FEATURES = ("relay_sum_s", "edge_bytes", "operators", "weight_bytes", "constant")
_RIDGE = 0.03  # chosen on four spaces, confirmed on two more
_PRIOR = np.array([1.0, 0.0, 0.0, 0.0, 0.0])
_PRIOR_SD = (
    0.012  # of the relative error of one network: 0.6 to 1.2 % in other spaces, the noise of timing included
)
_PRIOR_DEGREES = 12  # as much as a usual calibration itself
_LEAST_FREE = 0.05  # of a network's residual: one that the fit passes through is judged no harder than this
_COMMON_SD = 0.020  # between times and processes, with nothing timed again: 0.4 to 4 % were seen

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class FitResult:
    """A fitted calibration.

    Attributes:
        weights: one per feature; seconds = features · weights.
        covariance: inverse of the regularised normal matrix, for leverage.
        residual_sd: leave-one-out standard deviation of the relative error.
        degrees: degrees of freedom of the t distribution.
    """

    weights: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    residual_sd: float
    degrees: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """A latency in seconds with its central interval."""

    latency_s: float
    low_s: float
    high_s: float
    level: float
    calibrated: bool


def fit(
    features: Sequence[Sequence[float]], measured_s: Sequence[float], weights: Sequence[float] | None = None
) -> FitResult:
    """Return the calibration for whole networks.

    Args:
        features: one row per network, in the order of FEATURES; more may follow, which are expected to weigh nothing.
        measured_s: their latencies.
        weights: importance of each network; default 1.
    """
    matrix = np.asarray(features, dtype=np.float64)
    target = np.asarray(measured_s, dtype=np.float64)
    importance = np.sqrt(np.ones(len(target)) if weights is None else np.asarray(weights, dtype=np.float64))
    prior = np.concatenate([_PRIOR, np.zeros(matrix.shape[1] - len(_PRIOR))])
    means = matrix.mean(axis=0)
    scales = np.divide(
        target.mean(), means, out=np.zeros_like(means), where=means > 0
    )  # never seen: weighs nothing
    relative = matrix / target[:, None] * importance[:, None]
    # In units of the scales the prior has unit variance; it also keeps the matrix well conditioned.
    design = relative * scales
    normal = design.T @ design + _RIDGE * np.eye(design.shape[1])
    expected = np.divide(prior, scales, out=np.zeros_like(prior), where=scales > 0)
    inverse = np.linalg.inv(normal)
    scaled = inverse @ (design.T @ importance + _RIDGE * expected)
    solution = scaled * scales
    covariance = inverse * np.outer(scales, scales)
    residual = (relative @ solution - importance) / importance
    leverage = np.einsum("ij,jk,ik->i", relative, covariance, relative)
    others = residual / np.maximum(1 - leverage, _LEAST_FREE)
    degrees = max(1, len(target) - matrix.shape[1])
    return FitResult(
        tuple(float(value) for value in solution),
        tuple(tuple(float(value) for value in row) for row in covariance),
        float(np.sqrt(np.mean(others**2))),
        degrees,
    )


def predict(
    result: FitResult, features: Sequence[float], *, level: float = 0.9, common: bool = True
) -> Prediction:
    """Return the latency of a network with these features and its central predictive interval.

    The error's standard deviation comes from the calibration's own networks and from what other spaces had: a scaled
    inverse chi-squared prior, so that a calibration that happened to fit its few networks well does not promise more
    than it can hold. The predictive distribution is then Student's t (Gelman et al., Bayesian Data Analysis, 14.2).

    Args:
        result: the calibration.
        features: the network's, in the order of FEATURES.
        level: of the interval.
        common: whether the interval covers what shifts all latencies between times and processes, too.
    """
    row = np.asarray(features, dtype=np.float64)
    latency = float(row @ np.asarray(result.weights))
    relative = row / max(abs(latency), 1e-300)
    leverage = float(relative @ np.asarray(result.covariance) @ relative)
    degrees = result.degrees + _PRIOR_DEGREES
    variance = (result.degrees * result.residual_sd**2 + _PRIOR_DEGREES * _PRIOR_SD**2) / degrees
    variance *= 1 + max(0.0, leverage)
    if common:
        variance += _COMMON_SD**2
    half = student_quantile((1 + level) / 2, degrees) * math.sqrt(variance)
    return Prediction(latency, latency * (1 - half), latency * (1 + half), level, calibrated=True)


def left_out(result: FitResult, features: Sequence[float], measured_s: float) -> float:
    """Return the latency in seconds that a fit to all others predicts for one of the calibration's networks.

    In ridge regression a residual divided by one minus the leverage is the residual of the fit without that point.

    Args:
        result: the calibration, fitted with this network.
        features: the network's, in the order of FEATURES.
        measured_s: what it took then.
    """
    row = np.asarray(features, dtype=np.float64) / measured_s
    leverage = float(row @ np.asarray(result.covariance) @ row)
    residual = float(row @ np.asarray(result.weights)) - 1
    return measured_s * (1 + residual / max(1 - leverage, _LEAST_FREE))


def student_quantile(probability: float, degrees: int) -> float:
    """Return a quantile of Student's t distribution.

    By bisection on the distribution function, integrated numerically: exact to 1e-6, without SciPy.

    >>> round(student_quantile(0.95, 12), 3)
    1.782
    """
    if probability < 0.5:
        return -student_quantile(1 - probability, degrees)
    constant = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(
        degrees * math.pi
    )

    def mass(limit: float) -> float:
        points = np.linspace(0.0, limit, 2001)
        density = constant * (1 + points**2 / degrees) ** (-(degrees + 1) / 2)
        step = points[1] - points[0]
        return float(
            step / 3 * (density[0] + density[-1] + 4 * density[1:-1:2].sum() + 2 * density[2:-1:2].sum())
        )

    low, high = 0.0, 1.0
    while mass(high) < probability - 0.5 and high < 1e6:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < probability - 0.5 else (low, middle)
    return (low + high) / 2
