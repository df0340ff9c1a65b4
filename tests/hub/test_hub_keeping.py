"""What is kept for a while: fresh when it is cheap, old rather than awaited, found once for all who wait."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lanaprof.hub.keeping import Kept, Remembered
from lanaprof.hub.limits import Limits


def test_whoever_asks_meanwhile_gets_what_was_found_before() -> None:
    """Finding anew keeps nobody waiting."""
    entered, go_on = threading.Event(), threading.Event()
    answers = iter(["old", "new"])

    def find() -> str:
        answer = next(answers)
        if answer == "new":
            entered.set()
            assert go_on.wait(300)
        return answer

    kept = Kept(find, share=20.0, clock=lambda: 0.0)  # takes no time: never fresh
    first = kept.get()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(kept.get)
        assert entered.wait(300)
        meanwhile = kept.get()
        go_on.set()

        assert (first, meanwhile, slow.result()) == ("old", "old", "new")


def test_the_first_who_ask_wait_for_one() -> None:
    """While there is nothing to give, one finds it, for all."""
    waiting, found = threading.Barrier(4), []

    def find() -> int:
        found.append(1)
        return len(found)

    kept = Kept(find, share=20.0, clock=iter([0.0, 1e6, *[0.0] * 9]).__next__)

    def ask() -> int:
        waiting.wait(300)
        return kept.get()

    with ThreadPoolExecutor(4) as pool:
        answers = [each.result() for each in [pool.submit(ask) for _ in range(4)]]

    assert (answers, found) == ([1] * 4, [1])


def test_a_failure_is_not_kept() -> None:
    """The next one tries again."""
    outcomes = iter([0, 1])
    kept = Kept(lambda: 1 // next(outcomes), share=20.0, clock=lambda: 0.0)

    with pytest.raises(ZeroDivisionError):
        kept.get()
    assert kept.get() == 1


def test_a_long_computation_waits_for_its_turn(start: Any) -> None:
    """Where all places are taken it begins when one of them is free, and is not refused."""
    hub = start(limits=Limits(heavy_at_once=1, heavy_waiting=1)).hub
    came, begun = threading.Event(), threading.Event()

    def compute() -> None:
        came.set()
        with hub.heavy():
            begun.set()

    with ThreadPoolExecutor(1) as pool:
        with hub.heavy():
            waiting = pool.submit(compute)
            assert came.wait(600)
            assert not begun.is_set()
        waiting.result()

    assert begun.is_set()


def test_an_answer_is_remembered_until_what_it_is_made_of_changes() -> None:
    """And forgotten when others were asked for since."""
    remembered = Remembered[int](most=2, share=0.0)
    made: list[int] = []

    def find() -> int:
        made.append(1)
        return len(made)

    questions = [("a", 1), ("a", 1), ("a", 2), ("b", 1), ("a", 2), ("c", 1), ("b", 1)]
    assert [remembered.get(*each, find) for each in questions] == [1, 1, 2, 3, 2, 4, 5]


def test_pages_say_how_old_they_are_while_much_is_to_be_counted(
    start: Any, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More came at once than can be counted while a visitor waits: as of when, and in how many environments."""
    hub = start(public=True)
    standings = hub.hub.standings
    places = [make.environment(threads=threads) for threads in (1, 2, 4)]
    hub.store.add([*make.base(), *places, make.measurement()])
    hub.hub.prepare()
    hub.store.add(make.measurement(environment=each.id, host="h2") for each in places)
    standings.look(0.0)  # one is counted, two are not
    monkeypatch.setattr(standings, "look", lambda: None)

    with hub.client() as visitor:
        pages = [visitor.get(path).text for path in ("/", "/devices", "/environments")]
    assert all("what came since in 2 environments is still to be counted" in page for page in pages)


def test_an_answer_that_took_long_is_given_a_little_longer() -> None:
    """Whatever changed meanwhile; then it is found anew."""
    now = [0.0]
    remembered = Remembered[int](
        most=2, share=1e9, clock=lambda: now[0]
    )  # any time at all: the most, a minute
    found = itertools.count(1)

    def find() -> int:
        sum(range(100_000))
        return next(found)

    answers = [remembered.get("a", 1, find), remembered.get("a", 2, find)]
    now[0] = 61.0
    answers.append(remembered.get("a", 2, find))

    assert answers == [1, 1, 2]
