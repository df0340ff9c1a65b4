"""Adding records within one transaction: what is new, what is known, what is refused and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import BigInteger, Boolean, Column, Double, LargeBinary, Table
from sqlalchemy.engine import Connection

from lanaprof.errors import BadInput
from lanaprof.lut.models import TABLES
from lanaprof.lut.records import RECORD_TYPES, Record
from lanaprof.lut.rows import row_from_record

__all__ = ["AddReport", "Refusal", "add_records", "chunked"]

CHUNK = 500  # values in one SQL list; SQLite's oldest builds allow 999
_REFERENCES: Mapping[str, tuple[tuple[str, str], ...]] = {  # kind → (field, kind it refers to)
    "measurement": (("operator", "operator"), ("environment", "environment")),
    "calibration": (("environment", "environment"),),
    "recipe": (("operator", "operator"),),
}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that was not added, and why."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AddReport:
    """What became of the records given: newly added, there already, refused."""

    added: int = 0
    known: int = 0
    refused: tuple[Refusal, ...] = ()

    def __add__(self, other: AddReport) -> AddReport:
        return AddReport(
            added=self.added + other.added,
            known=self.known + other.known,
            refused=self.refused + other.refused,
        )


def chunked(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """Yield the values in lists of at most ``size``."""
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def add_records(connection: Connection, records: Iterable[Record]) -> AddReport:
    """Add records in any order; the connection is `lanaprof.lut.engine.writing`'s."""
    groups: dict[str, dict[str, Record]] = {
        kind: {} for kind in RECORD_TYPES
    }  # operators, environments first
    given = 0
    refused: list[Refusal] = []
    for record in records:
        given += 1
        if record.is_whole():
            groups[record.record].setdefault(record.id, record)
        else:
            refused.append(
                Refusal(str(record.id), "it was read without its samples, or its content is damaged")
            )
    added = 0
    for kind, group in groups.items():
        stored = _column_of(connection, kind, "id", group)
        # Sorted, so that two writers of the same rows wait for each other and never both for both.
        fresh = [group[key] for key in sorted(group) if key not in stored]
        reasons = _reasons(connection, kind, fresh)
        rows: list[dict[str, Any]] = []
        for record in fresh:
            try:
                reason = reasons(record)
                if not reason:
                    rows.append(row_from_record(record))
            except BadInput as error:
                reason = error.message
            if reason:
                refused.append(Refusal(record.id, reason))
        added += _insert(connection, TABLES[kind], rows)
    return AddReport(added=added, known=given - added - len(refused), refused=tuple(refused))


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> int:
    """Insert rows and return how many were new: on a server somebody else may have added the same meanwhile."""
    if not rows:
        return 0
    names = [column.name for column in table.columns]
    listed = ", ".join(f'"{name}"' for name in names)
    values = list(map(itemgetter(*names), rows))
    # Not SQLAlchemy's insert: looking at every parameter of every row takes longer than writing it.
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        statement = f"INSERT INTO {table.name} ({listed}) VALUES ({marks})"  # noqa: S608 (names of our own columns)
        connection.exec_driver_sql(statement, values)
        return len(rows)
    # One statement with an array for each column: a fraction of the server's work for a statement a row.
    arrays = ", ".join(f"%s::{_array_type(column)}" for column in table.columns)
    rows_of = f"SELECT * FROM unnest({arrays})"  # noqa: S608 (types of our own columns)
    statement = f"INSERT INTO {table.name} ({listed}) {rows_of} ON CONFLICT DO NOTHING"
    return connection.exec_driver_sql(statement, tuple(map(list, zip(*values, strict=True)))).rowcount


def _array_type(column: Column[Any]) -> str:
    """Return the type of an array of a column's values on a server."""
    if isinstance(column.type, LargeBinary):
        return "bytea[]"
    if isinstance(column.type, Boolean):
        return "bool[]"
    if isinstance(column.type, BigInteger):
        return "int8[]"
    return "float8[]" if isinstance(column.type, Double) else "text[]"


def _reasons(connection: Connection, kind: str, records: Sequence[Record]) -> Callable[[Record], str]:
    """Return a function that says why a record cannot be added; empty when it can."""
    if kind == "retraction":
        targets = [getattr(record, "target") for record in records]  # noqa: B009  (a retraction's field)
        teams = _column_of(connection, "measurement", "team", targets)

        def foreign(record: Record) -> str:
            target, team = getattr(record, "target"), getattr(record, "team")  # noqa: B009
            owner = teams.get(target, team)
            if owner == team:
                return ""
            return f"measurement {target} is of team {owner!r}: team {team!r} cannot retract it"

        return foreign
    references = _REFERENCES.get(kind, ())
    there = {
        field: _column_of(connection, other, "id", {getattr(record, field) for record in records})
        for field, other in references
    }

    def dangling(record: Record) -> str:
        for field, _ in references:
            key = getattr(record, field)
            if key not in there[field]:
                return f"its {field} {key} is not in the database"
        return ""

    return dangling


def _column_of(connection: Connection, kind: str, column: str, ids: Iterable[str]) -> dict[str, str]:
    """Return one column's value by id, for the ids that are stored."""
    query = f"SELECT id, {column} FROM {TABLES[kind].name} WHERE id"  # noqa: S608 (names of our own)
    if connection.dialect.name != "sqlite":
        rows = connection.exec_driver_sql(f"{query} = ANY(%s::text[])", (list(ids),))
        return {row[0]: row[1] for row in rows}
    found: dict[str, str] = {}
    for chunk in chunked(ids):
        # The driver and SQLite keep the statements they have met: these are ten, not one for each number of ids.
        size = min(CHUNK, 1 << (len(chunk) - 1).bit_length())
        asked = f"{query} IN ({', '.join('?' * size)})"
        padded = tuple(chunk + chunk[-1:] * (size - len(chunk)))
        found.update((row[0], row[1]) for row in connection.exec_driver_sql(asked, padded))
    return found
