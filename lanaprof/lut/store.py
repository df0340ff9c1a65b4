"""The store: the only place that opens sessions on the database. It takes and returns records, never rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from sqlalchemy import ColumnElement, Select, func, select, text
from sqlalchemy.engine import Connection

from lanaprof.errors import UnknownSelection
from lanaprof.lut.adding import AddReport, Refusal, add_records, chunked
from lanaprof.lut.engine import locate, repeating, translated_errors, writing
from lanaprof.lut.models import TABLES
from lanaprof.lut.queries import RecordFilter, part_counts, within
from lanaprof.lut.reading import Holding
from lanaprof.lut.records import (
    FRONTIER,
    RECORD_TYPES,
    Calibration,
    Recipe,
    Record,
    Retraction,
    Score,
    Selection,
    utc_now,
)
from lanaprof.lut.schema import demand_head, open_engine
from lanaprof.lut.surveying import Surveyor
from lanaprof.lut.watching import Watcher

__all__ = ["AddReport", "Holding", "RecordFilter", "Refusal", "Store", "open_store"]

_LISTED = 10  # selections that a message names
_NEAR = 20  # so many pages of all are looked through for one of a part
_TRANSACTION = 10_000  # records in one transaction: bounds how long other writers wait
R = TypeVar("R", bound=Record)


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


class Store(Surveyor, Watcher):
    """The latency database. All methods may be called from several threads and processes at once.

    Every method raises StoreError when the database fails. Each read sees one consistent state; each write
    is whole or not at all, and on the disk when the method returns.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # Writing

    def add(self, records: Iterable[Record]) -> AddReport:
        """Add records, in any order, and return what became of them.

        Idempotent: a record whose id is there already counts as known. A record that refers to an operator
        or environment which is neither stored nor given is refused with a reason, and so is a retraction of
        another team's measurement; the rest is added. One transaction per 10,000 records. When the connection to
        a server is lost, the transaction is sent again for up to a minute; what had arrived then counts as known.
        """
        kinds = list(RECORD_TYPES)  # operators and environments stand first there, then what refers to them
        ordered = sorted(records, key=lambda record: kinds.index(record.record))
        total = AddReport()
        for chunk in chunked(ordered, _TRANSACTION):
            with translated_errors(self._location):
                total += repeating(self._location, lambda chunk=chunk: self._add(chunk))  # type: ignore[misc]
        return total

    def _add(self, records: list[Record]) -> AddReport:
        with writing(self._engine) as connection:
            return add_records(connection, records)

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
        """Return what was selected, oldest first, ties by id; points of stored frontiers are none of it."""
        return _by_time(self._select(Selection, TABLES["selection"].c.status != FRONTIER))

    def find_selection(self, which: str = "latest") -> Selection:
        """Return the newest selection, or the one whose id starts with a text, be it a point of a stored frontier.

        Raises:
            UnknownSelection: none, or several; the message lists them.
        """
        there = self.selections()
        if which == "latest" and there:
            return there[-1]
        found = [each for each in there if which and each.id.startswith(which)]
        if not found and which and which != "latest":  # what somebody chose comes first
            table = TABLES["selection"]
            points = table.c.status == FRONTIER, table.c.id.startswith(which.lower(), autoescape=True)
            found = list(self._select(Selection, *points))
        if len(found) == 1:
            return found[0]
        # What was proved first: it is what people come back to.
        named = list(reversed(found or there))
        newest = sorted(named, key=lambda each: each.status != "verified")[:_LISTED]
        listed = ", ".join(f"{each.id[:12]} ({each.device}, {each.status}, {each.time})" for each in newest)
        if len(named) > _LISTED:
            listed += f" and {len(named) - _LISTED} more"
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

    def counts(self, records: RecordFilter | None = None) -> dict[str, int]:
        """Return how many records of each kind there are, retracted measurements included.

        Args:
            records: only these; see RecordFilter.
        """
        chosen = records or RecordFilter()
        queries = {
            kind: select(func.count()).select_from(table).where(within(kind, chosen))
            for kind, table in TABLES.items()
        }

        def read(connection: Connection) -> dict[str, int]:
            found = part_counts(connection, chosen) if chosen else {}
            others = {
                kind: connection.scalar(query) or 0 for kind, query in queries.items() if kind not in found
            }
            return {kind: {**found, **others}[kind] for kind in queries}

        return self._read(read)

    def size_bytes(self) -> int:
        """Return how large the database is: a file without its log, or all that a server keeps of it."""
        if self.path is not None:
            query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        else:
            query = "SELECT pg_database_size(current_database())"
        return int(self._rows(text(query))[0][0])

    def ids(
        self, kind: str, records: RecordFilter | None = None, *, after: str = "", limit: int
    ) -> list[str]:
        """Return the first ids of one kind of record behind an id, sorted: a page of them.

        Args:
            kind: of record.
            records: only these; see RecordFilter.
            after: the last id of the page before.
            limit: how many at most.
        """
        column: ColumnElement[str] = TABLES[kind].c.id
        chosen = records or RecordFilter()
        query = select(column).where(column > after)
        if kind == "measurement" and chosen and chosen.environments is None:
            # By id, where a page lies within a few pages of all; else from the index that has all but the samples: the
            # rows themselves would be read one by one. Nothing else than an expression keeps SQLite from doing so.
            near = query.order_by(column).limit(_NEAR * limit)
            found = self._ids(query.where(column.in_(near), within(kind, chosen)), column, limit)
            if len(found) == limit:
                return found
            column = column.concat("")
            query = select(column).where(column > after)
        return self._ids(query.where(within(kind, chosen)), column, limit)

    def _ids(self, query: Select[Any], column: ColumnElement[str], limit: int) -> list[str]:
        return [row[0] for row in self._rows(query.order_by(column).limit(limit))]

    def lacking(self, kind: str, ids: Iterable[str]) -> list[str]:
        """Return which ids of one kind of record are not stored, in the given order."""
        wanted = list(ids)
        table = TABLES[kind]
        queries = (select(table.c.id).where(table.c.id.in_(chunk)) for chunk in chunked(wanted))
        there = {row[0] for query in queries for row in self._rows(query)}
        return [each for each in wanted if each not in there]

    def records_of(self, kind: str, ids: Iterable[str]) -> list[Record]:
        """Return records of one kind by id, whole, sorted by id; absent ones are left out."""
        cls, column = RECORD_TYPES[kind], TABLES[kind].c.id
        return [each for chunk in chunked(sorted(set(ids))) for each in self._select(cls, column.in_(chunk))]

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


def _moment(time: str) -> str:
    return time.rstrip("Z")  # text order is then time order, fractions of a second included


def _by_time(records: tuple[R, ...]) -> tuple[R, ...]:
    return tuple(sorted(records, key=lambda each: (_moment(cast(Any, each).time), each.id)))
