"""A PostgreSQL server as the store: its schema, its rights, and everything that can stand in the way."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, inspect, select

from lanaprof.errors import SchemaMismatch, StoreError
from lanaprof.lut import check, open_store, plan_upgrade, transfer, upgrade
from lanaprof.lut.engine import engine_for, locate, writing
from lanaprof.lut.jobs import Job
from lanaprof.lut.models import HEAD, REVISIONS, TABLES, VERSION_TABLE, VIEWS
from lanaprof.lut.queue import open_queue
from lanaprof.lut.schema import run_migrations
from lanaprof.lut.testing import ThrowAwayServer

FIXTURES = Path(__file__).parent / "fixtures"


def dump(server: ThrowAwayServer, url: str) -> str:
    """Return the schema as pg_dump writes it, without the lines that change from dump to dump."""
    program = server.programs / "pg_dump"
    done = subprocess.run(
        [program, "--schema-only", "-d", url], capture_output=True, text=True, check=True, env=os.environ
    )
    return "\n".join(
        line for line in done.stdout.splitlines() if not line.startswith(("--", "\\restrict", "\\unrestrict"))
    )


def name_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]


def old_database(databases: Any, revision: str) -> str:
    """Return a server's database at a released schema with the records of that schema's file."""
    url: str = databases.bare("old")
    engine = engine_for(locate(url))
    with writing(engine) as connection:
        run_migrations(connection, revision)
    number = revision.partition("_")[0]
    source = create_engine(f"sqlite:///{FIXTURES / f'schema_{number}.db'}")
    tables = MetaData()
    tables.reflect(source)
    with source.connect() as old, writing(engine) as new:
        for table in tables.sorted_tables:
            rows = [dict(row._mapping) for row in old.execute(select(table))]
            if table.name != VERSION_TABLE and rows:
                new.execute(table.insert(), rows)
    source.dispose()
    engine.dispose()
    return url


def test_migrations_make_what_the_models_say(databases: Any) -> None:
    """Alembic finds no difference, the views are there, and text is compared by code point."""
    url = databases.empty()
    engine = engine_for(locate(url))
    inspector = inspect(engine)
    collations = {
        column["type"].collation
        for table in TABLES.values()
        for column in inspector.get_columns(table.name)
        if hasattr(column["type"], "collation")
    }
    views = set(inspector.get_view_names())
    engine.dispose()

    assert check(url).problems == ()
    assert views == set(VIEWS)
    assert collations == {"C"}


def test_down_and_up_again_is_identity(databases: Any, server: ThrowAwayServer) -> None:
    """Every revision can be taken back and applied again, to the last grant and constraint."""
    url = databases.bare("ladder")
    open_store(url, create=True).close()
    before = dump(server, url)
    engine = engine_for(locate(url))
    for revision in [*REVISIONS[::-1][1:], "base"]:
        with writing(engine) as connection:
            run_migrations(connection, revision)
    tables = inspect(engine).get_table_names()
    with writing(engine) as connection:
        run_migrations(connection)
    engine.dispose()

    assert tables == [VERSION_TABLE]
    assert dump(server, url) == before


@pytest.mark.parametrize("revision", REVISIONS)
def test_released_schema_is_upgraded_and_used(databases: Any, make: Any, revision: str) -> None:
    """Every released schema comes to head with all its records, and takes new ones; no copy is made."""
    url = old_database(databases, revision)

    report = upgrade(url)

    assert (report.before, report.after, report.backup) == (revision, HEAD, None)
    assert check(url).problems == ()
    with open_store(url) as store:
        assert list(store.iter_records()) == sorted(
            make.one_of_each(), key=lambda each: (each.record, each.id)
        )
        assert store.add([make.measurement(team="robots")]).added == 1


def test_planned_upgrade_is_what_an_upgrade_does(databases: Any, server: ThrowAwayServer) -> None:
    """The SQL that an owner may run by hand ends in the same schema, and planning changes nothing."""
    url = old_database(databases, REVISIONS[0])
    before = dump(server, url)

    plan = plan_upgrade(url)
    untouched = dump(server, url)
    subprocess.run(
        [server.programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", url],
        input=plan.sql, text=True, check=True, env=os.environ,
    )  # fmt: skip

    assert untouched == before
    assert check(url).problems == ()
    assert plan_upgrade(url).sql == ""


def test_opening_never_migrates(databases: Any) -> None:
    """A schema behind head is refused with the command to type; writing to it is refused too."""
    url = old_database(databases, REVISIONS[0])

    for create in (False, True):
        with pytest.raises(SchemaMismatch, match=f"has schema {REVISIONS[0]}") as caught:
            open_store(url, create=create)
        assert caught.value.hint.startswith("lanaprof lut upgrade --database postgresql://")
    with open_store(url, must_be_head=False) as store:
        assert sum(store.counts().values()) == 8


@pytest.mark.parametrize("action", [open_store, upgrade])
def test_newer_schema_says_which_version_is_needed(databases: Any, action: Callable[[str], object]) -> None:
    """A database of a later lanaprof is neither used nor changed."""
    url = databases.bare("newer")
    open_store(url, create=True).close()
    name = name_of(url)
    databases.run(f"UPDATE {VERSION_TABLE} SET version_num = '0099_future'", name=name)

    with pytest.raises(SchemaMismatch, match="0099_future, which is newer"):
        action(url)


def test_missing_schema_is_not_made_unasked(databases: Any) -> None:
    """A database without our tables is absent; those of other programs are left alone."""
    url = databases.bare("foreign")
    name = name_of(url)
    databases.run("CREATE TABLE bookmarks (url TEXT)", name=name)

    with pytest.raises(StoreError, match="there is no database at"):
        open_store(url)
    open_store(url, create=True).close()

    assert check(url).problems == ()


def test_tables_of_the_same_name_are_left_alone(databases: Any) -> None:
    """Where another program has a table called like ours, nothing is made, and the way out is named."""
    url = databases.bare("crowded")
    name = name_of(url)
    databases.run("CREATE TABLE measurements (weight_kg REAL)", name=name)

    with pytest.raises(StoreError, match="tables of another program") as caught:
        open_store(url, create=True)

    assert "createdb" in caught.value.hint
    tables = databases.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name=name)
    assert tables == [("measurements",)]


@pytest.fixture
def guest(databases: Any) -> str:
    """A user with a password and without rights, on this worker's first database."""
    databases.empty()
    name = f"guest_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
    databases.run(
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') THEN "
        f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'; END IF; END $$"
    )
    return name


def test_wrong_password_is_a_plain_error(guest: str, server: ThrowAwayServer, databases: Any) -> None:
    """It says so, with exit code 2, and prints no password, given in either way."""
    url = databases.empty()
    name = name_of(url)
    plain = server.url(name, user=guest, password="wr0ng")

    for each in (plain, plain.replace(":wr0ng", "") + "&password=wr0ng"):
        with pytest.raises(StoreError, match="refuses the user or the password") as caught:
            open_store(each)
        assert caught.value.exit_code == 2
        assert "pgpass" in caught.value.hint
        assert "wr0ng" not in caught.value.message + caught.value.hint + repr(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("@/lut0", "@/nothing"), "does not exist on its server"),
        (("postgres@", "nobody_of_that_name@"), "refuses the user or the password"),
        (("@/", "@no-such-host.invalid/"), "its host is unknown"),
        (("/socket", "/elsewhere"), "cannot be used"),
    ],
)
def test_unreachable_database_is_a_plain_error(databases: Any, change: tuple[str, str], reason: str) -> None:
    """What is wrong with a URL is said in one sentence, with exit code 2 and a hint."""
    url = databases.empty().replace(*change)
    if "no-such-host" in url:
        url = url.partition("?")[0]

    with pytest.raises(StoreError, match=reason) as caught:
        open_store(url)

    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_missing_rights_are_a_plain_error(
    guest: str, server: ThrowAwayServer, databases: Any, make: Any
) -> None:
    """Without rights nothing is read; with those to read, nothing is written; the hint names the page."""
    url = databases.empty()
    name = name_of(url)
    theirs = server.url(name, user=guest, password="s3cret")
    databases.run(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {guest}", name=name)

    with pytest.raises(StoreError, match="does not grant this user the rights") as caught:
        open_store(theirs)
    assert caught.value.exit_code == 2
    databases.run(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {guest}", name=name)
    with open_store(theirs) as store:
        assert store.counts()["score"] == 0
        with pytest.raises(StoreError, match="does not grant this user the rights") as caught:
            store.add([make.score()])
    assert "docs/sharing.md" in caught.value.hint


def test_user_who_may_only_insert_can_share(
    guest: str, server: ThrowAwayServer, databases: Any, make: Any
) -> None:
    """Reading and inserting is all a team needs: nothing is ever changed or deleted."""
    url = databases.empty()
    name = name_of(url)
    databases.run(f"GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA public TO {guest}", name=name)

    with open_store(server.url(name, user=guest, password="s3cret")) as store:
        assert store.add(make.one_of_each()).added == 8
        assert store.retract([make.measurement().id], team="vision", reason="x").known == 1


def test_lost_connection_is_taken_up_again(databases: Any, make: Any) -> None:
    """A connection that the server cut while idle or between calls is replaced unnoticed."""
    url = databases.empty()
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lanaprof'"
    with open_store(url) as store:
        assert store.add([make.score()]).added == 1
        databases.run(cut)
        assert store.add([make.score(images=2)]).added == 1
        databases.run(cut)
        assert len(store.scores()) == 2


def test_two_writers_of_the_same_records_count_each_once(databases: Any, make: Any) -> None:
    """While one adds a record that another has not committed yet, it waits, and then knows it."""
    from threading import Thread

    from lanaprof.lut.adding import add_records

    url = databases.empty()
    reports = []
    engine = engine_for(locate(url))
    with open_store(url) as store:
        with writing(engine) as connection:
            assert add_records(connection, [make.score()]).added == 1
            second = Thread(target=lambda: reports.append(store.add([make.score(), make.score(images=2)])))
            second.start()
            second.join(timeout=0.5)
            assert reports == []
        second.join()
        assert (reports[0].added, reports[0].known) == (1, 1)
        assert len(store.scores()) == 2
    engine.dispose()


def test_table_locked_by_others_is_a_plain_error(
    databases: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer does not wait for ever for an upgrade or a backup."""
    import psycopg

    monkeypatch.setattr("lanaprof.lut.postgres.LOCK_TIMEOUT_S", 1)
    url = databases.empty()
    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE scores IN ACCESS EXCLUSIVE MODE")
        with open_store(url) as store, pytest.raises(StoreError, match="has been locked by others"):
            store.add([make.score()])


def test_another_driver_is_refused() -> None:
    """One driver is supported; a URL that names another says which."""
    with pytest.raises(StoreError, match="psycopg 3, not by 'postgresql") as caught:
        open_store("postgresql+psycopg2://lab@host/lut")

    assert "postgresql://" in caught.value.hint


def test_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain install has no driver: the error says what to type."""
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match="driver is not installed") as caught:
        open_store("postgresql://lab@host/lut")

    assert caught.value.hint == 'pip install "lanaprof[postgres]"'


def test_floats_and_text_are_those_of_a_file(databases: Any, make: Any, database: Path) -> None:
    """Smallest and largest floats, emoji and blobs come back bit for bit, equal to SQLite's."""
    records = [
        make.operator(), make.environment(options={"naïve ключ 🦆": "'\"\\ %s :x"}),
        make.measurement(
            environment=make.environment(options={"naïve ключ 🦆": "'\"\\ %s :x"}).id, latency_s=0.1 + 0.2,
            ci_low_s=5e-324, ci_high_s=1.7976931348623157e308, samples=(5e-324, 0.1 + 0.2), rounds=(0, 65535),
        ),
        *(make.score(score=score) for score in (-1.7976931348623157e308, 5e-324, 1 / 3)),
    ]  # fmt: skip
    url = databases.empty()

    read = []
    for address in (url, database):
        with open_store(address, create=True) as store:
            store.add(records)
            read.append(list(store.iter_records()))

    assert read[0] == read[1] == sorted(records, key=lambda each: (each.record, each.id))
    connection = sqlite3.connect(database)
    blob = connection.execute("SELECT samples FROM measurements").fetchone()[0]
    connection.close()
    name = name_of(url)
    assert databases.run("SELECT samples FROM measurements", name=name) == [(blob,)]


def test_documented_roles_are_enough(
    databases: Any, server: ThrowAwayServer, make: Any, tmp_path: Path
) -> None:
    """The SQL of docs/sharing.md runs as it stands; its roles may do what it says, and no more."""
    page = (Path(__file__).parents[2] / "docs" / "sharing.md").read_text(encoding="utf-8")
    sql, queue_sql = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    psql = [str(server.programs / "psql"), "-q", "-v", "ON_ERROR_STOP=1", "-d", server.url()]
    subprocess.run(psql, input=sql, text=True, check=True, env=os.environ)
    owner, ann, dashboard = (
        server.url("lanaprof", user=user, password=password)
        for user, password in (
            ("lanaprof_owner", "change-me"), ("ann", "change-me-too"), ("dashboard", "change-me-three"),
        )
    )  # fmt: skip
    try:
        with pytest.raises(StoreError, match="rights that are needed"):
            open_store(ann, create=True)
        open_store(owner, create=True).close()
        with open_store(ann) as store:
            assert store.add(make.one_of_each()).added == 8
        with (
            open_store(dashboard, readonly=True) as store,
            open_store(tmp_path / "own.db", create=True) as own,
        ):
            assert transfer(store, own).added == 8
        with open_store(dashboard) as store, pytest.raises(StoreError, match="rights that are needed"):
            store.add([make.score(images=3)])
        with pytest.raises(StoreError, match="rights that are needed"):
            open_queue(ann, create=True)
        open_queue(owner, create=True).close()
        subprocess.run([*psql[:-1], owner], input=queue_sql, text=True, check=True, env=os.environ)
        with open_queue(ann) as queue:
            assert queue.enqueue("cpu", [Job(operator="o", protocol="hot/1")]).added == 1
            assert queue.clear(waiting=True) == 1
    finally:
        databases.run("DROP DATABASE lanaprof WITH (FORCE)")
