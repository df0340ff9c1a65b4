"""Where a database is and how to talk to it: paths and URLs, connections, locks, and errors in plain words.

SQLite is opened so that several processes can write and an acknowledged row survives a killed process or a
power cut: write-ahead log, full synchronisation, writers that queue for up to 30 seconds.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from lanaprof.errors import StoreError

__all__ = [
    "SQLITE_HEADER",
    "Location",
    "engine_for",
    "locate",
    "network_file_system",
    "translated_errors",
    "use_write_ahead_log",
    "writing",
]

SQLITE_HEADER = b"SQLite format 3\0"
_BUSY_S = 30.0  # how long a writer queues for the lock
_NETWORK_FILE_SYSTEMS = frozenset(
    [
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.beegfs",
        "fuse.ceph",
        "fuse.davfs",
        "fuse.gcsfuse",
        "fuse.glusterfs",
        "fuse.mfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs",
        "gfs2",
        "glusterfs",
        "gpfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "ocfs2",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
        "sshfs",
    ]
)
_WRITE = "lanaprof_write"  # execution option: this transaction takes the write lock at its start


@dataclass(frozen=True, slots=True)
class Location:
    """A database's address. ``path`` is None unless it is a SQLite file; ``shown`` hides passwords."""

    url: URL
    path: Path | None
    shown: str


def locate(database: str | Path) -> Location:
    """Return where a URL or a bare path (SQLite) points. Touches nothing.

    Raises:
        StoreError: the text is no URL lanaprof can use.
    """
    text = str(database)
    if "://" not in text:
        if not text.strip() or "\0" in text:
            raise StoreError(f"{text!r} names no database", hint="give a file such as lanaprof.db")
        return Location(URL.create("sqlite", database=text), Path(text), text)
    try:
        url = make_url(text)
        backend, driver = url.get_backend_name(), url.drivername
    except (ArgumentError, ValueError, NoSuchModuleError):
        raise StoreError(
            f"{text.split('://', maxsplit=1)[0]}://… is not a database URL",
            hint="write a path, sqlite:///FILE or postgresql://USER@HOST/NAME",
        ) from None
    shown = url.render_as_string(hide_password=True)
    if backend == "postgresql":
        return Location(url, None, shown)
    if driver not in ("sqlite", "sqlite+pysqlite"):
        raise StoreError(
            f"lanaprof keeps its database in SQLite or PostgreSQL, not in {driver!r}",
            hint="write a path, sqlite:///FILE or postgresql://USER@HOST/NAME",
        )
    if not url.database or url.database == ":memory:" or url.query or url.host:
        raise StoreError(f"{shown} names no file", hint="write sqlite:///FILE, or just the file's path")
    return Location(url, Path(url.database), shown)


def engine_for(location: Location, *, create: bool = False, readonly: bool = False) -> Engine:
    """Return an engine for the location; the caller disposes of it.

    Args:
        location: from `locate`.
        create: a missing SQLite file may be made.
        readonly: nothing may be written; a file or folder without write permission can then be read.

    Raises:
        StoreError: the database driver is not installed.
    """
    if location.path is None:
        try:
            return create_engine(location.url, pool_pre_ping=True)
        except ImportError as error:
            raise StoreError(
                f"the PostgreSQL driver is not installed ({error})", hint='pip install "lanaprof[postgres]"'
            ) from None
    path = location.path.absolute()
    parameters = "mode=rwc" if create else "mode=rw"
    if not create and not _writable(path):
        readonly = True
        wal = path.with_name(path.name + "-wal")
        # Without a log beside it nobody is writing, and SQLite need not make its own files there.
        parameters = "mode=ro" if wal.exists() or os.access(path.parent, os.W_OK) else "mode=ro&immutable=1"
    uri = f"file:{quote(str(path))}?{parameters}"

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, check_same_thread=False)
        try:
            connection.isolation_level = None  # we begin transactions ourselves, below
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = FULL")
            if readonly:
                connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: a read transaction that turns into a write one can be refused
        # without waiting.
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that holds the write lock; commit at the end, or roll back."""
    with engine.connect().execution_options(**{_WRITE: True}) as connection, connection.begin():
        yield connection


def use_write_ahead_log(engine: Engine) -> None:
    """Make a SQLite file use the write-ahead log, so that readers and a writer do not wait for each other.

    Needs a moment alone with the file. When others keep it busy it stays as it is: correct, but slower.
    """
    deadline = time.monotonic() + _BUSY_S
    connection = engine.raw_connection()
    try:
        while time.monotonic() < deadline:
            cursor = connection.cursor()
            try:
                if cursor.execute("PRAGMA journal_mode").fetchone() == ("wal",):
                    return
                cursor.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                time.sleep(0.02)
            finally:
                cursor.close()
    finally:
        connection.close()


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Return the type of the network file system a path lies on, or None on local disks.

    Args:
        path: a file or folder, existing or not.
        mounts: the text of /proc/mounts; read from the system when None (Linux; elsewhere only Windows'
            network shares are recognised).
    """
    resolved = str(path.resolve())
    if resolved.startswith("\\\\"):
        return "network share"
    if mounts is None:
        if not sys.platform.startswith("linux"):
            return None
        try:
            mounts = Path("/proc/mounts").read_text(errors="surrogateescape")
        except OSError:
            return None  # no /proc: nothing is known, and nothing is refused
    best, kind = "", ""
    for line in mounts.splitlines():
        parts = line.split(" ")
        if len(parts) < 3:
            continue
        # The kernel writes space, tab, newline and backslash as octal.
        mount = (
            parts[1]
            .replace("\\040", " ")
            .replace("\\011", "\t")
            .replace("\\012", "\n")
            .replace("\\134", "\\")
        )
        inside = resolved == mount or resolved.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):  # a later mount at the same place hides the earlier one
            best, kind = mount, parts[2]
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


_DAMAGED_HINT = "`lanaprof lut check` says more; restore a backup, or merge what it still holds"
_EXPLANATIONS = (
    ("file is not a database", "is not a SQLite database", "name another file; nothing was changed"),
    ("file is encrypted", "is not a SQLite database", "name another file; nothing was changed"),
    (
        "unable to open database file",
        "cannot be opened",
        "check that the folder exists and may be written to",
    ),
    (
        "attempt to write a readonly database",
        "is read-only",
        "ask for write permission, or name another file",
    ),
    ("database or disk is full", "does not fit on the disk any more", "make room; nothing stored was harmed"),
    (
        "disk i/o error",
        "cannot be read or written (disk error or disk full)",
        "check the disk and its free space",
    ),
    (
        "database is locked",
        "has been locked by another program for 30 seconds",
        "wait for it, then try again",
    ),
    ("malformed", "is damaged", _DAMAGED_HINT),
    ("no such column", "is damaged: its tables are not those of its schema", _DAMAGED_HINT),
    ("no such table", "is damaged: its tables are not those of its schema", _DAMAGED_HINT),
    ("could not decode to utf-8", "is damaged", _DAMAGED_HINT),
)


@contextmanager
def translated_errors(location: Location) -> Iterator[None]:
    """Turn what a database driver raises into a StoreError that says what is wrong and what to do."""
    try:
        yield
    except UnicodeDecodeError as error:  # text in the file, or in SQLite's message about it
        raise StoreError(
            f"the database {location.shown} is damaged: {error.object!r} is not text", hint=_DAMAGED_HINT
        ) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = str(getattr(error, "orig", None) or error).strip()
        for part, problem, hint in _EXPLANATIONS:
            if part in cause.lower():
                raise StoreError(f"the database {location.shown} {problem}", hint=hint) from error
        if location.path is None and isinstance(error, OperationalError):
            raise StoreError(
                f"the database {location.shown} cannot be used: {cause}",
                hint="check that the server is running and that the URL is right",
            ) from error
        raise StoreError(f"the database {location.shown} failed: {cause}", users_fault=False) from error
