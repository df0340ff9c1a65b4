"""Families of full convolutions made cheaper: low rank, dilation, split attention. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import ACT, OUT_NONE, groups, kernel, width
from lanaprof.ops.families.shapes import (
    fits_image,
    image_reason,
    macs_of,
    round_channels,
    split_gate_channels,
    strides_of,
)
from lanaprof.ops.family import Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, Walk

__all__ = ["DENSE_FAMILIES"]

_BLOCKS = "lanaprof.ops.blocks"
_Given = Mapping[str, Any]


def _dilated_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None:
        count, reach = parameters["groups"], parameters["dilation"] * (parameters["kernel"] // 2)
        if reach >= min(input_shape[1:]):
            return f"all but the kernel's centre lie outside of {input_shape[1]}×{input_shape[2]} pixels"
        middle = round_channels(output_shape[0] * parameters["width"])
        if middle % count:
            return f"{count} groups do not divide {middle} inner channels"
    return reason


def _split_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None:
        middle = round_channels(output_shape[0] * parameters["width"])
        count = parameters["groups"] * parameters["radix"]
        if middle % count:
            return f"{count} groups do not divide {middle} inner channels"
    return reason


def _lowrank_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, rank = Walk(input_shape), round_channels(output_shape[0] * parameters["rank"])
    (high, wide), size = strides_of(input_shape, output_shape), parameters["kernel"]
    if parameters["form"] == "point":
        walk.conv(rank, kernel=size, stride=(high, wide))
        walk.conv(output_shape[0])
    else:
        walk.conv(rank, kernel=(size, 1), stride=(high, 1))
        walk.conv(output_shape[0], kernel=(1, size), stride=(1, wide))
    return walk.end(output_shape, parameters["out"])


def _dilated_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, middle = Walk(input_shape), round_channels(output_shape[0] * parameters["width"])
    stride, act = strides_of(input_shape, output_shape), parameters["act"]
    walk.conv(middle, act=act)
    walk.conv(
        middle,
        kernel=parameters["kernel"],
        stride=stride,
        groups=parameters["groups"],
        dilation=parameters["dilation"],
        act=act,
    )
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _split_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, middle = Walk(input_shape), round_channels(output_shape[0] * parameters["width"])
    act, radix = parameters["act"], parameters["radix"]
    walk.conv(middle, act=act)
    walk.conv(middle * radix, kernel=parameters["kernel"], groups=parameters["groups"] * radix, act=act)
    gate = split_gate_channels(middle, radix)
    walk.channels = middle
    walk.step("split_gate", radix, gate, macs=gate * middle * (1 + radix))
    walk.shrink(strides_of(input_shape, output_shape))
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


DENSE_FAMILIES: tuple[Family, ...] = (
    Family(
        name="lowrank",
        parameters=(
            kernel(3, 5, 7),
            Parameter(
                "rank", 0.25, low=0.015625, high=1, help="channels between over output channels, rounded to 8"
            ),
            Parameter(
                "form",
                "point",
                allowed=("point", "spatial"),
                help="k×k then 1×1, or k×1 then 1×k; no activation between",
            ),
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:LowRank",
        source="Jaderberg et al., arXiv 1405.3866 (spatial); Zhang et al., arXiv 1505.06798 (point)",
        summary="one full convolution of low rank, as two thin ones",
        applies=fits_image,
        macs=macs_of(_lowrank_pieces),
        pieces=_lowrank_pieces,
        dense=True,
    ),
    Family(
        name="dilated",
        parameters=(
            width(0.25),
            kernel(3, 5),
            Parameter("dilation", 2, low=2, high=8, help="pixels between the kernel's taps"),
            groups("groups of the dilated convolution"),
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:Dilated",
        source="Yu and Koltun, arXiv 1511.07122; Yu et al., dilated residual networks, arXiv 1705.09914",
        summary="bottleneck whose middle convolution is dilated: it sees far at the cost of a small kernel",
        applies=_dilated_applies,
        macs=macs_of(_dilated_pieces),
        pieces=_dilated_pieces,
        dense=True,
    ),
    Family(
        name="split_attention",
        parameters=(
            width(0.25),
            Parameter("radix", 2, allowed=(1, 2, 4), help="splits of the channels that the gate weighs"),
            groups("groups of the middle convolution, in each split"),
            kernel(3, 5),
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:SplitAttention",
        source="Zhang et al., ResNeSt, arXiv 2004.08955",
        summary="bottleneck whose middle convolution gives several splits, weighed by a gate from their means",
        applies=_split_applies,
        macs=macs_of(_split_pieces),
        pieces=_split_pieces,
        dense=True,
    ),
)
