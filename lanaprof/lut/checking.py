"""Everything in a database that can be verified: the file, the schema, every id, every derived column."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, inspect, select, text
from sqlalchemy.exc import DatabaseError

from lanaprof.errors import BadInput, StoreError
from lanaprof.lut.engine import Location, locate, translated_errors
from lanaprof.lut.graph import GraphStatistics, describe_graph, graph_statistics
from lanaprof.lut.models import HEAD, TABLES, VERSION_TABLE, VIEWS, metadata
from lanaprof.lut.records import RECORD_TYPES, Operator
from lanaprof.lut.rows import columns_of, record_from_row
from lanaprof.lut.schema import open_engine, version_of

__all__ = ["CheckReport", "check"]

_LOST = (
    "not even its schema can be read: restore a backup, or save what is left: "
    "sqlite3 FILE .recover | sqlite3 NEW, then lanaprof lut check NEW"
)
_SHOWN = 20  # problems of one kind that are spelled out
_DERIVED = ("description", *(field.name for field in dataclasses.fields(GraphStatistics)))
_FETCH = 2_000  # rows read at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What a check found.

    Attributes:
        schema: the database's revision.
        records: how many records were read and verified.
        problems: one sentence each; empty when all is well.
    """

    schema: str
    records: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


def check(database: str | Path) -> CheckReport:
    """Verify a database and return what is wrong with it. Changes nothing.

    Raises:
        StoreError: there is no database of ours to check.
    """
    try:
        return _checked(locate(database))
    except StoreError as error:
        if "lut check" not in error.hint:
            raise
        raise StoreError(error.message, hint=_LOST) from error


def _checked(location: Location) -> CheckReport:
    engine = open_engine(location, readonly=True)
    problems: list[str] = []
    records = 0
    version = ""
    try:
        with translated_errors(location):
            version = version_of(engine)
            try:
                problems += _file_problems(engine)
                problems += _schema_problems(engine, version)
                if version == HEAD:
                    for kind in RECORD_TYPES:
                        found = [0]
                        problems += _limited(_record_problems(engine, kind, found), kind)
                        records += found[0]
            except DatabaseError as error:
                problems.append(f"reading stopped: {error.orig}")
    finally:
        engine.dispose()
    return CheckReport(schema=version, records=records, problems=tuple(problems))


def _file_problems(engine: Engine) -> list[str]:
    """Return what SQLite itself finds wrong with the file; a server looks after its own."""
    if engine.dialect.name != "sqlite":
        return []
    with engine.begin() as connection:
        lines = [str(row[0]) for row in connection.execute(text("PRAGMA integrity_check"))]
        broken = connection.execute(text("PRAGMA foreign_key_check")).all()
    problems = [f"the file is damaged: {line}" for line in lines if line != "ok"]
    problems += [
        f"a row of {row[0]} refers to a row of {row[2]} that is not there" for row in broken[:_SHOWN]
    ]
    return problems


def _schema_problems(engine: Engine, version: str) -> list[str]:
    """Return how the schema differs from what the models say."""
    if version != HEAD:
        return [f"the schema is {version or 'not recorded'}, this program's is {HEAD}"]
    from alembic.autogenerate import compare_metadata  # heavy, and needed only here
    from alembic.migration import MigrationContext

    with engine.begin() as connection:
        options: dict[str, Any] = {"version_table": VERSION_TABLE, "compare_type": True}
        if (
            engine.dialect.name != "sqlite"
        ):  # a server's database may be shared with other programs, a file not
            options["include_object"] = _is_ours
        context = MigrationContext.configure(connection, opts=options)
        differences: list[Any] = compare_metadata(context, metadata)
        views = inspect(connection).get_view_names()
    problems = [f"the schema differs from what migrations make: {difference}" for difference in differences]
    problems += [f"the view {view} is missing" for view in VIEWS if view not in views]
    return problems


def _is_ours(_: Any, name: str | None, kind: str, reflected: bool, __: Any) -> bool:
    """Return whether something in the database concerns us: another program's tables do not."""
    return not (kind == "table" and reflected and name not in metadata.tables)


def _record_problems(engine: Engine, kind: str, count: list[int]) -> Iterator[str]:
    """Yield what is wrong with the records of one kind; ``count[0]`` counts those read."""
    cls = RECORD_TYPES[kind]
    table = TABLES[kind]
    columns = columns_of(cls)
    derived = [table.c[name] for name in _DERIVED] if cls is Operator else []
    query = select(*columns, *derived).order_by(table.c.id)
    with engine.connect() as connection:
        for row in connection.execution_options(yield_per=_FETCH).execute(query):
            count[0] += 1
            try:
                record = record_from_row(cls, row[: len(columns)])
                cls.from_json(record.to_json())  # every field's type, and the id from the content
            except (BadInput, ValueError, TypeError) as error:
                yield f"{kind} {row[0]}: {getattr(error, 'message', error)}"
                continue
            if isinstance(record, Operator) and tuple(row[len(columns) :]) != _derived(record):
                yield f"operator {row[0]}: its derived columns do not follow from its graph"


def _derived(operator: Operator) -> tuple[Any, ...]:
    statistics = graph_statistics(operator.graph)
    return (describe_graph(operator.graph), *dataclasses.astuple(statistics))


def _limited(problems: Iterator[str], kind: str) -> list[str]:
    """Return the first problems and how many more there are."""
    shown = list(islice(problems, _SHOWN))
    more = sum(1 for _ in problems)
    return [*shown, f"{more} more problems with records of kind {kind}"] if more else shown
