"""Export, import and merge: every format holds the same records, and union is union in any order."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lanaprof.digest import canonical_json
from lanaprof.errors import BadInput, SchemaMismatch, StoreError
from lanaprof.lut import (
    ImportReport,
    RecordFilter,
    Store,
    check,
    export_file,
    import_files,
    merge,
    open_store,
    parquet,
)
from lanaprof.lut.filerow import Manifest

FORMATS = ("jsonl", "jsonl.zst", "parquet", "sqlite", "db")
FIXTURES = Path(__file__).parent / "fixtures"


def lines_of(database: str | Path, folder: Path) -> list[str]:
    """Return a database's export after the manifest: equal lists mean equal content."""
    out = folder / "compare.jsonl"
    with open_store(database) as store:
        export_file(store, out)
    return out.read_text().splitlines()[1:]


@pytest.mark.parametrize("ending", FORMATS)
def test_what_is_exported_comes_back(store: Store, make: Any, tmp_path: Path, ending: str) -> None:
    """Every format brings every kind of record back, bit for bit."""
    store.add(make.one_of_each())
    out, copy = tmp_path / f"out.{ending}", tmp_path / "copy.db"

    assert export_file(store, out).records == 8
    with open_store(copy, create=True) as other:
        assert import_files(other, [out]) == ImportReport(added=8)
        assert import_files(other, [out]) == ImportReport(known=8)
        assert list(other.iter_records()) == list(store.iter_records())
    assert check(copy).problems == ()


@pytest.mark.parametrize("ending", FORMATS)
def test_format_is_told_by_content(store: Store, make: Any, tmp_path: Path, ending: str) -> None:
    """A renamed file is read all the same."""
    store.add(make.one_of_each())
    export_file(store, tmp_path / f"out.{ending}")
    renamed = tmp_path / "from_a_friend.txt"
    (tmp_path / f"out.{ending}").rename(renamed)

    with open_store(tmp_path / "copy.db", create=True) as other:
        assert import_files(other, [renamed]).added == 8


@pytest.mark.parametrize("ending", FORMATS)
def test_empty_database_is_exported(store: Store, tmp_path: Path, ending: str) -> None:
    """No records is a valid export."""
    out = tmp_path / f"out.{ending}"

    assert export_file(store, out).records == 0
    with open_store(tmp_path / "copy.db", create=True) as other:
        assert import_files(other, [out]) == ImportReport()


def test_json_lines_are_as_documented(store: Store, make: Any, tmp_path: Path) -> None:
    """Line 1 is the manifest; then canonical JSON, sorted by (record, id)."""
    store.add(make.one_of_each())
    export_file(store, tmp_path / "out.jsonl")
    manifest, *lines = (tmp_path / "out.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]

    assert json.loads(manifest)["format"] == "lanaprof-lut/1"
    assert sorted(json.loads(manifest)) == ["format", "schema", "time", "tool_version"]
    assert lines == [canonical_json(value) for value in values]
    places = [(value["record"], value["id"]) for value in values]
    assert places == sorted(places)


def test_equal_content_gives_equal_bytes(store: Store, make: Any, address: str, tmp_path: Path) -> None:
    """The order in which records came leaves no trace after line 1."""
    records = make.one_of_each()
    store.add(records)
    with open_store(tmp_path / "other.db", create=True) as other:
        for record in sorted(records, key=lambda each: each.record not in ("environment", "operator")):
            assert other.add([record]).added == 1

    assert lines_of(address, tmp_path) == lines_of(tmp_path / "other.db", tmp_path)


def test_compressed_lines_are_the_plain_ones(store: Store, make: Any, tmp_path: Path) -> None:
    """Any zstd tool gives the plain text."""
    store.add(make.one_of_each())
    export_file(store, tmp_path / "out.jsonl")
    export_file(store, tmp_path / "out.jsonl.zst")
    content = zstandard.ZstdDecompressor().stream_reader((tmp_path / "out.jsonl.zst").read_bytes()).read()

    assert content.splitlines()[1:] == (tmp_path / "out.jsonl").read_bytes().splitlines()[1:]


def test_parquet_has_the_columns_of_a_measurement(store: Store, make: Any, tmp_path: Path) -> None:
    """pandas reads measurements as typed columns."""
    import pandas as pd

    store.add(make.one_of_each())
    export_file(store, tmp_path / "out.parquet")
    frame = pd.read_parquet(tmp_path / "out.parquet")
    row = frame[frame.record == "measurement"].iloc[0]

    assert [name for name in frame.columns if name != "json"] == list(make.measurement().to_json())
    assert (row.latency_s, list(row.samples), list(row.rounds)) == (1e-3, [1.0e-3, 1.1e-3, 1.2e-3], [0, 0, 1])


def test_exported_sqlite_is_one_file(store: Store, make: Any, tmp_path: Path) -> None:
    """It needs no log beside it, and importing it leaves it as it is."""
    store.add(make.one_of_each())
    folder = tmp_path / "export"
    folder.mkdir()
    export_file(store, folder / "out.sqlite")
    before = (folder / "out.sqlite").read_bytes()
    with open_store(tmp_path / "copy.db", create=True) as other:
        import_files(other, [folder / "out.sqlite"])

    assert [path.name for path in folder.iterdir()] == ["out.sqlite"]
    assert (folder / "out.sqlite").read_bytes() == before


@pytest.mark.parametrize("ending", FORMATS)
def test_filter_chooses_what_is_exported(store: Store, make: Any, tmp_path: Path, ending: str) -> None:
    """Only one team's records and what they refer to leave the database."""
    store.add([*make.one_of_each(), make.measurement(team="robots")])

    report = export_file(store, tmp_path / f"out.{ending}", records=RecordFilter(team="robots"))

    assert report.records == 4  # measurement, operator, environment, recipe


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("out.csv", "cannot tell the format from 'out.csv'"),
        ("out", "cannot tell the format"),
        ("missing/out.jsonl", "does not exist"),
        ("folder.jsonl", "is a folder"),
        ("lut.db", "is a database already"),
        ("database.jsonl", "is a database already"),
    ],
)
def test_unsuitable_output_is_refused(
    store: Store, database: Path, tmp_path: Path, name: str, reason: str
) -> None:
    """Unknown formats, missing folders and databases in the way are plain errors; nothing is left over."""
    (tmp_path / "folder.jsonl").mkdir()
    shutil.copy(FIXTURES / "schema_0002.db", tmp_path / "database.jsonl")
    before = sorted(tmp_path.iterdir())
    assert database in before

    with pytest.raises(BadInput) as caught:
        export_file(store, tmp_path / name)

    assert reason in caught.value.message
    assert caught.value.hint
    assert sorted(tmp_path.iterdir()) == before


def test_failed_export_leaves_the_old_file(store: Store, make: Any, database: Path, tmp_path: Path) -> None:
    """An export that breaks off does not touch what was there."""
    store.add(make.one_of_each())
    out = tmp_path / "out.jsonl"
    out.write_text("last week's")
    connection = sqlite3.connect(database)
    connection.execute("UPDATE measurements SET samples = x'00'")
    connection.commit()
    connection.close()

    with pytest.raises(BadInput, match="samples are damaged"):
        export_file(store, out)

    assert out.read_text() == "last week's"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_existing_export_is_replaced(store: Store, make: Any, tmp_path: Path) -> None:
    """Exporting again to the same name gives the newer content."""
    export_file(store, tmp_path / "out.parquet")
    store.add(make.one_of_each())

    assert export_file(store, tmp_path / "out.parquet").records == 8
    with open_store(tmp_path / "copy.db", create=True) as other:
        assert import_files(other, [tmp_path / "out.parquet"]).added == 8


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"hello",
        b"\x00\xff\x00\xff",
        b"[1, 2]\n",
        b"{}\n",
        b'{"format":"other/1"}\n',
        b"\x28\xb5\x2f\xfd",
        b"\x28\xb5\x2f\xfdgarbage" * 10,
        b"PAR1",
        b"PAR1garbagePAR1",
        b"SQLite format 3\0",
        b"SQLite format 3\0" + b"x" * 5000,
        b"PK\x03\x04zip",
        b"[" * 100_000,
    ],
)
def test_garbage_is_refused_whole(store: Store, make: Any, tmp_path: Path, content: bytes) -> None:
    """What is no export is refused before anything is added, also beside good files."""
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad"
    with open_store(tmp_path / "other.db", create=True) as other:
        other.add(make.one_of_each())
        export_file(other, good)
    bad.write_bytes(content)

    with pytest.raises(BadInput) as caught:
        import_files(store, [good, bad])

    assert str(bad) in caught.value.message
    assert sum(store.counts().values()) == 0


def test_newer_format_says_what_to_do(store: Store, tmp_path: Path) -> None:
    """A file of a later lanaprof is named as such."""
    (tmp_path / "new.jsonl").write_text('{"format":"lanaprof-lut/2"}\n')

    with pytest.raises(BadInput, match="has format lanaprof-lut/2") as caught:
        import_files(store, [tmp_path / "new.jsonl"])
    assert "newer lanaprof" in caught.value.hint


def test_missing_file_is_named(store: Store, tmp_path: Path) -> None:
    """A file that is not there, and a folder, are plain errors."""
    with pytest.raises(BadInput, match="there is no file"):
        import_files(store, [tmp_path / "nothing.jsonl"])
    with pytest.raises(BadInput, match="not a regular file"):
        import_files(store, [tmp_path])


def bad_lines(make: Any) -> list[tuple[bytes, str]]:
    """Return damaged lines, each with a part of the reason it is refused for."""
    sound = make.measurement().to_json()
    return [
        (b"not json", "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[]", "a record is a JSON object"),
        (b'{"record":"wish"}', "record is 'wish'"),
        (canonical_json({**sound, "team": "robots"}).encode(), "changed or damaged"),
        (canonical_json({**sound, "latency_s": "1ms"}).encode(), "latency_s is '1ms', expected a number"),
        (json.dumps({**sound, "latency_s": float("nan")}).encode(), "expected a finite number"),
        (canonical_json(make.measurement(operator="0" * 32).to_json()).encode(), "its operator 0000"),
        (b"[" * 100_000, "nested too deeply"),
    ]


@pytest.mark.parametrize("compress", [False, True])
def test_bad_lines_do_not_spoil_the_rest(store: Store, make: Any, tmp_path: Path, compress: bool) -> None:
    """Each bad line is refused with its number and a reason; every good one is added."""
    bad = bad_lines(make)
    good = [canonical_json(record.to_json()).encode() for record in make.one_of_each()]
    lines = [b'\xef\xbb\xbf{"format":"lanaprof-lut/1"}']
    for index in range(max(len(bad), len(good))):
        lines += [line for line, _ in bad[index : index + 1]] + good[index : index + 1] + [b""]
    content = b"\r\n".join(lines)
    path = tmp_path / "mixed.jsonl"
    path.write_bytes(zstandard.compress(content) if compress else content)

    report = import_files(store, [path])

    assert report.added == 8
    assert [lines[refusal.row - 1] for refusal in report.refused] == [line for line, _ in bad]
    for refusal, (_, reason) in zip(report.refused, bad, strict=True):
        assert reason in refusal.reason
        assert refusal.file == str(path)


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.zst"])
def test_exports_can_be_strung_together(store: Store, make: Any, tmp_path: Path, ending: str) -> None:
    """`cat a b > c` of two exports is an export."""
    store.add(make.one_of_each())
    out = tmp_path / f"out.{ending}"
    export_file(store, out)
    out.write_bytes(out.read_bytes() * 2)

    with open_store(tmp_path / "copy.db", create=True) as other:
        assert import_files(other, [out]) == ImportReport(added=8, known=8)


def test_file_cut_short_gives_what_came_before(store: Store, make: Any, tmp_path: Path) -> None:
    """Half a download: the whole lines are added, and the break is reported."""
    with open_store(tmp_path / "big.db", create=True) as big:
        big.add([make.score(images=images, candidate=f"{images * 7919:x}" * 5) for images in range(4000)])
        for name in ("out.jsonl", "out.jsonl.zst"):
            export_file(big, tmp_path / name)
            content = (tmp_path / name).read_bytes()
            (tmp_path / name).write_bytes(content[: len(content) * 2 // 3 - 1])

            report = import_files(store, [tmp_path / name])

            assert report.added + report.known > 500
            assert len(report.refused) == 1
            assert "cut short" in report.refused[0].reason or "ends" in report.refused[0].reason


def test_a_long_parquet_file_is_not_kept_in_memory(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read of it is let go: its row groups come one after the other, however many there are."""
    import pyarrow as pa

    monkeypatch.setattr(parquet, "_ROW_GROUP", 25)
    monkeypatch.setattr(parquet, "_BATCH", 25)
    chance = random.Random(0)
    out, rounds = tmp_path / "out.parquet", tuple(range(500))
    records = (
        make.measurement(samples=tuple(chance.random() for _ in rounds), rounds=rounds) for _ in range(1000)
    )
    manifest = Manifest(schema="s", tool_version="0", time="2026-01-01T00:00:00Z")
    parquet.write(out, manifest, records)
    before, most, count = pa.total_allocated_bytes(), 0, 0
    for row in parquet.read(out, None):
        assert row.record is not None, row.problem
        count += 1
        most = max(most, pa.total_allocated_bytes() - before)

    assert count == 1000
    assert most < out.stat().st_size / 4


def test_tampered_parquet_row_is_refused(store: Store, make: Any, tmp_path: Path) -> None:
    """A changed latency no longer gives the id; the other rows are added."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    store.add(make.one_of_each())
    export_file(store, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    rows = table.to_pylist()
    for row in rows:
        if row["record"] == "measurement":
            row["latency_s"] = 0.0009999
        if row["record"] == "score":
            row["id"] = "0" * 32
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "out.parquet")

    with open_store(tmp_path / "copy.db", create=True) as other:
        report = import_files(other, [tmp_path / "out.parquet"])

    assert report.added == 6
    assert ["changed or damaged" in each.reason or "disagree" in each.reason for each in report.refused] == [
        True,
        True,
    ]
    assert all(rows[each.row - 1]["record"] in ("measurement", "score") for each in report.refused)


def test_parquet_damaged_inside_is_reported(store: Store, make: Any, tmp_path: Path) -> None:
    """Broken pages are a refusal, not a crash."""
    store.add([make.score(images=images, candidate=f"{images * 7919:x}" * 5) for images in range(3000)])
    out = tmp_path / "out.parquet"
    export_file(store, out)
    content = bytearray(out.read_bytes())
    content[1000:20_000] = b"\x00" * 19_000
    out.write_bytes(content)

    with open_store(tmp_path / "copy.db", create=True) as other:
        report = import_files(other, [out])

    assert len(report.refused) >= 1
    assert "damaged" in report.refused[-1].reason


def test_old_sqlite_file_says_how_to_upgrade_it(store: Store, tmp_path: Path) -> None:
    """A database with an older schema is not imported on a guess."""
    shutil.copy(FIXTURES / "schema_0001.db", tmp_path / "old.db")

    with pytest.raises(SchemaMismatch, match="0001_tables") as caught:
        import_files(store, [tmp_path / "old.db"])
    assert "lanaprof lut upgrade" in caught.value.hint


def test_merge_makes_its_destination(store: Store, make: Any, address: str, tmp_path: Path) -> None:
    """A missing destination is made; a missing source is an error that leaves no destination behind."""
    store.add(make.one_of_each())

    assert merge(address, tmp_path / "new.db") == ImportReport(added=8)
    assert merge(store, tmp_path / "new.db") == ImportReport(known=8)
    with pytest.raises(StoreError, match="there is no database"):
        merge(tmp_path / "nothing.db", tmp_path / "never.db")
    assert not (tmp_path / "never.db").exists()


def test_merge_with_itself_changes_nothing(store: Store, make: Any, address: str) -> None:
    """A set united with itself is itself."""
    store.add(make.one_of_each())

    assert merge(address, address) == ImportReport(known=8)
