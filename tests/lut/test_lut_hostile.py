"""Files made to do harm, or by somebody who did not care: refused row by row, in bounded memory, with a reason."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import zstandard

from lanaprof.digest import canonical_json, digest
from lanaprof.lut import ImportReport, RefusedRow, Store, export_file, import_files, open_store
from lanaprof.lut.exchange import LISTED

MANIFEST = b'{"format":"lanaprof-lut/1"}\n'


def line_of(value: dict[str, Any]) -> bytes:
    return f"{canonical_json(value)}\n".encode()


def sound_lines(make: Any) -> bytes:
    """Return an operator, an environment and a measurement."""
    return b"".join(
        line_of(each.to_json()) for each in (make.operator(), make.environment(), make.measurement())
    )


def reasons(report: ImportReport) -> list[str]:
    return [each.reason for each in report.refused]


def raw_line(make: Any, **fields: str) -> bytes:
    """Return a measurement's line with the texts of some fields put in as they are."""
    marks = {name: f"\x01{name}\x01" for name in fields}
    text = json.dumps({**make.measurement().to_json(), **marks})
    for name, value in fields.items():
        text = text.replace(json.dumps(marks[name]), value)
    return text.encode() + b"\n"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"latency_s": "NaN"}, "latency_s is nan, expected a finite number"),
        ({"samples": "[Infinity, 1, 2]"}, "samples is inf, expected a finite number"),
        ({"ci_high_s": "1e999"}, "ci_high_s is inf, expected a finite number"),
        (
            {"rejected": "9" * 30},
            "rejected is 999999999999999999999999999999, expected an integer from 0 to 2^63",
        ),
        ({"rejected": "9" * 10_000}, "not JSON"),
        ({"rounds": "[0, 0, 65536]"}, "rounds exceeds 65535"),
        ({"rounds": "[0, 0, -1]"}, "rounds is -1, expected an integer from 0"),
        ({"rounds": "[0, 0, true]"}, "rounds is True, expected an integer"),
        ({"samples": '["1e-3", 1, 2]'}, "samples is '1e-3', expected a number"),
        ({"samples": "[[1], 1, 2]"}, "samples is [1], expected a number"),
        ({"samples": '"123"'}, "samples is '123', expected a list"),
        ({"samples": '{"0": 1}'}, "samples is {'0': 1}, expected a list"),
        ({"team": "7"}, "team is 7, expected text"),
        ({"team": '"\\ud800"'}, "team holds half a surrogate pair"),
        ({"host": '"a\\u0000b"'}, "host holds a NUL character"),
        ({"team": json.dumps("x" * 101)}, "team has 101 characters, more than 100"),
        ({"time": '"yesterday"'}, "time is 'yesterday', expected UTC"),
        ({"record": '"wish"'}, "record is 'wish'; known"),
        ({"record": '["measurement"]'}, "record is ['measurement']; known"),
        ({"id": '"' + "0" * 32 + '"'}, "the record was changed or damaged"),
        ({"id": "7"}, "the record was changed or damaged"),
        ({"operator": '"' + "0" * 32 + '"'}, "the record was changed or damaged"),
    ],
)
def test_hostile_fields_are_refused(
    store: Store, make: Any, tmp_path: Path, fields: Any, reason: str
) -> None:
    """The row is refused with the reason; its neighbours are added."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(MANIFEST + raw_line(make, **fields) + sound_lines(make))

    report = import_files(store, [path])

    assert (report.added, [each.row for each in report.refused]) == (3, [2])
    assert reason in reasons(report)[0]


def test_same_id_with_other_content_is_refused(store: Store, make: Any, tmp_path: Path) -> None:
    """An id is the digest of its content: whichever comes first, only the sound one is stored."""
    sound = make.measurement()
    other = {**make.measurement(latency_s=9e-3).to_json(), "id": sound.id}
    path = tmp_path / "twice.jsonl"
    path.write_bytes(MANIFEST + line_of(other) + sound_lines(make) + line_of(other))

    report = import_files(store, [path])

    assert (report.added, [each.row for each in report.refused]) == (3, [2, 6])
    assert store.find_measurements([sound.id]) == {sound.id: sound}


def test_a_line_that_says_two_kinds_is_refused(store: Store, make: Any, tmp_path: Path) -> None:
    """Neither pass over the file may lose it without a word."""
    operator = canonical_json(make.operator(9).to_json())
    sly = '{"cache":"hot","record":"measurement",' + operator[1:] + "\n"
    path = tmp_path / "sly.jsonl"
    path.write_bytes(MANIFEST + sly.encode() + sound_lines(make))

    report = import_files(store, [path])

    assert (report.added, reasons(report)) == (3, ["a key stands in it twice"])


def test_fields_in_another_order_or_with_spaces_are_the_same_record(
    store: Store, make: Any, tmp_path: Path
) -> None:
    """What another tool wrote is taken by its content."""
    records = (make.operator(), make.environment(), make.measurement())
    lines = [json.dumps(dict(reversed(each.to_json().items())), indent=None) for each in reversed(records)]
    path = tmp_path / "other.jsonl"
    path.write_bytes(MANIFEST + "\n".join(lines).encode())

    assert import_files(store, [path]) == ImportReport(added=3)


_IMPORT = """
import sys
from lanaprof.lut import import_files, open_store
with open_store(sys.argv[1], create=True) as store:
    report = import_files(store, sys.argv[2:])
print(report.added, [each.reason[:40] for each in report.refused])
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_a_line_of_a_gigabyte_is_skipped(python: Callable[..., Any], make: Any, tmp_path: Path) -> None:
    """A file of 100 kB unfolds to one endless line: refused, what follows is added, and memory stays small."""
    path = tmp_path / "bomb.jsonl.zst"
    with path.open("wb") as raw, zstandard.ZstdCompressor().stream_writer(raw) as file:
        file.write(MANIFEST + b'{"record":"score","metric":"')
        for _ in range(1024):
            file.write(b"x" * 2**20)
        file.write(b'"}\n' + sound_lines(make))
    assert path.stat().st_size < 2**18

    out, err = python(_IMPORT, str(tmp_path / "new.db"), str(path)).communicate()

    assert err == ""
    told, peak_kib = out.splitlines()
    assert told == "3 ['longer than 8388608 bytes']"
    assert int(peak_kib) < 250_000


def test_a_file_cut_within_a_frame_gives_what_came_before(store: Store, make: Any, tmp_path: Path) -> None:
    """The whole lines are added, the break is reported, and nothing hangs."""
    path = tmp_path / "cut.jsonl.zst"
    whole = zstandard.compress(MANIFEST + sound_lines(make) + b" " * 2**22)
    path.write_bytes(whole[:-5])

    report = import_files(store, [path])

    assert report.added == 3
    assert any(word in reasons(report)[-1] for word in ("ends or is damaged", "cut short"))


def test_garbage_behind_a_frame_is_reported(store: Store, make: Any, tmp_path: Path) -> None:
    """What is no compressed data any more is one refused row."""
    path = tmp_path / "tail.jsonl.zst"
    path.write_bytes(zstandard.compress(MANIFEST + sound_lines(make)) + b"and then some text")

    report = import_files(store, [path])

    assert (report.added, len(report.refused)) == (3, 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"latency_s": -1.0, "ci_low_s": -2.0},
        {"latency_s": "fast"},
        {"team": ""},
        {"cache": "hot", "space": "s"},
    ],
)
def test_a_database_with_unsound_rows_is_merged_without_them(
    store: Store, make: Any, tmp_path: Path, fields: dict[str, Any]
) -> None:
    """SQLite keeps anything in any column; an id that fits what is wrong does not make it right."""
    path = tmp_path / "sly.db"
    sound, victim = make.measurement(), make.measurement(team="robots")
    with open_store(path, create=True) as other:
        other.add([make.operator(), make.environment(), sound, victim])
    value = {**victim.to_json(), **fields}
    del value["id"]
    changes = {**fields, "id": digest(value)}
    with closing(sqlite3.connect(path)) as connection:
        assignments = ", ".join(f"{name} = ?" for name in changes)
        connection.execute(
            f"UPDATE measurements SET {assignments} WHERE id = ?", (*changes.values(), victim.id)
        )
        connection.commit()

    report = import_files(store, [path])

    assert (report.added, [each.id for each in report.refused]) == (3, [changes["id"]])
    assert [each.id for each in store.measurements()] == [sound.id]


def write_parquet(store: Store, path: Path, change: Callable[[Any, Any], Any]) -> None:
    """Export, and write the changed table with the same metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    export_file(store, path)
    table = pq.read_table(path)
    changed = change(pa, table)
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), path)


def _replaced(table: Any, name: str, column: Any) -> Any:
    return table.set_column(table.schema.get_field_index(name), name, column)


@pytest.mark.parametrize(
    ("change", "added", "reason"),
    [
        (lambda pa, t: t.drop_columns(["team", "load"]), 2, "measurement record: team, load is missing"),
        (lambda pa, t: t.drop_columns(["record"]), 0, "record is None"),
        (lambda pa, t: t.drop_columns(["json"]), 0, "is missing"),
        (
            lambda pa, t: _replaced(t, "latency_s", t["latency_s"].cast(pa.string())),
            2,
            "latency_s is '0.001', expected a number",
        ),
        (
            lambda pa, t: _replaced(t, "samples", pa.array([["x"]] * t.num_rows)),
            2,
            "samples is 'x', expected a number",
        ),
        (
            lambda pa, t: _replaced(t, "samples", pa.array([[1e-3, None, 1e-3]] * t.num_rows)),
            2,
            "samples is None, expected a number",
        ),
        (
            lambda pa, t: _replaced(t, "samples", pa.array([[1e-3, float("nan"), 1e-3]] * t.num_rows)),
            2,
            "samples is nan, expected a finite number",
        ),
        (
            lambda pa, t: _replaced(t, "time", pa.array([0] * t.num_rows, pa.timestamp("us"))),
            2,
            "time is",
        ),
        (
            lambda pa, t: t.append_column("surprise", pa.array([1] * t.num_rows)),
            2,
            "unknown field 'surprise'",
        ),
    ],
)
def test_parquet_of_another_shape_is_refused_row_by_row(
    store: Store, make: Any, tmp_path: Path, change: Any, added: int, reason: str
) -> None:
    """Missing columns, other types, missing and unknown values: a reason for each row, and no crash."""
    store.add([make.operator(), make.environment(), make.measurement()])
    write_parquet(store, tmp_path / "bad.parquet", change)

    with open_store(tmp_path / "copy.db", create=True) as copy:
        report = import_files(copy, [tmp_path / "bad.parquet"])

    assert report.added == added
    assert any(reason in each for each in reasons(report)), reasons(report)


def test_parquet_whose_list_unfolds_is_refused(store: Store, make: Any, tmp_path: Path) -> None:
    """Three million zeros in a few bytes are no campaign; the other rows are added."""
    store.add([make.operator(), make.environment(), make.measurement()])
    write_parquet(
        store,
        tmp_path / "bomb.parquet",
        lambda pa, t: _replaced(
            t, "samples", pa.array([[0.0] * 3_000_000 if s else None for s in t["samples"].to_pylist()])
        ),
    )

    with open_store(tmp_path / "copy.db", create=True) as copy:
        report = import_files(copy, [tmp_path / "bomb.parquet"])

    assert (report.added, reasons(report)) == (
        2,
        ["measurement record: samples is '3000000 numbers', expected a list"],
    )


def test_parquet_that_unfolds_beyond_memory_is_refused(
    store: Store, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says how many values a column has; too many are not even read."""
    monkeypatch.setattr("lanaprof.lut.parquet._VALUES_MOST", 2)
    store.add([make.operator(), make.environment(), make.measurement()])
    export_file(store, tmp_path / "out.parquet")

    report = import_files(store, [tmp_path / "out.parquet"])

    assert (report.added, len(report.refused)) == (0, 1)
    assert "values in one column, more than 2" in reasons(report)[0]


def test_many_refused_rows_are_counted_noted_and_not_kept(store: Store, tmp_path: Path) -> None:
    """A file that is all wrong does not fill the memory: the report lists the first, a note gets every one."""
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(MANIFEST + b"{}\n" * (LISTED + 500))
    noted: list[RefusedRow] = []

    report = import_files(store, [path], note=noted.append)

    assert (len(report.refused), report.unlisted, report.refused_count) == (LISTED, 500, LISTED + 500)
    assert [each.row for each in noted] == list(range(2, LISTED + 502))


def test_progress_is_told(store: Store, make: Any, tmp_path: Path) -> None:
    """Megabytes of lines, rows of Parquet, records of a database: never more than there are."""
    store.add([make.score(images=images) for images in range(1, 6001)])
    told: list[tuple[float, float, str]] = []

    def follow(done: float, whole: float, what: str) -> None:
        told.append((done, whole, what))

    for name in ("out.jsonl", "out.parquet", "out.db"):
        export_file(store, tmp_path / name, follow=follow)
        import_files(store, [tmp_path / name], follow=follow)

    assert all(0 <= done <= whole for done, whole, _ in told)
    assert {what for *_, what in told} >= {"scores", "MB of out.jsonl", "rows of out.parquet"}
