"""Which of several measurements of one thing counts, how much they disagree, and what is still to measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from lanaprof.errors import BadInput
from lanaprof.lut.pooling import HALF_NORMAL, Pooled, log_error, pool
from lanaprof.lut.records import GOOD_STATUSES, STATUSES, Measurement, Timing

if TYPE_CHECKING:
    from lanaprof.lut.reading import Reader

__all__ = [
    "CAMPAIGN_SCATTER",
    "DEFAULT_POLICY",
    "POLICIES",
    "Coverage",
    "Estimate",
    "Viewpoint",
    "check_policy",
    "choose",
    "coverage",
    "disagree",
    "disagreement",
    "estimate_from",
    "estimates_from",
    "statuses_from",
    "why_it_counts",
]

POLICIES: Mapping[str, str] = {
    "own-host": "own host first, then own team, then the newest good one",
    "own-team": "own team first, then the newest good one",
    "newest": "the newest good one, whoever measured it",
    "pooled": "all good ones together, hosts weighed with what varies between them",
}
"""The policies, each with what it says."""
DEFAULT_POLICY = "own-host"
_RANK = {"ok": 0, "noisy": 1}  # failures after both
_NOISY_ABOVE = 0.10  # of the latency: half an interval wider than this is noisy, as in every protocol of ours
CAMPAIGN_SCATTER = (
    0.005  # campaigns differ by so much (1 standard deviation) whatever their intervals say: see `changes`
)


Row = Measurement | Timing
R = TypeVar("R", bound=Row)


def check_policy(text: str) -> str:
    """Return a policy's name.

    Raises:
        BadInput: there is no such policy; lists them.
    """
    if text not in POLICIES:
        raise BadInput(f"policy {text!r} is unknown", hint=f"one of {', '.join(POLICIES)}")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewpoint:
    """Who asks, and by which policy a measurement counts.

    Attributes:
        host: this machine's hash, as in measurements; empty when it does not matter.
        team: one's own team; empty likewise.
        environment: the key of this machine's own environment; empty when it has none or is not asked.
        wanted: operator keys that will be asked for; they decide which environment has full coverage.
        policy: one of `POLICIES`.

    Raises:
        BadInput: an unknown policy.
    """

    host: str = ""
    team: str = ""
    environment: str = ""
    wanted: tuple[str, ...] = ()
    policy: str = DEFAULT_POLICY

    def __post_init__(self) -> None:
        check_policy(self.policy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The table's entry for one operator.

    Attributes:
        latency_s: seconds; None unless status is ok or noisy, like its interval ``ci_low_s``, ``ci_high_s``.
        cache: relay, hot or cold.
        measurement: id of the measurement that counts; of those pooled the newest.
        team: who measured it; several, separated by commas, where it is pooled. Likewise ``host``.
        disagreement: largest over smallest latency among teams and hosts, minus 1; None when only one
            measured it.
        disagree: whether that is more than their intervals allow.
        pooled: ids of the measurements it is pooled from, sorted; empty unless there are several.
        spread: standard deviation between the pooled hosts beyond their intervals, as a share; None unless pooled.
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
    disagree: bool = False
    pooled: tuple[str, ...] = ()
    spread: float | None = None

    @property
    def measurements(self) -> tuple[str, ...]:
        """Return the ids of the measurements behind it: one, or those it is pooled from."""
        return self.pooled or (self.measurement,)


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


def choose(rows: Iterable[R], viewpoint: Viewpoint = Viewpoint()) -> R:
    """Return the measurement that counts among those of one operator, environment, cache state and space.

    As the policy says: own host first, then own team; then ok before noisy before failures, newest first, ties by id.
    ``pooled`` has one in its name only: the newest good one. The choice does not depend on the rows' order.

    Raises:
        ValueError: there are no rows.
    """
    host = viewpoint.host if viewpoint.policy == "own-host" else ""
    team = viewpoint.team if viewpoint.policy in ("own-host", "own-team") else ""
    best: R | None = None
    least = (True, True, 3)
    for row in rows:  # by hand: tables have thousands of these small groups
        rank = (not host or row.host != host, not team or row.team != team, _RANK.get(row.status, 2))
        if best is None or rank < least or (rank == least and _newer(row, best)):
            best, least = row, rank
    if best is None:
        raise ValueError("there are no rows to choose from")
    return best


def statuses_from(rows: Iterable[Row], viewpoint: Viewpoint = Viewpoint()) -> dict[str, str]:
    """Return the status that counts among measurements in one environment, by operator.

    In each cache state and space as `choose` says; of these the best: a failure in one hides no number in another.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.operator, row.cache, row.space), []).append(row)
    found: dict[str, str] = {}
    for (operator, _, _), group in groups.items():
        alike = (
            len({row.status for row in group}) == 1
        )  # nearly everywhere: then it does not matter which one counts
        status = group[0].status if alike else choose(group, viewpoint).status
        other = found.get(operator)
        if other is None or STATUSES.index(status) < STATUSES.index(other):
            found[operator] = status
    return found


def _newer(row: Row, other: Row) -> bool:
    """Return whether a row is newer than another; of two of one time the first by id is."""
    moment, others = row.time.rstrip("Z"), other.time.rstrip("Z")  # text order is then time order
    return moment > others or (moment == others and row.id < other.id)


def why_it_counts(rows: Sequence[Row], viewpoint: Viewpoint = Viewpoint()) -> str:
    """Return in words why the measurement that `choose` returns counts, or how many are pooled."""
    if len(rows) == 1:
        return "the only one"
    pooled = _to_pool(rows) if viewpoint.policy == "pooled" else []
    if len(pooled) > 1:
        hosts = len({row.host for row in pooled})
        left = len(rows) - len(pooled)
        words = f"{len(pooled)} measurements of {hosts} host{'s' if hosts > 1 else ''} are pooled"
        return words + (f"; {left} failed or of another protocol left out" if left else "")
    best = choose(rows, viewpoint)
    state = "the newest good one" if best.status == "ok" else f"the newest, {best.status}: none is better"
    if viewpoint.policy == "own-host" and viewpoint.host and best.host == viewpoint.host:
        return f"of this host, and there {state}"
    if viewpoint.policy in ("own-host", "own-team") and viewpoint.team and best.team == viewpoint.team:
        return f"of one's own team, and there {state}"
    return state


def disagreement(rows: Iterable[Row]) -> float | None:
    """Return largest over smallest latency among teams and hosts, minus 1; None when only one measured.

    Each team and host is represented by its own choice.
    """
    return _apart(rows)[0]


def disagree(rows: Iterable[Row]) -> bool:
    """Return whether the slowest and the fastest of teams and hosts differ by more than their intervals allow.

    On the log scale, at 95 %; to each interval is added what campaigns differ by anyway.
    """
    return _apart(rows)[1]


def _apart(rows: Iterable[Row]) -> tuple[float | None, bool]:
    found: dict[tuple[str, str], Row] = {}  # the choice of each team and host that has a latency
    for row in rows:
        if row.status in GOOD_STATUSES:
            key = (row.team, row.host)
            other = found.get(key)
            found[key] = row if other is None else choose((row, other))
    if len(found) < 2:
        return None, False
    ordered = sorted(found.values(), key=_latency_s)
    fastest, slowest = ordered[0], ordered[-1]
    ratio = _latency_s(slowest) / _latency_s(fastest)
    errors = [math.hypot(_log_error(row), CAMPAIGN_SCATTER) for row in (fastest, slowest)]
    return ratio - 1.0, math.log(ratio) > HALF_NORMAL * math.hypot(*errors)


def _latency_s(row: Row) -> float:
    assert row.latency_s is not None
    return row.latency_s


def _log_error(row: Row) -> float:
    assert row.ci_low_s is not None
    assert row.ci_high_s is not None
    return log_error(row.ci_low_s, _latency_s(row), row.ci_high_s)


def estimate_from(rows: Sequence[Row], viewpoint: Viewpoint = Viewpoint()) -> Estimate:
    """Return the estimate that measurements of one operator, environment, cache state and space give."""
    return estimates_from([rows], viewpoint)[0]


def estimates_from(
    groups: Sequence[Sequence[Row]], viewpoint: Viewpoint = Viewpoint(), *, disagreement: bool = True
) -> list[Estimate]:
    """Return one estimate per group of measurements: what `estimate_from` does, for a whole table at once.

    Without ``disagreement`` it is not looked for where one measurement counts: that takes as long as the rest.
    """
    if viewpoint.policy != "pooled":
        return [
            _chosen(rows, rows[0] if len(rows) == 1 else choose(rows, viewpoint), disagreement=disagreement)
            for rows in groups
        ]
    kept = [_to_pool(rows) for rows in groups]
    pooled = iter(pool([rows for rows in kept if len(rows) > 1]) if any(len(r) > 1 for r in kept) else ())
    return [
        _pooled(rows, several, next(pooled)) if len(several) > 1 else _chosen(rows, choose(rows, viewpoint))
        for rows, several in zip(groups, kept, strict=True)
    ]


def _to_pool(rows: Sequence[R]) -> list[R]:
    """Return the rows with a latency, sorted by id: those of one protocol, because another means another thing."""
    good = [row for row in rows if row.status in GOOD_STATUSES]
    if len({row.protocol for row in good}) > 1:
        protocol = choose(good).protocol
        good = [row for row in good if row.protocol == protocol]
    return sorted(good, key=attrgetter("id"))


def _chosen(rows: Sequence[Row], best: Row, *, disagreement: bool = True) -> Estimate:
    distance, apart = _apart(rows) if disagreement and len(rows) > 1 else (None, False)
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
        disagreement=distance,
        disagree=apart,
    )


def _pooled(rows: Sequence[Row], several: Sequence[Row], found: Pooled) -> Estimate:
    newest = choose(several)
    distance, apart = _apart(rows)
    half = (found.ci_high_s - found.ci_low_s) / 2 / found.latency_s
    return Estimate(
        operator=newest.operator,
        status="noisy" if half > _NOISY_ABOVE else "ok",
        latency_s=found.latency_s,
        ci_low_s=found.ci_low_s,
        ci_high_s=found.ci_high_s,
        cache=newest.cache,
        measurement=newest.id,
        team=", ".join(sorted({row.team for row in several})),
        host=", ".join(sorted({row.host for row in several})),
        time=newest.time,
        disagreement=distance,
        disagree=apart,
        pooled=tuple(row.id for row in several),
        spread=found.spread,
    )


def coverage(
    store: Reader,
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
    rows: dict[str, list[Row]] = {}
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
