"""An operation and its text: ``mbconv(expand=4,kernel=5)@int8``. No torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from lanaprof.errors import UnknownOperation
from lanaprof.ops.family import Value, format_value
from lanaprof.ops.registry import get_family

__all__ = ["PRECISIONS", "SKIP", "TEACHER", "Operation", "make_operation", "parse_operation"]

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
TEACHER = "teacher"
SKIP = "skip"

_TEXT = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*(?:\((.*)\))?\s*(?:@\s*([\w]+))?\s*", re.DOTALL)
_EXAMPLE = "write it like mbconv(expand=4,kernel=5) or conv@fp16"


@dataclass(frozen=True, slots=True)
class Operation:
    """What may stand in a layer.

    Args:
        family: a registered family's name.
        parameters: every parameter with its value, in the order the family declares them.
        precision: one of PRECISIONS; empty for the device's own.
    """

    family: str
    parameters: tuple[tuple[str, Value], ...] = ()
    precision: str = ""

    @property
    def text(self) -> str:
        """The operation in one line: only what differs from the default, in declared order.

        >>> parse_operation("mbconv( kernel=5, expand=4, se=0 )").text
        'mbconv(expand=4,kernel=5)'
        """
        defaults = dict(get_family(self.family).defaults)
        changed = [
            f"{name}={format_value(value)}" for name, value in self.parameters if value != defaults.get(name)
        ]
        inside = f"({','.join(changed)})" if changed else ""
        return f"{self.family}{inside}{'@' + self.precision if self.precision else ''}"

    def __str__(self) -> str:
        return self.text


def make_operation(
    family: str, parameters: Mapping[str, Value] | None = None, *, precision: str = ""
) -> Operation:
    """Return an operation with every parameter checked and the omitted ones at their defaults.

    Raises:
        UnknownOperation: no such family, parameter, value or precision.

    >>> make_operation("conv", {"kernel": 1}).text
    'conv(kernel=1)'
    """
    known = get_family(family)
    checked = {
        name: known.parameter(name).check(value, family=family) for name, value in (parameters or {}).items()
    }
    return _complete(family, checked, precision)


@lru_cache(maxsize=65536)
def parse_operation(text: str) -> Operation:
    """Return the operation a text means; any order and white space are understood.

    Raises:
        UnknownOperation: the text is malformed, or names a family, parameter, value or precision that does
            not exist; the hint lists those that do.

    >>> parse_operation("ds(kernel=5)@fp16").parameters
    (('kernel', 5), ('act', 'relu'), ('out', 'none'))
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UnknownOperation(f"{text!r} is not an operation", hint=_EXAMPLE)
    family, inside, precision = match[1], match[2], match[3] or ""
    known = get_family(family)
    parameters: dict[str, Value] = {}
    for part in (inside or "").split(",") if (inside or "").strip() else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name or not value:
            raise UnknownOperation(f"{part.strip()!r} in {text!r} is not NAME=VALUE", hint=_EXAMPLE)
        if name in parameters:
            raise UnknownOperation(f"{text!r} names {name} twice", hint="keep one of them")
        parameters[name] = known.parameter(name).parse(value, family=family)
    return _complete(family, parameters, precision)


def _complete(family: str, parameters: Mapping[str, Value], precision: str) -> Operation:
    if precision and precision not in PRECISIONS:
        raise UnknownOperation(
            f"there is no precision {precision!r}", hint=f"known precisions: {', '.join(PRECISIONS)}"
        )
    complete = tuple((name, parameters.get(name, default)) for name, default in get_family(family).defaults)
    return Operation(family, complete, precision)
