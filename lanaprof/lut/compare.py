"""Two tables side by side: how the same operators differ between environments, machines or times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lanaprof.lut.changes import find_changes
from lanaprof.lut.policy import CAMPAIGN_SCATTER, Estimate
from lanaprof.lut.pooling import HALF_NORMAL
from lanaprof.lut.records import Environment
from lanaprof.lut.table import Table

__all__ = ["Comparison", "Difference", "OperatorRatio", "compare_tables", "environment_differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing two environments do not share; "" where one side has no such option."""

    field: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorRatio:
    """Latency in table B over latency in table A.

    Attributes:
        low: of the ratio's 95 % interval; ``high`` likewise (None: unbounded, A's interval reaches 0).
        relative: the ratio over the common one: what this operator did of its own.
        q: the smallest false discovery rate at which it would be called changed; 1 where nothing can be told.
        changed: whether it changed of its own, at a false discovery rate of 5 % over the comparison.
        disagree: whether the two latencies themselves differ by more than both intervals and what campaigns differ by
            anyway allow: whoever measured the same environment should not.
        noisy: whether either entry is noisy.
        cache: the cache state both were measured in.
    """

    operator: str
    ratio: float
    low: float
    high: float | None
    relative: float
    q: float
    changed: bool
    disagree: bool
    noisy: bool
    cache: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The operators both tables timed in the same cache state, those that changed most of their own first.

    Attributes:
        common_ratio: the median ratio: what the whole machine did; None when there is nothing in common.
        scatter: how much more than their intervals say the operators scatter about it (1 standard deviation).
        spread: standard deviation of one side's latency of an operator about the mean of both, beyond the intervals,
            as a share: in one environment the typical spread between hosts.
        disagreement: median of abs(ratio − 1) of the operators that disagree; None when none does.
        median: of abs(ratio − 1); None when there is nothing in common. Likewise ``p95``.
        skipped: operators in only one table, failed in one, or measured in different cache states.
    """

    operators: tuple[OperatorRatio, ...]
    common_ratio: float | None
    scatter: float
    spread: float
    disagreement: float | None
    median: float | None
    p95: float | None
    skipped: int


@dataclass(frozen=True, slots=True)
class _Shift:
    """A ratio, its logarithm, and the halves of the logarithm's 95 % interval, which may be infinite."""

    ratio: float
    value: float
    below: float
    above: float

    @property
    def error(self) -> float:
        """The standard error; the wider half counts."""
        return max(self.below, self.above) / HALF_NORMAL


def compare_tables(a: Table, b: Table) -> Comparison:
    """Return how table B differs from table A. Relay numbers of different spaces are not compared.

    A ratio's interval comes from both measurements' intervals on the log scale, where a ratio is a difference: each
    side's distance to its limit adds up in squares (Zou and Donner 2008). It says how well the two *campaigns* know
    the number; what changes between campaigns is in ``common_ratio`` and ``scatter``, and ``changed`` heeds both.
    """
    pairs: list[tuple[Estimate, Estimate, _Shift]] = []
    for first in a:
        second = b.find(first.operator)
        comparable = second is not None and first.cache == second.cache
        if second is None or not comparable or (first.cache == "relay" and a.space != b.space):
            continue
        shift = _shift(first, second)
        if shift is not None:
            pairs.append((first, second, shift))
    skipped = len({each.operator for each in (*a, *b)}) - len(pairs)
    if not pairs:
        return Comparison(
            operators=(),
            common_ratio=None,
            scatter=0.0,
            spread=0.0,
            disagreement=None,
            median=None,
            p95=None,
            skipped=skipped,
        )
    changes = find_changes([shift.value for *_, shift in pairs], [shift.error for *_, shift in pairs])
    rows = [
        OperatorRatio(
            operator=first.operator,
            ratio=shift.ratio,
            low=math.exp(shift.value - shift.below),
            high=math.exp(shift.value + shift.above) if math.isfinite(shift.above) else None,
            relative=math.exp(shift.value - changes.common),
            q=q,
            changed=changed,
            disagree=abs(shift.value)
            > HALF_NORMAL * math.hypot(shift.error, CAMPAIGN_SCATTER, CAMPAIGN_SCATTER),
            noisy="noisy" in (first.status, second.status),
            cache=first.cache,
        )
        for (first, second, shift), q, changed in zip(pairs, changes.q, changes.changed, strict=True)
    ]
    deviations = sorted(abs(each.ratio - 1.0) for each in rows)
    apart = sorted(abs(each.ratio - 1.0) for each in rows if each.disagree)
    return Comparison(
        operators=tuple(sorted(rows, key=lambda each: (-abs(math.log(each.relative)), each.operator))),
        common_ratio=math.exp(changes.common),
        scatter=changes.scatter,
        # Of a difference of two alike, half of the variance is each one's.
        spread=math.hypot(changes.common, changes.scatter) / math.sqrt(2),
        disagreement=_quantile(apart, 0.5),
        median=_quantile(deviations, 0.5),
        p95=_quantile(deviations, 0.95),
        skipped=skipped,
    )


def _shift(first: Estimate, second: Estimate) -> _Shift | None:
    """Return the log ratio of two entries, or None when one has no latency."""
    halves = []
    for each in (first, second):
        if each.latency_s is None or each.ci_low_s is None or each.ci_high_s is None:
            return None
        centre = math.log(each.latency_s)
        below = centre - math.log(each.ci_low_s) if each.ci_low_s > 0 else math.inf
        halves.append((each.latency_s, below, math.log(each.ci_high_s) - centre))
    (a, a_below, a_above), (b, b_below, b_above) = halves
    return _Shift(b / a, math.log(b / a), math.hypot(b_below, a_above), math.hypot(b_above, a_below))


def environment_differences(a: Environment, b: Environment) -> tuple[Difference, ...]:
    """Return what two environments do not share, field by field; each runtime option is a field ``options.NAME``."""
    fields = []
    for each in (a, b):
        plain = each.to_json()
        plain.pop("id", None)
        options = plain.pop("options", None) or {}
        found = {name: _text(value) for name, value in plain.items()}
        fields.append(found | {f"options.{name}": _text(value) for name, value in dict(options).items()})
    names = dict.fromkeys((*fields[0], *fields[1]))
    pairs = [(name, fields[0].get(name, ""), fields[1].get(name, "")) for name in names]
    return tuple(Difference(*each) for each in pairs if each[1] != each[2])


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _quantile(ordered: Sequence[float], level: float) -> float | None:
    """Return a quantile of sorted values, linear between neighbours; None when there are none."""
    if not ordered:
        return None
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
