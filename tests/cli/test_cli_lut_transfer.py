"""lanaprof lut push and pull, and the upgrade that is only shown."""

from __future__ import annotations

import shutil
import sqlite3
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

OLD_SCHEMA = Path(str(resources.files("lanaprof"))).parent / "tests" / "lut" / "fixtures" / "schema_0001.db"


def test_pushed_and_pulled_once(lut: Any, cli: Any) -> None:
    """What one lacks is sent, in both directions; again, nothing is."""
    lut.database("lanaprof.db", lut.measurement(team="audio"))
    lut.database("shared.db", lut.measurement(team="vision"))

    pushed = cli("lut", "push", "shared.db", "--json")
    pulled = cli("lut", "pull", "shared.db", "--json")
    again = cli("lut", "push", "shared.db")

    assert [(ran.code, ran.json["added"], ran.json["known"]) for ran in (pushed, pulled)] == [
        (0, 1, 2), (0, 1, 3)
    ]  # fmt: skip
    assert pulled.json["database"] == "lanaprof.db"
    assert again.out == "shared.db: 0 records added, 4 known already, 0 refused\n"


def test_a_part_is_pushed_and_pulled(lut: Any, cli: Any) -> None:
    """The #… of a SOURCE chooses, by team and protocol too."""
    audio = lut.measurement(team="audio")
    lut.database("lanaprof.db", audio, lut.measurement(team="vision"))

    pushed = cli("lut", "push", "shared.db", "lanaprof.db#team=audio", "--create", "--json")
    nothing = cli("lut", "pull", "shared.db#protocol=none/1", "--database", "new.db", "--json")
    pulled = cli("lut", "pull", f"shared.db#protocol={audio.protocol}", "--database", "new.db", "--json")

    assert [ran.json["added"] for ran in (pushed, nothing, pulled)] == [3, 0, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("push", "shared.db"), "no database at shared.db"),
        (("push", "lanaprof.db#team=audio"), "takes a whole database"),
        (("pull", "shared.db"), "no database at shared.db"),
        (("push", "https://hub.lab"), "is it a hub?"),
        (("push", "postgresql://me:s3cret@127.0.0.1:1/lut"), "postgresql://me:***@127.0.0.1:1/lut"),
    ],
)
def test_what_cannot_be_reached_is_a_plain_error(
    lut: Any, cli: Any, words: tuple[str, ...], message: str
) -> None:
    """Nothing is made unasked, and no password is printed."""
    lut.database("lanaprof.db", lut.measurement())

    ran = cli("lut", *words, "--json")

    assert ran.code == 2
    assert message in ran.json["error"]["message"]
    assert ran.json["error"]["hint"]
    assert "s3cret" not in ran.out + ran.err
    assert [path.name for path in Path.cwd().iterdir() if not path.name.startswith("lanaprof.db")] == []


def test_the_upgrade_that_is_shown_is_the_upgrade(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--dry-run changes nothing, and its SQL does what the upgrade does."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(OLD_SCHEMA, "shown.db")
    shutil.copy(OLD_SCHEMA, "done.db")
    before = Path("shown.db").read_bytes()

    shown = cli("lut", "upgrade", "--dry-run", "--database", "shown.db", "--json")
    text = cli("lut", "upgrade", "--dry-run", "--database", "shown.db")
    assert Path("shown.db").read_bytes() == before
    cli("lut", "upgrade", "--database", "done.db")
    schemas = []
    for name in ("shown.db", "done.db"):
        connection = sqlite3.connect(name)
        if name == "shown.db":
            connection.executescript(shown.json["sql"])
        schemas.append(connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall())
        connection.close()

    assert (shown.json["before"], shown.json["backup"]) == ("0001_tables", None)
    assert text.out.strip() == shown.json["sql"].strip()
    assert schemas[0] == schemas[1]
    assert cli("lut", "upgrade", "--dry-run", "--database", "done.db", "--json").json["sql"] == ""
