"""The calibration: ridge on relative errors with a predictive interval."""

from __future__ import annotations

import numpy as np
import pytest

from lanaprof.profiler.calibration import fit, predict, student_quantile


def networks(count: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return features and latencies of networks that cost 0.9 × the sum, 2 ns a kilobyte and 5 µs an operator."""
    generator = np.random.default_rng(seed)
    total = generator.uniform(2e-3, 8e-3, count)
    edge = generator.uniform(5e6, 2e7, count)
    operators = generator.integers(10, 18, count).astype(float)
    features = np.column_stack([total, edge, operators, np.ones(count)])
    latency = 0.9 * total + 2e-12 * edge + 5e-6 * operators + 1e-4
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


def test_interval_covers_new_networks() -> None:
    """Over many calibrations the 90 % interval holds 85 to 99 % of new networks."""
    inside = []
    for seed in range(40):
        features, latency = networks(40, 0.008, seed)
        fitted = fit(features[:16].tolist(), latency[:16].tolist())
        for row, true in zip(features[16:], latency[16:], strict=True):
            prediction = predict(fitted, row.tolist(), level=0.9, common=False)
            inside.append(prediction.low_s <= true <= prediction.high_s)

    assert 0.85 <= np.mean(inside) <= 0.99


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
