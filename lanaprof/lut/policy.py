"""Which of several measurements of one thing counts, how much they disagree, and what is still to measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from lanaprof.lut.records import GOOD_STATUSES, Measurement
from lanaprof.lut.store import Store

__all__ = ["Coverage", "Estimate", "Viewpoint", "choose", "coverage", "disagreement", "estimate_from"]

_RANK = {"ok": 0, "noisy": 1}  # failures after both


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewpoint:
    """Who asks: what one's own host and team measured comes first.

    Attributes:
        host: this machine's hash, as in measurements; empty when it does not matter.
        team: one's own team; empty likewise.
        environment: the key of this machine's own environment; empty when it has none or is not asked.
        wanted: operator keys that will be asked for; they decide which environment has full coverage.
    """

    host: str = ""
    team: str = ""
    environment: str = ""
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The table's entry for one operator.

    Attributes:
        latency_s: seconds; None unless status is ok or noisy, like its interval ``ci_low_s``, ``ci_high_s``.
        cache: relay, hot or cold.
        measurement: id of the measurement that counts.
        disagreement: largest over smallest latency among teams and hosts, minus 1; None when only one
            measured it.
    """

    operator: str
    status: str
    latency_s: float | None
    ci_low_s: float | None
    ci_high_s: float | None
    cache: str
    measurement: str
    team: str
    host: str
    time: str
    disagreement: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of what is wanted has been measured.

    Attributes:
        wanted: how many operators; present + failed + missing.
        present: of these, how many have a latency (ok or noisy).
        noisy: how many of the present are noisy.
        failed: how many could not be timed (failed, unsupported, timeout).
        missing: how many nobody tried.
        failed_operators: their keys, sorted.
        missing_operators: their keys, sorted.
    """

    wanted: int
    present: int
    noisy: int
    failed: int
    missing: int
    failed_operators: tuple[str, ...]
    missing_operators: tuple[str, ...]


def choose(rows: Iterable[Measurement], viewpoint: Viewpoint = Viewpoint()) -> Measurement:
    """Return the measurement that counts among those of one operator, environment, cache state and space.

    Own host first, then own team; then ok before noisy before failures, newest first, ties by id. The
    choice does not depend on the rows' order.

    Raises:
        ValueError: there are no rows.
    """
    by_id = sorted(rows, key=attrgetter("id"))
    newest_first = sorted(by_id, key=lambda row: row.time.rstrip("Z"), reverse=True)  # stable: ties by id
    return min(
        newest_first,
        key=lambda row: (
            not viewpoint.host or row.host != viewpoint.host,
            not viewpoint.team or row.team != viewpoint.team,
            _RANK.get(row.status, 2),
        ),
    )


def disagreement(rows: Iterable[Measurement]) -> float | None:
    """Return largest over smallest latency among teams and hosts, minus 1; None when only one measured.

    Each team and host is represented by its own choice.
    """
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        if row.status in GOOD_STATUSES:
            groups.setdefault((row.team, row.host), []).append(row)
    if len(groups) < 2:
        return None
    latencies_s = [
        choice.latency_s for choice in map(choose, groups.values()) if choice.latency_s is not None
    ]
    return max(latencies_s) / min(latencies_s) - 1.0


def estimate_from(rows: Sequence[Measurement], viewpoint: Viewpoint = Viewpoint()) -> Estimate:
    """Return the estimate that measurements of one operator, environment, cache state and space give."""
    best = rows[0] if len(rows) == 1 else choose(rows, viewpoint)
    return Estimate(
        operator=best.operator,
        status=best.status,
        latency_s=best.latency_s,
        ci_low_s=best.ci_low_s,
        ci_high_s=best.ci_high_s,
        cache=best.cache,
        measurement=best.id,
        team=best.team,
        host=best.host,
        time=best.time,
        disagreement=disagreement(rows) if len(rows) > 1 else None,
    )


def coverage(
    store: Store,
    wanted: Iterable[str],
    *,
    environment: str,
    cache: str,
    space: str = "",
    viewpoint: Viewpoint = Viewpoint(),
) -> Coverage:
    """Return how much of the wanted operators is measured in one environment, cache state and space.

    Failures count as done: nobody retries them unasked.

    Args:
        store: the database.
        wanted: operator keys; several times the same counts once.
        environment: environment key.
        cache: relay, hot or cold.
        space: digest of the space when cache is relay.
        viewpoint: whose measurements come first.
    """
    keys = sorted(set(wanted))
    rows: dict[str, list[Measurement]] = {}
    for row in store.measurements(environment=environment, operators=keys, cache=cache, space=space):
        rows.setdefault(row.operator, []).append(row)
    statuses = {key: choose(group, viewpoint).status for key, group in rows.items()}
    failed = tuple(key for key in keys if key in statuses and statuses[key] not in GOOD_STATUSES)
    missing = tuple(key for key in keys if key not in statuses)
    return Coverage(
        wanted=len(keys),
        present=len(keys) - len(failed) - len(missing),
        noisy=sum(status == "noisy" for status in statuses.values()),
        failed=len(failed),
        missing=len(missing),
        failed_operators=failed,
        missing_operators=missing,
    )
