"""Records ↔ rows: the one place that knows how a record's fields lie in SQL columns."""

from __future__ import annotations

import dataclasses
import json
import sys
import zlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from operator import attrgetter
from typing import Any, TypeVar

from sqlalchemy import Column

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput
from lanaprof.lut.fields import LARGEST_INTEGER, Record, field_codecs
from lanaprof.lut.graph import describe_graph, graph_statistics
from lanaprof.lut.models import TABLES
from lanaprof.lut.records import RECORD_TYPES, Measurement, Operator

__all__ = ["columns_of", "pack_samples", "record_from_row", "row_from_record", "unpack_samples"]

R = TypeVar("R", bound=Record)
_STORED_MOST = 96  # samples; of a hundred and more zlib saves a twelfth at least
_ZLIB_HEADER = b"\x78\x01"  # a window of 32 KiB
_SAMPLE_BYTES = 8 + 2  # a float64 and its round as uint16


def pack_samples(samples: Sequence[float], rounds: Sequence[int]) -> bytes:
    """Return samples and their rounds as one blob: zlib of all float64, then all uint16, little-endian."""
    if not samples:
        return b""
    values, numbers = array("d", samples), array("H", rounds)
    if sys.byteorder == "big":
        values.byteswap()
        numbers.byteswap()
    data, tail = values.tobytes(), numbers.tobytes()
    if len(samples) <= _STORED_MOST and len(set(samples)) > 0.9 * len(samples):
        # Compressing so few different numbers takes ten times as long, and saves nothing: they are stored as they are,
        # the rounds compressed behind them (blocks of a zlib stream may be of both kinds: RFC 1950 and 1951).
        size = len(data).to_bytes(2, "little") + (0xFFFF - len(data)).to_bytes(2, "little")
        checksum = zlib.adler32(tail, zlib.adler32(data)).to_bytes(4, "big")
        return b"".join((_ZLIB_HEADER, b"\0", size, data, _deflated(tail), checksum))
    # A window of 4 KiB spans nearly every row's samples; setting up the usual 32 KiB takes longer than compressing.
    packer = zlib.compressobj(6, zlib.DEFLATED, 12, 5)
    return packer.compress(data + tail) + packer.flush()


@lru_cache(maxsize=256)
def _deflated(data: bytes) -> bytes:
    """Return the last blocks of a stream; the same rounds are met again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 8)
    return packer.compress(data) + packer.flush()


def unpack_samples(blob: bytes) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """Return the samples and their rounds that `pack_samples` packed.

    Raises:
        BadInput: the blob is damaged.
    """
    if not blob:
        return (), ()
    try:
        data = zlib.decompress(blob)
    except zlib.error as error:
        raise BadInput(f"the stored samples are damaged: {error}") from None
    count, rest = divmod(len(data), _SAMPLE_BYTES)
    if rest:
        raise BadInput("the stored samples are damaged: their length is wrong")
    values, numbers = array("d"), array("H")
    values.frombytes(data[: 8 * count])
    numbers.frombytes(data[8 * count :])
    if sys.byteorder == "big":
        values.byteswap()
        numbers.byteswap()
    return tuple(values), tuple(numbers)


def row_from_record(record: Record) -> dict[str, Any]:
    """Return a record's row, the operator's derived columns included.

    Raises:
        BadInput: an operator's sizes exceed SQL's integers.
    """
    row: dict[str, Any] = {"id": record.id}
    if isinstance(record, Measurement):  # nearly all there is, and its other fields are plain values
        names, read = _plain_fields()
        row.update(zip(names, read(record), strict=True), samples=pack_samples(record.samples, record.rounds))
        return row
    for name, codec in field_codecs(type(record)):
        value = codec.write(getattr(record, name))
        row[name] = canonical_json(value) if isinstance(value, (list, dict)) else value
    if isinstance(record, Operator):
        statistics = dataclasses.asdict(graph_statistics(record.graph))
        if max(statistics.values()) > LARGEST_INTEGER:
            raise BadInput("operator record: its shapes multiply to more than 2^63 - 1")
        row.update(statistics, description=describe_graph(record.graph))
    return row


@cache
def _plain_fields() -> tuple[tuple[str, ...], Callable[[Any], tuple[Any, ...]]]:
    """Return the fields of a measurement but its samples, and what reads them all at once."""
    names = tuple(name for name, _ in field_codecs(Measurement) if name not in ("samples", "rounds"))
    return names, attrgetter(*names)


def columns_of(cls: type[Record], *, with_samples: bool = True) -> list[Column[Any]]:
    """Return the columns to select, in the order `record_from_row` takes them: id, then the fields'."""
    table = TABLES[cls.record]
    names = [name for name, _ in field_codecs(cls) if name != "rounds" or cls is not Measurement]
    if not with_samples:
        names.remove("samples")
    return [table.c[name] for name in ("id", *names)]


def record_from_row(cls: type[R], row: Sequence[Any], *, with_samples: bool = True) -> R:
    """Return the record in a row of `columns_of`. The stored values are trusted; `lut check` verifies them.

    Raises:
        BadInput: a column cannot be read at all.
    """
    try:
        values = [
            read(value) if read else value
            for read, value in zip(_readers(cls, with_samples), row[1:], strict=True)
        ]
    except (ValueError, TypeError, AttributeError, BadInput) as error:
        raise BadInput(
            f"{cls.record} {row[0]} in the database is damaged: {error}",
            hint="`lanaprof lut check` lists all such rows",
        ) from error
    if cls is Measurement:
        place = _samples_place()
        values[place : place + with_samples] = values[place] if with_samples else ((), ())  # samples, rounds
    return cls.restore(row[0], values)


@cache
def _samples_place() -> int:
    return [name for name, _ in field_codecs(Measurement)].index("samples")


def _readers(cls: type[Record], with_samples: bool) -> tuple[Callable[[Any], Any] | None, ...]:
    return _all_readers()[cls.record, with_samples or cls is not Measurement]


@cache
def _all_readers() -> Mapping[tuple[str, bool], tuple[Callable[[Any], Any] | None, ...]]:
    """Return, per kind of record, how each selected column is read; None where the value is as it should be."""
    readers: dict[tuple[str, bool], tuple[Callable[[Any], Any] | None, ...]] = {}
    for kind, cls in RECORD_TYPES.items():
        types = {field.name: str(field.type) for field in dataclasses.fields(cls)}
        for with_samples in (True, False):
            if cls is not Measurement and not with_samples:
                continue
            names = [column.name for column in columns_of(cls, with_samples=with_samples)][1:]
            readers[kind, with_samples] = tuple(_reader(name, types[name]) for name in names)
    return readers


def _reader(name: str, declared: str) -> Callable[[Any], Any] | None:
    if name == "samples":
        return unpack_samples
    if declared == "Mapping[str, Any]":
        return json.loads
    if declared.startswith("tuple[tuple[str, "):
        return lambda text: tuple(json.loads(text).items())  # canonical JSON is sorted by name
    if declared.startswith("tuple[tuple["):
        return lambda text: tuple(tuple(row) for row in json.loads(text))
    if declared.startswith("tuple["):
        return lambda text: tuple(json.loads(text))
    return None
