"""lanaprof lut as a whole, and export, import and merge."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lanaprof.cli.lut import COMMANDS
from lanaprof.lut import open_store


def test_every_command_has_help(cli: Any) -> None:
    """Each subcommand loads and says what it does."""
    helps = {name: cli("lut", name, "--help") for name in COMMANDS}

    assert {name: ran.code for name, ran in helps.items()} == dict.fromkeys(COMMANDS, 0)
    assert all("Usage:" in ran.out and "--json" in ran.out for ran in helps.values())


def test_without_a_command_help_is_shown(cli: Any) -> None:
    """A bare `lut` lists its commands and exits 2."""
    ran = cli("lut")

    assert ran.code == 2
    assert all(name in ran.out for name in COMMANDS)


def test_unknown_command_is_an_error(cli: Any) -> None:
    """A slip in the command's name exits 2."""
    ran = cli("lut", "covrage", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "UsageError")


def test_commands_import_nothing_heavy(lut: Any) -> None:
    """The commands need none of torch, onnx, onnxruntime, tensorrt, pandas and pyarrow."""
    lut.database("lanaprof.db", lut.measurement())
    program = """
import sys
from click.testing import CliRunner
from lanaprof.cli import main
key = sys.argv[1]
for words in ("ls", "show " + key, "coverage --device cpu", "coverage", "compare lanaprof.db lanaprof.db",
              "export --out f.jsonl.zst", "import f.jsonl.zst", "merge lanaprof.db other.db", "push third.db --create",
              "pull third.db", "check", "upgrade", "upgrade --dry-run",
              "retract " + "0" * 32 + " --reason x"):
    result = CliRunner().invoke(main, ["lut", *words.split()])
    assert result.exit_code == 0, (words, result.output)
print(sorted({"torch", "onnx", "onnxruntime", "tensorrt", "pandas", "pyarrow", "pulp"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, lut.operator().id], capture_output=True, text=True, check=False
    )

    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# ------------------------------------------------------------ bad databases

READERS = (
    ("ls",), ("show", "0000"), ("coverage",), ("export", "--out", "f.jsonl"), ("check",), ("upgrade",),
    ("retract", "0" * 32, "--reason", "x"),
)  # fmt: skip


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_a_missing_database_is_not_made(lut: Any, cli: Any, words: tuple[str, ...]) -> None:
    """Commands that read say that there is none, and leave none behind."""
    ran = cli("lut", *words, "--database", "absent.db", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")
    assert "absent.db" in ran.json["error"]["message"]
    assert ran.json["error"]["hint"]
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_garbage_is_no_database(lut: Any, cli: Any, words: tuple[str, ...]) -> None:
    """A file that is no database is refused and stays as it is."""
    Path("notes.db").write_text("dear diary\n" * 100)

    ran = cli("lut", *words, "--database", "notes.db")

    assert ran.code == 2
    assert "notes.db" in ran.err
    assert "Traceback" not in ran.err
    assert Path("notes.db").read_text() == "dear diary\n" * 100


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
def test_another_programs_database_is_refused(lut: Any, cli: Any, words: tuple[str, ...]) -> None:
    """A SQLite file that is not ours is left alone."""
    connection = sqlite3.connect("foreign.db")
    connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.commit()
    connection.close()

    ran = cli("lut", *words, "--database", "foreign.db", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")


@pytest.mark.parametrize(
    "url", ["mysql://host/name", "nonsense://x", "postgresql://u:secret@localhost:1/none"]
)
def test_a_url_that_leads_nowhere_is_an_error(lut: Any, cli: Any, url: str) -> None:
    """An URL of another system, of none, or of a server that is not there: exit 2, and no password is shown."""
    ran = cli("lut", "ls", url, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")
    assert "secret" not in ran.out + ran.err


def test_an_unknown_part_of_a_source_is_an_error(lut: Any, cli: Any) -> None:
    """`#…` takes known parts only."""
    lut.database("lanaprof.db")

    ran = cli("lut", "ls", "lanaprof.db#colour=red", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert "colour" in ran.json["error"]["message"]


# ------------------------------------------------------------ export and import


@pytest.mark.parametrize("name", ["f.jsonl", "f.jsonl.zst", "f.sqlite", "f.parquet"])
def test_what_is_exported_can_be_imported(lut: Any, cli: Any, name: str) -> None:
    """Every format carries every record; a missing database is made; importing again adds nothing."""
    lut.database("lanaprof.db", lut.measurement(), lut.measurement(team="audio"))

    exported = cli("lut", "export", "--out", name, "--json")
    first = cli("lut", "import", name, "--database", "new.db", "--json")
    second = cli("lut", "import", name, "--database", "new.db", "--json")

    assert (exported.code, exported.json["path"], exported.json["records"]) == (0, name, 4)
    assert exported.json["size_bytes"] == Path(name).stat().st_size
    assert (first.code, first.json) == (
        0, {"database": "new.db", "added": 4, "known": 0, "refused": 0, "refusals": []}
    )  # fmt: skip
    assert (second.json["added"], second.json["known"]) == (0, 4)


def test_export_says_what_it_wrote(lut: Any, cli: Any) -> None:
    """Without --json a person reads the file's name and the number of records."""
    lut.database("lanaprof.db", lut.measurement())

    assert cli("lut", "export", "--out", "f.jsonl").out.startswith("f.jsonl: 3 records, ")


@pytest.mark.parametrize(
    "words",
    [
        ("--team", "audio"), ("--since", "2026-04-01"), ("--device", "cpu,threads=2"),
        ("lanaprof.db#team=audio",), ("lanaprof.db#since=2026-04-01",), ("lanaprof.db#device=cpu,threads=2",),
        ("lanaprof.db#team=vision", "--team", "audio"),
    ],
)  # fmt: skip
def test_export_takes_a_part(lut: Any, cli: Any, words: tuple[str, ...]) -> None:
    """By device, team or time, in SOURCE or as options, which come first; what a record needs comes along."""
    two = lut.environment(threads=2)
    chosen = lut.measurement(16, team="audio", environment=two.id, time="2026-05-01T00:00:00Z")
    lut.database("lanaprof.db", lut.measurement(), lut.operator(16), two, chosen)

    ran = cli("lut", "export", "--out", "f.jsonl", *words, "--json")

    assert ran.code == 0, ran.out
    ids = {json.loads(line).get("id") for line in Path("f.jsonl").read_text().splitlines()[1:]}
    assert ids == {lut.operator(16).id, two.id, chosen.id}


def test_the_users_own_team_does_not_narrow_an_export(lut: Any, cli: Any, monkeypatch: Any) -> None:
    """LANAPROF_TEAM says who one is, not whose records are wanted."""
    lut.database("lanaprof.db", lut.measurement())
    monkeypatch.setenv("LANAPROF_TEAM", "audio")

    assert cli("lut", "export", "--out", "f.jsonl", "--json").json["records"] == 3


def test_an_export_of_nothing_says_so(lut: Any, cli: Any) -> None:
    """A file without records is written, and the user is told."""
    lut.database("lanaprof.db", lut.measurement())

    ran = cli("lut", "export", "--out", "f.jsonl", "--team", "nobody", "--json")

    assert (ran.code, ran.json["records"]) == (0, 0)
    assert "no records" in ran.err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("--out", "f.csv"), "BadInput"),
        (("--out", "absent/f.jsonl"), "BadInput"),
        (("--out", "lanaprof.db"), "BadInput"),
        (("--out", "f.jsonl", "--since", "yesterday"), "BadInput"),
        (("--out", "f.jsonl", "--device", "toaster"), "UnknownDevice"),
        (("--out", "f.jsonl", "--device", "cpu,threads=7"), "BadInput"),
        (("--out", "f.jsonl", "--environment", "ffff"), "BadInput"),
        ((), "UsageError"),
    ],
)
def test_a_bad_export_writes_nothing(lut: Any, cli: Any, words: tuple[str, ...], kind: str) -> None:
    """Unknown endings, folders, times, devices and environments: exit 2, no file, the database as before."""
    database = lut.database("lanaprof.db", lut.measurement())
    before = database.read_bytes()

    ran = cli("lut", "export", *words, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, kind)
    assert [path.name for path in Path.cwd().iterdir()] == ["lanaprof.db"]
    assert database.read_bytes() == before


def test_refused_rows_do_not_spoil_the_rest(lut: Any, cli: Any) -> None:
    """Damaged rows are counted with their reasons, the rest is added, exit 3."""
    lut.database("lanaprof.db", lut.measurement())
    cli("lut", "export", "--out", "f.jsonl")
    text = Path("f.jsonl").read_text().replace('"latency_s":0.001', '"latency_s":0.002')
    Path("f.jsonl").write_text(text + "not json\n")

    ran = cli("lut", "import", "f.jsonl", "--database", "new.db", "--json")
    shown = cli("lut", "import", "f.jsonl", "--database", "new.db")

    assert (ran.code, ran.json["added"], ran.json["refused"]) == (3, 2, 2)
    assert {(row["file"], row["row"]) for row in ran.json["refusals"]} == {("f.jsonl", 3), ("f.jsonl", 5)}
    assert all(row["reason"] for row in ran.json["refusals"])
    assert shown.code == 3
    assert "refused: f.jsonl, row 5: not JSON" in shown.out
    assert "0 records added, 2 known already, 2 refused" in shown.out


@pytest.mark.parametrize("name", ["absent.jsonl", "garbage.jsonl", "."])
def test_what_is_no_export_is_not_imported(lut: Any, cli: Any, name: str) -> None:
    """A missing file, garbage and a folder: exit 2, and the good file beside them is not imported either."""
    lut.database("lanaprof.db", lut.measurement())
    cli("lut", "export", "--out", "good.jsonl")
    Path("garbage.jsonl").write_text("hello\n")
    target = lut.database("target.db")

    ran = cli("lut", "import", "good.jsonl", name, "--database", target, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    with open_store(target) as store:
        assert store.counts()["measurement"] == 0


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_missing_file_makes_no_database(lut: Any, cli: Any, name: str) -> None:
    """A slip in a file's name leaves nothing behind."""
    ran = cli("lut", "import", name, "--json")

    assert ran.code == 2
    assert not list(Path.cwd().iterdir())


# ------------------------------------------------------------ merge


def test_merge_is_a_union(lut: Any, cli: Any) -> None:
    """What DST lacks is added; merging again, or back, changes nothing more; a missing DST is made."""
    a, b = lut.measurement(team="audio"), lut.measurement(team="vision")
    lut.database("a.db", a)
    lut.database("b.db", b)

    into = cli("lut", "merge", "a.db", "b.db", "--json")
    back = cli("lut", "merge", "b.db", "a.db", "--json")
    again = cli("lut", "merge", "b.db", "a.db")
    made = cli("lut", "merge", "a.db", "c.db", "--json")

    assert [(r.code, r.json["added"], r.json["known"], r.json["refused"]) for r in (into, back, made)] == [
        (0, 1, 2, 0), (0, 1, 3, 0), (0, 4, 0, 0)
    ]  # fmt: skip
    assert again.out == "a.db: 0 records added, 4 known already, 0 refused\n"
    with open_store("c.db") as store:
        assert {row.id for row in store.measurements()} == {a.id, b.id}


def test_merge_takes_a_part(lut: Any, cli: Any) -> None:
    """SRC may choose by team."""
    lut.database("a.db", lut.measurement(team="audio"), lut.measurement(team="vision"))

    assert cli("lut", "merge", "a.db#team=audio", "b.db", "--json").json["added"] == 3


def test_merge_into_a_part_is_an_error(lut: Any, cli: Any) -> None:
    """DST is taken whole: a #… there is no file's name by accident."""
    lut.database("a.db")

    ran = cli("lut", "merge", "a.db", "b.db#team=audio", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert [path.name for path in Path.cwd().iterdir()] == ["a.db"]


def test_merge_from_nothing_makes_nothing(lut: Any, cli: Any) -> None:
    """A missing SRC is an error, and DST is not made."""
    ran = cli("lut", "merge", "a.db", "b.db")

    assert ran.code == 2
    assert "a.db" in ran.err
    assert not list(Path.cwd().iterdir())
