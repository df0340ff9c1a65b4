"""From an operation to a torch module, and from a trained module to the one that is deployed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from lanaprof.digest import digest
from lanaprof.errors import UnknownOperation
from lanaprof.ops.family import Family, Shape
from lanaprof.ops.quantising.grids import QUANTISED, get_grid, grid_at
from lanaprof.ops.registry import get_family
from lanaprof.ops.spec import TEACHER, Operation

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "GENERATOR_VERSION",
    "at_precision",
    "build_operation",
    "candidate_seed",
    "fuse",
    "match_output",
    "seeded",
    "why_not",
    "why_not_from",
]

GENERATOR_VERSION = (
    "1"  # raise it when the same operation gives another graph: cached operators are then stale
)
_FULL = ("", "fp32")  # the precisions that modules are built in
_SAMPLES = 2  # in a batch that only shows what a module computes


def candidate_seed(seed: int, layer: str, operation: str) -> int:
    """Return the seed of one candidate's initial weights: other candidates change nothing about it.

    >>> candidate_seed(0, "blocks.1", "ds") == candidate_seed(0, "blocks.1", "ds")
    True
    """
    return int(digest([seed, layer, operation])[:15], 16)  # 60 bits: torch takes 64, signed


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Make torch's random numbers on the CPU follow the seed inside the block, leave no trace after it."""
    import torch  # heavy

    state = torch.default_generator.get_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.default_generator.set_state(state)


def why_not(operation: Operation, input_shape: Shape, output_shape: Shape) -> str | None:
    """Return why an operation cannot stand between two shapes (per sample), or None where it can."""
    family = get_family(operation.family)
    return family.applies(tuple(input_shape), tuple(output_shape), dict(operation.parameters))


def why_not_from(
    operation: Operation, teacher: nn.Module, input_shape: Shape, output_shape: Shape
) -> str | None:
    """Return why an operation cannot take the place of a teacher's layer, or None where it can.

    Beyond ``why_not`` this asks the families that are made from the layer itself; for all others the shapes
    say everything.

    Args:
        operation: to be judged.
        teacher: the layer; it stays as it is.
        input_shape: of one sample.
        output_shape: of one sample.
    """
    reason = why_not(operation, input_shape, output_shape)
    family = get_family(operation.family)
    if reason is not None or not family.needs_teacher:
        return reason
    judge = getattr(family.load(), "why_not", None)
    if judge is None:
        return None
    answer: str | None = judge(teacher, tuple(input_shape), tuple(output_shape), **dict(operation.parameters))
    return answer


def build_operation(
    operation: Operation,
    input_shape: Shape,
    output_shape: Shape,
    *,
    teacher: nn.Module | None = None,
    seed: int = 0,
    grid: str = "uint8",
) -> nn.Module:
    """Return the module of an operation between two shapes.

    Args:
        operation: what to build. At another precision than float32 it is built in its deployed form; in int8 and fp8
            its scales are not calibrated yet.
        input_shape: of one sample, (C, H, W) or (T, D).
        output_shape: of one sample; strides follow from the two shapes.
        teacher: the teacher's own layer, returned itself (no copy) for the family ``teacher``; families that
            are made from it leave it as it is.
        seed: of the initial weights. Torch's global random numbers are left as they were.
        grid: of activations in int8, one of ``lanaprof.ops.quantising.GRIDS``.

    Raises:
        UnknownOperation: the operation does not fit the shapes or the teacher's layer, or needs one that was not
            given.
        UnsupportedOperator: its module cannot be quantised.
    """
    input_shape, output_shape = tuple(input_shape), tuple(output_shape)
    if operation.precision not in _FULL:
        in_full = build_operation(
            replace(operation, precision=""), input_shape, output_shape, teacher=teacher, seed=seed
        )
        return at_precision(in_full, operation.precision, input_shape, grid=grid)
    family = get_family(operation.family)
    if teacher is None and (family.needs_teacher or operation.family == TEACHER):
        raise UnknownOperation(
            f"the operation {operation.text} needs the teacher's own layer", hint="pass it as teacher=..."
        )
    if teacher is not None and operation.family == TEACHER:
        return teacher
    reason = why_not(operation, input_shape, output_shape)
    if reason is not None:
        raise UnknownOperation(
            f"{operation.text} does not fit: {reason}",
            hint="choose an operation that fits the layer's shapes",
        )
    make = family.load()
    given = (teacher,) if family.needs_teacher else ()
    with seeded(seed):
        module: nn.Module = make(*given, input_shape, output_shape, **dict(operation.parameters))
    if not family.module.startswith("lanaprof."):
        _check_foreign(family, module, input_shape, output_shape)
    return module


def at_precision(module: nn.Module, precision: str, input_shape: Shape, *, grid: str = "uint8") -> nn.Module:
    """Return a module at a precision, in eval mode and its deployed form; in float32 it is returned itself.

    Args:
        module: in float32; left as it is.
        precision: one of PRECISIONS, or empty for float32.
        input_shape: of one sample.
        grid: of activations in int8; their scales are not calibrated yet.

    Raises:
        UnsupportedOperator: the module cannot be quantised.
    """
    if precision in _FULL:
        return module
    import torch  # heavy

    x = torch.randn((_SAMPLES, *input_shape), generator=torch.Generator().manual_seed(0))
    if precision in QUANTISED:
        from lanaprof.ops.quantising.module import Quantised

        return Quantised(fuse(module), get_grid(grid_at(precision, grid)), x).eval()
    from lanaprof.ops.quantising.half import HalfPrecision

    return HalfPrecision(fuse(module), precision, x).eval()


def _check_foreign(family: Family, module: nn.Module, input_shape: Shape, output_shape: Shape) -> None:
    """Refuse a plug-in's module that does not do what its family promises, before it spoils a network."""
    import torch  # heavy

    was_training = module.training
    module.eval()
    with torch.no_grad():
        shape = tuple(module(torch.zeros(1, *input_shape)).shape[1:])
    module.train(was_training)
    if shape != output_shape:
        raise UnknownOperation(
            f"the operation family {family.name!r} ({family.module}) gives {shape} instead of {output_shape}",
            hint="report it to the package that registers this family",
        )


def match_output(module: nn.Module, x: Tensor, y: Tensor, *, share: float = 0.7) -> bool:
    """Start a fresh module near the teacher's output, and say whether the module can be started so.

    The last batch norm before the residual addition gets, per channel, the mean of what is to be added
    (y − x, or y where nothing is added) and a share of its standard deviation. Distillation of few steps
    spends most of them on finding this scale otherwise.

    Args:
        module: as build_operation made it; changed in place.
        x: a batch of the teacher's input of the layer, (N, *input_shape).
        y: the teacher's output of the layer for x, (N, *output_shape).
        share: 1 adds noise as large as the target, 0 stops the gradients of all that lies before.
    """
    match = getattr(module, "match_output", None)
    if not callable(match):
        return False
    match(x, y, share)
    return True


def fuse(module: nn.Module, *, in_place: bool = False) -> nn.Module:
    """Return the deployed form of a module: a copy in eval mode with training-time branches merged.

    A submodule takes part by a method ``fused() -> nn.Module`` that returns its replacement, or by timm's
    ``reparameterize()``, which changes it in place (MobileOne, FastViT, RepViT, timm's own RepVGG).
    The result computes what the module computes in eval mode, up to rounding.

    Args:
        module: in any mode.
        in_place: use the module up instead of copying it.
    """
    from torch import nn  # heavy

    copied = (module if in_place else copy.deepcopy(module)).eval()
    root = nn.ModuleDict({"root": copied})  # so that the module itself can be replaced, too
    for name, child in list(root.named_modules()):
        merge = getattr(child, "fused", None)
        if callable(merge):
            parent_name, _, own_name = name.rpartition(".")
            setattr(root.get_submodule(parent_name), own_name, merge())
    for child in list(root.modules()):
        reparameterize = getattr(child, "reparameterize", None)
        if callable(reparameterize):
            reparameterize()
    return root["root"].eval()
