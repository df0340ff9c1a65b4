"""In which environments something changed since one last looked, and the sums of one environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, case, func, select, text
from sqlalchemy.engine import Connection

from lanaprof.lut.models import TABLES
from lanaprof.lut.policy import Viewpoint
from lanaprof.lut.queries import standing_in
from lanaprof.lut.reading import Reader
from lanaprof.lut.records import STATUSES

__all__ = ["Mark", "OperatorSum", "TeamSum", "Watcher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How far a database had come.

    Attributes:
        measurements, retractions: in a file: the last row of each; rows are only ever appended.
        snapshot: on a server: which transactions were done.
        counts: on a server, where they may end in another order than they began: measurements and how many of them are
            retracted, by environment. Both only grow.
    """

    measurements: int = 0
    retractions: int = 0
    snapshot: str = ""
    counts: Mapping[str, tuple[int, int]] = field(default_factory=dict)


class OperatorSum(NamedTuple):
    """What stands of one operator in a cache state and space.

    ``status`` is the number in `STATUSES` of the one that counts, 10 or 20 more where it is another team's or another
    host's; ``best`` that of the best one; ``newest`` the time of the newest, without its Z.
    """

    cache: str
    space: str
    operator: str
    status: int
    best: int
    newest: str


class TeamSum(NamedTuple):
    """How many measurements of one status a team has in a cache state and space, and the time of the newest."""

    cache: str
    space: str
    status: str
    team: str
    measurements: int
    newest: str


# `NOT INDEXED`: SQLite would rather read the whole index by environment than the last rows.
_LAST = "SELECT coalesce((SELECT max(rowid) FROM measurements), 0), coalesce((SELECT max(rowid) FROM retractions), 0)"
_ARRIVED = "SELECT environment FROM measurements NOT INDEXED WHERE rowid > :last"
_TAKEN_BACK = (
    "SELECT m.environment FROM retractions r NOT INDEXED CROSS JOIN measurements m ON m.id = r.target "
    "WHERE r.rowid > :last"
)
_SNAPSHOT = "SELECT pg_current_snapshot()::text"
_COUNTS = "SELECT environment, count(*) FROM measurements GROUP BY environment"
_RETRACTED = (
    "SELECT m.environment, count(*) FROM retractions r JOIN measurements m ON m.id = r.target AND m.team = r.team "
    "GROUP BY m.environment"
)


class Watcher(Reader):
    """An open database, and what changed in it."""

    def changes(self, since: Mark | None) -> tuple[Mark, set[str] | None]:
        """Return how far the database is, and in which environments measurements came or were retracted since a mark.

        Args:
            since: what an earlier call returned; None for the first.

        Returns:
            None for the environments: nothing is known, all of them may have changed.
        """
        return self._read(lambda connection: _changes(connection, since, file=self.path is not None))

    def sums(
        self,
        environment: str,
        viewpoint: Viewpoint,
        *,
        cache: str | None = None,
        team: str = "",
        since: str = "",
        protocol: str = "",
    ) -> tuple[list[OperatorSum], list[TeamSum]]:
        """Return the measurements of one environment that stand, summed up by the database, from its index alone.

        Args:
            environment: environment key.
            viewpoint: whose measurements come first.
            cache: only measurements in this cache state; likewise what follows.
            team: who measured.
            since: from this UTC time or date on.
            protocol: such as ``relay/1``.
        """
        table = TABLES["measurement"]
        stands = standing_in(environment, cache=cache, team=team, since=since, protocol=protocol)
        best = case(*((table.c.status == name, number) for number, name in enumerate(STATUSES)))
        rank: ColumnElement[int] = best
        if viewpoint.policy == "own-host" and viewpoint.host:
            rank = rank + case((table.c.host == viewpoint.host, 0), else_=20)
        if viewpoint.policy in ("own-host", "own-team") and viewpoint.team:
            rank = rank + case((table.c.team == viewpoint.team, 0), else_=10)
        state = (table.c.cache, table.c.space)
        one, many = (*state, table.c.operator), (*state, table.c.status, table.c.team)
        newest = func.max(func.rtrim(table.c.time, "Z"))
        queries = (
            select(*one, func.min(rank), func.min(best), newest).where(stands).group_by(*one),
            select(*many, func.count(), func.max(table.c.time)).where(stands).group_by(*many),
        )

        def read(connection: Connection) -> tuple[list[OperatorSum], list[TeamSum]]:
            rows: Any = connection.execute(queries[0]).cursor  # the driver's own: nothing needs conversion
            operators = list(map(OperatorSum._make, rows))
            return operators, list(map(TeamSum._make, connection.execute(queries[1])))

        return self._read(read)


def _changes(connection: Connection, since: Mark | None, *, file: bool) -> tuple[Mark, set[str] | None]:
    return _changes_of_file(connection, since) if file else _changes_on_server(connection, since)


def _changes_of_file(connection: Connection, since: Mark | None) -> tuple[Mark, set[str] | None]:
    measurements, retractions = connection.execute(text(_LAST)).one()
    mark = Mark(measurements=measurements, retractions=retractions)
    if since is None or measurements < since.measurements or retractions < since.retractions:
        return mark, None
    changed: set[str] = set()
    if measurements > since.measurements:
        changed.update(connection.execute(text(_ARRIVED), {"last": since.measurements}).scalars())
    if retractions > since.retractions:
        changed.update(connection.execute(text(_TAKEN_BACK), {"last": since.retractions}).scalars())
    return mark, changed


def _changes_on_server(connection: Connection, since: Mark | None) -> tuple[Mark, set[str] | None]:
    snapshot: str = connection.execute(text(_SNAPSHOT)).scalar_one()
    if since is not None and snapshot == since.snapshot:
        return since, set()
    retracted = {row[0]: row[1] for row in connection.execute(text(_RETRACTED))}
    counts = {row[0]: (row[1], retracted.get(row[0], 0)) for row in connection.execute(text(_COUNTS))}
    mark = Mark(snapshot=snapshot, counts=counts)
    if since is None or any(counts.get(key, (0, 0)) < before for key, before in since.counts.items()):
        return mark, None
    return mark, {key for key, found in counts.items() if found != since.counts.get(key)}
