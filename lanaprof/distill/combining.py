"""How good is a sum of scores as a prediction of a whole network? Correlations, and what makes the sum better.

Everything here is plain numbers. A corrected score stays one number per candidate: the solver adds them up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lanaprof.errors import BadInput

__all__ = ["Combination", "RankCorrelation", "fit_combination", "kendall_tau", "rank_correlation", "shaped"]

Network = Mapping[
    str, float
]  # layer -> the score of the candidate there; layers not named keep the teacher's

# the first of each is the plain sum
POWERS = (1.0, 2.0, 1.7, 1.4, 1.2, 0.8, 0.6)  # of scores as they are stored: by kl they are roots already
STIFFNESS = (
    math.inf,
    30.0,
    10.0,
    3.0,
    1.0,
    0.3,
    0.1,
    0.03,
)  # of a layer's weight against leaving the common one
LEAST_WEIGHT = 0.1  # of the common weight: below it a fit's noise would turn a layer off
FEWEST_NETWORKS = 8


def shaped(score: float, power: float) -> float:
    """Return a score with its size raised to a power, its sign kept.

    A power below 1 lets many small losses count for more against one large one: fine-tuning heals a single
    damaged layer better than damage everywhere.

    >>> shaped(-0.25, 0.5)
    -0.5
    """
    return math.copysign(abs(score) ** power, score) if score else 0.0


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Kendall's τ-b: 1 when both rank alike, 0 when unrelated; ties count as half known.

    Args:
        first: one value per network.
        second: as many.

    Raises:
        BadInput: fewer than two values, or different numbers of them.

    >>> kendall_tau([1, 2, 3, 4], [1, 2, 4, 3])
    0.6666666666666666
    """
    if len(first) != len(second) or len(first) < 2:
        raise BadInput(f"a rank correlation of {len(first)} and {len(second)} values: at least two pairs")
    a, b = np.asarray(first, float), np.asarray(second, float)
    upper = np.triu_indices(len(a), 1)
    signs_a = np.sign(a[:, None] - a)[upper]
    signs_b = np.sign(b[:, None] - b)[upper]
    pairs = math.sqrt(np.count_nonzero(signs_a) * np.count_nonzero(signs_b))
    return float(np.sum(signs_a * signs_b)) / pairs if pairs else 0.0


@dataclass(frozen=True, slots=True)
class RankCorrelation:
    """Kendall's τ-b with the central interval of its bootstrap."""

    tau: float
    low: float
    high: float


def rank_correlation(
    first: Sequence[float], second: Sequence[float], *, draws: int = 1000, level: float = 0.9, seed: int = 0
) -> RankCorrelation:
    """Return the rank correlation with its interval, from networks drawn again with replacement.

    A network drawn twice is tied with itself, which τ-b leaves out.

    Args:
        first: one value per network.
        second: as many.
        draws: of the bootstrap.
        level: of the interval.
        seed: of the draws.
    """
    a, b = np.asarray(first, float), np.asarray(second, float)
    tau = kendall_tau(first, second)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        places = generator.integers(0, len(a), len(a))
        if len(set(places)) > 1:
            found.append(kendall_tau(a[places].tolist(), b[places].tolist()))
    low, high = np.quantile(found, [(1 - level) / 2, (1 + level) / 2]) if found else (tau, tau)
    return RankCorrelation(tau, float(low), float(high))


@dataclass(frozen=True, slots=True)
class Combination:
    """How scores are corrected so that their sum predicts a fine-tuned network better.

    Attributes:
        power: of :func:`shaped`.
        weights: (layer, weight), none of them negative; the teacher's own layer keeps 0.
        networks: how many it was fitted on.
        left_out: the corrected sum of each of them by the weights that a fit on all others gave, for ranking:
            the weights' mean is taken as 1.
    """

    power: float
    weights: tuple[tuple[str, float], ...]
    networks: int
    left_out: tuple[float, ...]

    def corrected(self, layer: str, score: float) -> float:
        """Return a corrected score, in the unit of the qualities it was fitted to."""
        return dict(self.weights)[layer] * shaped(score, self.power)


def fit_combination(
    networks: Sequence[Network], qualities: Sequence[float], *, layers: Sequence[str]
) -> Combination:
    """Return the power and the layers' weights that predict left-out networks best.

    A linear regression of the quality on the shaped scores of the layers, as DONNA (arXiv 2012.08859) does on
    distillation losses, drawn to one common weight by a ridge: with few networks only what they say plainly
    moves a layer's weight. The plain sum stays where nothing predicts left-out networks better by more than a
    standard error.

    Args:
        networks: each one's scores.
        qualities: of each, higher is better.
        layers: all there are; those that no network changes keep the common weight.

    Raises:
        BadInput: fewer than FEWEST_NETWORKS, or all alike.
    """
    if len(networks) < FEWEST_NETWORKS or len(networks) != len(qualities):
        raise BadInput(
            f"{len(networks)} networks are too few to fit scores on",
            hint=f"at least {FEWEST_NETWORKS}, better 24",
        )
    target = np.asarray(qualities, float)
    if not np.isfinite(target).all() or np.ptp(target) == 0:
        raise BadInput("the networks' qualities are all alike or not finite: nothing can be fitted")
    tried = []
    for power in POWERS:
        table = _table(networks, layers, power)
        for stiffness in STIFFNESS:
            predictions, left_out = _left_out(table, target, stiffness)
            tried.append(_Tried(power, stiffness, (predictions - target) ** 2, left_out))
    plain, best = tried[0], min(tried, key=lambda one: float(one.errors.mean()))
    gains = plain.errors - best.errors
    # what departs from the plain sum must be better by more than chance: by a standard error of the difference
    if gains.mean() <= gains.std(ddof=1) / math.sqrt(len(gains)):
        best = plain
    _, weights = _fit(_table(networks, layers, best.power), target, best.stiffness)
    if not weights.any():
        raise BadInput(
            "networks with better scores did not become better: no correction can be fitted to them",
            hint="train the candidates longer (lanaprof distill --steps), or fine-tune longer (--tune-steps)",
        )
    pairs = tuple(zip(layers, (float(weight) for weight in weights), strict=True))
    return Combination(best.power, pairs, len(networks), tuple(best.left_out.tolist()))


@dataclass(frozen=True, slots=True)
class _Tried:
    """One way to correct: the squared errors it leaves, and its sums, of networks that were left out."""

    power: float
    stiffness: float
    errors: NDArray[np.float64]
    left_out: NDArray[np.float64]


def _table(networks: Sequence[Network], layers: Sequence[str], power: float) -> NDArray[np.float64]:
    return np.array([[shaped(network.get(layer, 0.0), power) for layer in layers] for network in networks])


def _left_out(
    table: NDArray[np.float64], target: NDArray[np.float64], stiffness: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the prediction of each network by the fit on all others, and its sum with weights of mean 1.

    They are apart because constant and scale are drawn away from a network that is left out: with them, even a
    sum that is right would rank them wrongly.
    """
    predictions, sums = np.empty(len(target)), np.empty(len(target))
    for place in range(len(target)):
        others = np.arange(len(target)) != place
        constant, weights = _fit(table[others], target[others], stiffness)
        total = float(table[place] @ weights)
        predictions[place], sums[place] = constant + total, total / max(float(weights.mean()), 1e-300)
    return predictions, sums


def _fit(
    table: NDArray[np.float64], target: NDArray[np.float64], stiffness: float
) -> tuple[float, NDArray[np.float64]]:
    """Return constant and weights: one common weight, and a ridge on what each layer departs from it."""
    means = table.mean(0)
    x, y = table - means, target - target.mean()
    total = x.sum(1)
    common = max(float(total @ y) / max(float(total @ total), 1e-300), 0.0)
    weights = np.full(x.shape[1], common)
    if math.isfinite(stiffness):
        scale = float(np.trace(x.T @ x)) / x.shape[1]
        ridge = x.T @ x + stiffness * scale * np.eye(x.shape[1])
        weights = weights + np.linalg.solve(ridge, x.T @ (y - common * total))
    weights = np.maximum(weights, LEAST_WEIGHT * common)
    return float(target.mean() - means @ weights), weights
