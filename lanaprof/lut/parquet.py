"""Parquet: the same records, one a row, for pandas and its kin.

A measurement fills the typed columns, named like its fields. Every other record is in the column ``json``
as canonical text, beside ``record`` and ``id``. The id, a digest of the whole record, is verified on import,
so no two copies of a value need comparing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lanaprof.digest import canonical_json
from lanaprof.lut.adding import chunked
from lanaprof.lut.fields import field_codecs
from lanaprof.lut.filerow import FileRow, Manifest, check_manifest, not_an_export, row_from_json
from lanaprof.lut.records import Measurement, Record

__all__ = ["MAGIC", "check", "read", "write"]

MAGIC = b"PAR1"
_MANIFEST_KEY = b"lanaprof"
_BATCH = 2_000  # rows in memory at a time
_ROW_GROUP = 20_000  # rows in one row group
_VALUES_MOST = 2**25  # in one column of one row group: 256 MiB of float64; ours have 20,000 rows
_LIST_MOST = 2**20  # numbers in one list: a thousand times a campaign's
_LIGHT = ("record", "id", "json")  # the columns of all records but measurements


def write(path: Path, manifest: Manifest, records: Iterable[Record]) -> int:
    """Write a file and return the number of records in it."""
    from pyarrow.parquet import ParquetWriter

    schema = _schema(manifest)
    count = 0
    with ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for chunk in chunked(records, _ROW_GROUP):
            writer.write_table(_table_of(chunk, schema))
            count += len(chunk)
    return count


def check(path: Path) -> None:
    """Check that a file is Parquet with our manifest.

    Raises:
        BadInput: it is not.
    """
    import pyarrow as pa  # heavy, and needed only for Parquet
    from pyarrow.parquet import read_schema

    try:
        metadata = read_schema(path).metadata or {}
        check_manifest(json.loads(metadata.get(_MANIFEST_KEY, b"null")), path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise not_an_export(path) from error


def read(
    path: Path, kinds: Sequence[str] | None, follow: Callable[[float, float, str], None] | None = None
) -> Iterator[FileRow]:
    """Yield the rows of a file that `check` accepted.

    Args:
        path: the file.
        kinds: only these kinds of record; rows that cannot be read are then left out. None yields all.
        follow: told how far it is when all are asked for: done, in all, and of what.
    """
    import pyarrow as pa  # heavy, and needed only for Parquet
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        # Not buffered ahead: what was read would be kept until the file is closed.
        with ParquetFile(path, page_checksum_verification=True, pre_buffer=False) as file:
            # Measurements are nearly all there is: where they are not asked for, their columns are not read.
            _refuse_bombs(file.metadata)
            light = kinds is not None and "measurement" not in kinds
            columns = [name for name in _LIGHT if name in file.schema_arrow.names] if light else None
            for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
                if follow is not None and kinds is None:
                    follow(number, file.metadata.num_rows, f"rows of {path.name}")
                for value in _values_of(batch):
                    number += 1
                    if kinds is not None and value.get("record") not in kinds:
                        continue
                    row = _row_from(number, value)
                    if kinds is None or row.record is not None:
                        yield row
    except (pa.ArrowException, OSError, ValueError) as error:
        if kinds is None:
            problem = f"the file is damaged from here on: {error}"
            yield FileRow(row=number + 1, id="", problem=problem, breaks=True)


def _refuse_bombs(metadata: Any) -> None:
    """Check that no part of a file unfolds into more than memory can hold: a few bytes may stand for any number.

    Raises:
        ValueError: one does.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for place in range(group.num_columns):
            count = group.column(place).num_values
            if count > _VALUES_MOST:
                raise ValueError(
                    f"row group {number} holds {count} values in one column, more than {_VALUES_MOST}"
                )


def _values_of(batch: Any) -> Iterator[dict[str, Any]]:
    """Yield a batch's rows as JSON values, column by column: lists of numbers are not looked at one by one."""
    names = batch.schema.names
    columns = [_column_of(batch.column(place)) for place in range(len(names))]
    for values in zip(*columns, strict=True):
        yield dict(zip(names, values, strict=True))


def _column_of(column: Any) -> list[Any]:
    import pyarrow as pa  # heavy, and needed only for Parquet

    kind = column.type
    numbers = pa.types.is_list(kind) and (
        pa.types.is_float64(kind.value_type) or pa.types.is_uint16(kind.value_type)
    )
    if not numbers or column.values.null_count:
        found: list[Any] = column.to_pylist()
        return found
    flat = column.values.to_numpy(zero_copy_only=False)
    ends = column.offsets.to_numpy(zero_copy_only=False).tolist()
    there = column.is_valid().to_pylist()
    return [
        (flat[first:last].tolist() if last - first <= _LIST_MOST else f"{last - first} numbers")
        if valid
        else None
        for valid, first, last in zip(there, ends[:-1], ends[1:], strict=True)
    ]


def _table_of(records: Sequence[Record], schema: Any) -> Any:
    import pyarrow as pa  # heavy, and needed only for Parquet

    timed = [record if isinstance(record, Measurement) else None for record in records]
    texts = [
        canonical_json(record.to_json()) if found is None else None
        for record, found in zip(records, timed, strict=True)
    ]
    columns = {
        "record": [record.record for record in records],
        "id": [record.id for record in records],
        "json": texts,
    }
    arrays = []
    for field in schema:
        if field.name in columns:
            arrays.append(pa.array(columns[field.name], field.type))
            continue
        values = [None if record is None else getattr(record, field.name) for record in timed]
        arrays.append(
            _lists(values, field.type) if pa.types.is_list(field.type) else pa.array(values, field.type)
        )
    return pa.Table.from_arrays(arrays, schema=schema)


def _lists(values: Sequence[Sequence[float] | None], kind: Any) -> Any:
    """Return a column of lists of numbers, made of one flat column."""
    import numpy as np  # heavy, and needed only for Parquet
    import pyarrow as pa  # heavy, and needed only for Parquet

    lengths = [len(value) if value is not None else 0 for value in values]
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    flat = np.fromiter(
        itertools.chain.from_iterable(value or () for value in values), kind.value_type.to_pandas_dtype()
    )
    absent = pa.array([value is None for value in values])
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), type=kind, mask=absent)


def _row_from(number: int, value: dict[str, Any]) -> FileRow:
    text = value.pop("json", None)
    if text is None:
        return row_from_json(number, value)
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError) as error:
        return FileRow(
            row=number, id=str(value.get("id") or ""), problem=f"column json is not JSON ({error})"
        )
    if not isinstance(whole, dict) or any(whole.get(name) != value.get(name) for name in ("record", "id")):
        return FileRow(
            row=number,
            id=str(value.get("id") or ""),
            problem="columns record and id disagree with column json",
        )
    return row_from_json(number, whole)


def _schema(manifest: Manifest) -> Any:
    import pyarrow as pa  # heavy, and needed only for Parquet

    types = {
        "str": pa.string(),
        "int": pa.int64(),
        "float | None": pa.float64(),
        "tuple[float, ...]": pa.list_(pa.float64()),
        "tuple[int, ...]": pa.list_(pa.uint16()),
    }
    declared = {
        name: str(Measurement.__dataclass_fields__[name].type) for name, _ in field_codecs(Measurement)
    }
    fields = [("record", pa.string()), ("id", pa.string())]
    fields += [(name, types[kind]) for name, kind in declared.items()]
    fields += [("json", pa.string())]
    return pa.schema(fields, metadata={_MANIFEST_KEY: canonical_json(manifest.to_json()).encode()})
