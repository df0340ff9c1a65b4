"""Several processes at one database: nothing is lost, nothing is half there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import Store, check, open_store

WRITER = """
import sys
from lanaprof.lut import Score, open_store
database, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(database, create=True) as store:
    for number in range(count):
        scores = [Score(teacher="t", candidate=name, data="d", layer=layer, operation=str(number), metric="m",
            score=1.0, images=1, team="a", time="2026-01-01T00:00:00Z") for layer in "xyz"]
        assert store.add(scores).added == 3
        print(*(score.id for score in scores), flush=True)
"""


def test_four_processes_make_and_fill_one_database(database: Path, python: Callable[..., Any]) -> None:
    """They start at once with no database there; every row of each arrives."""
    processes = [python(WRITER, str(database), f"writer {index}", "100") for index in range(4)]
    results = [process.communicate() for process in processes]

    assert [err for _, err in results] == ["", "", "", ""]
    acknowledged = {line for out, _ in results for line in out.split()}
    with open_store(database) as store:
        assert len(acknowledged) == 1200
        assert {score.id for score in store.scores()} == acknowledged
    assert check(database).problems == ()


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_killed_writer_loses_nothing_it_acknowledged(database: Path, python: Callable[..., Any]) -> None:
    """kill -9 in the middle of writing: the database is sound and has every acknowledged row."""
    process = python(WRITER, str(database), "victim", "1000000")
    acknowledged = [key for _ in range(60) for key in process.stdout.readline().split()]
    os.kill(process.pid, signal.SIGKILL)
    rest, _ = process.communicate()
    acknowledged += [key for key in rest.split() if len(key) == 32]

    assert check(database).problems == ()
    assert len(acknowledged) >= 180
    with open_store(database) as store:
        assert set(acknowledged) <= {score.id for score in store.scores()}


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_database_whose_making_was_killed_can_be_made_again(
    database: Path, python: Callable[..., Any]
) -> None:
    """A process killed within the migrations leaves nothing that blocks the next."""
    program = """
import os, signal, sys
import lanaprof.lut.schema as schema
from lanaprof.lut import open_store
run = schema.run_migrations
def run_and_die(connection):
    run(connection)
    os.kill(os.getpid(), signal.SIGKILL)
schema.run_migrations = run_and_die
open_store(sys.argv[1], create=True)
"""
    process = python(program, str(database))
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    open_store(database, create=True).close()

    assert check(database).problems == ()


def test_reader_sees_one_state_while_others_write(store: Store, make: Any, database: Path) -> None:
    """A stream that began before a write does not show it; a reader never blocks a writer."""
    store.add([make.score(images=1), make.score(images=2)])
    stream = store.iter_records()
    first = next(stream)
    with open_store(database) as other:
        assert other.add([make.selection()]).added == 1

    assert [each.record for each in (first, *stream)] == ["score", "score"]
    assert store.counts()["selection"] == 1


def test_as_many_threads_as_a_hub_has_read_at_once(database: Path, make: Any) -> None:
    """Each has a connection of its own until it is done with it: none is closed because others came."""
    count = 16
    begun = threading.Barrier(count)
    with open_store(database, create=True) as store:
        store.add(make.operator(channels) for channels in (8, 16, 24))

        def read(_: int) -> int:
            found = store.iter_records()
            next(found)
            begun.wait(600)  # all are in the middle of it
            return 1 + len(list(found))

        with ThreadPoolExecutor(count) as pool:
            counts = list(pool.map(read, range(count)))

    assert counts == [3] * count
