"""The database's schema: made and brought up to date by the migrations only, never in passing.

A database is made in one transaction under the write lock: several processes may try at once, and one that
is killed leaves no half-made schema behind.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from sqlalchemy import Engine, inspect, text
from sqlalchemy.engine import Connection

from lanaprof.errors import SchemaMismatch, StoreError
from lanaprof.lut.engine import (
    SQLITE_HEADER,
    Location,
    engine_for,
    for_writing,
    locate,
    network_file_system,
    translated_errors,
    use_write_ahead_log,
)
from lanaprof.lut.models import HEAD, REVISIONS, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = [
    "UpgradeReport",
    "alembic_config",
    "demand_head",
    "open_engine",
    "plan_upgrade",
    "run_migrations",
    "seal",
    "upgrade",
    "version_of",
]

_CREATION_LOCK = 5_018_417  # any fixed number: PostgreSQL's advisory lock while the schema is made


@dataclass(frozen=True, slots=True, kw_only=True)
class UpgradeReport:
    """What an upgrade did, or would do.

    Attributes:
        backup: the copy of the file made before; None when none was made.
        sql: the statements, when they were only asked for.
    """

    before: str
    after: str
    backup: Path | None = None
    sql: str = ""


def open_engine(location: Location, *, create: bool = False, readonly: bool = False) -> Engine:
    """Return an engine for a database that exists and is ours, making a missing one when ``create``.

    Raises:
        StoreError: there is none, it is not ours, or it cannot be reached.
    """
    if location.path is not None:
        _check_file(location, location.path, create=create)
    engine = engine_for(location, create=create, readonly=readonly)
    try:
        with translated_errors(location):
            if create:
                _create_if_missing(engine, location)
            with engine.begin() as connection:
                _demand_ours(connection, location)
            if location.path is not None and create:
                use_write_ahead_log(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


def version_of(engine: Engine) -> str:
    """Return the revision a database is at; empty when nothing was recorded."""
    with engine.begin() as connection:
        return _version(connection)


def demand_head(engine: Engine, location: Location) -> None:
    """Check that the database has this program's schema.

    Raises:
        SchemaMismatch: it is behind (the hint is the command to type) or ahead.
    """
    version = version_of(engine)
    if version == HEAD:
        return
    _refuse_ahead(version, location)
    raise SchemaMismatch(
        f"the database {location.shown} has schema {version or 'none'}, this program needs {HEAD}",
        hint=f"lanaprof lut upgrade --database {location.shown}",
    )


def upgrade(database: str | Path, *, backup: bool = True) -> UpgradeReport:
    """Bring a database to this program's schema; at head already, do nothing.

    Args:
        database: path or URL.
        backup: copy a SQLite file to FILE.bak first (to FILE.bak.2, … when there is one already).

    Raises:
        StoreError: there is no such database, or it is not ours.
        SchemaMismatch: it is newer than this program.
    """
    location = locate(database)
    engine = open_engine(location)
    try:
        with translated_errors(location):
            before, copy = version_of(engine), None
            _refuse_ahead(before, location)
            if before != HEAD:
                if backup and location.path is not None:
                    copy = _back_up(engine, location.path)
                _run_locked(engine)
            return UpgradeReport(before=before, after=version_of(engine), backup=copy)
    finally:
        engine.dispose()


def plan_upgrade(database: str | Path) -> UpgradeReport:
    """Return the SQL that `upgrade` would run, for people who run it themselves. Changes and locks nothing.

    Raises:
        StoreError: there is no such database, or it is not ours.
        SchemaMismatch: it is newer than this program.
    """
    from alembic import command  # heavy, see alembic_config

    location = locate(database)
    engine = open_engine(location, readonly=True)
    try:
        with translated_errors(location):
            before = version_of(engine)
    finally:
        engine.dispose()
    _refuse_ahead(before, location)
    if before == HEAD:
        return UpgradeReport(before=before, after=HEAD)
    text = StringIO()
    config = alembic_config(text)
    config.attributes["dialect"] = engine.dialect.name
    command.upgrade(config, f"{before}:{HEAD}", sql=True)
    return UpgradeReport(before=before, after=HEAD, sql=text.getvalue())


def alembic_config(output: TextIO | None = None) -> Config:
    """Return Alembic's configuration, built in code; a connection goes into its ``attributes``.

    Args:
        output: where the SQL goes when there is no connection.
    """
    from alembic.config import Config  # heavy, and needed only to make, upgrade or check a schema

    config = Config(output_buffer=output)
    folder = str(resources.files("lanaprof") / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def run_migrations(connection: Connection, revision: str = HEAD) -> None:
    """Bring the schema to a revision (``base`` removes it) within the connection's transaction."""
    from alembic import command  # heavy, see alembic_config

    config = alembic_config()
    config.attributes["connection"] = connection
    order = ["base", *REVISIONS]
    forward = order.index(revision) > order.index(_version(connection) or "base")
    (command.upgrade if forward else command.downgrade)(config, revision)


def _check_file(location: Location, path: Path, *, create: bool) -> None:
    """Check everything about a SQLite file that can be seen without opening it as a database."""
    if path.is_dir():
        raise StoreError(
            f"{path} is a folder, not a database", hint=f"name a file in it: {path / 'lanaprof.db'}"
        )
    if path.exists() and not path.is_file():
        raise StoreError(f"{path} is not a regular file", hint="name a file such as lanaprof.db")
    kind = network_file_system(path)
    if kind is not None:
        raise StoreError(
            f"{path} lies on a network file system ({kind}), where SQLite's locks are not reliable",
            hint="keep the file on a local disk and share it by `lanaprof lut export` and `lanaprof lut import`, "
            "or use PostgreSQL: --database postgresql://USER@HOST/NAME",
        )
    try:
        with path.open("rb") as file:
            header = file.read(len(SQLITE_HEADER))
    except FileNotFoundError:
        header = b""
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint="check its permissions") from None
    if header not in (b"", SQLITE_HEADER):
        raise StoreError(
            f"{path} is not a SQLite database",
            hint="name another file; for an exported file use `lanaprof lut import`",
        )
    if not header and not create:
        raise _absent(location)
    if create and not path.absolute().parent.is_dir():
        raise StoreError(f"the folder of {path} does not exist", hint=f"mkdir -p {path.absolute().parent}")


def _absent(location: Location) -> StoreError:
    return StoreError(
        f"there is no database at {location.shown}",
        hint=f"`lanaprof measure --device DEVICE --database {location.shown}` creates and fills it; "
        "`lanaprof lut import` and `lanaprof lut merge` create one too",
    )


def _create_if_missing(engine: Engine, location: Location) -> None:
    with engine.begin() as connection:
        if VERSION_TABLE in inspect(connection).get_table_names():
            return  # the common case takes no lock
    with engine.begin() as connection:
        _demand_ours(connection, location, or_empty=True)
    _run_locked(engine)


def _run_locked(engine: Engine) -> None:
    """Run the migrations to head in one transaction; whoever comes second finds nothing to do."""
    sqlite = engine.dialect.name == "sqlite"
    with engine.connect() as plain:
        if (
            sqlite
        ):  # altering a table makes it anew, which must not cascade; takes effect outside transactions only
            raw = plain.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.execute("PRAGMA foreign_keys = OFF")
        try:
            connection = for_writing(plain)
            with connection.begin():
                if not sqlite:  # what others did while we waited is seen: READ COMMITTED
                    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CREATION_LOCK})
                if _version(connection) != HEAD:
                    run_migrations(connection)
        finally:
            if sqlite:
                assert isinstance(raw, sqlite3.Connection)
                raw.execute("PRAGMA foreign_keys = ON")


def _demand_ours(connection: Connection, location: Location, *, or_empty: bool = False) -> None:
    tables = inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        return
    # A PostgreSQL database may be shared with other programs; a SQLite file belongs to one.
    if location.path is not None and tables:
        raise StoreError(
            f"{location.shown} is another program's SQLite database (tables: {', '.join(sorted(tables)[:5])})",
            hint="name another file; nothing was changed",
        )
    if not or_empty:
        raise _absent(location)


def _version(connection: Connection) -> str:
    if VERSION_TABLE not in inspect(connection).get_table_names():
        return ""
    row = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).first()  # noqa: S608 (a constant)
    return "" if row is None else str(row[0])


def _refuse_ahead(version: str, location: Location) -> None:
    if version and version not in REVISIONS:
        raise SchemaMismatch(
            f"the database {location.shown} has schema {version}, which is newer than this program's {HEAD}",
            hint=f"install a lanaprof that knows schema {version}: pip install --upgrade lanaprof",
        )


def _back_up(engine: Engine, path: Path) -> Path:
    """Copy a database, what its log holds included, to the first free FILE.bak, FILE.bak.2, …"""
    copy, number = path.with_name(path.name + ".bak"), 2
    while copy.exists():
        copy, number = path.with_name(f"{path.name}.bak.{number}"), number + 1
    target = sqlite3.connect(copy)
    try:
        connection = engine.raw_connection()
        try:
            source = connection.driver_connection
            assert isinstance(source, sqlite3.Connection)
            source.backup(target)
        finally:
            connection.close()
    finally:
        target.close()
    return copy


def seal(path: Path) -> None:
    """Turn a closed SQLite database into one self-contained file, without a log beside it."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("VACUUM")
    finally:
        connection.close()
