"""Reading the database: operators, environments and measurements. `lanaprof.lut.store.Store` adds the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Engine, func, not_, select
from sqlalchemy.engine import Connection

from lanaprof.errors import BadInput, MissingMeasurement
from lanaprof.lut.adding import chunked
from lanaprof.lut.engine import Location, repeating, translated_errors
from lanaprof.lut.graph import GraphStatistics
from lanaprof.lut.models import TABLES
from lanaprof.lut.queries import kept, since_condition, standing_in, visible_retraction
from lanaprof.lut.records import Environment, Measurement, Operator, Record, Retraction, Timing
from lanaprof.lut.rows import columns_of, record_from_row

__all__ = ["Holding", "Reader"]

_FETCH = 2_000  # rows read at a time while streaming
R = TypeVar("R", bound=Record)
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a database holds for one environment, cache state and space; retracted rows are not counted.

    Attributes:
        operators: operators with at least one row.
        statuses: (status, measurements), sorted.
        newest: time of the newest measurement.
    """

    environment: str
    cache: str
    space: str
    operators: int
    statuses: tuple[tuple[str, int], ...]
    teams: tuple[str, ...]
    newest: str


class Reader:
    """An open database, and what can be asked about operators, environments and measurements in it."""

    def __init__(self, engine: Engine, location: Location) -> None:
        self._engine = engine
        self._location = location

    @property
    def name(self) -> str:
        """The path or URL, without a password, for messages."""
        return self._location.shown

    @property
    def url(self) -> str:
        """What `open_store` takes to open the same database again, from any folder, a password included."""
        if self._location.path is not None:
            return str(self._location.path.absolute())
        return self._location.url.render_as_string(hide_password=False)

    @property
    def path(self) -> Path | None:
        """The SQLite file; None for a server."""
        return self._location.path

    # Operators and environments

    def find_operator(self, key: str) -> Operator | None:
        """Return an operator, or None."""
        return next(iter(self._select(Operator, TABLES["operator"].c.id == key)), None)

    def get_operator(self, key: str) -> Operator:
        """Return an operator.

        Raises:
            MissingMeasurement: the database has no such operator.
        """
        operator = self.find_operator(key)
        if operator is None:
            raise MissingMeasurement(
                f"the database {self.name} has no operator {key}",
                hint="`lanaprof measure --plan` stores a project's operators",
            )
        return operator

    def operator_keys(self) -> tuple[str, ...]:
        """Return the keys of all operators, sorted."""
        table = TABLES["operator"]
        return tuple(row[0] for row in self._rows(select(table.c.id).order_by(table.c.id)))

    def iter_operators(self, keys: Iterable[str] | None = None) -> Iterator[Operator]:
        """Yield operators sorted by key; absent ones are left out."""
        if keys is None:
            yield from self._iter(Operator)
            return
        for chunk in chunked(sorted(set(keys))):
            yield from self._select(Operator, TABLES["operator"].c.id.in_(chunk))

    def operator_statistics(self, keys: Iterable[str] | None = None) -> dict[str, GraphStatistics]:
        """Return the statistics of operators (None: of all) by key; absent ones are left out."""
        names = list(GraphStatistics.__slots__)
        rows = self._operator_columns(names, keys)
        return {row[0]: GraphStatistics(**dict(zip(names, row[1:], strict=True))) for row in rows}

    def operator_descriptions(self, keys: Iterable[str] | None = None) -> dict[str, str]:
        """Return one line for people per operator (None: all) by key; absent ones are left out."""
        return {row[0]: row[1] for row in self._operator_columns(["description"], keys)}

    def environments(self) -> tuple[Environment, ...]:
        """Return all environments, sorted by key."""
        return self._select(Environment)

    def get_environment(self, key: str) -> Environment:
        """Return the environment with this key, or the only one whose key starts so.

        Raises:
            BadInput: none, or several; the message lists what is there.
        """
        table = TABLES["environment"]
        found = self._select(Environment, table.c.id.startswith(key.lower(), autoescape=True)) if key else ()
        if len(found) == 1:
            return found[0]
        there = found or self.environments()
        listed = "; ".join(
            f"{each.id[:12]} ({each.gpu_model or each.cpu_model}, {each.backend})" for each in there
        )
        problem = "stands for several environments" if found else "is not the key of an environment"
        raise BadInput(
            f"{key!r} {problem} in {self.name}, which has {listed or 'none'}",
            hint="give more digits of one of these" if there else "lanaprof measure --device DEVICE",
        )

    # Measurements

    def measurements(
        self,
        *,
        environment: str | None = None,
        operators: Iterable[str] | None = None,
        cache: str | None = None,
        space: str | None = None,
        protocol: str | None = None,
        team: str | None = None,
        since: str | None = None,
        with_samples: bool = False,
    ) -> tuple[Measurement, ...]:
        """Return the measurements that stand (their team has not retracted them), sorted by id.

        Args:
            environment: environment key.
            operators: operator keys.
            cache: relay, hot or cold.
            space: digest of the space; empty for rows of no space.
            protocol: such as ``relay/1``.
            team: who measured.
            since: from this UTC time or date on.
            with_samples: without, ``samples`` and ``rounds`` are empty, and the record cannot be added to
                another database; it keeps its id.
        """
        table = TABLES["measurement"]
        given = {
            "environment": environment,
            "cache": cache,
            "space": space,
            "protocol": protocol,
            "team": team,
        }
        conditions = [kept(), *(table.c[name] == value for name, value in given.items() if value is not None)]
        if since:
            conditions.append(since_condition(table.c.time, since))
        wanted = None if operators is None else set(operators)
        if wanted is not None and len(wanted) <= 500:  # more are sooner picked from all rows
            conditions.append(table.c.operator.in_(wanted))
        found = self._select(Measurement, *conditions, with_samples=with_samples)
        return found if wanted is None else tuple(each for each in found if each.operator in wanted)

    def timings(
        self,
        environment: str,
        *,
        cache: str | None = None,
        team: str | None = None,
        since: str | None = None,
        protocol: str | None = None,
    ) -> list[Timing]:
        """Return what policies need of the measurements in one environment that stand, in no order.

        Args:
            environment: environment key.
            cache: relay, hot or cold.
            team: who measured.
            since: from this UTC time or date on.
            protocol: such as ``relay/1``.
        """
        table = TABLES["measurement"]
        stands = standing_in(environment, cache=cache, team=team, since=since, protocol=protocol)
        query = select(*(table.c[name] for name in Timing._fields)).where(stands)

        def read(connection: Connection) -> list[Timing]:
            # The driver's own rows: texts and numbers need no conversion, and SQLAlchemy's take longer than reading.
            rows: Any = connection.execute(query).cursor
            return list(map(Timing._make, rows))

        return self._read(read)

    def has_measurements(self, operators: Iterable[str]) -> bool:
        """Return whether any of these operators was measured, anywhere; retracted rows do not count."""
        column = TABLES["measurement"].c.operator
        queries = (
            select(column).where(kept(), column.in_(chunk)).limit(1)
            for chunk in chunked(sorted(set(operators)))
        )
        return any(self._rows(query) for query in queries)

    def measured_operators(
        self, environments: Iterable[str], *, cache: str | None = None, space: str | None = None
    ) -> dict[str, dict[str, str]]:
        """Return, per environment that has any, the operators measured there and the time of the newest row.

        Args:
            environments: environment keys.
            cache: only rows of this cache state.
            space: only rows of this space and of none.
        """
        table = TABLES["measurement"]
        conditions = [kept(), table.c.environment.in_(sorted(set(environments)))]
        if cache is not None:
            conditions.append(table.c.cache == cache)
        if space is not None:
            conditions.append(table.c.space.in_(("", space)))
        query = select(table.c.environment, table.c.operator, func.max(func.rtrim(table.c.time, "Z")))
        found: dict[str, dict[str, str]] = {}
        for environment, operator, time in self._rows(
            query.where(*conditions).group_by(table.c.environment, table.c.operator)
        ):
            found.setdefault(environment, {})[operator] = f"{time}Z"
        return found

    def used_environments(
        self,
        among: Iterable[str] | None = None,
        *,
        cache: str | None = None,
        space: str | None = None,
        team: str | None = None,
    ) -> set[str]:
        """Return the environments in which anything was measured that stands; sooner known than what it is.

        Args:
            among: environment keys; None for all.
            cache: only rows of this cache state.
            space: only rows of this space and of none.
            team: who measured; empty for anybody.
        """
        table, environments = TABLES["measurement"], TABLES["environment"]
        conditions = [kept(), table.c.environment == environments.c.id]
        conditions += [table.c[name] == value for name, value in (("cache", cache), ("team", team)) if value]
        if space is not None:
            conditions.append(table.c.space.in_(("", space)))
        query = select(environments.c.id).where(select(table.c.id).where(*conditions).exists())
        if among is not None:
            query = query.where(environments.c.id.in_(sorted(set(among))))
        return {row[0] for row in self._rows(query)}

    def find_measurements(self, ids: Iterable[str], *, with_samples: bool = True) -> dict[str, Measurement]:
        """Return measurements by id, retracted ones too; absent ones are left out."""
        return {
            each.id: each
            for chunk in chunked(sorted(set(ids)))
            for each in self._select(
                Measurement, TABLES["measurement"].c.id.in_(chunk), with_samples=with_samples
            )
        }

    def measurement_ids(self, prefix: str) -> tuple[str, ...]:
        """Return the ids of measurements that start so, retracted ones too, sorted."""
        table = TABLES["measurement"]
        start = prefix.lower()  # SQLite would find capitals too, a server would not
        query = select(table.c.id).where(table.c.id.startswith(start, autoescape=True)).order_by(table.c.id)
        return tuple(row[0] for row in self._rows(query))

    def retractions(self) -> tuple[Retraction, ...]:
        """Return all retractions, sorted by id, but those of other teams' measurements, which are void."""
        return self._select(Retraction, visible_retraction())

    def retracted(self, ids: Iterable[str]) -> set[str]:
        """Return which of these measurements their own team has retracted."""
        table = TABLES["measurement"]
        queries = (
            select(table.c.id).where(table.c.id.in_(chunk), not_(kept()))
            for chunk in chunked(sorted(set(ids)))
        )
        return {row[0] for query in queries for row in self._rows(query)}

    def holdings(self) -> tuple[Holding, ...]:
        """Return what is measured, per environment, cache state and space, sorted by these."""
        table = TABLES["measurement"]
        group = (table.c.environment, table.c.cache, table.c.space)
        condition = kept()
        operators = select(*group, func.count(table.c.operator.distinct()), func.max(table.c.time))
        detail = (*group, table.c.status, table.c.team)
        first = operators.where(condition).group_by(*group).order_by(*group)
        second = select(*detail, func.count()).where(condition).group_by(*detail)
        sums, parts = self._read(
            lambda connection: [connection.execute(each).all() for each in (first, second)]
        )
        statuses: dict[tuple[str, ...], dict[str, int]] = {}
        teams: dict[tuple[str, ...], set[str]] = {}
        for *key, status, team, count in parts:
            of_status = statuses.setdefault(tuple(key), {})
            of_status[status] = of_status.get(status, 0) + count
            teams.setdefault(tuple(key), set()).add(team)
        return tuple(
            Holding(
                environment=row[0],
                cache=row[1],
                space=row[2],
                operators=row[3],
                statuses=tuple(sorted(statuses[row[0], row[1], row[2]].items())),
                teams=tuple(sorted(teams[row[0], row[1], row[2]])),
                newest=row[4],
            )
            for row in sums
        )

    # Inside

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated_errors(self._location), self._engine.connect() as connection:
            yield connection

    def _read(self, work: Callable[[Connection], T]) -> T:
        """Return what the work returns of one state; it may be done again when a connection is lost."""

        def read() -> T:
            with self._engine.connect() as connection:
                return work(connection)

        with translated_errors(self._location):
            return repeating(self._location, read)

    def _rows(self, query: Any) -> list[Any]:
        return self._read(lambda connection: list(connection.execute(query)))

    def _select(
        self, cls: type[R], *conditions: ColumnElement[bool], with_samples: bool = True
    ) -> tuple[R, ...]:
        query = select(*columns_of(cls, with_samples=with_samples)).where(*conditions)
        rows = self._rows(query.order_by(TABLES[cls.record].c.id))
        return tuple(record_from_row(cls, row, with_samples=with_samples) for row in rows)

    def _iter(
        self, cls: type[R], *conditions: ColumnElement[bool], connection: Connection | None = None
    ) -> Iterator[R]:
        if connection is None:
            with self._reading() as opened:
                yield from self._iter(cls, *conditions, connection=opened)
            return
        query = select(*columns_of(cls)).where(*conditions).order_by(TABLES[cls.record].c.id)
        for row in connection.execution_options(yield_per=_FETCH).execute(query):
            yield record_from_row(cls, row)

    def _operator_columns(self, names: list[str], keys: Iterable[str] | None) -> list[Any]:
        table = TABLES["operator"]
        query = select(table.c.id, *(table.c[name] for name in names)).order_by(table.c.id)
        if keys is None:
            return self._rows(query)
        chunks = chunked(sorted(set(keys)))
        return [row for chunk in chunks for row in self._rows(query.where(table.c.id.in_(chunk)))]
