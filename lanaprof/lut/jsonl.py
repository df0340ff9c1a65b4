"""JSON lines, plain or compressed: line 1 is the manifest, then one record a line, sorted by (record, id)."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput
from lanaprof.lut.filerow import FORMAT, FileRow, Manifest, check_manifest, not_an_export, row_from_json
from lanaprof.lut.records import Record

__all__ = ["MAX_LINE_BYTES", "check", "read", "write"]

MAX_LINE_BYTES = 2**26  # 64 MiB: a hundred times the largest record, and no danger to memory
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # editors on Windows put it first


def write(path: Path, manifest: Manifest, records: Iterable[Record], *, compress: bool) -> int:
    """Write a file and return the number of records in it."""
    count = 0
    with path.open("wb") as raw, _compressing(raw, compress) as file:
        file.write(f"{canonical_json(manifest.to_json())}\n".encode())
        for record in records:
            file.write(f"{canonical_json(record.to_json())}\n".encode())
            count += 1
    return count


def check(path: Path) -> None:
    """Check that a file starts with a manifest.

    Raises:
        BadInput: it does not.
    """
    import zstandard  # a compiled library that only files need

    try:
        with _lines(path) as file:
            first = file.readline(MAX_LINE_BYTES)
        check_manifest(json.loads(first.removeprefix(_BYTE_ORDER_MARK)), path)
    except (ValueError, RecursionError, EOFError, zstandard.ZstdError):
        raise not_an_export(path) from None


def read(path: Path, kinds: Sequence[str] | None) -> Iterator[FileRow]:
    """Yield the rows of a file that `check` accepted.

    Args:
        path: the file.
        kinds: only these kinds of record; rows that cannot be read are then left out. None yields all.
    """
    import zstandard  # a compiled library that only files need

    number = 1
    try:
        with _lines(path) as file:
            file.readline()
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(line) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(MAX_LINE_BYTES)
                    row: FileRow | None = FileRow(
                        row=number, id="", problem=f"longer than {MAX_LINE_BYTES} bytes"
                    )
                elif kinds is not None and "measurement" not in kinds and _is_measurement(line):
                    continue  # nearly every line, and not asked for
                else:
                    row = _row(number, line, kinds)
                if row is not None and (kinds is None or row.record is not None):
                    yield row
    except (zstandard.ZstdError, EOFError) as error:
        if kinds is None:
            yield FileRow(
                row=number + 1, id="", problem=f"the compressed data ends or is damaged here: {error}"
            )
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}", hint="check the disk") from error


def _row(number: int, line: bytes, kinds: Sequence[str] | None) -> FileRow | None:
    if not line.strip():
        return None
    try:
        value: Any = json.loads(line.decode())
    except UnicodeDecodeError:
        return FileRow(row=number, id="", problem="not UTF-8 text")
    except RecursionError:
        return FileRow(row=number, id="", problem="nested too deeply")
    except ValueError as error:
        cut = "" if line.endswith(b"\n") else "; the file may have been cut short"
        return FileRow(row=number, id="", problem=f"not JSON ({error}){cut}")
    if isinstance(value, dict) and value.get("format") == FORMAT and "record" not in value:
        return None  # another manifest: exports may be strung together
    kind = value.get("record") if isinstance(value, dict) else None
    if kinds is not None and kind not in kinds:
        return None
    if kind != "measurement" and _is_measurement(line):
        return FileRow(
            row=number, id="", problem="a key stands in it twice"
        )  # no pass over the file would take it
    return row_from_json(number, value)


def _is_measurement(line: bytes) -> bool:
    """Return whether a line holds a measurement, without reading it all; other kinds have no field ``cache``."""
    return line.startswith(b'{"cache":') and b'"record":"measurement"' in line


@contextmanager
def _compressing(raw: IO[bytes], compress: bool) -> Iterator[IO[bytes]]:
    if not compress:
        yield raw
        return
    import zstandard  # a compiled library that only files need

    compressor = zstandard.ZstdCompressor(level=9, write_checksum=True)
    with compressor.stream_writer(raw, closefd=False) as file:
        yield file


@contextmanager
def _lines(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file of lines, decompressed when its first bytes say so."""
    with path.open("rb") as raw:
        start = raw.read(len(_ZSTD_MAGIC))
        raw.seek(0)
        if start != _ZSTD_MAGIC:
            yield raw
            return
        import zstandard  # a compiled library that only files need

        decompressor = zstandard.ZstdDecompressor()
        with decompressor.stream_reader(raw, read_across_frames=True, closefd=False) as stream:
            yield io.BufferedReader(_Decompressed(stream), buffer_size=2**20)


class _Decompressed(io.RawIOBase):
    """A decompressing stream as a raw file, so that the standard library finds the lines."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))
