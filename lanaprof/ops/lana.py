"""The catalogue ``lana``: some two hundred operations a layer, as wide as LANA's (arXiv 2107.10624). No torch.

LANA's own list of 197 operations was never published; this one is made of the families of the register. Each
family offers more than is needed; a layer gets a mix in which every family has its share, spread evenly over
the logarithm of the arithmetic, from a few hundredths of the teacher's layer to all of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from lanaprof.ops.build import why_not, why_not_from
from lanaprof.ops.family import Shape, Value
from lanaprof.ops.pieces import total_macs
from lanaprof.ops.registry import families, get_family
from lanaprof.ops.spec import SKIP, Operation, make_operation
from lanaprof.ops.token_pools import token_pool

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LANA_COUNT", "LANA_COUNT_OTHER", "computation", "find_activation", "lana_operations"]

LANA_COUNT = 208  # candidates of a layer whose shapes are equal, teacher and skip included
LANA_COUNT_OTHER = 172  # of a layer that strides or changes its channels: no skip, fewer kinds fit
_DEPTHWISE_CEILING = 1.0  # × the teacher's arithmetic: dearer ones of the teacher's own kind cannot win
_DENSE_CEILING = 2.0  # full convolutions reach a multiple of depthwise ones' speed per multiplication
_DEAR = 1e6  # after all others: taken only where a layer is too small for so many distinct operations

_EXPANDS = (4.0, 2.0, 6.0, 1.0, 3.0, 0.5, 1.5, 5.0, 8.0, 0.25, 0.75, 2.5, 0.125, 3.5, 0.0625, 0.03125)
_WIDTHS = (0.25, 0.5, 0.125, 1.0, 0.0625, 0.375, 0.75, 0.1875, 0.03125, 0.625, 0.015625)
_RANKS = (0.25, 0.5, 0.125, 0.0625, 0.75, 0.03125, 0.375, 0.015625)

# How many of about two hundred each family gives a layer, where it has as many that fit.
_SHARES: dict[str, int] = {
    "conv": 10,
    "ds": 6,
    "mbconv": 34,
    "fused_mbconv": 16,
    "basic": 10,
    "bottleneck": 14,
    "repvgg": 1,
    "dbb": 3,
    "linear": 3,
    "mobileone": 3,
    "lowrank": 12,
    "dilated": 6,
    "split_attention": 8,
    "uib": 20,
    "eca": 8,
    "ghost": 10,
    "partial": 10,
    "shuffle": 6,
    "convnext": 12,
    "window_attention": 8,
    "global_attention": 6,
    "outlook": 5,
    "pool": 6,
}

_ACTIVATION_NAMES: dict[str, str] = {  # classes of PyTorch and timm
    "ReLU": "relu",
    "ReLU6": "relu6",
    "SiLU": "silu",
    "Swish": "silu",
    "MemoryEfficientSwish": "silu",
    "Hardswish": "hswish",
    "HardSwish": "hswish",
    "GELU": "gelu",
    "GELUTanh": "gelu",
}


def lana_operations(
    input_shape: Shape,
    output_shape: Shape,
    *,
    teacher_macs: int | None = None,
    signed: bool = True,
    teacher: nn.Module | None = None,
) -> tuple[Operation, ...]:
    """Return what a layer may get beside ``teacher``: no two are the same computation when deployed.

    Only families that train more than they deploy (``Family.wide``) are kept beside others of equal pieces:
    they share an operator, hence a latency, and differ in what they learn.

    Args:
        input_shape: of one sample, (C, H, W) or (T, D).
        output_shape: of one sample.
        teacher_macs: multiply-accumulates of the teacher's layer for one sample; None: nothing is too dear.
        signed: the teacher's output has negative values; else operations end with a ReLU.
        teacher: the teacher's layer: operations get its activation, and some are made from it.
    """
    shapes = (tuple(input_shape), tuple(output_shape))
    own = _own_operations(*shapes, teacher)
    skip = (make_operation(SKIP),) if shapes[0] == shapes[1] else ()
    count = (LANA_COUNT if skip else LANA_COUNT_OTHER) - 1 - len(skip) - len(own)
    if len(shapes[0]) == 3 and len(shapes[1]) == 3:
        act = find_activation(teacher) if teacher is not None else ""
        chosen = _image_operations(*shapes, teacher_macs, signed, act, count)
    else:
        offered = (make_operation(*choice) for choice in token_pool(*shapes))
        chosen = tuple(one for one in offered if why_not(one, *shapes) is None)[:count]
    return tuple(dict.fromkeys((*skip, *own, *chosen)))


def find_activation(teacher: nn.Module) -> str:
    """Return the activation that a layer uses most, by the names of its modules; empty where there is none."""
    names = [_ACTIVATION_NAMES.get(type(child).__name__, "") for child in teacher.modules()]
    counted = Counter(name for name in names if name)
    return counted.most_common(1)[0][0] if counted else ""


def computation(
    operation: Operation, input_shape: Shape, output_shape: Shape, teacher: nn.Module | None = None
) -> Hashable:
    """Return what is equal for operations that compute the same when deployed.

    Families that train more than they deploy differ from all others by what they are trained as.

    Args:
        operation: what fits the shapes.
        input_shape: of one sample.
        output_shape: of one sample.
        teacher: the layer that operations made from it are made from.
    """
    family, parameters = get_family(operation.family), dict(operation.parameters)
    if family.pieces is not None:
        pieces = family.pieces(input_shape, output_shape, parameters)
        return (operation.family if family.wide else "", operation.precision, pieces)
    sizes = getattr(family.load(), "sizes", None) if family.needs_teacher else None
    if sizes is None or teacher is None:
        return operation.text
    return (operation.family, operation.precision, sizes(teacher, input_shape, output_shape, **parameters))


def _own_operations(
    input_shape: Shape, output_shape: Shape, teacher: nn.Module | None
) -> tuple[Operation, ...]:
    """Return the operations that families themselves bring into the catalogue, other packages' included."""
    found: dict[Hashable, Operation] = {}
    for family in families():
        if family.needs_teacher and teacher is None:
            continue
        for parameters in family.lana:
            operation = make_operation(family.name, parameters)
            reason = (
                why_not(operation, input_shape, output_shape)
                if teacher is None
                else why_not_from(operation, teacher, input_shape, output_shape)
            )
            if reason is None:
                found.setdefault(computation(operation, input_shape, output_shape, teacher), operation)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Offer:
    """An operation that fits a layer, and its arithmetic there."""

    operation: Operation
    macs: int


@lru_cache(maxsize=256)
def _image_operations(
    input_shape: Shape, output_shape: Shape, teacher_macs: int | None, signed: bool, act: str, count: int
) -> tuple[Operation, ...]:
    offers: list[_Offer] = []
    seen: set[Hashable] = set()
    for operation in _offered(input_shape[0], act or "relu", signed):
        if why_not(operation, input_shape, output_shape) is not None:
            continue
        family, parameters = get_family(operation.family), dict(operation.parameters)
        assert family.pieces is not None  # every family of the catalogue says what it consists of
        pieces = family.pieces(input_shape, output_shape, parameters)
        macs = total_macs(pieces)
        what = (operation.family if family.wide else "", pieces)
        same_as_teacher = macs == teacher_macs and act in parameters.values()
        if what not in seen and not same_as_teacher:
            seen.add(what)
            offers.append(_Offer(operation, macs))
    ranks = _ranks(offers, teacher_macs)
    best = sorted(range(len(offers)), key=ranks.__getitem__)[:count]  # stable: equals keep the pool's order
    return tuple(offers[number].operation for number in sorted(best))


def _ranks(offers: Sequence[_Offer], teacher_macs: int | None) -> list[float]:
    """Return a rank per offer, least first: families take turns by their shares, dear ones come last."""
    ranks = [math.inf] * len(offers)
    for family, share in _SHARES.items():
        ceiling = (_DENSE_CEILING if get_family(family).dense else _DEPTHWISE_CEILING) * (teacher_macs or 0)
        cheap: list[int] = []
        for number, offer in enumerate(offers):
            if offer.operation.family != family:
                continue
            if ceiling and offer.macs > ceiling:
                ranks[number] = _DEAR + offer.macs / ceiling
            else:
                cheap.append(number)
        order = _spread([math.log(max(1, offers[number].macs)) for number in cheap])
        for place, index in enumerate(order):
            ranks[cheap[index]] = (place + 0.5) / share
    return ranks


def _spread(positions: Sequence[float]) -> list[int]:
    """Return the indices in an order in which each is as far as can be from all before; ties as they stand."""
    ordered: list[int] = []
    rest = dict.fromkeys(range(len(positions)), math.inf)
    while rest:
        chosen = max(rest, key=rest.__getitem__)  # the first of equals
        del rest[chosen]
        ordered.append(chosen)
        centre = positions[chosen]
        for index, distance in rest.items():
            own = abs(positions[index] - centre)
            if own < distance:
                rest[index] = own
    return ordered


@lru_cache(maxsize=256)
def _offered(channels: int, act: str, signed: bool) -> tuple[Operation, ...]:
    """Return everything the families offer, most useful first within each; the teacher's activation first."""
    last = "none" if signed else "relu"
    made: dict[Operation, None] = {}
    for family, sets in (*_dense_sets(channels), *_mobile_sets(), *_mixing_sets()):
        names = [name for name, _ in get_family(family).defaults]
        end = "out" if "out" in names else "act"
        for parameters in sets:
            inner = _activations(family, act) if end == "out" and "act" in names else ("",)
            for one in inner:
                filled = {**parameters, **({"act": one} if one else {}), end: last}
                made[make_operation(family, filled)] = None
    return tuple(made)


def _activations(family: str, act: str) -> tuple[str, ...]:
    """Return the activations a family is offered with: the teacher's first, then another."""
    if family in ("convnext", "pool", "window_attention", "global_attention", "outlook"):
        return ("gelu", act) if act not in ("gelu", "silu") else ("gelu", "relu")
    if family in ("mbconv", "uib", "ds", "fused_mbconv", "basic", "bottleneck", "ghost", "partial"):
        return (act, "relu") if act not in ("relu", "relu6") else (act, "hswish")
    return (act,)


_Sets = tuple[str, list[dict[str, Value]]]


def _grid(family: str, **values: Sequence[Value]) -> _Sets:
    """Return a family with every combination of its parameters' values; the first names vary slowest."""
    return family, [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def _dense_sets(channels: int) -> Iterator[_Sets]:
    yield _grid("conv", kernel=(3, 1, 5, 7), groups=(1, 4, 8, 2, 16, 32, channels))
    yield _grid("fused_mbconv", se=(0.0, 0.25), kernel=(3, 5, 7), expand=_EXPANDS)
    yield _grid("basic", kernel=(3, 5), width=_WIDTHS)
    yield _grid("bottleneck", kernel=(3, 5), groups=(1, 4, 8, 2, 16, 32), width=_WIDTHS)
    yield _grid("repvgg", kernel=(3,))
    yield _grid("dbb", kernel=(3, 5, 7))
    hidden = 2.0 if channels <= 128 else 1.0  # its k×k convolution has hidden² weights while it is trained
    yield _grid("linear", kernel=(3, 5, 7), expand=(hidden,))
    yield _grid("lowrank", form=("point", "spatial"), kernel=(3, 5, 7), rank=_RANKS)
    yield _grid("dilated", kernel=(3, 5), dilation=(2, 3, 4), groups=(1, 4, 8), width=_WIDTHS)
    yield _grid("split_attention", kernel=(3, 5), radix=(2, 1, 4), groups=(1, 2), width=_WIDTHS)


def _mobile_sets() -> Iterator[_Sets]:
    yield _grid("ds", kernel=(3, 5, 7, 9))
    yield _grid("mbconv", se=(0.0, 0.25, 0.5), kernel=(3, 5, 7, 9), expand=_EXPANDS)
    yield _grid("mobileone", kernel=(3, 5, 7), branches=(4,))
    yield _grid("uib", start=(3, 5, 0, 7), middle=(3, 0, 5, 7), expand=_EXPANDS)
    yield _grid("eca", kernel=(3, 5, 7, 9), expand=_EXPANDS)
    yield _grid("ghost", ratio=(2, 4), kernel=(3, 5), se=(0.0, 0.25), expand=_EXPANDS)
    yield _grid("partial", kernel=(3, 5, 7), share=(0.25, 0.125, 0.5), expand=_EXPANDS)
    yield _grid("shuffle", kernel=(3, 5), groups=(4, 2, 8), width=_WIDTHS)
    yield _grid("convnext", norm=("batch", "layer"), kernel=(7, 3, 5, 9), expand=_EXPANDS)


def _mixing_sets() -> Iterator[_Sets]:
    expands = (0.0, 1.0, 2.0, 0.5, 4.0, 0.25)
    widths = (1.0, 0.5, 0.25, 0.125)
    yield _grid("window_attention", window=(7, 4, 8), heads=(4, 1, 2), width=widths, expand=expands)
    yield _grid("global_attention", heads=(4, 1, 2, 8), width=widths, expand=expands)
    yield _grid("outlook", stride=(2, 1), heads=(4, 1, 2), width=widths, expand=expands)
    yield _grid("pool", kernel=(3, 5, 7), expand=(*expands, 0.125, 0.0625, 3.0))
