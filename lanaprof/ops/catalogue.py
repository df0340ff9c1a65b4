"""Which operations a layer gets as candidates: the quick mix, or the lines of a file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.errors import BadInput, UnknownOperation
from lanaprof.ops.build import why_not, why_not_from
from lanaprof.ops.family import Shape, Value
from lanaprof.ops.lana import computation, lana_operations
from lanaprof.ops.own import load_own_operations, names_function
from lanaprof.ops.registry import get_family
from lanaprof.ops.spans import split_span_line
from lanaprof.ops.spec import SKIP, TEACHER, Operation, make_operation, parse_operation
from lanaprof.ops.token_pools import token_quick

if TYPE_CHECKING:
    from torch import nn

__all__ = ["at_precisions", "operations_for", "read_operations"]

_QUICK_COUNT = 10  # beside teacher and skip: 12 in all
_QUICK_WIDTHS = (0.5, 0.75)  # of the teacher's own layer, beside those
_DEPTHWISE_CEILING = 1.0  # × the teacher's arithmetic: dearer ones of the teacher's own kind cannot win
_DENSE_CEILING = 2.0  # full convolutions reach a multiple of depthwise ones' speed per multiplication
_QUICK_POOL: tuple[tuple[str, dict[str, Value]], ...] = (  # per family the most useful first
    ("conv", {"kernel": 3}),
    ("conv", {"kernel": 1}),
    ("ds", {"kernel": 3}),
    ("ds", {"kernel": 5}),
    ("mbconv", {"expand": 2.0}),
    ("mbconv", {"expand": 1.0}),
    ("mbconv", {"expand": 3.0}),
    ("mbconv", {"expand": 4.0}),
    ("mbconv", {"expand": 2.0, "kernel": 5}),
    ("mbconv", {"expand": 4.0, "kernel": 5}),
    ("fused_mbconv", {"expand": 1.0}),
    ("fused_mbconv", {"expand": 0.5}),
    ("fused_mbconv", {"expand": 2.0}),
    ("basic", {"width": 0.5}),
    ("basic", {"width": 0.25}),
    ("basic", {"width": 0.125}),
    ("bottleneck", {"width": 0.25}),
    ("bottleneck", {"width": 0.125}),
    ("bottleneck", {"width": 0.5}),
    ("repvgg", {}),
)
# Where the above are too dear, as beside a bottleneck, these fill up.
_QUICK_SMALL: tuple[tuple[str, dict[str, Value]], ...] = (
    ("mbconv", {"expand": 0.5}),
    ("mbconv", {"expand": 0.25}),
    ("basic", {"width": 0.0625}),
    ("conv", {"kernel": 3, "groups": 8}),
    ("fused_mbconv", {"expand": 0.25}),
    ("bottleneck", {"width": 0.0625}),
    ("bottleneck", {"width": 0.25, "groups": 4}),
    ("bottleneck", {"width": 0.5, "groups": 8}),
    ("bottleneck", {"width": 0.125, "kernel": 5}),
    ("ds", {"kernel": 7}),
)
_QUICK_TURNS = (  # the two kinds that teachers are made of, and plain convolutions, come twice
    "mbconv", "basic", "conv", "fused_mbconv", "ds", "mbconv", "basic", "conv", "repvgg", "bottleneck",
)  # fmt: skip


def operations_for(
    ops: str | Path,
    input_shape: Shape,
    output_shape: Shape,
    *,
    teacher_macs: int | None = None,
    signed: bool = True,
    teacher: nn.Module | None = None,
    search_path: str | Path | None = None,
) -> tuple[Operation, ...]:
    """Return a layer's candidates: ``teacher`` first, then ``skip`` where it fits, then the rest.

    Args:
        ops: ``"quick"`` for about twelve that span a tenth of the teacher's arithmetic to all of it, and the
            teacher's own layer, narrower; ``"lana"`` for some two hundred; ``"package.module:function"`` for the
            user's own; or the path of a file with one operation a line.
        input_shape: of one sample, (C, H, W) or (T, D).
        output_shape: of one sample.
        teacher_macs: multiply-accumulates of the teacher's layer for one sample; quick leaves out what cannot
            be cheaper. None: nothing is left out for its cost.
        signed: the teacher's output has negative values; else quick ends its operations with a ReLU.
        teacher: the teacher's layer. Operations that are made from it are left out where this cannot be done,
            and all of them where it is not given.
        search_path: the project's folder, where the user's own module lies.

    Raises:
        UnknownOperation: a line of the file, or a text of the user's function, is no operation.
        BadInput: the file cannot be read, the function fails, or the catalogue does not exist.
    """
    shapes = (tuple(input_shape), tuple(output_shape))
    if isinstance(ops, str) and ops == "quick":
        chosen = (*_quick(*shapes, teacher_macs, signed), *_quick_own(*shapes, teacher))
    elif isinstance(ops, str) and ops == "lana":
        found = lana_operations(*shapes, teacher_macs=teacher_macs, signed=signed, teacher=teacher)
        return (make_operation(TEACHER), *found)
    elif isinstance(ops, str) and names_function(ops):
        chosen = tuple(load_own_operations(ops, search_path=search_path)(*shapes))
    else:
        chosen = read_operations(ops)
    fitting = [operation for operation in chosen if _fits(operation, *shapes, teacher)]
    kept = make_operation(TEACHER)
    distinct = _without_equal_slices([one for one in dict.fromkeys(fitting) if one != kept], *shapes, teacher)
    return (kept, *distinct)


def at_precisions(
    operations: Sequence[Operation], precisions: Sequence[str], input_shape: Shape, output_shape: Shape
) -> tuple[Operation, ...]:
    """Return a layer's candidates, and behind them those that compute something once more at each precision.

    Twins share their trained weights. What names a precision of its own has none; nor has what multiplies nothing.

    Args:
        operations: the candidates.
        precisions: one or more of PRECISIONS.
        input_shape: of one sample.
        output_shape: of one sample.
    """
    twins = [
        replace(operation, precision=precision)
        for precision in precisions
        for operation in operations
        if not operation.precision and _multiplies(operation, tuple(input_shape), tuple(output_shape))
    ]
    return tuple(dict.fromkeys((*operations, *twins)))


def _multiplies(operation: Operation, input_shape: Shape, output_shape: Shape) -> bool:
    macs = get_family(operation.family).macs
    if operation.family in (TEACHER, SKIP) or macs is None:
        return operation.family != SKIP
    return macs(input_shape, output_shape, dict(operation.parameters)) > 0


def _without_equal_slices(
    operations: list[Operation], input_shape: Shape, output_shape: Shape, teacher: nn.Module | None
) -> list[Operation]:
    """Leave out what rounding makes the same piece of the teacher's layer: same operator, same weights, same score."""
    found: dict[Hashable, Operation] = {}
    for operation in operations:
        sliced = get_family(operation.family).needs_teacher
        key = computation(operation, input_shape, output_shape, teacher) if sliced else operation
        found.setdefault(key, operation)
    return list(found.values())


def _fits(operation: Operation, input_shape: Shape, output_shape: Shape, teacher: nn.Module | None) -> bool:
    if teacher is not None:
        return why_not_from(operation, teacher, input_shape, output_shape) is None
    return not get_family(operation.family).needs_teacher and (
        why_not(operation, input_shape, output_shape) is None
    )


def read_operations(path: str | Path) -> tuple[Operation, ...]:
    """Return the operations of a text file: one a line, ``#`` starts a comment, empty lines are skipped.

    Lines ``RUN: OPERATION`` stand for several layers and are left to :func:`lanaprof.ops.spans.read_spans`.

    Raises:
        UnknownOperation: a line is no operation; the message names file and line.
        BadInput: there is no such file or catalogue, or the file is no text or empty.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"there is no catalogue {str(path)!r}, and it cannot be read as a file: {error}",
            hint="use --ops quick, --ops lana, --ops package.module:function, or --ops FILE with one operation a line",
        ) from error
    operations: list[Operation] = []
    has_spans = False
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        has_spans = has_spans or split_span_line(text) is not None
        if not text or split_span_line(text) is not None:
            continue
        try:
            operation = parse_operation(text)
        except UnknownOperation as error:
            raise UnknownOperation(f"{path}, line {number}: {error.message}", hint=error.hint) from error
        operations.append(operation)
    if not operations and not has_spans:
        raise BadInput(
            f"{path} holds no operation", hint="write one a line, such as mbconv(expand=4,kernel=5)"
        )
    return tuple(operations)


def _quick(
    input_shape: Shape, output_shape: Shape, teacher_macs: int | None, signed: bool
) -> tuple[Operation, ...]:
    if len(input_shape) == 2:
        return (make_operation(SKIP), *_quick_tokens(input_shape, output_shape, teacher_macs))
    chosen: tuple[Operation, ...] = ()
    for pool in (_QUICK_POOL, _QUICK_SMALL):
        endings = [_ending(family, parameters, signed) for family, parameters in pool]
        fitting = [
            operation
            for operation in endings
            if operation is not None
            and why_not(operation, input_shape, output_shape) is None
            and _is_cheap(operation, input_shape, output_shape, teacher_macs)
        ]
        chosen += _spread(fitting, input_shape, output_shape, count=_QUICK_COUNT - len(chosen))
    return (make_operation(SKIP), *chosen)


def _quick_own(input_shape: Shape, output_shape: Shape, teacher: nn.Module | None) -> tuple[Operation, ...]:
    """Return the teacher's own layer, narrower, where that can be done: once for each computation."""
    found: dict[Hashable, Operation] = {}
    for width in _QUICK_WIDTHS:
        operation = make_operation("slim", {"width": width})
        if teacher is not None and why_not_from(operation, teacher, input_shape, output_shape) is None:
            found.setdefault(computation(operation, input_shape, output_shape, teacher), operation)
    return tuple(found.values())


def _quick_tokens(input_shape: Shape, output_shape: Shape, teacher_macs: int | None) -> tuple[Operation, ...]:
    """Return those of some ten that cost less than the teacher: both are made of the same products."""
    offered = (make_operation(*choice) for choice in token_quick(input_shape, output_shape))
    return tuple(
        operation
        for operation in offered
        if not teacher_macs or _macs(operation, input_shape, output_shape) < teacher_macs
    )


def _is_cheap(
    operation: Operation, input_shape: Shape, output_shape: Shape, teacher_macs: int | None
) -> bool:
    if not teacher_macs:
        return True
    ceiling = _DENSE_CEILING if get_family(operation.family).dense else _DEPTHWISE_CEILING
    return _macs(operation, input_shape, output_shape) <= ceiling * teacher_macs


def _ending(family: str, parameters: dict[str, Value], signed: bool) -> Operation | None:
    """Return the operation with an end that can give the teacher's values; None where that is pointless."""
    if family == "repvgg" and signed:
        return None  # without its activation it deploys as the same graph as conv(act=none)
    last = "act" if family in ("conv", "repvgg") else "out"
    return make_operation(family, {**parameters, last: "none" if signed else "relu"})


def _macs(operation: Operation, input_shape: Shape, output_shape: Shape) -> int:
    macs = get_family(operation.family).macs
    assert macs is not None  # every family of the pool has its formula
    return macs(input_shape, output_shape, dict(operation.parameters))


def _spread(
    pool: list[Operation], input_shape: Shape, output_shape: Shape, *, count: int
) -> tuple[Operation, ...]:
    """Return up to ``count`` of the pool: families take turns, each gives what costs least like its others."""
    cost = {operation: math.log(_macs(operation, input_shape, output_shape)) for operation in pool}
    chosen: list[Operation] = []
    count = min(count, len(pool))
    for family in itertools.cycle(_QUICK_TURNS):
        if len(chosen) == count:
            break
        rest = [operation for operation in pool if operation.family == family and operation not in chosen]
        taken = [cost[operation] for operation in chosen if operation.family == family]
        if rest:
            chosen.append(
                max(rest, key=lambda one: min((abs(cost[one] - other) for other in taken), default=0))
            )
    return tuple(operation for operation in pool if operation in chosen)
