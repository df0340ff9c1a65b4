"""Selectors by name: interchangeable ways of choosing, imported on use."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from lanaprof.errors import BadInput
from lanaprof.solver.check import Answer
from lanaprof.solver.problem import Problem

__all__ = ["ENTRY_POINT_GROUP", "Selector", "get_selector", "register_selector", "selector_names"]

ENTRY_POINT_GROUP = "lanaprof.selectors"

_SELECTORS = {
    "exact": "lanaprof.solver.exact:solve_exact",
    "mip": "lanaprof.solver.mip:solve_mip",
}


class Selector(Protocol):
    """Chooses items for a checked problem and checked budgets.

    A selector returns within about the time limit, with a bound that holds; the caller recomputes the answer. It
    raises InfeasibleBudget when no choice meets the budgets, UserError when the time did not suffice for any choice.
    """

    def __call__(self, problem: Problem, budgets: Mapping[str, float], *, time_limit_s: float) -> Answer:
        """Return the items chosen, with a bound that holds."""
        ...


def register_selector(name: str, target: str) -> None:
    """Add a selector under a new name.

    Args:
        name: what ``--method`` calls it.
        target: ``package.module:function``, imported when it is first used.

    Raises:
        BadInput: the name is taken, or the target has no colon.
    """
    if name in _SELECTORS:
        raise BadInput(f"there is a selector {name!r} already", hint="choose another name")
    if ":" not in target:
        raise BadInput(f"the selector {target!r} is no package.module:function")
    _SELECTORS[name] = target


def selector_names() -> tuple[str, ...]:
    """Return the names of all selectors, those of installed packages included."""
    return tuple(sorted(_targets()))


def get_selector(name: str) -> Selector:
    """Return the selector of a name.

    Raises:
        BadInput: there is none, or it cannot be imported.
    """
    target = _SELECTORS.get(name) or _targets().get(name)
    if target is None:
        raise BadInput(f"there is no method {name!r}", hint=f"known: {', '.join(selector_names())}")
    module, _, attribute = target.partition(":")
    try:
        return cast(Selector, getattr(import_module(module), attribute))
    except (ImportError, AttributeError) as error:
        raise BadInput(f"the method {name!r} cannot be imported from {target!r}: {error}") from error


def _targets() -> dict[str, str]:
    from importlib.metadata import entry_points  # reads every installed package's metadata: only when needed

    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {**found, **_SELECTORS}
