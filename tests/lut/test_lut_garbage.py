"""The collector's threshold is raised for a while, and put back whatever happens."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from lanaprof.lut.garbage import seldom_collecting


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    usual = gc.get_threshold()
    yield
    gc.set_threshold(*usual)


def test_collections_become_rare_and_usual_again() -> None:
    """Inside a hundred times fewer, also where one is within another; then as before."""
    usual = gc.get_threshold()

    with seldom_collecting():
        with seldom_collecting():
            pass
        inside = gc.get_threshold()

    assert inside[0] > 50 * usual[0]
    assert gc.get_threshold() == usual


def test_an_error_puts_the_threshold_back() -> None:
    """What fails inside changes nothing outside."""
    usual = gc.get_threshold()

    with pytest.raises(ZeroDivisionError), seldom_collecting():
        _ = 1 / 0

    assert gc.get_threshold() == usual


def test_a_collector_turned_off_stays_off() -> None:
    """A threshold of 0 is somebody's own choice."""
    gc.set_threshold(0)

    with seldom_collecting():
        inside = gc.get_threshold()

    assert inside[0] == 0
