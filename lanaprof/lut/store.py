"""The store: the only place that opens sessions on the database. It takes and returns records, never rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from sqlalchemy import ColumnElement, Engine, func, select
from sqlalchemy.engine import Connection

from lanaprof.errors import BadInput, MissingMeasurement, UnknownSelection
from lanaprof.lut.adding import AddReport, Refusal, add_records, chunked
from lanaprof.lut.engine import Location, locate, translated_errors, writing
from lanaprof.lut.graph import GraphStatistics
from lanaprof.lut.models import TABLES
from lanaprof.lut.queries import (
    RecordFilter,
    kept,
    since_condition,
    visible_retraction,
    within,
)
from lanaprof.lut.records import (
    RECORD_TYPES,
    Calibration,
    Environment,
    Measurement,
    Operator,
    Recipe,
    Record,
    Retraction,
    Score,
    Selection,
    utc_now,
)
from lanaprof.lut.rows import columns_of, record_from_row
from lanaprof.lut.schema import demand_head, open_engine

__all__ = ["AddReport", "Holding", "RecordFilter", "Refusal", "Store", "open_store"]

_TRANSACTION = 10_000  # records in one transaction: bounds how long other writers wait
_FETCH = 2_000  # rows read at a time while streaming
R = TypeVar("R", bound=Record)


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


def open_store(
    database: str | Path, *, create: bool = False, must_be_head: bool = True, readonly: bool = False
) -> Store:
    """Return an open store; use it in a ``with`` statement, or close it.

    Args:
        database: a path (SQLite) or a URL (``sqlite:///FILE``, ``postgresql://…``).
        create: make a missing database, by running the migrations.
        must_be_head: refuse a schema other than this program's. Opening never migrates.
        readonly: refuse to write.

    Raises:
        StoreError: absent (the hint says what creates one), not a database of ours, not reachable.
        SchemaMismatch: the schema is older (the hint is the command to type) or newer than this program.
    """
    location = locate(database)
    engine = open_engine(location, create=create, readonly=readonly)
    try:
        with translated_errors(location):
            if must_be_head:
                demand_head(engine, location)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, location)


class Store:
    """The latency database. All methods may be called from several threads and processes at once.

    Every method raises StoreError when the database fails. Each read sees one consistent state; each write
    is whole or not at all, and on the disk when the method returns.
    """

    def __init__(self, engine: Engine, location: Location) -> None:
        self._engine = engine
        self._location = location

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

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

    # Writing

    def add(self, records: Iterable[Record]) -> AddReport:
        """Add records, in any order, and return what became of them.

        Idempotent: a record whose id is there already counts as known. A record that refers to an operator
        or environment which is neither stored nor given is refused with a reason, and so is a retraction of
        another team's measurement; the rest is added. One transaction per 10,000 records.
        """
        kinds = list(RECORD_TYPES)  # operators and environments stand first there, then what refers to them
        ordered = sorted(records, key=lambda record: kinds.index(record.record))
        total = AddReport()
        for chunk in chunked(ordered, _TRANSACTION):
            with translated_errors(self._location), writing(self._engine) as connection:
                total += add_records(connection, chunk)
        return total

    def retract(self, ids: Iterable[str], *, team: str, reason: str, time: str | None = None) -> AddReport:
        """Retract measurements of one's own team, for good; an id may be absent (yet).

        What the team has retracted already counts as known; another team's measurements are refused.
        """
        wanted = list(dict.fromkeys(ids))
        done = {retraction.target for retraction in self.retractions() if retraction.team == team}
        stamp = time or utc_now()
        fresh = [
            Retraction(target=target, team=team, reason=reason, time=stamp)
            for target in wanted
            if target not in done
        ]
        return self.add(fresh) + AddReport(known=len(wanted) - len(fresh))

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
        found = self._select(Environment, table.c.id.startswith(key, autoescape=True)) if key else ()
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

    def find_measurements(self, ids: Iterable[str], *, with_samples: bool = True) -> dict[str, Measurement]:
        """Return measurements by id, retracted ones too; absent ones are left out."""
        return {
            each.id: each
            for chunk in chunked(sorted(set(ids)))
            for each in self._select(
                Measurement, TABLES["measurement"].c.id.in_(chunk), with_samples=with_samples
            )
        }

    def retractions(self) -> tuple[Retraction, ...]:
        """Return all retractions, sorted by id, but those of other teams' measurements, which are void."""
        return self._select(Retraction, visible_retraction())

    def holdings(self) -> tuple[Holding, ...]:
        """Return what is measured, per environment, cache state and space, sorted by these."""
        table = TABLES["measurement"]
        group = (table.c.environment, table.c.cache, table.c.space)
        condition = kept()
        operators = select(*group, func.count(table.c.operator.distinct()), func.max(table.c.time))
        detail = (*group, table.c.status, table.c.team)
        with self._reading() as connection:
            sums = connection.execute(operators.where(condition).group_by(*group).order_by(*group)).all()
            parts = connection.execute(select(*detail, func.count()).where(condition).group_by(*detail)).all()
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

    # What was derived from measurements

    def scores(
        self, *, teacher: str | None = None, data: str | None = None, metric: str | None = None
    ) -> tuple[Score, ...]:
        """Return scores sorted by layer, operation, time and id: the last of a candidate is its newest."""
        table = TABLES["score"]
        given = {"teacher": teacher, "data": data, "metric": metric}
        conditions = [table.c[name] == value for name, value in given.items() if value is not None]
        return tuple(
            sorted(
                self._select(Score, *conditions),
                key=lambda each: (each.layer, each.operation, _moment(each.time), each.id),
            )
        )

    def selections(self) -> tuple[Selection, ...]:
        """Return all selections, oldest first, ties by id."""
        return _by_time(self._select(Selection))

    def find_selection(self, which: str = "latest") -> Selection:
        """Return the newest selection, or the one whose id starts with a text.

        Raises:
            UnknownSelection: none, or several; the message lists them.
        """
        there = self.selections()
        if which == "latest" and there:
            return there[-1]
        found = [each for each in there if which and each.id.startswith(which)]
        if len(found) == 1:
            return found[0]
        listed = ", ".join(f"{each.id[:12]} ({each.device}, {each.time})" for each in (found or there)[-5:])
        problem = "stands for several selections" if found else "is no selection"
        raise UnknownSelection(
            f"{which!r} {problem} in {self.name}, which has {listed or 'none'}",
            hint="give more digits of one of these" if there else "lanaprof select --budget 5ms",
        )

    def calibrations(
        self, environment: str | None = None, space: str | None = None
    ) -> tuple[Calibration, ...]:
        """Return calibrations, oldest first, ties by id."""
        table = TABLES["calibration"]
        given = {"environment": environment, "space": space}
        conditions = [table.c[name] == value for name, value in given.items() if value is not None]
        return _by_time(self._select(Calibration, *conditions))

    def find_recipes(self, recipes: Iterable[str]) -> dict[str, str]:
        """Return the operator key by recipe; unknown recipes are left out.

        Where generators disagree, the first by (generator, id) counts, whatever the order of arrival.
        """
        found = [
            entry
            for chunk in chunked(sorted(set(recipes)))
            for entry in self._select(Recipe, TABLES["recipe"].c.recipe.in_(chunk))
        ]
        found.sort(key=lambda each: (each.generator, each.id), reverse=True)
        return {each.recipe: each.operator for each in found}

    # All records

    def counts(self) -> dict[str, int]:
        """Return how many records of each kind there are, retracted measurements included."""
        with self._reading() as connection:
            return {
                kind: connection.scalar(
                    select(func.count()).select_from(table).where(within(kind, RecordFilter()))
                )
                or 0
                for kind, table in TABLES.items()
            }

    def iter_records(
        self, records: RecordFilter | None = None, *, kinds: Iterable[str] | None = None
    ) -> Iterator[Record]:
        """Yield records sorted by (kind, id), as one consistent state, without holding them in memory.

        Args:
            records: which ones; see RecordFilter. None yields all.
            kinds: only these kinds, in this order of kinds.
        """
        chosen = sorted(TABLES) if kinds is None else list(kinds)
        with self._reading() as connection:
            for kind in chosen:
                condition = within(kind, records or RecordFilter())
                yield from self._iter(RECORD_TYPES[kind], condition, connection=connection)

    # Inside

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with translated_errors(self._location), self._engine.connect() as connection:
            yield connection

    def _rows(self, query: Any) -> list[Any]:
        with self._reading() as connection:
            return list(connection.execute(query))

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


def _moment(time: str) -> str:
    return time.rstrip("Z")  # text order is then time order, fractions of a second included


def _by_time(records: tuple[R, ...]) -> tuple[R, ...]:
    return tuple(sorted(records, key=lambda each: (_moment(cast(Any, each).time), each.id)))
