"""The calibration: ridge on relative errors with a predictive interval."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from lanaprof.profiler.calibration import FEATURES, fit, left_out, predict, student_quantile

Floats = npt.NDArray[np.float64]


def networks(count: int, noise: float, seed: int = 0) -> tuple[Floats, Floats]:
    """Return features and latencies of networks that cost 0.9 × the sum, 2 ns a kilobyte and 5 µs an operator."""
    generator = np.random.default_rng(seed)
    columns = {
        "relay_sum_s": generator.uniform(2e-3, 8e-3, count),
        "edge_bytes": generator.uniform(5e6, 2e7, count),
        "operators": generator.integers(10, 18, count).astype(float),
        "weight_bytes": generator.uniform(4e6, 3e7, count),
        "constant": np.ones(count),
    }
    latency = (
        0.9 * columns["relay_sum_s"] + 2e-12 * columns["edge_bytes"] + 5e-6 * columns["operators"] + 1e-4
    )
    features = np.column_stack([columns[name] for name in FEATURES])
    return features, latency * (1 + noise * generator.standard_normal(count))


def test_the_prior_is_the_plain_sum() -> None:
    """Networks that cost exactly their sum are predicted by their sum."""
    features, _ = networks(16, 0.0)
    fitted = fit(features.tolist(), features[:, 0].tolist())

    assert features[3, 0] == pytest.approx(predict(fitted, features[3].tolist()).latency_s, rel=1e-3)


def test_a_proportional_error_is_removed() -> None:
    """After 16 networks the error on others is far below the naive sum's."""
    features, latency = networks(60, 0.002)
    fitted = fit(features[:16].tolist(), latency[:16].tolist())
    errors = [
        predict(fitted, row.tolist()).latency_s / true - 1
        for row, true in zip(features[16:], latency[16:], strict=True)
    ]
    naive = features[16:, 0] / latency[16:] - 1

    assert np.median(np.abs(errors)) < 0.006
    assert np.median(np.abs(naive)) > 0.02


def coverages(calibrations: int) -> tuple[Floats, Floats]:
    """Return which share of 40 new networks each calibration's 90 % interval holds, and that of a plain recipe.

    The relative error of a network is normal, its standard deviation between 0.5 and 1.5 % from calibration to
    calibration. The plain recipe is what one writes first: 1.645 times the deviation of the residuals of the fit.
    """
    honest, plain = [], []
    for seed in range(calibrations):
        noise = float(np.random.default_rng(seed).uniform(0.005, 0.015))
        features, latency = networks(56, noise, seed)
        fitted = fit(features[:16].tolist(), latency[:16].tolist())
        predicted = features @ np.array(fitted.weights)
        residual_sd = float(np.std(predicted[:16] / latency[:16] - 1))
        inside = []
        for row, true in zip(features[16:].tolist(), latency[16:], strict=True):
            prediction = predict(fitted, row, level=0.9, common=False)
            inside.append(prediction.low_s <= true <= prediction.high_s)
        honest.append(np.mean(inside))
        plain.append(np.mean(np.abs(latency[16:] / predicted[16:] - 1) <= 1.645 * residual_sd))
    return np.array(honest), np.array(plain)


def test_the_interval_holds_what_it_promises() -> None:
    """Nine of ten new networks lie in it on average, and in nearly every single calibration eight of ten.

    Sixteen networks say little about a standard deviation: what the residuals of the fit show is too small, and with
    it more than half of all calibrations would hold fewer than eight of ten.
    """
    honest, plain = coverages(60)

    assert 0.88 <= honest.mean() <= 0.97
    assert np.mean(honest < 0.8) <= 0.05
    assert plain.mean() < 0.80
    assert np.mean(plain < 0.8) > 0.5


def test_a_lucky_fit_promises_no_more_than_other_spaces_kept() -> None:
    """Networks that fit exactly: the error that other spaces had keeps the interval apart from zero."""
    features, latency = networks(16, 0.0)
    fitted = fit(features.tolist(), latency.tolist())
    prediction = predict(fitted, features[0].tolist(), common=False)

    assert fitted.residual_sd < 0.002
    assert prediction.high_s / prediction.latency_s - 1 > 0.008


def test_the_common_factor_widens() -> None:
    """With nothing timed beside it, a prediction covers the shift that all latencies share at another time."""
    features, latency = networks(16, 0.01)
    fitted = fit(features.tolist(), latency.tolist())
    row = features[0].tolist()

    alone, other_time = (predict(fitted, row, common=common) for common in (False, True))

    assert alone.latency_s == other_time.latency_s
    # the deviation grows from sqrt(v) to sqrt(v + 1.3 %²), v between 0.5 and 2 %²
    assert 1.1 < (other_time.high_s - other_time.low_s) / (alone.high_s - alone.low_s) < 3


def test_a_higher_level_is_wider() -> None:
    """99 % needs more room than 50 %."""
    features, latency = networks(16, 0.01)
    fitted = fit(features.tolist(), latency.tolist())
    row = features[0].tolist()

    assert predict(fitted, row, level=0.99).high_s > predict(fitted, row, level=0.5).high_s


def test_weights_pull_the_fit() -> None:
    """A network that counts a hundredfold is met closely."""
    features, latency = networks(16, 0.03)
    heavy = [100.0] + [1.0] * 15
    error = abs(
        predict(fit(features.tolist(), latency.tolist(), heavy), features[0].tolist()).latency_s / latency[0]
        - 1
    )
    plain = abs(
        predict(fit(features.tolist(), latency.tolist()), features[0].tolist()).latency_s / latency[0] - 1
    )

    assert error < plain


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"),
    # from tables of Student's t
    [(0.95, 1, 6.3138), (0.975, 12, 2.1788), (0.95, 30, 1.6973), (0.05, 12, -1.7823), (0.5, 5, 0.0)],
)
def test_student_quantiles(probability: float, degrees: int, expected: float) -> None:
    """The quantiles agree with the printed tables."""
    assert expected == pytest.approx(student_quantile(probability, degrees), abs=2e-4)


def test_left_out_is_the_fit_without_that_network() -> None:
    """The leverage's shortcut gives what a fit in which the network hardly weighs predicts for it."""
    features, measured = networks(16, 0.02)
    fitted = fit(features.tolist(), measured.tolist())
    weights = [1.0] * 16
    weights[5] = 1e-12  # not zero: the scales of the prior stay those of all 16
    without = fit(features.tolist(), measured.tolist(), weights)
    expected_s = predict(without, features[5].tolist()).latency_s

    assert left_out(fitted, features[5].tolist(), measured[5]) == pytest.approx(expected_s, rel=1e-6)
    assert expected_s != pytest.approx(predict(fitted, features[5].tolist()).latency_s, rel=1e-4)
