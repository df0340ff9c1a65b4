"""Which operations stand for which runs of layers: the lines of a file, or the catalogue ``lana``. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.errors import UnknownOperation
from lanaprof.ops.build import why_not_from
from lanaprof.ops.family import Shape, Value
from lanaprof.ops.lana import find_activation
from lanaprof.ops.own import names_function
from lanaprof.ops.registry import get_family
from lanaprof.ops.spec import SKIP, TEACHER, Operation, make_operation, parse_operation

if TYPE_CHECKING:
    from torch import nn

__all__ = ["STAGE", "TAIL", "SpanRule", "catalogue_spans", "read_spans", "split_span_line"]

STAGE, TAIL = "stage", "tail"  # runs that a rule may ask for without naming layers
_MOST = 3  # operations of a run in the catalogue: a space of spans must not outgrow that of layers


@dataclass(frozen=True, slots=True)
class SpanRule:
    """Asks for an operation in place of several layers.

    Args:
        run: ``stage``, ``tail``, ``first..last``, or a glob over layers' names.
        operation: what stands there.
        where: of the rule, for messages.
    """

    run: str
    operation: Operation
    where: str


def split_span_line(line: str) -> tuple[str, str] | None:
    """Return the run and the operation that a line of an operations file names; None for one of a single layer.

    >>> split_span_line("tail: skip  # of every stage"), split_span_line("mbconv(expand=2)")
    (('tail', 'skip'), None)
    """
    run, colon, text = line.partition("#")[0].partition(":")
    return (run.strip(), text.strip()) if colon else None


def read_spans(ops: str | Path) -> tuple[SpanRule, ...]:
    """Return the rules of an operations file, ``RUN: OPERATION`` each; none of what is no such file.

    Raises:
        UnknownOperation: a line names no run, or no operation that may stand there; the message says where.
    """
    if ops in ("quick", "lana") or (isinstance(ops, str) and names_function(ops)):
        return ()
    rules = []
    for number, line in enumerate(Path(ops).read_text(encoding="utf-8").splitlines(), start=1):
        parts = split_span_line(line)
        if parts is None:
            continue
        where = f"{ops}, line {number}"
        try:
            operation = parse_operation(parts[1])
        except UnknownOperation as error:
            raise UnknownOperation(f"{where}: {error.message}", hint=error.hint) from error
        if not parts[0] or operation.family == TEACHER:
            raise UnknownOperation(
                f"{where}: {parts[1]!r} cannot stand for the layers {parts[0]!r}",
                hint="write RUN: OPERATION, such as stage: mbconv(expand=4), tail: skip, blocks.2.*: g_ghost",
            )
        rules.append(SpanRule(parts[0], operation, where))
    return tuple(rules)


def catalogue_spans(
    run: nn.Module, input_shape: Shape, output_shape: Shape, *, macs: int, signed: bool
) -> tuple[Operation, ...]:
    """Return what the catalogue ``lana`` offers in place of several layers: at most three, none dearer than they.

    ``skip`` where the shapes are equal, one block of the teacher's kind instead of all, and G-Ghost.

    Args:
        run: the layers, a LayerRun.
        input_shape: of its first layer, one sample.
        output_shape: of its last.
        macs: multiply-accumulates of all of them.
        signed: the last layer's output has negative values; else operations end with a ReLU.
    """
    offered = [make_operation(SKIP)] if input_shape == output_shape else []
    if len(input_shape) == 3 and len(output_shape) == 3:
        offered += _image_spans(run, signed=signed)
    fitting = [
        one
        for one in offered
        if why_not_from(one, run, input_shape, output_shape) is None
        and _macs(one, input_shape, output_shape) <= (macs or 0)
    ]
    ghosts = [one for one in fitting if one.family == "g_ghost"][:1]
    others = [one for one in fitting if one.family != "g_ghost"]
    return (*others[: _MOST - len(ghosts)], *ghosts)


def _image_spans(run: nn.Module, *, signed: bool) -> list[Operation]:
    act = find_activation(run) or "relu"
    ends: dict[str, Value] = {"act": act, "out": "none" if signed else "relu"}
    if _is_depthwise(run):
        shapes: Sequence[dict[str, Value]] = ({"expand": 6.0, "kernel": 5}, {"expand": 3.0, "kernel": 5})
        blocks = [make_operation("mbconv", {**shape, **ends}) for shape in shapes]
        inner: dict[str, Value] = {}
    else:
        blocks = [make_operation("basic", {**ends, "width": width}) for width in (1.0, 0.5)]
        inner = {"block": "basic", "expand": 1.0}
    ghosts = [make_operation("g_ghost", {**inner, "end": end, **ends}) for end in ("keep", "none")]
    return [*blocks, *ghosts]


def _is_depthwise(run: nn.Module) -> bool:
    return any(1 < getattr(child, "groups", 1) == getattr(child, "in_channels", 0) for child in run.modules())


def _macs(operation: Operation, input_shape: Shape, output_shape: Shape) -> int:
    macs = get_family(operation.family).macs
    return 0 if macs is None else macs(input_shape, output_shape, dict(operation.parameters))
