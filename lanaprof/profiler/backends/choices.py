"""Options of a runtime that devices.yaml may choose: what they may be, and what the environment says of them.

``options: {tf32: on, workspace: 2GiB}`` of a device → ``(("tf32", "on"), ("workspace_mib", "2048"))``, which is what
stands in the environment's key in the place of the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lanaprof.errors import BadInput
from lanaprof.units import parse_size

__all__ = ["COMMON", "Choice", "Pairs", "chosen_pairs", "count", "mebibytes", "one_of"]

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One option.

    Attributes:
        asks: what it may be, in words: "on or off", "a whole number from 0 to 5".
        read: the text of devices.yaml → the text of the key; None where it is none of these.
        key: its name in the environment's options; the option's own where empty.
        changes: whether it changes what is timed, and hence stands in the environment's key.
    """

    asks: str
    read: Callable[[str], str | None]
    key: str = ""
    changes: bool = True


def one_of(*words: str, changes: bool = True) -> Choice:
    """Return an option that is one of these words."""
    return Choice(asks=" or ".join(words), read=lambda text: text if text in words else None, changes=changes)


def count(least: int, most: int, *, changes: bool = True) -> Choice:
    """Return an option that is a whole number."""

    def read(text: str) -> str | None:
        return str(int(text)) if text.isdecimal() and least <= int(text) <= most else None

    return Choice(asks=f"a whole number from {least} to {most}", read=read, changes=changes)


def mebibytes(key: str) -> Choice:
    """Return an option that is a size of memory, kept in whole MiB."""

    def read(text: str) -> str | None:
        try:
            size_mib = parse_size(text) >> 20
        except BadInput:
            return None
        return str(size_mib) if size_mib else None

    return Choice(asks="a size of 1MiB or more, such as 2GiB", read=read, key=key)


# Of every backend: how often an operator is built in a campaign; the protocol's own number unless it is chosen.
COMMON: Mapping[str, Choice] = {"builds": count(1, 20, changes=False)}


def chosen_pairs(
    backend: str, choices: Mapping[str, Choice], options: Sequence[tuple[str, str]]
) -> tuple[Pairs, Pairs]:
    """Return what devices.yaml chose, read and named as in the environment's key; and the part that the key says.

    Args:
        backend: its name, for the errors.
        choices: what it lets choose.
        options: name and text of each, as written in devices.yaml.

    Raises:
        BadInput: the backend has no such option, or not of this value.
    """
    found, told = [], []
    known = {**COMMON, **choices}
    for name, text in options:
        choice = known.get(name)
        if choice is None:
            raise BadInput(
                f"the backend {backend} has no option {name!r}; known: {', '.join(sorted(known))}",
                hint="correct `options` of the device in devices.yaml",
            )
        value = choice.read(text)
        if value is None:
            raise BadInput(
                f"the option {name} of the backend {backend} is {choice.asks}, not {text!r}",
                hint="correct `options` of the device in devices.yaml",
            )
        pair = (choice.key or name, value)
        found.append(pair)
        told.extend([pair] if choice.changes else [])
    return tuple(sorted(found)), tuple(sorted(told))
