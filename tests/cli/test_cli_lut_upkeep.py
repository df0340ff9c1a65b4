"""lanaprof lut retract, upgrade and check."""

from __future__ import annotations

import shutil
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import open_store

OLD_SCHEMA = Path(str(resources.files("lanaprof"))).parent / "tests" / "lut" / "fixtures" / "schema_0001.db"


def test_retract_takes_beginnings(lut: Any, cli: Any) -> None:
    """One's own measurement counts no more; once more changes nothing."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)

    first = cli("lut", "retract", row.id[:6], "--reason", "fan broken", "--team", "vision", "--json")
    second = cli("lut", "retract", row.id, "--reason", "again", "--team", "vision")

    assert (first.code, first.json["retracted"], first.json["ids"]) == (0, 1, [row.id])
    assert second.out == "0 retracted, 1 retracted before\n"
    with open_store("lanaprof.db") as store:
        assert store.measurements() == ()
        assert [each.reason for each in store.retractions()] == ["fan broken"]


def test_the_team_is_found_where_others_look(lut: Any, cli: Any, monkeypatch: Any) -> None:
    """Without --team: LANAPROF_TEAM, then lanaprof.toml, then local."""
    lut.database("lanaprof.db")
    words = ("lut", "retract", "1" * 32, "--reason", "x", "--json")

    found = [cli(*words).json["team"]]
    lut.project(team="filed")
    found.append(cli(*words).json["team"])
    monkeypatch.setenv("LANAPROF_TEAM", "environment")
    found.append(cli(*words).json["team"])

    assert found == ["local", "filed", "environment"]


def test_a_retraction_may_come_first(lut: Any, cli: Any) -> None:
    """A whole id that is not here yet is retracted, and the user is told that it waits."""
    row = lut.measurement()
    lut.database("lanaprof.db")

    ran = cli("lut", "retract", row.id, "--reason", "x", "--team", "vision", "--json")

    assert (ran.code, ran.json["absent"]) == (0, [row.id])
    assert row.id in ran.err
    with open_store("lanaprof.db") as store:
        store.add([row])
        assert store.measurements() == ()


@pytest.mark.parametrize("text", ["beef", "not an id", "", "0" * 31])
def test_an_id_that_is_none_retracts_nothing(lut: Any, cli: Any, text: str) -> None:
    """One bad id among good ones: exit 2, and the good ones still count."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)

    ran = cli("lut", "retract", row.id, text, "--reason", "x", "--team", "vision", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    with open_store("lanaprof.db") as store:
        assert store.measurements(with_samples=True) == (row,)


def test_a_short_beginning_retracts_nothing(lut: Any, cli: Any) -> None:
    """A retraction is never undone, so less than four digits are too few even when they are unique."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)

    assert cli("lut", "retract", row.id[:3], "--reason", "x", "--team", "vision").code == 2


def test_an_ambiguous_beginning_lists_what_it_may_be(lut: Any, cli: Any) -> None:
    """Several measurements that start alike are all named."""
    rows = [lut.measurement(load=float(number)) for number in range(1000)]
    starts: dict[str, list[str]] = {}
    for row in rows:
        starts.setdefault(row.id[:4], []).append(row.id)
    prefix, ids = max(starts.items(), key=lambda item: len(item[1]))
    lut.database("lanaprof.db", *rows)

    ran = cli("lut", "retract", prefix, "--reason", "x", "--team", "vision")

    assert ran.code == 2
    assert all(key in ran.err for key in ids)


def test_only_the_own_team_retracts(lut: Any, cli: Any) -> None:
    """Another team's measurement stays; the hint names the team."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)

    ran = cli("lut", "retract", row.id, "--reason", "x", "--team", "audio")

    assert ran.code == 2
    assert "--team vision" in ran.err
    with open_store("lanaprof.db") as store:
        assert len(store.measurements()) == 1


@pytest.mark.parametrize("words", [(), ("--reason", "  ")])
def test_a_retraction_needs_a_reason(lut: Any, cli: Any, words: tuple[str, ...]) -> None:
    """None, or blanks, exit 2."""
    lut.database("lanaprof.db")

    assert cli("lut", "retract", "1" * 32, *words).code == 2


def test_upgrade_brings_an_old_database_to_head(lut: Any, cli: Any) -> None:
    """A database of the first release is refused with the command to type, upgraded with a copy, then used."""
    shutil.copy(OLD_SCHEMA, "old.db")

    refused = cli("lut", "ls", "old.db", "--json")
    done = cli("lut", "upgrade", "old.db", "--json")
    listed = cli("lut", "ls", "old.db", "--json")

    assert (refused.code, refused.json["error"]["type"]) == (2, "SchemaMismatch")
    assert refused.json["error"]["hint"] == "lanaprof lut upgrade --database old.db"
    assert (done.code, done.json["before"]) == (0, "0001_tables")
    assert cli("lut", "check", done.json["backup"], "--json").json["schema"] == "0001_tables"
    assert listed.code == 0


def test_upgrade_at_head_does_nothing(lut: Any, cli: Any) -> None:
    """There is no copy, and the text says so."""
    lut.database("lanaprof.db")

    ran = cli("lut", "upgrade")

    assert ran.code == 0
    assert "already" in ran.out
    assert [path.name for path in Path.cwd().iterdir()] == ["lanaprof.db"]


def test_upgrade_without_a_copy(lut: Any, cli: Any) -> None:
    """--no-backup leaves one file."""
    shutil.copy(OLD_SCHEMA, "old.db")

    ran = cli("lut", "upgrade", "--no-backup", "--database", "old.db")

    assert (ran.code, ran.out.startswith("old.db: schema 0001_tables → ")) == (0, True)
    assert not list(Path.cwd().glob("*.bak"))


def test_check_of_a_sound_database(lut: Any, cli: Any) -> None:
    """Exit 0 and the number of records verified."""
    lut.database("lanaprof.db", lut.measurement())

    ran = cli("lut", "check", "--json")

    assert (ran.code, ran.json["ok"], ran.json["records"], ran.json["problems"]) == (0, True, 3, [])
    assert "3 records verified: all is well" in cli("lut", "check", "lanaprof.db").out


def test_check_of_an_old_database_says_what_to_type(lut: Any, cli: Any) -> None:
    """An older schema is a problem with a command against it, exit 3."""
    shutil.copy(OLD_SCHEMA, "old.db")

    ran = cli("lut", "check", "old.db", "--json")

    assert (ran.code, ran.json["ok"], ran.json["schema"]) == (3, False, "0001_tables")
    assert ran.json["hint"] == "lanaprof lut upgrade --database old.db"


def test_check_finds_a_changed_number(lut: Any, cli: Any) -> None:
    """A latency changed behind our back is named with its measurement, exit 3."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)
    connection = sqlite3.connect("lanaprof.db")
    connection.execute("UPDATE measurements SET latency_s = 0.000995")
    connection.commit()
    connection.close()

    ran = cli("lut", "check", "--json")
    shown = cli("lut", "check")

    assert (ran.code, ran.json["ok"]) == (3, False)
    assert any(row.id in problem for problem in ran.json["problems"])
    assert shown.code == 3
    assert row.id in shown.out


def test_upkeep_takes_a_whole_database(lut: Any, cli: Any) -> None:
    """Neither check nor upgrade can be of a part."""
    lut.database("lanaprof.db")

    assert [cli("lut", name, "lanaprof.db#team=a").code for name in ("check", "upgrade")] == [2, 2]


def test_the_environment_names_the_database(lut: Any, cli: Any, monkeypatch: Any) -> None:
    """LANAPROF_DATABASE comes after SOURCE and --database, before lanaprof.toml and lanaprof.db."""
    for name in ("argument.db", "option.db", "environment.db", "file.db", "lanaprof.db"):
        lut.database(name)

    found = [cli("lut", "check", "--json").json["database"]]
    lut.project(database="file.db")
    found.append(Path(cli("lut", "check", "--json").json["database"]).name)
    monkeypatch.setenv("LANAPROF_DATABASE", "environment.db")
    found.append(cli("lut", "check", "--json").json["database"])
    found.append(cli("lut", "check", "--database", "option.db", "--json").json["database"])
    found.append(cli("lut", "check", "argument.db", "--database", "option.db", "--json").json["database"])

    assert found == ["lanaprof.db", "file.db", "environment.db", "option.db", "argument.db"]
