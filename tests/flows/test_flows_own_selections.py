"""Which stored selections are a project's own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lanaprof.flows.stating import own_selections
from lanaprof.lut import Selection, open_store
from lanaprof.space import Layer, Space


def test_layers_need_not_be_named_in_alphabetical_order(tmp_path: Path) -> None:
    """blocks.10 comes after blocks.2 in the teacher and before it in the record: the selection is the project's."""
    layers = tuple(Layer(f"blocks.{n}", (4, 8, 8), (4, 8, 8), 10, "", ("teacher", "skip")) for n in (2, 10))
    project: Any = SimpleNamespace(space=Space("t:t", (4, 8, 8), layers), weights_digest="w")
    fields: dict[str, Any] = {"teacher": "w", "space": "s", "device": "cpu", "budgets": (), "status": "verified", "team": "a"}
    own, other = (
        Selection(**fields, choices=((name, "skip"), ("blocks.2", "teacher")), time="2026-03-01T12:00:00Z")
        for name in ("blocks.10", "blocks.11")
    )
    with open_store(tmp_path / "own.db", create=True) as store:
        store.add([own, other])

        assert own_selections(project, store) == (own,)
