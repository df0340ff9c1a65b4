"""What pages ask of a large database: groups and ratios by index, never whole tables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from sqlalchemy import ColumnElement, and_, func, or_, select

from lanaprof.lut.adding import chunked
from lanaprof.lut.models import TABLES
from lanaprof.lut.queries import kept
from lanaprof.lut.reading import Reader
from lanaprof.lut.records import FRONTIER, GOOD_STATUSES, Selection

__all__ = ["SelectionGroup", "SharedRatio", "Surveyor"]

_POINTS_MOST = 5_000  # selections of one group that are read
_SCORES_MOST = 100_000  # scores of one teacher


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionGroup:
    """Selections of one teacher, space and device that have a score and a latency.

    Attributes:
        frontier: whether they are the points of one stored frontier; else what was selected.
        environment, team: of the frontier; empty for what was selected, anywhere and by anybody.
        time: when the frontier was stored; of selections the newest one's.
        count: how many there are.
        size: of their choices as text, in characters: what reading them takes.
    """

    teacher: str
    space: str
    device: str
    frontier: bool
    environment: str
    team: str
    time: str
    count: int
    size: int


@dataclass(frozen=True, slots=True)
class SharedRatio:
    """The median ratio of latencies in two environments over ``operators`` of those measured in both."""

    ratio: float
    operators: int


class Surveyor(Reader):
    """An open database, and what pages ask of it."""

    def operator_ids(self, text: str, *, after: str = "", limit: int) -> list[str]:
        """Return the first keys behind a key of operators whose description holds a text, or whose key begins with it.

        Args:
            text: small and capital letters are alike; empty for all operators.
            after: the last key of the page before.
            limit: how many at most.
        """
        table, words = TABLES["operator"], text.lower()
        query = select(table.c.id).where(table.c.id > after).order_by(table.c.id).limit(limit)
        if words:
            said = func.lower(table.c.description).contains(words, autoescape=True)
            query = query.where(or_(said, table.c.id.startswith(words, autoescape=True)))
        return [row[0] for row in self._rows(query)]

    def measurement_ids_in(
        self,
        environment: str,
        *,
        status: str = "",
        cache: str = "",
        team: str = "",
        after: str = "",
        limit: int,
    ) -> list[str]:
        """Return the first ids behind an id of measurements in an environment, retracted ones too.

        Args:
            environment: environment key.
            status: ok, noisy, failed, unsupported or timeout; empty for any, like what follows.
            cache: relay, hot or cold.
            team: who measured.
            after: the last id of the page before.
            limit: how many at most.
        """
        table = TABLES["measurement"]
        given = {"status": status, "cache": cache, "team": team}
        conditions = [table.c.environment == environment, table.c.id > after]
        conditions += [table.c[name] == value for name, value in given.items() if value]
        query = select(table.c.id).where(*conditions).order_by(table.c.id).limit(limit)
        return [row[0] for row in self._rows(query)]

    def shared_ratio(
        self, a: str, b: str, states: Iterable[tuple[str, str]], *, most: int = 100
    ) -> SharedRatio | None:
        """Return how latencies in environment ``b`` compare with those in ``a``, from some of the operators in both.

        The first operators by key are looked at. A key is a digest, so they are a sample that knows nothing of latency.

        Args:
            a: environment key.
            b: environment key.
            states: (cache state, space) in which both were measured.
            most: operators that are looked at in each state.

        Returns:
            None when no operator was timed in both.
        """
        ratios = []
        for cache, space in states:
            first = self._latencies(a, cache, space, most=most)
            second = self._latencies(b, cache, space, among=first)
            ratios += [second[key] / first[key] for key in second]
        return SharedRatio(median(ratios), len(ratios)) if ratios else None

    def _latencies(
        self, environment: str, cache: str, space: str, *, most: int = 0, among: Iterable[str] | None = None
    ) -> dict[str, float]:
        """Return the newest latency by operator: of the first ones by key, or of those named."""
        table = TABLES["measurement"]
        within = [
            kept(), table.c.environment == environment, table.c.cache == cache, table.c.space == space,
            table.c.status.in_(GOOD_STATUSES),
        ]  # fmt: skip
        if among is None:
            keys = select(table.c.operator).where(*within).distinct().order_by(table.c.operator).limit(most)
            among = [row[0] for row in self._rows(keys)]
        found: dict[str, float] = {}
        for chunk in chunked(sorted(among)):
            query = select(table.c.operator, table.c.latency_s).where(*within, table.c.operator.in_(chunk))
            found.update((row[0], row[1]) for row in self._rows(query.order_by(table.c.time, table.c.id)))
        return found

    def score_sets(self, teacher: str) -> list[dict[tuple[str, str], float]]:
        """Return scores of a teacher's candidates by (layer, operation): a set per metric and data, the newest first.

        The newest score of each candidate counts.
        """
        table = TABLES["score"]
        columns = (table.c[name] for name in ("metric", "data", "layer", "operation", "score"))
        query = select(*columns).where(table.c.teacher == teacher).order_by(table.c.time, table.c.id)
        sets: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
        for metric, data, layer, operation, score in self._rows(query.limit(_SCORES_MOST)):
            scores = sets.pop((metric, data), {})  # put back as the last: the newest
            scores[layer, operation] = score
            sets[metric, data] = scores
        return list(reversed(sets.values()))

    def selection_groups(self) -> tuple[SelectionGroup, ...]:
        """Return what can be explored: stored frontiers, the newest first, then selections, the most first."""
        table = TABLES["selection"]
        shared = (table.c.teacher, table.c.space, table.c.device)
        one = (*shared, table.c.environment, table.c.team, table.c.time)
        sums = func.count(), func.sum(func.length(table.c.choices))
        frontiers = select(*one, *sums).where(_drawable(), table.c.status == FRONTIER).group_by(*one)
        chosen = select(*shared, func.max(table.c.time), *sums)
        chosen = chosen.where(_drawable(), table.c.status != FRONTIER).group_by(*shared)
        found = [
            SelectionGroup(
                teacher=row[0], space=row[1], device=row[2], frontier=True, environment=row[3], team=row[4],
                time=row[5], count=row[6], size=int(row[7]),
            )
            for row in self._rows(frontiers)
        ]  # fmt: skip
        found.sort(key=lambda each: (each.time.rstrip("Z"), each.count), reverse=True)
        groups = [
            SelectionGroup(
                teacher=row[0], space=row[1], device=row[2], frontier=False, environment="", team="",
                time=row[3], count=row[4], size=int(row[5]),
            )
            for row in self._rows(chosen)
        ]  # fmt: skip
        groups.sort(key=lambda each: (-each.count, each.device, each.space, each.teacher))
        return (*found, *groups)

    def selections_of(self, group: SelectionGroup) -> tuple[Selection, ...]:
        """Return the selections of a group, sorted by id."""
        table = TABLES["selection"]
        names = ["teacher", "space", "device"]
        conditions = [_drawable(), (table.c.status == FRONTIER) == group.frontier]
        if group.frontier:
            names += ["environment", "team", "time"]
        conditions += [table.c[name] == getattr(group, name) for name in names]
        ids = select(table.c.id).where(*conditions).order_by(table.c.id).limit(_POINTS_MOST)
        return self._select(Selection, table.c.id.in_(ids))


def _drawable() -> ColumnElement[bool]:
    """Return whether a selection has a score and a latency, so that it has a place on a chart."""
    table = TABLES["selection"]
    timed = or_(table.c.measured_s.is_not(None), table.c.predicted_s.is_not(None))
    return and_(table.c.score.is_not(None), timed)
