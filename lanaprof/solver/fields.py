"""Pieces of a JSON document, checked one by one: each fault says where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lanaprof.errors import BadProblem

__all__ = ["as_list", "as_name", "as_number", "check_keys", "kind_of", "read_costs"]


def kind_of(value: object) -> str:
    """Return what JSON calls a value, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def check_keys(value: object, needed: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    """Raise BadProblem unless the value is an object with the needed keys and no unknown ones."""
    if not isinstance(value, Mapping):
        raise BadProblem(f"{where} is {kind_of(value)}, not an object")
    for key in needed:
        if key not in value:
            raise BadProblem(f"{where} has no key {key!r}", hint=f"needed: {', '.join(needed)}")
    for key in value:
        if key not in needed and key not in optional:
            known = ", ".join((*needed, *optional))
            raise BadProblem(f"{where} has the unknown key {key!r}", hint=f"known: {known}")


def as_list(value: object, where: str) -> list[Any]:
    """Return the value as a list, or raise BadProblem."""
    if not isinstance(value, (list, tuple)):
        raise BadProblem(f"{where} is {kind_of(value)}, not a list")
    return list(value)


def as_number(value: object, where: str, *, negative: bool) -> float:
    """Return a finite number, not below 0 unless ``negative``; true, null and texts raise BadProblem."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadProblem(f"{where} is {kind_of(value)}, not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise BadProblem(f"{where} is too large") from error
    if not math.isfinite(number):
        raise BadProblem(f"{where} is {number}, not a finite number")
    if number < 0 and not negative:
        raise BadProblem(f"{where} is {number}; it may not be negative")
    return number


def as_name(value: object, where: str) -> str:
    """Return a text that is not empty, or raise BadProblem."""
    if not isinstance(value, str) or not value:
        raise BadProblem(f"{where} is {value!r}, not a text", hint="name it by a text that is not empty")
    return value


def read_costs(costs: object, names: tuple[str, ...], where: str, why: str) -> tuple[float, ...]:
    """Return one cost a name, in the order of the names."""
    if not isinstance(costs, Mapping):
        raise BadProblem(f"{where}: 'costs' is {kind_of(costs)}, not an object")
    for name in names:
        if name not in costs:
            raise BadProblem(f"{where}: the cost {name!r} is missing", hint=f"give it a value, {why}")
    for name in costs:
        if name not in names:
            raise BadProblem(
                f"{where}: the cost {name!r} is not carried by all candidates",
                hint=f"every candidate carries the same costs: {', '.join(names) or 'none'}",
            )
    return tuple(as_number(costs[n], f"{where}: the cost {n!r}", negative=False) for n in names)
