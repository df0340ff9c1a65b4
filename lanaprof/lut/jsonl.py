"""JSON lines, plain or compressed: line 1 is the manifest, then one record a line, sorted by (record, id)."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput
from lanaprof.lut.canonical import measurement_from_line
from lanaprof.lut.filerow import FORMAT, FileRow, Manifest, check_manifest, not_an_export, row_from_json
from lanaprof.lut.records import Record

__all__ = ["MAX_LINE_BYTES", "check", "read", "write"]

MAX_LINE_BYTES = 2**23  # 8 MiB: ten times the largest record; as a list of numbers 40 times that in memory
_TOLD = 2_000  # lines between two reports of progress
_COMPRESSED_BYTES = 2**11  # unfolded at a time: at worst, 32,768-fold, to 64 MiB
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
        with _lines(path) as (file, _):
            first = file.readline(MAX_LINE_BYTES)
        check_manifest(json.loads(first.removeprefix(_BYTE_ORDER_MARK)), path)
    except (ValueError, RecursionError, EOFError, zstandard.ZstdError):
        raise not_an_export(path) from None


def read(
    path: Path, kinds: Sequence[str] | None, follow: Callable[[float, float, str], None] | None = None
) -> Iterator[FileRow]:
    """Yield the rows of a file that `check` accepted.

    Args:
        path: the file.
        kinds: only these kinds of record; rows that cannot be read are then left out. None yields all.
        follow: told how far it is when all are asked for: done, in all, and of what.
    """
    import zstandard  # a compiled library that only files need

    number = 1
    whole_mb = path.stat().st_size / 1e6
    try:
        with _lines(path) as (file, raw):
            file.readline()
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if follow is not None and kinds is None and number % _TOLD == 0:
                    follow(round(raw.tell() / 1e6, 1), round(whole_mb, 1), f"MB of {path.name}")
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
    if kinds is None and _is_measurement(line):
        found = measurement_from_line(line)
        if found is not None:
            return FileRow(row=number, id=found.id, record=found)
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
def _lines(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Yield a file of lines, decompressed when its first bytes say so, and the file as it lies on the disk."""
    with path.open("rb") as raw:
        start = raw.read(len(_ZSTD_MAGIC))
        raw.seek(0)
        if start != _ZSTD_MAGIC:
            yield raw, raw
            return
        yield io.BufferedReader(_Decompressed(raw), buffer_size=2**20), raw


class _Decompressed(io.RawIOBase):
    """Compressed frames, one after the other, as a raw file, so that the standard library finds the lines.

    Not the library's own reader of streams: that one takes a file that was cut short for a whole one.

    Raises:
        EOFError: the last frame is not complete.
        ZstdError: the data is damaged.
    """

    def __init__(self, raw: IO[bytes]) -> None:
        super().__init__()
        self._raw = raw
        self._frame: Any = None
        self._unread = b""
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with what comes next, and return how much; 0 at the end."""
        while not self._ready:
            chunk = self._unread or self._raw.read(_COMPRESSED_BYTES)
            if not chunk:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            self._unfold(chunk)
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def _unfold(self, chunk: bytes) -> None:
        import zstandard  # a compiled library that only files need

        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._ready = memoryview(self._frame.decompress(chunk))
        self._unread = self._frame.unused_data
        if self._frame.eof:
            self._frame = None
