"""Families that mix pixels by attention or pooling, as transformers do. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import GELU, OUT_NONE, heads, kernel, width
from lanaprof.ops.families.shapes import (
    OUTLOOK,
    find_window,
    fits_image,
    head_channels,
    image_reason,
    macs_of,
    round_channels,
    strides_of,
)
from lanaprof.ops.family import Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, Walk

__all__ = ["ATTENTION_FAMILIES", "GLOBAL_PIXELS"]

GLOBAL_PIXELS = 256  # 16×16: beyond, the pairs of pixels cost more than any convolution
_BLOCKS = "lanaprof.ops.blocks"
_Given = Mapping[str, Any]


def _window_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None:
        for size in output_shape[1:]:
            if find_window(size, parameters["window"]) is None:
                return f"no window of 3 to {parameters['window']} pixels tiles {size}"
    return reason


def _global_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    del parameters
    reason = image_reason(input_shape, output_shape)
    if reason is None and output_shape[1] * output_shape[2] > GLOBAL_PIXELS:
        return f"{output_shape[1]}×{output_shape[2]} are more than {GLOBAL_PIXELS} pixels"
    return reason


def _project(walk: Walk, input_shape: Shape, output_shape: Shape) -> None:
    if input_shape != output_shape:
        walk.shrink(strides_of(input_shape, output_shape))
        walk.conv(output_shape[0])


def _attend(walk: Walk, window: tuple[int, int], parameters: _Given) -> None:
    channels, count = walk.channels, parameters["heads"]
    head = head_channels(channels, parameters["width"], count)
    inner, length = head * count, window[0] * window[1]
    walk.step("layer_norm")
    weights = channels * 3 * inner + inner * channels
    macs = weights * walk.pixels + 2 * walk.pixels * length * inner
    walk.step("attention", *window, count, head, macs=macs)
    walk.step("add")


def _mlp(walk: Walk, parameters: _Given) -> None:
    if parameters["expand"]:
        channels = walk.channels
        walk.step("layer_norm")
        walk.conv(round_channels(channels * parameters["expand"]), act=parameters["act"])
        walk.conv(channels)
        walk.step("add")


def _window_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk = Walk(input_shape)
    _project(walk, input_shape, output_shape)
    tiles = [find_window(size, parameters["window"]) for size in output_shape[1:]]
    _attend(walk, (tiles[0] or 1, tiles[1] or 1), parameters)
    _mlp(walk, parameters)
    return walk.end(output_shape, parameters["out"], residual=False)


def _global_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk = Walk(input_shape)
    _project(walk, input_shape, output_shape)
    _attend(walk, (output_shape[1], output_shape[2]), parameters)
    _mlp(walk, parameters)
    return walk.end(output_shape, parameters["out"], residual=False)


def _outlook_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk = Walk(input_shape)
    _project(walk, input_shape, output_shape)
    channels, count = walk.channels, parameters["heads"]
    stride = parameters["stride"]
    head = head_channels(channels, parameters["width"], count)
    inner, around = head * count, OUTLOOK**2
    spots = -(-walk.height // stride) * -(-walk.width // stride)
    walk.step("layer_norm")
    macs = 2 * channels * inner * walk.pixels  # values and the last map
    macs += spots * (channels * count * around**2 + inner * around**2 + 2 * inner * around**2)
    walk.step("outlook", stride, count, head, macs=macs)
    walk.step("add")
    _mlp(walk, parameters)
    return walk.end(output_shape, parameters["out"], residual=False)


def _pool_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk = Walk(input_shape)
    _project(walk, input_shape, output_shape)
    walk.step("layer_norm")
    walk.step("average", parameters["kernel"])
    walk.step("add")
    _mlp(walk, parameters)
    return walk.end(output_shape, parameters["out"], residual=False)


def _mlp_expand(default: float) -> Parameter:
    return Parameter(
        "expand", default, low=0, high=8, help="hidden channels of the MLP over output channels; 0: no MLP"
    )


ATTENTION_FAMILIES: tuple[Family, ...] = (
    Family(
        name="window_attention",
        parameters=(
            Parameter(
                "window",
                7,
                low=3,
                high=16,
                help="pixels of a window's side, or the most below that tile the map",
            ),
            heads(4),
            width(1.0),
            _mlp_expand(0.0),
            GELU,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:WindowAttention",
        source="Liu et al., Swin Transformer, arXiv 2103.14030 (windows without shift)",
        summary="multi-head attention inside windows, after a layer norm, added to its input; then an MLP alike",
        applies=_window_applies,
        macs=macs_of(_window_pieces),
        pieces=_window_pieces,
        dense=True,
    ),
    Family(
        name="global_attention",
        parameters=(heads(4), width(1.0), _mlp_expand(0.0), GELU, OUT_NONE),
        module=f"{_BLOCKS}:GlobalAttention",
        source="Srinivas et al., Bottleneck Transformers, arXiv 2101.11605",
        summary=f"multi-head attention among all pixels of a small map (≤ {GLOBAL_PIXELS}), then an MLP",
        applies=_global_applies,
        macs=macs_of(_global_pieces),
        pieces=_global_pieces,
        dense=True,
    ),
    Family(
        name="outlook",
        parameters=(
            Parameter("stride", 2, allowed=(1, 2), help="distance of the pixels that decide how to mix"),
            heads(4),
            width(1.0),
            _mlp_expand(0.0),
            GELU,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:OutlookAttention",
        source="Yuan et al., VOLO, arXiv 2106.13112",
        summary="outlook attention: every pixel decides how the 3×3 around it are mixed; then an MLP",
        applies=fits_image,
        macs=macs_of(_outlook_pieces),
        pieces=_outlook_pieces,
        dense=True,
    ),
    Family(
        name="pool",
        parameters=(kernel(3, 5, 7, what="size of the pooling"), _mlp_expand(4.0), GELU, OUT_NONE),
        module=f"{_BLOCKS}:PoolMixer",
        source="Yu et al., MetaFormer, arXiv 2111.11418",
        summary="average pooling in attention's place, then an MLP",
        applies=fits_image,
        macs=macs_of(_pool_pieces),
        pieces=_pool_pieces,
        dense=True,
    ),
)
