"""Which of many operators changed of their own, when all moved together a little: statistics of log ratios.

Between two campaigns a whole machine is 1 or 2 % faster or slower, and each operator scatters by more than one
campaign's interval says. So the common shift is taken out (the median), the scatter that the intervals do not explain
is estimated from the operators themselves and added to each one's error (an empirical null, Efron 2004), and the false
discovery rate is held over all operators (Benjamini and Hochberg 1995). The assumption: less than half of the
operators changed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median

__all__ = ["OPERATORS_LEAST", "Changes", "benjamini_hochberg", "find_changes", "two_sided_tail"]

OPERATORS_LEAST = 5  # with fewer, a change of one and a change of the machine look alike
_RATE = 0.05  # false discoveries among those called changed
_SCATTER_LEAST = 0.005  # builds of one session differ by 0.3 %, halves of one campaign by up to 0.7 %
# Differences between campaigns have longer tails than a normal distribution's: their 95 % point was 4 to 7 times their
# median, not 2.9 times. Student's with at most so many degrees of freedom does not mistake them for changes.
_DEGREES_MOST = 4
_QUARTILE = NormalDist().inv_cdf(0.75)
_PRECISION = 1e-7  # of the scatter, far beyond what it is known to
_MANY = 200  # degrees of freedom from which Student's distribution is the normal one


@dataclass(frozen=True, slots=True)
class Changes:
    """What became of the operators, in the order they were given.

    Attributes:
        common: the shift all share: the median of the log ratios.
        scatter: standard deviation, in log units, beyond what the intervals explain.
        q: the smallest false discovery rate at which each would be called changed; 1 where nothing can be told.
        changed: whether each changed of its own, at a false discovery rate of 5 %.
    """

    common: float
    scatter: float
    q: tuple[float, ...]
    changed: tuple[bool, ...]


def find_changes(shifts: Sequence[float], errors: Sequence[float]) -> Changes:
    """Return which shifts stand out from the common one.

    Args:
        shifts: log ratios, at least one.
        errors: their standard errors; infinite where an interval is unbounded.
    """
    common = median(shifts)
    count = len(shifts)
    if count < OPERATORS_LEAST:
        return Changes(common, 0.0, (1.0,) * count, (False,) * count)
    away = [abs(shift - common) for shift in shifts]
    scatter = max(_SCATTER_LEAST, _scatter(away, errors))
    # The median of absolute deviations is worth 37 % of the observations a standard deviation would need.
    degrees = 0.37 * (count - 1)
    chances = []
    for distance, error in zip(away, errors, strict=True):
        spread = math.hypot(error, scatter)
        if math.isinf(spread):
            chances.append(1.0)
            continue
        # Only the scatter's share of the variance is known so poorly. Satterthwaite's fourth power finds too much
        # in simulations where errors differ widely; the square holds the rate.
        effective = degrees * (spread / scatter) ** 2
        chances.append(two_sided_tail(distance / spread, max(1, math.floor(min(effective, _DEGREES_MOST)))))
    q = benjamini_hochberg(chances)
    return Changes(common, scatter, q, tuple(value <= _RATE for value in q))


def _scatter(away: Sequence[float], errors: Sequence[float]) -> float:
    """Return the scatter with which half of the distances are within a normal distribution's quartiles.

    By bisection: more scatter makes every standardised distance smaller. A median about an estimated centre is a
    little too small; Croux and Rousseeuw (1992) correct by n / (n − 0.8).
    """
    import numpy as np  # what only looks into a database starts without it

    count = len(away)
    wanted = _QUARTILE * (count - 0.8) / count
    distances, spreads = np.asarray(away), np.asarray(errors)

    def middle(scatter: float) -> float:
        return float(np.median(distances / np.hypot(spreads, scatter)))

    low, high = 1e-9, max(1e-6, max(away) / wanted)
    if middle(low) <= wanted:
        return 0.0
    while high > low * (1 + _PRECISION):
        between = math.sqrt(low * high)
        low, high = (between, high) if middle(between) > wanted else (low, between)
    return high


def benjamini_hochberg(chances: Sequence[float]) -> tuple[float, ...]:
    """Return each p value's q: the smallest false discovery rate at which it is among the discoveries.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5])
    (0.04, 0.05333333333333334, 0.05333333333333334, 0.5)
    """
    count = len(chances)
    order = sorted(range(count), key=lambda index: chances[index], reverse=True)
    found = [1.0] * count
    least = 1.0
    for place, index in enumerate(order):
        least = min(least, chances[index] * count / (count - place))
        found[index] = least
    return tuple(found)


def two_sided_tail(value: float, degrees: int) -> float:
    """Return the chance that Student's t is farther from 0 than a value.

    Finite sums of Abramowitz and Stegun 26.7.3 and 26.7.4; from 200 degrees of freedom on the normal distribution.

    >>> round(two_sided_tail(2.228, 10), 4), round(two_sided_tail(12.706, 1), 4), round(two_sided_tail(3.182, 3), 4)
    (0.05, 0.05, 0.05)
    """
    value = abs(value)
    if degrees >= _MANY:
        return math.erfc(value / math.sqrt(2))
    angle = math.atan(value / math.sqrt(degrees))
    sine, cosine = math.sin(angle), math.cos(angle)
    even = degrees % 2 == 0
    term, total = (1.0, 1.0) if even else (cosine, cosine if degrees > 1 else 0.0)
    for number in range(2 if even else 3, degrees - 1, 2):
        term *= cosine * cosine * (number - 1) / number
        total += term
    inside = sine * total if even else 2 / math.pi * (angle + sine * total)
    return max(0.0, 1.0 - inside)
