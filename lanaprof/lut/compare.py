"""Two tables side by side: how the same operators differ between environments, machines or times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lanaprof.lut.policy import Estimate
from lanaprof.lut.table import Table

__all__ = ["Comparison", "OperatorRatio", "compare_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRatio:
    """Latency in table B over latency in table A.

    Attributes:
        low: the smallest ratio both intervals allow; ``high`` the largest (None: unbounded, A's interval
            reaches 0).
        noisy: whether either entry is noisy.
        cache: the cache state both were measured in.
    """

    operator: str
    ratio: float
    low: float
    high: float | None
    noisy: bool
    cache: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The operators both tables timed in the same cache state, sorted by key.

    Attributes:
        median: of abs(ratio − 1); None when there is nothing in common. Likewise ``p95``.
        skipped: operators in only one table, failed in one, or measured in different cache states.
    """

    operators: tuple[OperatorRatio, ...]
    median: float | None
    p95: float | None
    skipped: int


def compare_tables(a: Table, b: Table) -> Comparison:
    """Return how table B differs from table A. Relay numbers of different spaces are not compared."""
    ratios: list[OperatorRatio] = []
    for first in a:
        second = b.find(first.operator)
        comparable = second is not None and first.cache == second.cache
        if second is None or not comparable or (first.cache == "relay" and a.space != b.space):
            continue
        ratio = _ratio(first, second)
        if ratio is not None:
            ratios.append(ratio)
    deviations = sorted(abs(each.ratio - 1.0) for each in ratios)
    return Comparison(
        operators=tuple(ratios),
        median=_quantile(deviations, 0.5),
        p95=_quantile(deviations, 0.95),
        skipped=len({each.operator for each in (*a, *b)}) - len(ratios),
    )


def _ratio(first: Estimate, second: Estimate) -> OperatorRatio | None:
    """Return the ratio of two entries, or None when one has no latency."""
    a = (first.ci_low_s, first.latency_s, first.ci_high_s)
    b = (second.ci_low_s, second.latency_s, second.ci_high_s)
    if a[0] is None or a[1] is None or a[2] is None or b[0] is None or b[1] is None or b[2] is None:
        return None
    return OperatorRatio(
        operator=first.operator,
        ratio=b[1] / a[1],
        low=b[0] / a[2],
        high=b[2] / a[0] if a[0] > 0 else None,
        noisy="noisy" in (first.status, second.status),
        cache=first.cache,
    )


def _quantile(ordered: Sequence[float], level: float) -> float | None:
    """Return a quantile of sorted values, linear between neighbours; None when there are none."""
    if not ordered:
        return None
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
