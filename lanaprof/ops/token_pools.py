"""Which operations token layers are offered: some ten of the quick mix, some two hundred in all. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product, zip_longest

from lanaprof.ops.family import Shape, Value
from lanaprof.ops.registry import get_family
from lanaprof.ops.token_shapes import find_grid

__all__ = ["token_pool", "token_quick"]

_Choice = tuple[str, dict[str, Value]]

_EXPANDS = (2.0, 1.0, 0.5, 3.0, 0.25, 1.5, 0.75, 0.125, 2.5, 0.375, 1.25, 3.5, 0.625, 1.75, 2.25, 2.75)
_GATED_EXPANDS = (1.0, 0.5, 2.0, 0.25, 1.5, 0.75, 0.125, 2.5, 0.375, 1.25, 1.75, 0.625)
_ACTS = ("gelu", "relu", "hswish", "silu", "relu6")
_RANKS = (0.0, 0.125, 0.25, 0.0625, 0.375, 0.1875)
_DIMS = (32, 64, 16, 48)
_SIZES = (64, 32, 128, 16, 256, 8, 48, 96)


def token_quick(input_shape: Shape, output_shape: Shape) -> list[_Choice]:
    """Return about ten operations for a token layer, as (family, parameters), from cheap to dear.

    Nothing says whether the layer is attention or MLP: it gets some of both.

    Args:
        input_shape: (T, D) of one sample.
        output_shape: the same, else there is none.
    """
    if input_shape != output_shape or len(input_shape) != 2:
        return []
    tokens, width = input_shape
    heads = max(1, width // 128)
    chosen: list[_Choice] = [
        ("token_linear", {"rank": 0.125}),
        ("token_external", {"size": 64}),
        ("token_linear", {}),
        ("token_mlp", {"expand": 0.5}),
        ("token_attention", {"heads": heads, "dim": 32}),
        ("token_attention", {"heads": 2 * heads, "dim": 32, "kv": 1}),
        ("token_mlp", {"expand": 1.0}),
        ("token_mlp", {"expand": 2.0}),
    ]
    grid = find_grid(tokens)
    if grid is None:
        return [*chosen, ("token_mixer", {"expand": 0.5})]
    windows = _divisors(grid[0])
    if windows:
        chosen.insert(4, ("token_window", {"window": windows[0], "heads": heads, "dim": 32}))
    chosen.insert(0, ("token_pool", {}))
    return [*chosen, ("token_conv", {}), ("token_conv_mlp", {"expand": 1.0})]


def token_pool(input_shape: Shape, output_shape: Shape) -> list[_Choice]:
    """Return the operations a token layer may get, as (family, parameters), no two the same computation.

    The kinds take turns, each from its most useful to its oddest: a part from the start is a mix, too.

    Args:
        input_shape: (T, D) of one sample.
        output_shape: the same, else there is none.
    """
    if input_shape != output_shape or len(input_shape) != 2:
        return []
    tokens, width = input_shape
    kinds: list[Iterator[_Choice]] = [
        _shaped("token_mlp", expand=_EXPANDS, act=_ACTS),
        _attentions(width),
        _shaped("token_gated_mlp", expand=_GATED_EXPANDS, act=("silu", "gelu", "relu", "hswish")),
        (("token_linear_attention", dict(choice)) for choice in _heads(width)),
        _shaped("token_linear", rank=_RANKS),
        _shaped("token_external", size=_SIZES),
        _mixers(),
        _shaped("token_spatial_gate", expand=(0.5, 1.0, 0.25, 2.0, 1.5, 0.75), act=("gelu", "relu")),
        _blocks(width),
    ]
    grid = find_grid(tokens)
    if grid is not None:
        kinds += _on_grid(grid[0], width)
    found: dict[object, _Choice] = {}
    for family, parameters in (one for turn in zip_longest(*kinds) for one in turn if one is not None):
        known = get_family(family)
        pieces = known.pieces
        assert pieces is not None  # all families on tokens say them
        computed = pieces(input_shape, output_shape, {**dict(known.defaults), **parameters})
        found.setdefault((family, computed), (family, parameters))
    return list(found.values())


def _shaped(family: str, **values: tuple[Value, ...]) -> Iterator[_Choice]:
    """Yield a family with all combinations of values; the last name changes slowest."""
    names = list(values)
    for combination in product(*(values[name] for name in reversed(names))):
        yield family, dict(zip(reversed(names), combination, strict=True))


def _heads(width: int) -> list[dict[str, Value]]:
    """Return numbers and sizes of heads that are together at most as wide as the tokens."""
    found: list[dict[str, Value]] = []
    for dim in _DIMS:
        for share in (2, 4, 1, 8):
            heads = width // (share * dim)
            if heads and {"heads": heads, "dim": dim} not in found:
                found.append({"heads": heads, "dim": dim})
    return found


def _attentions(width: int) -> Iterator[_Choice]:
    for choice in _heads(width):
        yield "token_attention", dict(choice)
        heads = choice["heads"]
        assert isinstance(heads, int)
        shared = [kv for kv in (1, 2) if kv < heads and heads % kv == 0]
        for kv in shared:
            yield "token_attention", {**choice, "kv": kv}


def _mixers() -> Iterator[_Choice]:
    yield "token_mixer", {"expand": 0.0}
    yield from _shaped("token_mixer", expand=(0.5, 0.25, 1.0, 2.0, 0.125, 0.75, 1.5), act=("gelu", "relu"))


def _blocks(width: int) -> Iterator[_Choice]:
    for choice, expand in product(_heads(width)[:4], (1.0, 2.0, 0.5)):
        yield "token_block", {**choice, "expand": expand}


def _divisors(side: int) -> list[int]:
    """Return the sides of windows on a grid: those next to Swin's 7 first, the whole grid is no window."""
    return sorted((one for one in range(2, side) if side % one == 0), key=lambda one: abs(one - 7))


def _on_grid(side: int, width: int) -> list[Iterator[_Choice]]:
    few = _heads(width)[:6]
    parts = _divisors(side)
    return [
        _shaped("token_conv", kernel=(3, 5, 7)),
        _shaped("token_conv_mlp", expand=(1.0, 0.5, 2.0, 0.25), kernel=(3, 5), act=("gelu", "relu")),
        _shaped("token_pool", kernel=(3, 5, 7)),
        (("token_window", {"window": part, **choice}) for part in parts[:3] for choice in few),
        (
            ("token_reduced_attention", {"reduce": part, **choice})
            for part in [*parts[:2], side]
            for choice in few
        ),
    ]
