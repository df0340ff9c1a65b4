"""Parquet: the same records, one a row, for pandas and its kin.

A measurement fills the typed columns, named like its fields. Every other record is in the column ``json``
as canonical text, beside ``record`` and ``id``. The id, a digest of the whole record, is verified on import,
so no two copies of a value need comparing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
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


def write(path: Path, manifest: Manifest, records: Iterable[Record]) -> int:
    """Write a file and return the number of records in it."""
    import pyarrow as pa  # heavy, and needed only for Parquet
    from pyarrow.parquet import ParquetWriter

    schema = _schema(manifest)
    count = 0
    with ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for chunk in chunked(records, _ROW_GROUP):
            writer.write_table(pa.Table.from_pylist([_row_of(record) for record in chunk], schema=schema))
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


def read(path: Path, kinds: Sequence[str] | None) -> Iterator[FileRow]:
    """Yield the rows of a file that `check` accepted.

    Args:
        path: the file.
        kinds: only these kinds of record; rows that cannot be read are then left out. None yields all.
    """
    import pyarrow as pa  # heavy, and needed only for Parquet
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=_BATCH):
                for value in batch.to_pylist():
                    number += 1
                    if kinds is not None and value.get("record") not in kinds:
                        continue
                    row = _row_from(number, value)
                    if kinds is None or row.record is not None:
                        yield row
    except (pa.ArrowException, OSError, ValueError) as error:
        if kinds is None:
            yield FileRow(row=number + 1, id="", problem=f"the file is damaged from here on: {error}")


def _row_of(record: Record) -> dict[str, Any]:
    value = record.to_json()
    if isinstance(record, Measurement):
        return value
    return {"record": record.record, "id": record.id, "json": canonical_json(value)}


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
