"""What a family of operations is: its parameters, where it fits, where its module lives. No torch."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lanaprof.errors import UnknownOperation
from lanaprof.ops.pieces import Piece

__all__ = [
    "ACTIVATIONS",
    "Applies",
    "Family",
    "Macs",
    "Parameter",
    "Pieces",
    "Shape",
    "Value",
    "format_value",
]

Value = int | float | bool | str
Shape = tuple[int, ...]  # per sample: (C, H, W) for images, (T, D) for tokens
Applies = Callable[[Shape, Shape, Mapping[str, Any]], "str | None"]
Macs = Callable[[Shape, Shape, Mapping[str, Any]], int]
Pieces = Callable[[Shape, Shape, Mapping[str, Any]], "tuple[Piece, ...]"]

ACTIVATIONS = ("relu", "relu6", "silu", "hswish", "gelu", "none")
_TYPES: dict[str, type[Value]] = {"int": int, "float": float, "bool": bool, "str": str}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One hyper-parameter of a family.

    Args:
        name: as it stands in the text of an operation.
        default: the value that the text leaves out; its type is the parameter's type.
        allowed: the only values there are; empty when ``low`` and ``high`` say it.
        low: the least value of a number.
        high: the greatest value of a number.
        help: one phrase for the docs.
    """

    name: str
    default: Value
    allowed: tuple[Value, ...] = ()
    low: float | None = None
    high: float | None = None
    help: str = ""

    @property
    def type_name(self) -> str:
        """The type in words: ``int``, ``float``, ``bool`` or ``str``."""
        return type(self.default).__name__

    @property
    def allowed_text(self) -> str:
        """The values there are, for people.

        >>> Parameter("kernel", 3, allowed=(1, 3, 5)).allowed_text
        '1, 3, 5'
        >>> Parameter("expand", 6.0, low=0.25, high=16).allowed_text
        '0.25 to 16'
        """
        if self.allowed:
            return ", ".join(format_value(value) for value in self.allowed)
        if isinstance(self.default, bool):
            return "false, true"
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        if self.low is not None:
            return f"from {self.low:g}"
        return f"any {self.type_name}"

    def check(self, value: Value, *, family: str) -> Value:
        """Return the value as this parameter's own type.

        Raises:
            UnknownOperation: another type, not among the allowed values, or out of range.
        """
        own = self._convert(value)
        if own is None or (self.allowed and own not in self.allowed) or not self._in_range(own):
            raise UnknownOperation(
                f"{family} has no {self.name}={format_value(value)}",
                hint=f"{self.name} of {family} may be: {self.allowed_text}",
            )
        return own

    def _convert(self, value: Value) -> Value | None:
        if type(value) is type(self.default):
            return value
        if self.type_name == "float" and type(value) is int:
            return float(value)  # "expand=4" is a float written short
        return None

    def _in_range(self, value: Value) -> bool:
        if isinstance(value, bool | str):
            return True
        if not math.isfinite(value):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    def parse(self, text: str, *, family: str) -> Value:
        """Return the value that a text such as ``5``, ``0.25``, ``true`` or ``relu`` means.

        Raises:
            UnknownOperation: the text is no value of this parameter.
        """
        value: Value = text
        if self.type_name == "bool" and text in ("true", "false"):
            value = text == "true"
        elif self.type_name in ("int", "float"):
            try:
                value = _TYPES[self.type_name](text)
            except ValueError:
                value = text
        return self.check(value, family=family)


@dataclass(frozen=True, slots=True)
class Family:
    r"""A kind of operation with its parameters.

    Args:
        name: the word in an operation's text.
        parameters: in declared order; new ones go to the end, with a default that changes nothing.
        module: ``"package.module:Class"``, imported on use and called as
            ``Class(input_shape, output_shape, **parameters)``; it returns a torch.nn.Module that takes
            (N, \*input_shape) and gives (N, \*output_shape). Empty for ``teacher``, which has none.
            With ``needs_teacher`` it is called as ``Class(layer, input_shape, output_shape, **parameters)``,
            where ``layer`` is the teacher's own torch.nn.Module: to be read, neither changed nor shared. It
            may have a function ``why_not`` of the same arguments: why it cannot be made from this layer, or
            None. The shapes of what is made must not depend on the layer's weights.
        source: where the operation was published.
        summary: one phrase for the docs.
        applies: says why the operation cannot stand between two shapes, or None where it can.
        macs: multiply-accumulates of one sample; None when nobody wrote them down.
        dense: without depthwise convolutions, hence fast for its arithmetic on most devices.
        version: raise it when the same parameters give another graph, so that cached operators are
            exported anew.
        needs_teacher: it is made from the teacher's own layer.
        pieces: what the deployed operation consists of at two shapes; operations of equal pieces are one
            computation, and a catalogue offers one of them. None: every text is a computation of its own.
        wide: trained with branches that are merged when it is deployed: it may learn more than another
            operation of equal pieces, so catalogues keep both.
        lana: sets of parameters with which the family joins the catalogue ``lana``.
    """

    name: str
    parameters: tuple[Parameter, ...]
    module: str
    source: str
    summary: str
    applies: Applies
    macs: Macs | None = None
    dense: bool = False
    version: int = 1
    needs_teacher: bool = False
    pieces: Pieces | None = None
    wide: bool = False
    lana: tuple[Mapping[str, Value], ...] = field(default=(), hash=False)

    @property
    def defaults(self) -> tuple[tuple[str, Value], ...]:
        """Every parameter with its default, in declared order."""
        return tuple((parameter.name, parameter.default) for parameter in self.parameters)

    def parameter(self, name: str) -> Parameter:
        """Return a parameter by its name.

        Raises:
            UnknownOperation: the family has no such parameter.
        """
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = ", ".join(parameter.name for parameter in self.parameters)
        raise UnknownOperation(
            f"{self.name} has no parameter {name!r}",
            hint=f"its parameters: {known}"
            if known
            else f"{self.name} takes no parameters: write {self.name}",
        )

    def load(self) -> Any:
        """Return the class (or function) that builds the module; imports torch.

        Raises:
            UnknownOperation: the module or the name in it does not exist.
        """
        module_name, _, attribute = self.module.partition(":")
        try:
            return getattr(importlib.import_module(module_name), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise UnknownOperation(
                f"{self.module!r}, the module of the family {self.name!r}, cannot be loaded: {error}",
                hint="install or repair the package that registers this family",
            ) from error


def format_value(value: Value) -> str:
    """Return the shortest text of a value; whole floats are written as integers.

    >>> format_value(4.0), format_value(0.25), format_value(True), format_value("relu")
    ('4', '0.25', 'true', 'relu')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))  # beyond 2^53 a float's digits are no integer's any more
    return str(value)
