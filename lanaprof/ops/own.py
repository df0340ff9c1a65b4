"""Operations of the user's own module: ``--ops package.module:function``. No torch, unless the module wants it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lanaprof.config.imports import load_attribute
from lanaprof.errors import BadInput, LanaprofError
from lanaprof.ops.family import Family, Shape
from lanaprof.ops.registry import register_own
from lanaprof.ops.spec import Operation, make_operation, parse_operation

__all__ = ["OwnOperations", "load_own_operations", "names_function"]

OwnOperations = Callable[[Shape, Shape], Iterable[Any]]
_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def names_function(ops: str) -> bool:
    """Say whether a text is ``package.module:function`` rather than a catalogue or a file.

    >>> names_function("mine:operations"), names_function("quick"), names_function("C:/ops.txt")
    (True, False, False)
    """
    return _FUNCTION.fullmatch(ops) is not None and not Path(ops).is_file()


def load_own_operations(text: str, *, search_path: str | Path | None = None) -> OwnOperations:
    """Return the user's function (input_shape, output_shape) → operations, and register the module's families.

    The families that stand in the module by a name of their own are known from then on in this process, so
    that their operations can be parsed and built.

    Args:
        text: ``package.module:function``.
        search_path: the project's folder.

    Raises:
        BadInput: there is no such module or function, or a family has the name of one that is not the user's.
    """
    function = load_attribute(text, search_path=search_path)
    if not callable(function):
        raise BadInput(
            f"{text} is no function but {type(function).__name__}",
            hint="write: def operations(input_shape, output_shape): return ['mbconv', ...]",
        )
    module = load_attribute(f"{text.partition(':')[0]}:__dict__", search_path=search_path)
    for value in list(module.values()):
        if isinstance(value, Family):
            _register(value)

    def operations(input_shape: Shape, output_shape: Shape) -> list[Operation]:
        return _called(text, function, input_shape, output_shape)

    return operations


def _register(family: Family) -> None:
    register_own(family)
    parse_operation.cache_clear()  # a family of the same name may have had other parameters


def _called(text: str, function: OwnOperations, input_shape: Shape, output_shape: Shape) -> list[Operation]:
    try:
        given = list(function(input_shape, output_shape))
    except LanaprofError:
        raise
    except Exception as error:
        raise BadInput(
            f"{text} fails for a layer {input_shape} to {output_shape}: {type(error).__name__}: {error}",
            hint="repair it; --debug shows where it fails",
        ) from error
    operations: list[Operation] = []
    for one in given:
        if isinstance(one, Operation):
            operations.append(one)
        elif isinstance(one, str):
            operations.append(parse_operation(one))
        elif isinstance(one, Family):
            _register(one)
            operations += [make_operation(one.name, parameters) for parameters in one.lana or ({},)]
        else:
            raise BadInput(
                f"{text} returned {one!r}, which is no operation",
                hint="return texts such as 'mbconv(expand=2)', Operation or Family objects",
            )
    return operations
