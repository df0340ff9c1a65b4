"""Device, team, since and protocol choose the same records on every path: export, import, merge, push, pull."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import open_store

PARTS = ("device=cpu", "team=audio", "since=2026-04-01", "protocol=hot/2")
EXPECTED = {
    "device=cpu": {"usual", "audio", "late", "second"},
    "team=audio": {"audio"},
    "since=2026-04-01": {"late"},
    "protocol=hot/2": {"second"},
}


@pytest.fixture
def rows(lut: Any) -> dict[str, Any]:
    """A database ``lab.db`` in which each part chooses other measurements; its own by name."""
    gpu = lut.environment(backend="tensorrt", gpu_model="Example GPU")
    made = {
        "usual": lut.measurement(),
        "audio": lut.measurement(team="audio"),
        "late": lut.measurement(time="2026-04-02T00:00:00Z"),
        "second": lut.measurement(protocol="hot/2"),
        "gpu": lut.measurement(environment=gpu.id),
    }
    lut.database("lab.db", gpu, *made.values())
    return made


def held(database: str | Path, rows: dict[str, Any]) -> set[str]:
    """Return the names of the measurements in a database, whose operators and environments are those needed."""
    with open_store(database) as store:
        found = store.measurements()
        assert {row.environment for row in found} == {each.id for each in store.environments()}
        assert {row.operator for row in found} == set(store.operator_keys())
    return {name for name, row in rows.items() if row.id in {each.id for each in found}}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["part.jsonl.zst", "part.parquet", "part.sqlite"])
def test_export_of_a_part(cli: Any, rows: dict[str, Any], part: str, name: str) -> None:
    """By the SOURCE and by the option, in every format."""
    option, _, value = part.partition("=")
    cli("lut", "export", f"lab.db#{part}", "--out", name)
    cli("lut", "export", "lab.db", f"--{option}", value, "--out", f"option.{name}")

    for file in (name, f"option.{name}"):
        assert cli("lut", "import", file, "--database", f"{file}.db").code == 0
        assert held(f"{file}.db", rows) == EXPECTED[part]


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", ["lab.jsonl.zst", "lab.parquet", "lab.sqlite"])
def test_import_of_a_part(cli: Any, rows: dict[str, Any], part: str, name: str) -> None:
    """What a whole export holds is chosen from when it is imported."""
    option, _, value = part.partition("=")
    cli("lut", "export", "lab.db", "--out", name)

    ran = cli("lut", "import", name, "--database", "new.db", f"--{option}", value, "--json")

    assert (ran.code, ran.json["refused"]) == (0, 0)
    assert held("new.db", rows) == EXPECTED[part]


@pytest.mark.parametrize("part", PARTS)
def test_merge_push_and_pull_of_a_part(cli: Any, rows: dict[str, Any], part: str) -> None:
    """From one database to another."""
    cli("lut", "merge", f"lab.db#{part}", "merged.db")
    cli("lut", "push", "pushed.db", f"lab.db#{part}", "--create")
    cli("lut", "pull", f"lab.db#{part}", "--database", "pulled.db")

    for database in ("merged.db", "pushed.db", "pulled.db"):
        assert held(database, rows) == EXPECTED[part]


def test_import_of_a_device_nobody_measured(lut: Any, cli: Any, rows: dict[str, Any]) -> None:
    """A plain error that lists what the file has."""
    cli("lut", "export", "lab.db#team=audio", "--out", "part.jsonl")

    ran = cli("lut", "import", "part.jsonl", "--database", "new.db", "--device", "v100")

    assert ran.code == 2
    assert "was measured on device 'v100'" in ran.err
    assert "Example CPU" in ran.err


def test_refused_rows_are_written_to_a_file(lut: Any, cli: Any, rows: dict[str, Any]) -> None:
    """Every one with its file, row and reason, however many; people are shown the first."""
    Path("bad.jsonl").write_text('{"format":"lanaprof-lut/1"}\n' + '{"record":"wish"}\n' * 30)

    ran = cli("lut", "import", "bad.jsonl", "--database", "new.db", "--refused", "refused.jsonl")

    listed = [json.loads(line) for line in Path("refused.jsonl").read_text().splitlines()]
    assert ran.code == 3
    assert [each["row"] for each in listed] == list(range(2, 32))
    assert listed[0]["file"] == "bad.jsonl"
    assert "record is 'wish'" in listed[0]["reason"]
    assert "and 10 more refused; refused.jsonl has all" in ran.out


def test_refused_rows_cannot_be_written_nowhere(lut: Any, cli: Any, rows: dict[str, Any]) -> None:
    """Refused before a database is made."""
    cli("lut", "export", "lab.db", "--out", "lab.jsonl")

    ran = cli("lut", "import", "lab.jsonl", "--database", "new.db", "--refused", "no/folder/refused.jsonl")

    assert (ran.code, Path("new.db").exists()) == (2, False)
    assert "cannot write no/folder/refused.jsonl" in ran.err
