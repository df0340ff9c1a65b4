"""Where a database is and how to talk to it: paths and URLs, connections, locks, and errors in plain words.

SQLite is opened so that several processes can write and an acknowledged row survives a killed process or a
power cut: write-ahead log, full synchronisation, writers that queue for up to 30 seconds. What is particular to
PostgreSQL is in `lanaprof.lut.postgres`.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from lanaprof.errors import StoreError
from lanaprof.lut.postgres import DRIVERS, explained, may_be_repeated, postgres_engine, without_passwords

__all__ = [
    "SQLITE_HEADER",
    "Location",
    "engine_for",
    "for_writing",
    "locate",
    "network_file_system",
    "repeating",
    "translated_errors",
    "use_write_ahead_log",
    "writing",
]

SQLITE_HEADER = b"SQLite format 3\0"
_BUSY_S = 30.0  # how long a writer queues for the lock
_CACHE_KIB = 32_768
_POOL = 4  # connections to a file that are kept, with what they have in memory
_OVERFLOW = 28  # more while several threads ask at once; whoever comes after them waits
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
_REPEAT_S = 60.0  # how long a write is sent again while a server restarts
_PAUSES_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)  # between attempts; the last one repeats
T = TypeVar("T")


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
        backend, driver = url.drivername.partition("+")[0], url.drivername
    except (ArgumentError, ValueError):
        raise StoreError(
            f"{text.split('://', maxsplit=1)[0]}://… is not a database URL",
            hint="write a path, sqlite:///FILE or postgresql://USER@HOST/NAME",
        ) from None
    shown = without_passwords(url)
    if driver in DRIVERS:
        return Location(url, None, shown)
    if backend in ("postgresql", "postgres"):
        raise StoreError(
            f"lanaprof speaks to PostgreSQL by psycopg 3, not by {driver!r}",
            hint="write postgresql://USER@HOST/NAME",
        )
    if driver in ("http", "https"):
        raise StoreError(
            f"{shown} is no database; is it a hub?",
            hint="lanaprof remote add NAME URL, then lanaprof push NAME or lanaprof pull NAME",
        )
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
        return postgres_engine(location.url, readonly=readonly)
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
            else:  # new rows belong all over the indexes; with the usual 2 MiB their pages are read again and again
                connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        except BaseException:
            connection.close()
            raise
        return connection

    # Without a file in its URL SQLAlchemy takes the database for one in memory: a connection per thread, and beyond
    # five it closes those of other threads, in the middle of their work.
    engine = create_engine(
        "sqlite://", creator=connect, poolclass=QueuePool, pool_size=_POOL, max_overflow=_OVERFLOW,
        pool_timeout=_BUSY_S, pool_use_lifo=True,
    )  # fmt: skip

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: a read transaction that turns into a write one can be refused
        # without waiting.
        write = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction that may write; commit at the end, or roll back.

    On SQLite it holds the write lock. On PostgreSQL it sees what others commit meanwhile, and waits for those who
    insert the same rows.
    """
    with engine.connect() as plain:
        connection = for_writing(plain)
        with connection.begin():
            yield connection


def for_writing(connection: Connection) -> Connection:
    """Return the connection with the options of a transaction that writes; it has not begun one yet."""
    if connection.dialect.name == "sqlite":
        return connection.execution_options(**{_WRITE: True})
    return connection.execution_options(isolation_level="READ COMMITTED")


def repeating(location: Location, work: Callable[[], T]) -> T:
    """Return what the work returns; on a server, do it again when the connection was lost, for up to a minute.

    The work must be one transaction that may be done twice: it may have been committed before its answer was lost.
    """
    end = time.monotonic() + _REPEAT_S
    attempt = 0
    while True:
        try:
            return work()
        except SQLAlchemyError as error:
            pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
            if location.path is not None or not may_be_repeated(error) or time.monotonic() + pause_s > end:
                raise
        attempt += 1
        time.sleep(pause_s)


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
        if location.path is None:
            known = explained(error, location.shown)
            if known is not None:
                raise known from error
        cause = str(getattr(error, "orig", None) or error).strip()
        for part, problem, hint in _EXPLANATIONS if location.path is not None else ():
            if part in cause.lower():
                raise StoreError(f"the database {location.shown} {problem}", hint=hint) from error
        raise StoreError(f"the database {location.shown} failed: {cause}", users_fault=False) from error
