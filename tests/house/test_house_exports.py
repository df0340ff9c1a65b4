"""Public names: sorted, complete, and what they say."""

from __future__ import annotations

from importlib import import_module

import pytest

import lanaprof

ROOMS = [
    "lanaprof",
    "lanaprof.lut",
    "lanaprof.solver",
    "lanaprof.ops",
    "lanaprof.teachers",
    "lanaprof.distill",
]


@pytest.mark.parametrize("room", ROOMS)
def test_all_is_sorted_and_importable(room: str) -> None:
    """Every exported name exists, and the list is in order (capitals first, as linters sort it)."""
    module = import_module(room)

    assert sorted(module.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)) == list(
        module.__all__
    )
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


def test_every_error_is_reexported() -> None:
    """Whoever calls the API can catch what it raises."""
    from lanaprof import errors

    inner = {"OperatorTimeout", "UnsupportedOperator"}  # rows of a campaign; they never leave it

    assert set(errors.__all__) - inner <= set(lanaprof.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy module answers like any other."""
    with pytest.raises(AttributeError, match="no_such_name"):
        lanaprof.no_such_name  # noqa: B018
