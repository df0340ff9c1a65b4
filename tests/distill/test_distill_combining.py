"""Rank correlations, and corrections of scores that predict whole networks."""

from __future__ import annotations

import math
import random

import pytest

from lanaprof.distill.combining import (
    FEWEST_NETWORKS,
    LEAST_WEIGHT,
    fit_combination,
    kendall_tau,
    rank_correlation,
    shaped,
)
from lanaprof.errors import BadInput

LAYERS = ("a", "b", "c", "d")


def _networks(count: int, *, seed: int = 0) -> list[dict[str, float]]:
    """Random networks; a quarter of the layers keeps the teacher's."""
    rng = random.Random(seed)
    return [
        {layer: -rng.uniform(0.001, 0.3) for layer in LAYERS if rng.random() < 0.75} for _ in range(count)
    ]


def _quality(network: dict[str, float], weights: dict[str, float], power: float) -> float:
    return math.fsum(weights[layer] * shaped(score, power) for layer, score in network.items())


def test_tau_is_the_share_of_pairs_in_order_less_those_out_of_order() -> None:
    """Of 4 values with one neighbouring pair swapped, 5 pairs agree and 1 does not: (5 - 1) / 6."""
    assert kendall_tau([1, 2, 3, 4], [10, 20, 40, 30]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_ties_are_left_out_of_tau_b() -> None:
    """Three values, two tied in the first: 2 pairs agree, √(2 · 3) is what they could."""
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == 0.0


def test_a_correlation_needs_pairs() -> None:
    """One value, or unequal numbers of them, have no ranking to compare."""
    with pytest.raises(BadInput, match="at least two pairs"):
        kendall_tau([1], [1])
    with pytest.raises(BadInput, match="at least two pairs"):
        kendall_tau([1, 2], [1, 2, 3])


def test_the_interval_narrows_with_more_networks() -> None:
    """The bootstrap's interval holds τ, and 80 networks say more than 20."""
    rng = random.Random(2)
    noisy = [(value, value + rng.gauss(0, 0.3)) for value in (rng.random() for _ in range(80))]
    few, many = (rank_correlation(*zip(*noisy[:count], strict=True)) for count in (20, 80))
    assert few.low < few.tau < few.high
    assert many.low < many.tau < many.high
    assert many.high - many.low < few.high - few.low


def test_the_interval_is_the_same_each_time() -> None:
    """Draws are seeded."""
    values = [0.3, 0.1, 0.5, 0.2, 0.9]
    assert rank_correlation(values, values[::-1]) == rank_correlation(values, values[::-1])


def test_a_fit_finds_power_and_weights_of_exact_networks() -> None:
    """Where qualities are weighted sums of roots, the fit finds both, and left-out networks exactly."""
    weights = {"a": 0.5, "b": 1.0, "c": 2.0, "d": 1.0}
    networks = _networks(40)
    qualities = [_quality(network, weights, 0.6) for network in networks]
    found = fit_combination(networks, qualities, layers=LAYERS)
    assert found.power == 0.6
    order = sorted(LAYERS, key=lambda layer: dict(found.weights)[layer])
    assert (order[0], order[-1]) == ("a", "c")
    assert kendall_tau(found.left_out, qualities) > 0.95


def test_one_common_weight_where_layers_do_not_differ() -> None:
    """Without a reason in the data no layer is treated otherwise."""
    networks = _networks(24)
    qualities = [0.3 * _quality(network, dict.fromkeys(LAYERS, 1.0), 1.0) for network in networks]
    found = fit_combination(networks, qualities, layers=LAYERS)
    assert found.power == 1.0
    assert [weight for _, weight in found.weights] == pytest.approx([0.3] * 4)


def test_noise_moves_weights_less_than_plain_regression_would() -> None:
    """With a dozen noisy networks, left-out predictions by the fit rank at least as the plain sum does."""
    rng = random.Random(4)
    networks = _networks(12, seed=4)
    plain = [_quality(network, dict.fromkeys(LAYERS, 1.0), 1.0) for network in networks]
    qualities = [0.2 * total + rng.gauss(0, 0.01) for total in plain]
    found = fit_combination(networks, qualities, layers=LAYERS)
    values = [weight for _, weight in found.weights]
    assert max(values) < 3 * min(values)


def test_no_weight_is_negative() -> None:
    """A layer in which worse scores went with better networks keeps a small weight: its order stands."""
    weights = {"a": -0.5, "b": 1.0, "c": 1.0, "d": 1.0}
    networks = _networks(40, seed=1)
    found = fit_combination(networks, [_quality(n, weights, 1.0) for n in networks], layers=LAYERS)
    values = dict(found.weights)
    assert 0 < values["a"] <= min(values.values())
    assert values["a"] >= LEAST_WEIGHT * min(values["b"], values["c"]) / 4


def test_corrected_scores_add_up_to_the_prediction() -> None:
    """The correction is one number per candidate; the teacher's own layer keeps 0, better stays better."""
    networks = _networks(20)
    qualities = [_quality(network, dict.fromkeys(LAYERS, 0.4), 0.8) for network in networks]
    found = fit_combination(networks, qualities, layers=LAYERS)
    total = math.fsum(found.corrected(layer, score) for layer, score in networks[0].items())
    assert total == pytest.approx(qualities[0], abs=1e-9)
    assert found.corrected("a", 0.0) == 0.0
    assert found.corrected("a", -0.1) > found.corrected("a", -0.2)


@pytest.mark.parametrize("qualities", [[0.5] * 10, [math.inf] + [0.5] * 9, list(range(10))])
def test_what_cannot_be_fitted_is_refused(qualities: list[float]) -> None:
    """Qualities that are all alike, infinite, or fall with the scores say nothing a sum could use."""
    networks = [{"a": -0.1 * number} for number in range(10)]
    with pytest.raises(BadInput, match="fitted"):
        fit_combination(networks, qualities, layers=LAYERS)


def test_too_few_networks_are_refused() -> None:
    """The hint says how many there should be."""
    with pytest.raises(BadInput, match="too few"):
        fit_combination(_networks(FEWEST_NETWORKS - 1), [0.1, 0.2], layers=LAYERS)
