"""Which stored selections are a project's own, and which of them is the latest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lanaprof.flows.chosen import find_selection, own_selections, verified_instead
from lanaprof.lut import Selection, Store, open_store
from lanaprof.space import Layer, Space

LAYERS = tuple(Layer(f"blocks.{n}", (4, 8, 8), (4, 8, 8), 10, "", ("teacher", "skip")) for n in (2, 10))


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A project of two layers, and of team robots."""
    monkeypatch.delenv("LANAPROF_TEAM", raising=False)
    space = Space("t:t", (4, 8, 8), LAYERS)
    return SimpleNamespace(space=space, weights_digest="w", config=SimpleNamespace(team="robots"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "own.db", create=True) as made:
        yield made


def selection(hour: int, team: str = "robots", **fields: Any) -> Selection:
    """Return a selection that was made at this hour."""
    given: dict[str, Any] = {
        "teacher": "w", "space": "s", "device": "cpu", "budgets": (), "status": "verified", "team": team,
        "choices": (("blocks.10", "skip"), ("blocks.2", "teacher")), "time": f"2026-03-01T{hour:02}:00:00Z",
    }  # fmt: skip
    return Selection(**{**given, **fields})


def test_layers_need_not_be_named_in_alphabetical_order(project: Any, store: Store) -> None:
    """blocks.10 comes after blocks.2 in the teacher and before it in the record: the selection is the project's."""
    own = selection(12)
    store.add([own, selection(12, choices=(("blocks.11", "skip"), ("blocks.2", "teacher")))])

    assert own_selections(project, store) == (own,)


def test_the_latest_is_our_own_teams(project: Any, store: Store) -> None:
    """What another team selected later, and a pull brought, is neither exported nor trained in its place."""
    older, own, pulled, foreign = (
        selection(9), selection(10), selection(11, "vision"), selection(12, teacher="another"),
    )  # fmt: skip
    store.add([older, own, pulled, foreign])

    assert own_selections(project, store) == (pulled, older, own)
    assert find_selection(project, store, None) == find_selection(project, store, "latest") == own
    assert find_selection(project, store, pulled.id[:12]) == pulled


def test_another_teams_is_the_latest_where_there_is_no_own(project: Any, store: Store) -> None:
    """A selection that was pulled can be used without naming it."""
    store.add([selection(9, "vision"), pulled := selection(11, "vision"), selection(12, teacher="another")])

    assert find_selection(project, store, None) == pulled


def test_a_proved_one_is_told_of_the_same_team(project: Any, store: Store) -> None:
    """Where the latest was not proved: the newest of our own that was, whatever others proved since."""
    proved, open_one, pulled = selection(9), selection(10, status="unverified"), selection(11, "vision")
    store.add([proved, open_one, pulled])

    assert verified_instead(project, store, None) == proved
    assert verified_instead(project, store, open_one.id) is None
