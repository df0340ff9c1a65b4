"""Opening, making and upgrading databases, and everything that can stand in the way."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from lanaprof.errors import SchemaMismatch, StoreError
from lanaprof.lut import Store, check, open_store, upgrade
from lanaprof.lut.engine import engine_for, locate, network_file_system, writing
from lanaprof.lut.models import HEAD, REVISIONS, VERSION_TABLE, VIEWS, metadata
from lanaprof.lut.schema import alembic_config, run_migrations

FIXTURES = Path(__file__).parent / "fixtures"


def set_version(database: Path, version: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = ?", [version])
    connection.commit()
    connection.close()


def schema_of(database: Path) -> list[tuple[str, str]]:
    connection = sqlite3.connect(database)
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name"
    ).fetchall()
    connection.close()
    return rows


def test_missing_database_is_made_when_asked(database: Path) -> None:
    """A new database has the schema of the migrations and uses the write-ahead log."""
    open_store(database, create=True).close()
    connection = sqlite3.connect(database)

    assert connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone() == (HEAD,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_missing_database_is_not_made_unasked(database: Path) -> None:
    """Reading what is not there says what creates it, and leaves nothing behind."""
    with pytest.raises(StoreError, match="there is no database at") as caught:
        open_store(database)

    assert "lanaprof measure" in caught.value.hint
    assert caught.value.exit_code == 2
    assert list(database.parent.iterdir()) == []


def test_acknowledged_rows_survive_power_cuts(store: Store, database: Path) -> None:
    """Every connection waits for the disk, checks foreign keys, and queues for the lock for 30 seconds."""
    with engine_for(locate(database)).connect() as connection:
        pragmas = ("synchronous", "foreign_keys", "busy_timeout")
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert values == [2, 1, 30_000]


def test_revisions_are_those_of_the_migrations() -> None:
    """The list that is known without Alembic is Alembic's."""
    scripts = ScriptDirectory.from_config(alembic_config())

    assert [script.revision for script in scripts.walk_revisions()][::-1] == list(REVISIONS)
    assert scripts.get_current_head() == HEAD


def test_models_are_what_the_migrations_make(store: Store, database: Path) -> None:
    """Alembic finds no difference, and the views are there."""
    engine = engine_for(locate(database))
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        differences = compare_metadata(context, metadata)
    engine.dispose()

    assert differences == []
    assert {name for name, sql in schema_of(database) if sql.startswith("CREATE VIEW")} == set(VIEWS)


def test_down_and_up_again_is_identity(store: Store, database: Path) -> None:
    """Every revision can be taken back and applied again."""
    before = schema_of(database)
    engine = engine_for(locate(database))
    for revision in [*REVISIONS[::-1][1:], "base"]:
        with writing(engine) as connection:
            run_migrations(connection, revision)
    empty = schema_of(database)
    with writing(engine) as connection:
        run_migrations(connection)
    engine.dispose()

    assert [name for name, _ in empty] == [VERSION_TABLE]
    assert schema_of(database) == before


@pytest.mark.parametrize("revision", REVISIONS)
def test_released_schema_is_upgraded_and_used(make: Any, tmp_path: Path, revision: str) -> None:
    """The file of every released schema comes to head with all its records, and takes new ones."""
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / f"schema_{revision.partition('_')[0]}.db", path)

    report = upgrade(path)

    assert (report.before, report.after) == (revision, HEAD)
    assert check(path).problems == ()
    with open_store(path) as store:
        assert list(store.iter_records()) == sorted(
            make.one_of_each(), key=lambda each: (each.record, each.id)
        )
        assert store.add([make.measurement(team="robots")]).added == 1
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT COUNT(*) FROM v_latency").fetchone() == (1,)
    connection.close()


def test_every_released_schema_has_a_fixture() -> None:
    """A new revision brings a new file."""
    numbers = [revision.partition("_")[0] for revision in REVISIONS]

    assert sorted(path.stem for path in FIXTURES.glob("*.db")) == [f"schema_{number}" for number in numbers]


def test_upgrade_keeps_a_copy(make: Any, tmp_path: Path) -> None:
    """The file as it was stays beside it, and an earlier copy is not lost."""
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / "schema_0001.db", path)
    (tmp_path / "old.db.bak").write_text("precious")

    report = upgrade(path)

    assert report.backup == tmp_path / "old.db.bak.2"
    assert (tmp_path / "old.db.bak").read_text() == "precious"
    with open_store(report.backup, must_be_head=False) as backup:
        assert sum(backup.counts().values()) == 8


def test_upgrade_at_head_does_nothing(store: Store, database: Path) -> None:
    """No copy is made when there is nothing to do."""
    report = upgrade(database)

    assert (report.before, report.after, report.backup) == (HEAD, HEAD, None)


def test_opening_never_migrates(tmp_path: Path) -> None:
    """A schema behind head is refused with the command to type, also when a missing one would be made."""
    path = tmp_path / "old.db"
    shutil.copy(FIXTURES / "schema_0001.db", path)

    for create in (False, True):
        with pytest.raises(SchemaMismatch, match="has schema 0001_tables") as caught:
            open_store(path, create=create)
        assert caught.value.hint == f"lanaprof lut upgrade --database {path}"
    open_store(path, must_be_head=False).close()
    assert path.read_bytes()[:16] == b"SQLite format 3\0"
    with pytest.raises(SchemaMismatch):
        open_store(path)


@pytest.mark.parametrize("action", [open_store, upgrade])
def test_newer_schema_says_which_version_is_needed(
    store: Store, database: Path, action: Callable[[Path], object]
) -> None:
    """A database of a later lanaprof is neither used nor changed."""
    set_version(database, "0099_future")

    with pytest.raises(SchemaMismatch, match="0099_future, which is newer") as caught:
        action(database)

    assert "0099_future" in caught.value.hint


def test_empty_file_is_no_database_yet(database: Path) -> None:
    """A file without content is like no file."""
    database.touch()

    with pytest.raises(StoreError, match="there is no database"):
        open_store(database)
    open_store(database, create=True).close()
    assert check(database).ok


@pytest.mark.parametrize("create", [False, True])
def test_other_files_are_left_alone(database: Path, create: bool) -> None:
    """A file that is not SQLite is refused and not touched."""
    database.write_text("my thesis, chapter one")

    with pytest.raises(StoreError, match="is not a SQLite database"):
        open_store(database, create=create)

    assert database.read_text() == "my thesis, chapter one"


@pytest.mark.parametrize("create", [False, True])
def test_other_programs_databases_are_left_alone(database: Path, create: bool) -> None:
    """A SQLite file with other tables is refused, named, and not touched."""
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE bookmarks (url TEXT)")
    connection.commit()
    connection.close()
    before = database.read_bytes()

    for action in (lambda: open_store(database, create=create), lambda: upgrade(database)):
        with pytest.raises(StoreError, match=r"another program's SQLite database \(tables: bookmarks\)"):
            action()
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_folder_is_refused(tmp_path: Path) -> None:
    """A folder in place of a file gets a proposal."""
    with pytest.raises(StoreError, match="is a folder") as caught:
        open_store(tmp_path, create=True)
    assert "lanaprof.db" in caught.value.hint


@pytest.mark.skipif(os.name != "posix", reason="devices are files on POSIX only")
def test_device_file_is_refused() -> None:
    """What is no regular file would swallow the data, or hang."""
    with pytest.raises(StoreError, match="is not a regular file"):
        open_store("/dev/null", create=True)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    """Folders are not made unasked."""
    with pytest.raises(StoreError, match="does not exist") as caught:
        open_store(tmp_path / "deep" / "lut.db", create=True)
    assert "mkdir -p" in caught.value.hint


@pytest.mark.parametrize(
    ("database", "message"),
    [
        ("mysql://host/lut", "in SQLite or PostgreSQL, not in 'mysql'"),
        ("sqlite+aiosqlite:///x.db", "not in 'sqlite+aiosqlite'"),
        ("what://is/this", "in SQLite or PostgreSQL, not in 'what'"),
        ("://", "is not a database URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
        ("sqlite:///x.db?mode=ro", "names no file"),
        ("", "names no database"),
    ],
)
def test_odd_addresses_are_refused(tmp_path: Path, database: str, message: str) -> None:
    """Every address that cannot work is a plain error with an example."""
    with pytest.raises(StoreError) as caught:
        open_store(database, create=True)

    assert message in caught.value.message
    assert caught.value.hint


def test_sqlite_url_and_path_are_one(database: Path, make: Any) -> None:
    """A URL reaches the same file as a bare path."""
    with open_store(f"sqlite:///{database}", create=True) as store:
        store.add([make.score()])
    with open_store(str(database)) as store:
        assert store.counts()["score"] == 1


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "what?.db", "a#b.db", "größe.db", "{x}.db"])
def test_odd_file_names_work(tmp_path: Path, make: Any, name: str) -> None:
    """Characters with a meaning in URLs or templates are only characters in a path."""
    with open_store(tmp_path / name, create=True) as store:
        store.add([make.score()])

    assert (tmp_path / name).exists()
    with open_store(tmp_path / name) as store:
        assert store.counts()["score"] == 1


def test_passwords_are_not_shown() -> None:
    """What is printed of a URL hides the password."""
    location = locate("postgresql://lab:secret@host/lut")

    assert "secret" not in location.shown


def test_server_that_cannot_be_reached_is_a_plain_error() -> None:
    """Without the driver the extra to install is named; with it, the server is."""
    with pytest.raises(StoreError) as caught:
        open_store("postgresql://lab:secret@127.0.0.1:9/lut")

    assert "lanaprof[postgres]" in caught.value.hint or "PostgreSQL server is running" in caught.value.hint
    assert caught.value.exit_code == 2


MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/sdb1 /home/me/local xfs rw 0 0
//nas/share /mnt/my\\040share cifs rw 0 0
me@host: /mnt/ssh fuse.sshfs rw 0 0
server:/old /data nfs rw 0 0
/dev/sdc1 /data ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lut.db", None),
        ("/home/me/lut.db", "nfs4"),
        ("/home/me/local/lut.db", None),
        ("/homeless/lut.db", None),
        ("/mnt/my share/lut.db", "cifs"),
        ("/mnt/ssh/deep/lut.db", "fuse.sshfs"),
        ("/data/lut.db", None),
    ],
)
def test_network_file_systems_are_recognised(path: str, kind: str | None) -> None:
    """The innermost, latest mount decides."""
    assert network_file_system(Path(path), MOUNTS) == kind


def test_disk_that_fills_up_harms_nothing(
    store: Store, make: Any, database: Path, python: Callable[..., Any]
) -> None:
    """A file that cannot grow gives a plain error, and what was stored stays sound."""
    store.add(make.one_of_each())
    program = """
import resource, signal, sys
from lanaprof.errors import StoreError
from lanaprof.lut import Score, open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
with open_store(sys.argv[1]) as store:
    try:
        store.add(Score(teacher="t", candidate="c", data="d", layer="x" * 100, operation=str(n), metric="m",
            score=1.0, images=1, team="a", time="2026-01-01T00:00:00Z") for n in range(5000))
    except StoreError as error:
        print(error.exit_code, error.message)
"""
    process = python(program, str(database))
    out, err = process.communicate()

    assert err == ""
    assert out.startswith("2 the database")
    assert "disk" in out
    assert check(database).problems == ()
    assert sum(store.counts().values()) == 8


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can become another user")
def test_readonly_file_can_be_read_but_not_written(
    make: Any, tmp_path: Path, python: Callable[..., Any]
) -> None:
    """Somebody else's database can be queried; adding to it is a plain error."""
    path = tmp_path / "shared.db"
    shutil.copy(FIXTURES / f"schema_{HEAD.partition('_')[0]}.db", path)
    path.chmod(0o444)
    for folder in (tmp_path, *list(tmp_path.parents)[:-2]):
        folder.chmod(0o755)
    program = """
import os, sys
from lanaprof.errors import StoreError
from lanaprof.lut import Score, open_store
import lanaprof.lut.schema, alembic.command
os.setgid(65534); os.setuid(65534)
with open_store(sys.argv[1]) as store:
    print(sum(store.counts().values()))
    try:
        store.add(store.scores()[:0] or [Score(teacher="t", candidate="c", data="d", layer="x", operation="o",
            metric="m", score=1.0, images=1, team="a", time="2026-01-01T00:00:00Z")])
    except StoreError as error:
        print(error.exit_code, error.message)
try:
    open_store(os.path.join(os.path.dirname(sys.argv[1]), "new.db"), create=True)
except StoreError as error:
    print(error.exit_code, error.message)
"""
    process = python(program, str(path))
    out, err = process.communicate()

    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "8"
    assert lines[1].endswith("is read-only")
    assert lines[2].endswith("cannot be opened")
