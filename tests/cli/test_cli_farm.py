"""measure --queue, worker and farm: what they print, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from lanaprof.errors import StoreError
from lanaprof.lut import open_store
from lanaprof.lut.queue import drop_queue
from lanaprof.lut.testing import throw_away_server

pytest.importorskip("procrastinate", reason="the extra farm is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of a server's database without records."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(throw_away_server())
        except StoreError as error:
            pytest.skip(f"no PostgreSQL server: {error.message}")
        open_store(running.url(), create=True).close()
        yield running.url()


@pytest.fixture
def url(server: str, lut: Any) -> Iterator[str]:
    """The same with two operators, and without a queue; the working folder holds no project."""
    with open_store(server) as store:
        store.add([lut.operator(8), lut.operator(16)])
    yield server
    drop_queue(server)


@pytest.mark.parametrize(
    "words", [("measure", "--queue"), ("worker", "--once"), ("farm",), ("farm", "clear")]
)
def test_a_file_is_refused_with_what_to_type(
    cli: Callable[..., Any], lut: Any, words: tuple[str, ...]
) -> None:
    """A farm needs a server; nothing is made."""
    ran = cli(*words, "--database", "own.db", "--json")

    assert 2 == ran.code
    assert "own.db is a file" in ran.json["error"]["message"]
    assert "postgresql://" in ran.json["error"]["hint"]


@pytest.mark.parametrize("words", [("--plan",), ("--max-time", "5m"), ("--workers", "2"), ("a.onnx",)])
def test_queue_refuses_what_workers_decide(cli: Callable[..., Any], lut: Any, words: tuple[str, ...]) -> None:
    """Limits and numbers of processes are the workers' own; files are not enqueued."""
    ran = cli("measure", "--queue", "--database", "postgresql:///none", *words, "--json")

    assert 2 == ran.code
    assert "leave out" in ran.json["error"]["hint"]


def test_enqueuing_says_what_to_type_next(cli: Callable[..., Any], url: str) -> None:
    """With nobody listening the command for workers is printed; a device that is not here is no hindrance."""
    first = cli("measure", "--queue", "--device", "t4", "--database", url)
    again = cli("measure", "--queue", "--device", "t4", "--database", url, "--json")

    assert "2 jobs enqueued on t4 (hot)" in first.out
    assert "lanaprof worker --device t4" in first.out
    assert (0, 2, 0) == (again.json["enqueued"], again.json["waiting"], again.json["workers"])


def test_farm_shows_queues_and_who_is_missing(cli: Callable[..., Any], url: str) -> None:
    """Queues are listed with their jobs, in JSON, too; a queue without workers is pointed at."""
    cli("measure", "--queue", "--device", "cpu", "--database", url)
    seen, document = cli("farm", "--database", url), cli("farm", "--database", url, "--json").json

    assert "nobody listens to cpu" in seen.out
    assert [("cpu", 2, 0)] == [
        (each["queue"], each["waiting"], each["running"]) for each in document["queues"]
    ]
    assert ([], []) == (document["workers"], document["failures"])


def test_farm_without_a_queue_says_what_makes_one(cli: Callable[..., Any], url: str) -> None:
    """Looking at a server without a queue is an error that names the command."""
    ran = cli("farm", "--database", url, "--json")

    assert 2 == ran.code
    assert "measure --device DEVICE --queue" in ran.json["error"]["hint"]


def test_clear_and_retry_say_how_many(cli: Callable[..., Any], url: str) -> None:
    """Waiting jobs are deleted when asked; failed ones there are none."""
    cli("measure", "--queue", "--device", "cpu", "--database", url)

    assert {"retried": 0} == cli("farm", "retry", "--database", url, "--json").json
    assert {"cleared": 0} == cli("farm", "clear", "--database", url, "--json").json
    assert {"cleared": 2} == cli("farm", "clear", "--waiting", "--database", url, "--json").json
    assert 2 == cli("farm", "clear", "--waiting", "--everything", "--database", url).code
