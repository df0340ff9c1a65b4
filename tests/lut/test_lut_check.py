"""`lut check`: what was damaged or changed behind lanaprof's back is found."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import LanaprofError, StoreError
from lanaprof.lut import Store, check, merge
from lanaprof.lut.models import HEAD

FIXTURES = Path(__file__).parent / "fixtures"


def test_damaged_file_is_reported(store: Store, make: Any, database: Path) -> None:
    """A file with a broken page gives problems, not a crash."""
    store.add([make.score(images=images) for images in range(500)])
    store.close()
    content = bytearray(database.read_bytes())
    content[-20_000:-12_000] = b"\xff" * 8000
    database.write_bytes(content)

    report = check(database)

    assert not report.ok
    assert "damaged" in report.problems[0] or "stopped" in report.problems[-1]


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE measurements SET latency_s = 0.0009905", "changed or damaged"),
        ("UPDATE measurements SET samples = x'00'", "samples are damaged"),
        ("UPDATE operators SET macs = 1", "derived columns do not follow"),
        ("UPDATE selections SET choices = '{'", "selection"),
        ("DELETE FROM operators", "refers to a row of operators that is not there"),
        ("DROP VIEW v_score", "view v_score is missing"),
        ("DROP INDEX ix_recipes_recipe", "schema differs"),
    ],
)
def test_check_finds_what_was_tampered_with(
    store: Store, make: Any, database: Path, statement: str, problem: str
) -> None:
    """Changes behind lanaprof's back are found, each by its own sentence."""
    store.add(make.one_of_each())
    assert check(database).problems == ()
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()

    assert any(problem in each for each in check(database).problems)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE selections SET choices = '{'", "selection .* in the database is damaged"),
        ("UPDATE scores SET layer = CAST(x'ff' AS TEXT)", "is damaged"),
        ("ALTER TABLE selections DROP COLUMN method", "its tables are not those of its schema"),
    ],
)
def test_reading_what_is_damaged_is_a_plain_error(
    store: Store, make: Any, database: Path, statement: str, problem: str
) -> None:
    """No crash, exit code 2, and the command that says more."""
    store.add(make.one_of_each())
    connection = sqlite3.connect(database)
    connection.execute(statement)
    connection.commit()
    connection.close()

    with pytest.raises(LanaprofError, match=problem) as caught:
        list(store.iter_records())
    assert caught.value.exit_code == 2
    assert "lanaprof lut check" in caught.value.hint


def test_a_file_that_was_cut_off_is_not_referred_to_its_own_check(store: Store, database: Path) -> None:
    """The check says what else can be done."""
    store.close()
    database.write_bytes(database.read_bytes()[:3000])

    with pytest.raises(StoreError, match="damaged") as caught:
        check(database)
    assert "lut check" not in caught.value.hint.partition("then")[0]
    assert ".recover" in caught.value.hint


def test_damaged_record_is_not_merged(store: Store, make: Any, database: Path, tmp_path: Path) -> None:
    """A row whose content does not give its id stays where it is; the others are merged."""
    store.add(make.one_of_each())
    connection = sqlite3.connect(database)
    connection.execute("UPDATE scores SET score = x'00'")
    connection.commit()
    connection.close()

    report = merge(database, tmp_path / "new.db")

    assert report.added == 7
    assert [(each.id, each.reason) for each in report.refused] == [
        (make.score().id, "it was read without its samples, or its content is damaged")
    ]


def test_check_reports_an_old_schema(tmp_path: Path) -> None:
    """A schema behind head is a problem of its own."""
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / "schema_0001.db", path)

    assert check(path).problems == (f"the schema is 0001_tables, this program's is {HEAD}",)


def test_check_of_nothing_is_an_error(database: Path) -> None:
    """There must be a database to check."""
    with pytest.raises(StoreError, match="there is no database"):
        check(database)
