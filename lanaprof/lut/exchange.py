"""Export, import and merge: databases as files, and their union.

Every format holds the same records. Adding records is a set union by id, so importing or merging twice
changes nothing, and the order does not matter. What a file is shows in its content, not in its name; only
an export chooses by the name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lanaprof.errors import BadInput, StoreError
from lanaprof.lut import jsonl, parquet
from lanaprof.lut.adding import chunked
from lanaprof.lut.engine import SQLITE_HEADER
from lanaprof.lut.filerow import FileRow, Manifest
from lanaprof.lut.garbage import seldom_collecting
from lanaprof.lut.models import HEAD
from lanaprof.lut.queries import RecordFilter
from lanaprof.lut.records import RECORD_TYPES, Record, utc_now
from lanaprof.lut.schema import seal
from lanaprof.lut.store import Store, open_store
from lanaprof.version import VERSION

__all__ = ["ExportReport", "ImportReport", "RefusedRow", "export_file", "import_files", "merge"]

_BATCH = 5_000  # records added in one transaction, and in memory: fewer write the same pages of an index more often
_TOLD = 1_000  # records between two reports of progress
_FIRST = ("operator", "environment")  # what the other records refer to
LISTED = 10_000  # refused rows kept in memory; a file that is all wrong must not fill it
Judge = Callable[[Sequence[Record]], Mapping[str, str]]
Follow = Callable[[float, float, str], None]
"""Told how far it is: done, in all, and of what."""
_SUFFIXES = (".jsonl", ".jsonl.zst", ".parquet", ".sqlite", ".db")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written."""

    path: Path
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedRow:
    """A row of a file that was not imported.

    Attributes:
        row: the line (JSON lines, from 1 with the manifest), the row (Parquet, from 1), or 0 (SQLite).
        id: the record's id as the file has it; empty when it cannot be read.
    """

    file: str
    row: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What became of the records in the files: newly added, there already, refused.

    Attributes:
        refused: the first of them, at most 10,000.
        unlisted: how many more were refused.
    """

    added: int = 0
    known: int = 0
    refused: tuple[RefusedRow, ...] = ()
    unlisted: int = 0

    @property
    def refused_count(self) -> int:
        """Return how many rows were refused."""
        return len(self.refused) + self.unlisted

    def __add__(self, other: ImportReport) -> ImportReport:
        room = LISTED - len(self.refused)
        return ImportReport(
            added=self.added + other.added,
            known=self.known + other.known,
            refused=self.refused + other.refused[:room] if other.refused and room > 0 else self.refused,
            unlisted=self.unlisted + other.unlisted + max(0, len(other.refused) - max(0, room)),
        )


def export_file(
    store: Store, out: str | Path, *, records: RecordFilter | None = None, follow: Follow | None = None
) -> ExportReport:
    """Write a database's records to a file; its name says the format. Complete or not at all.

    Args:
        store: the database.
        out: ends with .jsonl, .jsonl.zst, .parquet, .sqlite or .db. An existing file is replaced, but a
            database never is.
        records: which records; all by default.
        follow: told how far it is.

    Raises:
        BadInput: unknown ending, the file cannot be written, or a database is in the way.
        StoreError: the database cannot be read.
    """
    path = Path(out)
    name = path.name.lower()
    if not name.endswith(_SUFFIXES):
        raise BadInput(
            f"cannot tell the format from {path.name!r}", hint=f"end it with {', '.join(_SUFFIXES)}"
        )
    if path.is_dir():
        raise BadInput(f"{path} is a folder", hint=f"name a file in it: {path / 'lut.jsonl.zst'}")
    if not path.absolute().parent.is_dir():
        raise BadInput(f"the folder of {path} does not exist", hint=f"mkdir -p {path.absolute().parent}")
    _keep_databases(path)
    manifest = Manifest(schema=HEAD, tool_version=VERSION, time=utc_now())
    with _replacing(path) as temporary, seldom_collecting():
        if name.endswith((".sqlite", ".db")):
            count = _write_sqlite(temporary, store, records, follow)
        elif name.endswith(".parquet"):
            count = parquet.write(temporary, manifest, _followed(store, records, follow))
        else:
            rows = _followed(store, records, follow)
            count = jsonl.write(temporary, manifest, rows, compress=name.endswith(".zst"))
    return ExportReport(path=path, records=count)


def import_files(
    store: Store,
    files: Iterable[str | Path],
    *,
    judge: Judge | None = None,
    follow: Follow | None = None,
    note: Callable[[RefusedRow], None] | None = None,
) -> ImportReport:
    """Add the records in exported files to a database.

    A row that is damaged, or refers to an operator or environment that is nowhere, is refused with a reason
    and does not spoil the rest.

    Args:
        store: the database.
        files: in any of the formats.
        judge: says of some records why they may not be added, by id; those it leaves out may.
        follow: told how far it is.
        note: told of every refused row, also of those that the report has no room for.

    Raises:
        BadInput: a file is missing, unreadable, or no export at all.
        StoreError: the database cannot be written.
        SchemaMismatch: a SQLite file has another schema.
    """
    paths = [Path(file) for file in files]
    stages = [_stages_of(path, follow) for path in paths]  # every file is looked at before anything is added
    with seldom_collecting():
        reports = (
            _import_rows(store, str(path), each, judge, note)
            for path, each in zip(paths, stages, strict=True)
        )
        return sum(reports, ImportReport())


def merge(
    source: str | Path | Store,
    destination: str | Path,
    *,
    records: RecordFilter | None = None,
    follow: Follow | None = None,
) -> ImportReport:
    """Add everything in one database, or what a filter chooses of it, to another; a missing one is made.

    Args:
        source: path or URL of a database, or an open store.
        destination: path or URL.
        records: which records of the source.
        follow: told how far it is.

    Raises:
        StoreError: the source is no database, or the destination cannot be written.
        SchemaMismatch: one of them has another schema.
    """
    opened = None if isinstance(source, Store) else open_store(source, readonly=True)
    origin = source if isinstance(source, Store) else opened
    assert origin is not None
    try:
        with open_store(destination, create=True) as store, seldom_collecting():
            return _import_rows(store, origin.name, _store_stages(origin, records, follow))
    finally:
        if opened is not None:
            opened.close()


_Stages = Sequence[Callable[[], Iterator[FileRow]]]
"""Reads a source's rows in stages, such that what other records refer to comes first."""


def _import_rows(
    store: Store,
    file: str,
    stages: _Stages,
    judge: Judge | None = None,
    note: Callable[[RefusedRow], None] | None = None,
) -> ImportReport:
    total = ImportReport()
    for read in stages:
        for rows in chunked(read(), _BATCH):
            whole = [row.record for row in rows if row.record is not None]
            reasons = judge(whole) if judge is not None else {}
            sound = [(row, row.record) for row in rows if row.record is not None and row.id not in reasons]
            report = store.add(record for _, record in sound)
            places = {record.id: row.row for row, record in sound}
            refused = [
                RefusedRow(file=file, row=places[refusal.id], id=refusal.id, reason=refusal.reason)
                for refusal in report.refused
            ]
            refused += [
                RefusedRow(file=file, row=row.row, id=row.id, reason=row.problem or reasons[row.id])
                for row in rows
                if row.record is None or row.id in reasons
            ]
            refused.sort(key=lambda each: each.row)
            if note is not None:
                for each in refused:
                    note(each)
            total += ImportReport(added=report.added, known=report.known, refused=tuple(refused))
    return total


def _file_stages(read: Callable[[Sequence[str] | None], Iterator[FileRow]]) -> _Stages:
    """Return the stages of a file in any order: two passes over it.

    Args:
        read: yields the rows of some kinds of record, or all rows, those that cannot be read included.
    """

    def rest() -> Iterator[FileRow]:
        for row in read(None):
            if row.record is None or row.record.record not in _FIRST:
                yield row

    return (lambda: read(_FIRST), rest)


def _followed(
    store: Store,
    records: RecordFilter | None,
    follow: Follow | None,
    kinds: Iterable[str] | None = None,
) -> Iterator[Record]:
    """Yield a database's records, telling how far it is."""
    if follow is None:
        yield from store.iter_records(records, kinds=kinds)
        return
    whole = sum(store.counts(records).values())
    for done, record in enumerate(store.iter_records(records, kinds=kinds)):
        if done % _TOLD == 0:
            follow(done, max(whole, done), f"{record.record}s")
        yield record


def _store_stages(store: Store, records: RecordFilter | None = None, follow: Follow | None = None) -> _Stages:
    """Return the one stage of a database: it can be read in the right order, as one consistent state."""

    def rows() -> Iterator[FileRow]:
        for record in _followed(store, records, follow, RECORD_TYPES):
            yield FileRow(row=0, id=record.id, record=record)

    return (rows,)


def _stages_of(path: Path, follow: Follow | None = None) -> _Stages:
    """Return how to read a file, judged by its first bytes."""
    if path.exists() and not path.is_file():
        raise BadInput(
            f"{path} is not a regular file", hint="name an exported file; it is read more than once"
        )
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError:
        raise BadInput(f"there is no file {path}", hint="check the name") from None
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read: {error.strerror}", hint="check the name and its permissions"
        ) from None
    if start == SQLITE_HEADER:
        return _sqlite_stages(path, follow)
    if start.startswith(parquet.MAGIC):
        parquet.check(path)
        return _file_stages(lambda kinds: parquet.read(path, kinds, follow))
    jsonl.check(path)
    return _file_stages(lambda kinds: jsonl.read(path, kinds, follow))


def _sqlite_stages(path: Path, follow: Follow | None) -> _Stages:
    try:
        open_store(path, readonly=True).close()
    except StoreError as error:
        raise BadInput(error.message, hint=error.hint) from error

    def rows() -> Iterator[FileRow]:
        with open_store(path, readonly=True) as store:
            for stage in _store_stages(store, None, follow):
                yield from stage()

    return (rows,)


def _write_sqlite(path: Path, store: Store, records: RecordFilter | None, follow: Follow | None) -> int:
    # Made among temporary files: where the export goes may be a network file system, which SQLite cannot use.
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "export.db"
        with open_store(local, create=True) as copy:
            report = _import_rows(copy, store.name, _store_stages(store, records, follow))
        seal(local)
        shutil.copyfile(local, path)
    return report.added


def _keep_databases(path: Path) -> None:
    try:
        with path.open("rb") as file:
            is_database = file.read(len(SQLITE_HEADER)) == SQLITE_HEADER
    except OSError:
        return  # absent, or the error shows again when it is written
    if is_database:
        raise BadInput(
            f"{path} is a database already; an export would replace it",
            hint=f"`lanaprof lut merge SRC {path}` adds to it; or name another file",
        )


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that takes its place at the end, or vanishes on an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise BadInput(
                f"cannot write {path}: {error.strerror or error}",
                hint="check that the folder exists, may be written to, and has room",
            ) from error
    finally:
        temporary.unlink(missing_ok=True)
