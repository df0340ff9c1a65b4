"""One latency from several measurements of the same thing: a random-effects estimate on the log scale.

Machines of one environment differ by more than one campaign's interval says, and so do campaigns on one machine. So
the variance between them is estimated by the method of moments, in two steps (DerSimonian and Kacker 2007, "DL2": close
to Paule and Mandel's estimate, and without iteration), and added to each one's own: first over the campaigns of each
host, then over the hosts. Many groups are pooled at once, because a table has thousands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lanaprof.lut.records import Measurement, Timing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Labels = NDArray[np.intp]

__all__ = ["HALF_NORMAL", "Pooled", "log_error", "pool"]

HALF_NORMAL = 1.959964  # standard errors in half a 95 % interval
_ERROR_LEAST = 1e-4  # of the latency: an interval of no width (all rounds alike) must not outweigh everything
# With two hosts Student's factor would be 12.7, and half a table ±10 %. Hosts of one environment are known to differ by
# percents, which is worth about as many observations more; simulated coverage is in decision 0021.
_DEGREES_LEAST = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """A pooled latency with its 95 % interval.

    Attributes:
        spread: standard deviation between hosts beyond what their intervals explain, in log units (0.02 is 2 %);
            between campaigns where there is one host.
        hosts: how many.
    """

    latency_s: float
    ci_low_s: float
    ci_high_s: float
    spread: float
    hosts: int


def log_error(low_s: float, latency_s: float, high_s: float) -> float:
    """Return the standard error of the log latency that a 95 % interval says; its wider half counts.

    >>> round(log_error(0.98, 1.0, 1.02), 4)
    0.0103
    """
    below = math.log(latency_s / low_s) if low_s > 0 else 0.0  # down to 0 says nothing on this scale
    return max(below, math.log(high_s / latency_s)) / HALF_NORMAL


def pool(groups: Sequence[Sequence[Measurement | Timing]]) -> list[Pooled]:
    """Return one latency per group of measurements, all of which have a latency; a single one stays as it is.

    The interval is that of the mean over hosts such as these. It narrows while they agree, and widens with what they
    disagree about: Student's factor with the degrees of freedom of Welch and Satterthwaite, but at least 4.
    """
    import numpy as np  # what only looks into a database starts without it

    intervals: list[tuple[float, float, float]] = []
    # What is compared with its like: a host, or a campaign where there is one host.
    unit_of_row: list[int] = []
    group_of_unit: list[int] = []
    hosts: list[int] = []
    for number, rows in enumerate(groups):
        found = dict.fromkeys(row.host for row in rows)
        names = {host: len(group_of_unit) + place for place, host in enumerate(found)}
        hosts.append(len(names))
        for place, row in enumerate(rows):
            intervals.append(_interval(row))
            unit_of_row.append(names[row.host] if len(names) > 1 else len(group_of_unit) + place)
        group_of_unit += [number] * (len(names) if len(names) > 1 else len(rows))
    low_s, latency_s, high_s = np.array(intervals).T
    # An interval down to 0 says nothing on this scale, as in `log_error`.
    below = np.log(latency_s / np.where(low_s > 0, low_s, latency_s))
    errors = np.maximum(np.maximum(below, np.log(high_s / latency_s)) / HALF_NORMAL, _ERROR_LEAST)
    within = _effects(np.log(latency_s), np.square(errors), np.array(unit_of_row, dtype=np.intp))
    between = _effects(within.mean, within.variance, np.array(group_of_unit, dtype=np.intp))
    half = between.half_width
    columns = zip(
        np.exp(between.mean).tolist(),
        np.exp(between.mean - half).tolist(),
        np.exp(between.mean + half).tolist(),
        np.sqrt(between.excess).tolist(),
        strict=True,
    )
    return [
        Pooled(latency_s=middle, ci_low_s=low, ci_high_s=high, spread=spread, hosts=count)
        if len(rows) > 1
        else _alone(rows[0])
        for rows, count, (middle, low, high, spread) in zip(groups, hosts, columns, strict=True)
    ]


def _interval(row: Measurement | Timing) -> tuple[float, float, float]:
    low_s, latency_s, high_s = row.ci_low_s, row.latency_s, row.ci_high_s
    if low_s is None or latency_s is None or high_s is None:
        raise ValueError("only measurements with a latency can be pooled")
    return low_s, latency_s, high_s


def _alone(row: Measurement | Timing) -> Pooled:
    low_s, latency_s, high_s = _interval(row)
    return Pooled(latency_s=latency_s, ci_low_s=low_s, ci_high_s=high_s, spread=0.0, hosts=1)


@dataclass(frozen=True, slots=True)
class _Effects:
    """Per label: the mean, its variance, the excess variance of one member, and half of the 95 % interval."""

    mean: Floats
    variance: Floats
    excess: Floats
    half_width: Floats


def _effects(values: Floats, variances: Floats, labels: Labels) -> _Effects:
    """Return the random-effects mean of each label's values; labels run from 0 without a gap."""
    import numpy as np  # what only looks into a database starts without it

    def total(numbers: Floats) -> Floats:
        return np.bincount(labels, weights=numbers).astype(np.float64, copy=False)

    counts = np.bincount(labels)

    def excess(weights: Floats) -> Floats:
        """Return the variance beyond the given ones that makes the weighted squares what they are (equation 6)."""
        whole = total(weights)
        mean = total(weights * values) / whole
        squares = total(weights * np.square(values - mean[labels]))
        expected = total(weights * variances) - total(np.square(weights) * variances) / whole
        scale = whole - total(np.square(weights)) / whole
        several = counts > 1  # of one there is no variance, and its scale is 0
        found: Floats = np.maximum(squares - expected, 0.0) / np.where(several, scale, 1.0)
        return np.where(several, found, 0.0)

    first = excess(1.0 / variances)
    second = excess(1.0 / (variances + first[labels]))
    weights = 1.0 / (variances + second[labels])
    whole = total(weights)
    # Only the excess is known so poorly: its share of the mean's variance, Welch and Satterthwaite (GUM, G.4).
    share = second * total(np.square(weights)) / whole
    # Without any excess, or with one value, the factor is the normal distribution's.
    rarity = np.where(counts > 1, np.square(share) / np.maximum(counts - 1, 1), 0.0)
    degrees = 1.0 / np.clip(rarity, 1e-9, 1.0 / _DEGREES_LEAST)
    mean = total(weights * values) / whole
    return _Effects(mean, 1.0 / whole, second, _student_factor(degrees) / np.sqrt(whole))


def _student_factor(degrees: Floats) -> Floats:
    """Return Student's 97.5 % quantile for 4 or more degrees of freedom: Abramowitz and Stegun 26.7.5, to 0.001."""
    z = HALF_NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    found: Floats = z + sum(
        (term / degrees**power for power, term in enumerate(terms, start=1)), 0.0 * degrees
    )
    return found
