"""The register of operation families: those that come with lanaprof and those of other packages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import metadata

from lanaprof.errors import BadInput, UnknownOperation
from lanaprof.ops.families import BUILTIN_FAMILIES
from lanaprof.ops.family import Family
from lanaprof.ops.token_families import TOKEN_FAMILIES

__all__ = ["ENTRY_POINT_GROUP", "families", "get_family", "register_family", "register_own"]

ENTRY_POINT_GROUP = "lanaprof.operations"


class _Register:
    """Families by name; other packages' entry points are read once, when first needed."""

    def __init__(self, builtin: Iterable[Family]) -> None:
        self.families: dict[str, Family] = {}
        self.own: set[str] = set()
        self.broken: list[str] = []
        self.complete = False
        for family in builtin:
            self.add(family)

    def add(self, family: Family) -> None:
        if family.name in self.families:
            raise BadInput(
                f"there is an operation family {family.name!r} already ({self.families[family.name].module})",
                hint="register yours under another name",
            )
        self.families[family.name] = family

    def add_own(self, family: Family) -> None:
        known = self.families.get(family.name)
        if known is family:
            return
        if family.name in self.own:
            del self.families[family.name]  # another project's, or the same after a change
        self.add(family)
        self.own.add(family.name)

    def load_entry_points(self) -> None:
        if self.complete:
            return
        self.complete = True
        for entry_point in sorted(
            metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name
        ):
            try:
                loaded = entry_point.load()
                for family in (loaded,) if isinstance(loaded, Family) else tuple(loaded):
                    self.add(family)
            except Exception as error:
                self.broken.append(f"{entry_point.value}: {type(error).__name__}: {error}")


_REGISTER = _Register((*BUILTIN_FAMILIES, *TOKEN_FAMILIES))


def register_family(family: Family) -> None:
    """Add a family for this process; packages declare theirs under the entry point ``lanaprof.operations``.

    Raises:
        BadInput: a family of this name exists.
    """
    _REGISTER.add(family)


def register_own(family: Family) -> None:
    """Add a family of the user's own module; one of the same name from such a module is replaced.

    Raises:
        BadInput: a family of this name comes with lanaprof or with a package.
    """
    _REGISTER.load_entry_points()
    _REGISTER.add_own(family)


def families() -> tuple[Family, ...]:
    """Return every family: ours in declared order, then those of other packages."""
    _REGISTER.load_entry_points()
    return tuple(_REGISTER.families.values())


def get_family(name: str) -> Family:
    """Return a family by its name.

    Raises:
        UnknownOperation: there is none; the hint lists what there is.
    """
    if name not in _REGISTER.families:
        _REGISTER.load_entry_points()
    if name in _REGISTER.families:
        return _REGISTER.families[name]
    known = list(_REGISTER.families)
    close = difflib.get_close_matches(name, known, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    broken = f"; plug-ins that could not be loaded: {'; '.join(_REGISTER.broken)}" if _REGISTER.broken else ""
    raise UnknownOperation(
        f"there is no operation family {name!r}{broken}", hint=f"{guess}known families: {', '.join(known)}"
    )
