"""lut import of a part of the files, and the file of what was refused."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lanaprof.errors import BadInput
from lanaprof.flows.sources import record_filter
from lanaprof.lut import ImportReport, RefusedRow, Source, Store, import_files, merge, open_store

__all__ = ["import_part", "refusals_file"]

Note = Callable[[RefusedRow], None]


@contextmanager
def refusals_file(path: Path | None) -> Iterator[Note | None]:
    """Yield what writes refused rows to a file, one JSON object a line; None without a path.

    Raises:
        BadInput: the file cannot be written.
    """
    if path is None:
        yield None
        return
    try:
        with path.open("w", encoding="utf-8") as file:

            def note(row: RefusedRow) -> None:
                found = {"file": row.file, "row": row.row, "id": row.id, "reason": row.reason}
                file.write(json.dumps(found, ensure_ascii=False) + "\n")

            yield note
    except OSError as error:
        raise BadInput(
            f"cannot write {path}: {error.strerror or error}", hint="name a file in a folder that exists"
        ) from error


def import_part(
    store: Store,
    files: Sequence[Path],
    part: Source,
    folder: Path,
    *,
    follow: Callable[[float, float, str], None] | None = None,
    note: Note | None = None,
) -> ImportReport:
    """Add what a SOURCE's parts choose of exported files; what is chosen is what an export would choose.

    The files go into a database of their own first, because what a record needs may stand anywhere in them.

    Args:
        store: the database.
        files: in any format.
        part: device, environment, team, since, protocol; its database is not looked at.
        folder: where devices.yaml may lie.
        follow: told how far it is.
        note: told of every refused row.

    Raises:
        BadInput: a file is no export, or nothing in them is of the device or environment.
        StoreError: the database cannot be written, or the temporary one does not fit on the disk.
    """
    with tempfile.TemporaryDirectory(prefix="lanaprof-") as temporary:
        whole = Path(temporary) / "import.db"
        with open_store(whole, create=True) as everything:
            read = import_files(everything, files, follow=follow, note=note)
            chosen = record_filter(everything, part, folder)
            added = merge(everything, store.url, records=chosen, follow=follow)
    return ImportReport(
        added=added.added, known=added.known, refused=read.refused, unlisted=read.unlisted
    ) + ImportReport(refused=added.refused, unlisted=added.unlisted)
