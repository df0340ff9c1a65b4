"""Writers that are killed and a server that crashes: nothing acknowledged is lost, nothing is there twice."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lanaprof.errors import StoreError
from lanaprof.lut import check, open_store
from lanaprof.lut.testing import ThrowAwayServer, throw_away_server

WRITER = """
import sys
import lanaprof.lut.engine
from lanaprof.lut import Score, open_store
lanaprof.lut.engine._REPEAT_S = 600.0  # for as long as a server takes to come back on a busy machine
database, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_store(database) as store:
    for number in range(count):
        # One record of its own, and one that every writer writes.
        both = [Score(teacher="t", candidate=who, data="d", layer="x", operation=str(number), metric="m",
            score=1.0, images=1, team="a", time="2026-01-01T00:00:00Z") for who in (name, "all")]
        report = store.add(both)
        assert report.added + report.known == 2, report
        print(*(score.id for score in both), flush=True)
"""


@pytest.fixture
def own_server() -> Iterator[ThrowAwayServer]:
    """A server that no other test uses."""
    try:
        with throw_away_server() as running:
            yield running
    except StoreError as error:
        pytest.skip(f"no PostgreSQL server: {error.message}")


def acknowledged_by(process: Any) -> list[str]:
    """Return the ids a writer printed whole; one that was killed may have been cut short."""
    out, err = process.communicate()
    assert err == ""
    return [key for key in out.split() if len(key) == 32]


def test_crash_and_kills_lose_nothing(own_server: ThrowAwayServer, python: Callable[..., Any]) -> None:
    """Four write at once; two are killed, the server crashes and comes back; the others go on to their end.

    The server is set up to lose acknowledged transactions in a crash (synchronous_commit = off), as some are.
    """
    chance = random.Random(0)
    url = own_server.url()
    open_store(url, create=True).close()
    # The two that are killed have more to write than they ever could.
    counts = ("1000000", "1000000", "300", "300")
    processes = [python(WRITER, url, f"writer {index}", count) for index, count in enumerate(counts)]
    first = [process.stdout.readline().split() for process in processes]  # all are at work

    for process in processes[:2]:
        time.sleep(chance.uniform(0.0, 0.2))
        process.kill()
    own_server.stop("immediate")
    own_server.start()
    acknowledged = [key for process in processes for key in acknowledged_by(process)]
    acknowledged += [key for line in first for key in line]

    assert [process.returncode for process in processes] == [-9, -9, 0, 0]
    assert check(url).problems == ()
    with open_store(url) as store:
        stored = [score.id for score in store.scores()]
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(stored) >= 450  # both that were left wrote all of theirs and all that is common
