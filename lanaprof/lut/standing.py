"""What stands in each environment of a large database, kept up to date: only what changed is read again."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.lut.garbage import seldom_collecting
from lanaprof.lut.policy import Viewpoint
from lanaprof.lut.reading import Holding
from lanaprof.lut.records import STATUSES, Environment
from lanaprof.lut.store import Store
from lanaprof.lut.watching import Mark, OperatorSum, TeamSum

__all__ = ["Standing", "Standings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The measurements of one environment that stand, summed up.

    Attributes:
        holdings: per cache state and space, sorted by these.
        statuses: the status that counts, by operator, as `statuses_from` finds it; of several failures any.
        states: per cache state and space the best status of anybody, by operator.
        newest: time of the newest measurement, by operator.
    """

    holdings: tuple[Holding, ...]
    statuses: Mapping[str, str]
    states: Mapping[tuple[str, str], Mapping[str, str]]
    newest: Mapping[str, str]


class Standings:
    """What stands in every environment.

    All methods may be called from several threads at once. `look` brings it up to date; the others tell what was found
    then, and read nothing.

    Args:
        store: the database.
        viewpoint: whose measurements come first.
        cache: only measurements in this cache state; likewise what follows, as `Store.timings` takes it.
        team: who measured.
        since: from this UTC time or date on.
        protocol: such as ``relay/1``.
        clock: seconds, from any beginning.
    """

    def __init__(
        self,
        store: Store,
        viewpoint: Viewpoint,
        *,
        cache: str | None = None,
        team: str = "",
        since: str = "",
        protocol: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._viewpoint = viewpoint
        self._filter: Mapping[str, Any] = {"cache": cache, "team": team, "since": since, "protocol": protocol}
        self._clock = clock
        self._lock = threading.Lock()
        self._mark: Mark | None = None
        self._pending: set[str] = set()
        self._found: dict[str, Standing] = {}
        self._versions: Counter[str] = Counter()
        self._whole_s = 0.0  # never

    @property
    def name(self) -> str:
        """The database's name, for messages."""
        return self._store.name

    def environments(self) -> tuple[Environment, ...]:
        """Return all environments, sorted by key; they are read."""
        return self._store.environments()

    @property
    def pending(self) -> int:
        """How many environments are to be read again: what is told of them is as old as ``whole_s``."""
        return len(self._pending)

    @property
    def whole_s(self) -> float:
        """When all that is told was last up to date, in seconds since 1970."""
        return self._whole_s

    def look(self, limit_s: float = 0.1) -> None:
        """Find out what changed and read it again, for about so long; what is left then waits for the next look.

        The first look reads everything. While somebody looks, others are told what was found before.

        Args:
            limit_s: at least one environment is read, however long it takes.
        """
        first = not self._whole_s  # nothing to tell yet: wait for whoever is at it
        if not self._lock.acquire(blocking=first):
            return
        try:
            began_s = self._clock()
            mark, changed = self._store.changes(self._mark)
            if changed is None:  # the first look, or it is another database than it was
                changed = {*self._store.used_environments(), *self._found}
            self._pending |= changed
            self._mark = mark
            for environment in sorted(self._pending):
                self._read(environment)
                if not first and self._clock() - began_s >= limit_s:
                    break
            if not self._pending:
                self._whole_s = time.time()
        finally:
            self._lock.release()

    def _read(self, environment: str) -> None:
        with seldom_collecting():
            operators, teams = self._store.sums(environment, self._viewpoint, **self._filter)
            found = dict(self._found)  # others may be looking at the one before
            if operators:
                found[environment] = _standing(environment, operators, teams)
            else:
                found.pop(environment, None)
        self._found = found
        self._versions[environment] += 1
        self._pending.discard(environment)

    def version(self, environment: str) -> int | None:
        """Return a number that grows when measurements of an environment come or go; None while they are to be read."""
        return None if environment in self._pending else self._versions[environment]

    def holdings(self) -> tuple[Holding, ...]:
        """Return what `Store.holdings` returns."""
        found = self._found
        return tuple(holding for key in sorted(found) for holding in found[key].holdings)

    def used_environments(
        self, among: Iterable[str] | None = None, *, cache: str | None = None, space: str | None = None
    ) -> set[str]:
        """Return what `Store.used_environments` returns."""
        if cache is not None or space is not None:
            return self._store.used_environments(among, cache=cache, space=space)
        found = self._found.keys()
        return set(found) if among is None else set(among) & found

    def measured_operators(
        self, environments: Iterable[str], *, cache: str | None = None, space: str | None = None
    ) -> Mapping[str, Mapping[str, str]]:
        """Return what `Store.measured_operators` returns."""
        if cache is not None or space is not None:
            return self._store.measured_operators(environments, cache=cache, space=space)
        found = self._found
        return {key: found[key].newest for key in environments if key in found}

    def statuses(self, environment: str) -> Mapping[str, str]:
        """Return the status that counts in an environment, by operator."""
        found = self._found.get(environment)
        return found.statuses if found is not None else {}

    def states(self, environment: str, cache: str, space: str) -> Mapping[str, str]:
        """Return the best status of anybody in an environment, cache state and space, by operator."""
        found = self._found.get(environment)
        return found.states.get((cache, space), {}) if found is not None else {}


def _standing(environment: str, operators: Sequence[OperatorSum], teams: Sequence[TeamSum]) -> Standing:
    counts: dict[str, int] = {}
    newest: dict[str, str] = {}
    states: dict[tuple[str, str], dict[str, str]] = {}
    for each in operators:
        key = sys.intern(each.operator)  # the same ones are in every environment
        status = each.status % 10
        if status < counts.get(key, len(STATUSES)):
            counts[key] = status
        if each.newest > newest.get(key, ""):
            newest[key] = each.newest
        states.setdefault((each.cache, each.space), {})[key] = STATUSES[each.best]
    return Standing(
        holdings=tuple(_holding(environment, key, len(states[key]), teams) for key in sorted(states)),
        statuses={key: STATUSES[status] for key, status in counts.items()},
        states=states,
        newest={key: sys.intern(f"{moment}Z") for key, moment in newest.items()},
    )


def _holding(environment: str, state: tuple[str, str], operators: int, teams: Sequence[TeamSum]) -> Holding:
    own = [each for each in teams if (each.cache, each.space) == state]
    statuses: Counter[str] = Counter()
    for each in own:
        statuses[each.status] += each.measurements
    return Holding(
        environment=environment, cache=state[0], space=state[1], operators=operators,
        statuses=tuple(sorted(statuses.items())), teams=tuple(sorted({each.team for each in own})),
        newest=max(each.newest for each in own),
    )  # fmt: skip
