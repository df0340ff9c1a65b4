"""What the file formats share: one row of a file, sound or not, and the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanaprof.errors import BadInput
from lanaprof.lut.records import Record, record_from_json

__all__ = ["FORMAT", "FileRow", "Manifest", "check_manifest", "row_from_json"]

FORMAT = "lanaprof-lut/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A row of a file: its number from 1, its id, and the record, or None and the problem with it.

    ``breaks``: nothing of the file can be read from here on.
    """

    row: int
    id: str
    record: Record | None = None
    problem: str = ""
    breaks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a file says about itself: everything about the export, so that the records say nothing of it."""

    schema: str
    tool_version: str
    time: str

    def to_json(self) -> dict[str, str]:
        """Return the manifest as JSON values."""
        return {
            "format": FORMAT,
            "schema": self.schema,
            "tool_version": self.tool_version,
            "time": self.time,
        }


def check_manifest(value: Any, path: Path) -> None:
    """Check that a file is an export this program can read.

    Raises:
        BadInput: it is not.
    """
    found = value.get("format") if isinstance(value, Mapping) else None
    if found == FORMAT:
        return
    if isinstance(found, str) and found.startswith("lanaprof-lut/"):
        raise BadInput(
            f"{path} has format {found}, this program reads {FORMAT}",
            hint="install a newer lanaprof: pip install --upgrade lanaprof",
        )
    raise not_an_export(path)


def not_an_export(path: Path) -> BadInput:
    """Return the error for a file that is no export at all."""
    return BadInput(
        f"{path} is not a lanaprof export: it has no manifest with format {FORMAT}",
        hint="`lanaprof lut export --out F.jsonl.zst` writes one; .jsonl, .jsonl.zst, .parquet and .sqlite can be read",
    )


def row_from_json(row: int, value: Any) -> FileRow:
    """Return the row with the record in JSON values, or with what is wrong."""
    found = value.get("id") if isinstance(value, Mapping) else None
    identity = found if isinstance(found, str) else ""
    try:
        return FileRow(row=row, id=identity, record=record_from_json(value))
    except BadInput as error:
        return FileRow(row=row, id=identity, problem=error.message)
