"""The families of the great convolutional networks, and the two that need no arithmetic. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import (
    ACT,
    EXPAND_HELP,
    OUT_NONE,
    OUT_RELU,
    SE,
    groups,
    kernel,
    width,
)
from lanaprof.ops.families.shapes import fits_image, image_reason, macs_of, round_channels, strides_of
from lanaprof.ops.family import Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, Walk

__all__ = ["PLAIN_FAMILIES"]

_BLOCKS = "lanaprof.ops.blocks"
_Given = Mapping[str, Any]


def _always(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    del input_shape, output_shape, parameters
    return None


def _skip_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    del parameters
    if input_shape != output_shape:
        return f"the identity cannot turn {input_shape} into {output_shape}"
    return None


def _conv_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    count = parameters["groups"]
    if reason is None and (input_shape[0] % count or output_shape[0] % count):
        return f"{count} groups do not divide {input_shape[0]} and {output_shape[0]} channels"
    return reason


def _bottleneck_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None:
        middle, count = round_channels(output_shape[0] * parameters["width"]), parameters["groups"]
        if middle % count:
            return f"{count} groups do not divide {middle} inner channels"
    return reason


def _skip_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    del input_shape, output_shape, parameters
    return ()


def _conv_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk = Walk(input_shape)
    stride = strides_of(input_shape, output_shape)
    walk.conv(output_shape[0], kernel=parameters["kernel"], stride=stride, groups=parameters["groups"])
    return walk.end(output_shape, parameters["act"])


def _ds_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, channels = Walk(input_shape), input_shape[0]
    stride, act = strides_of(input_shape, output_shape), parameters["act"]
    walk.conv(channels, kernel=parameters["kernel"], stride=stride, groups=channels, act=act)
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _squeezed(input_shape: Shape, parameters: _Given) -> int:
    return round_channels(input_shape[0] * parameters["se"]) if parameters["se"] else 0


def _mbconv_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, hidden = Walk(input_shape), round_channels(input_shape[0] * parameters["expand"])
    stride, act = strides_of(input_shape, output_shape), parameters["act"]
    walk.conv(hidden, act=act)
    walk.conv(hidden, kernel=parameters["kernel"], stride=stride, groups=hidden, act=act)
    walk.squeeze_excite(_squeezed(input_shape, parameters))
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _fused_mbconv_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, hidden = Walk(input_shape), round_channels(input_shape[0] * parameters["expand"])
    stride = strides_of(input_shape, output_shape)
    walk.conv(hidden, kernel=parameters["kernel"], stride=stride, act=parameters["act"])
    walk.squeeze_excite(_squeezed(input_shape, parameters))
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _basic_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, middle = Walk(input_shape), round_channels(output_shape[0] * parameters["width"])
    stride, size = strides_of(input_shape, output_shape), parameters["kernel"]
    walk.conv(middle, kernel=size, stride=stride, act=parameters["act"])
    walk.conv(output_shape[0], kernel=size)
    return walk.end(output_shape, parameters["out"])


def _bottleneck_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, middle = Walk(input_shape), round_channels(output_shape[0] * parameters["width"])
    stride, act = strides_of(input_shape, output_shape), parameters["act"]
    walk.conv(middle, act=act)
    walk.conv(middle, kernel=parameters["kernel"], stride=stride, groups=parameters["groups"], act=act)
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


PLAIN_FAMILIES: tuple[Family, ...] = (
    Family(
        name="teacher",
        parameters=(),
        module="",
        source="",
        summary="the teacher's own layer, as it is",
        applies=_always,
    ),
    Family(
        name="skip",
        parameters=(),
        module=f"{_BLOCKS}:Skip",
        source="Molchanov et al., LANA, arXiv 2107.10624",
        summary="the identity; only where input and output shapes are equal",
        applies=_skip_applies,
        macs=macs_of(_skip_pieces),
        pieces=_skip_pieces,
        dense=True,
    ),
    Family(
        name="conv",
        parameters=(
            kernel(1, 3, 5, 7),
            groups("groups of channels"),
            Parameter("act", "relu", allowed=ACT.allowed, help="activation after the residual addition"),
        ),
        module=f"{_BLOCKS}:Conv",
        source="He et al., arXiv 1512.03385 (the residual); Xie et al., arXiv 1611.05431 (groups)",
        summary="one convolution, batch norm, addition, activation",
        applies=_conv_applies,
        macs=macs_of(_conv_pieces),
        pieces=_conv_pieces,
        dense=True,
    ),
    Family(
        name="ds",
        parameters=(kernel(3, 5, 7, 9), ACT, OUT_NONE),
        module=f"{_BLOCKS}:DepthwiseSeparable",
        source="Howard et al., MobileNets, arXiv 1704.04861",
        summary="depthwise, then pointwise convolution",
        applies=fits_image,
        macs=macs_of(_ds_pieces),
        pieces=_ds_pieces,
    ),
    Family(
        name="mbconv",
        parameters=(
            Parameter("expand", 6.0, low=0.015625, high=16, help=EXPAND_HELP),
            kernel(3, 5, 7, 9),
            SE,
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:MBConv",
        source="Sandler et al., MobileNetV2, arXiv 1801.04381; Hu et al., arXiv 1709.01507 (se)",
        summary="inverted residual: pointwise, depthwise, pointwise",
        applies=fits_image,
        macs=macs_of(_mbconv_pieces),
        pieces=_mbconv_pieces,
    ),
    Family(
        name="fused_mbconv",
        parameters=(
            Parameter("expand", 4.0, low=0.015625, high=16, help=EXPAND_HELP),
            kernel(3, 5, 7),
            SE,
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:FusedMBConv",
        source="Tan and Le, EfficientNetV2, arXiv 2104.00298",
        summary="inverted residual whose first two convolutions are one full convolution",
        applies=fits_image,
        macs=macs_of(_fused_mbconv_pieces),
        pieces=_fused_mbconv_pieces,
        dense=True,
    ),
    Family(
        name="basic",
        parameters=(kernel(3, 5), width(1.0), ACT, OUT_RELU),
        module=f"{_BLOCKS}:Basic",
        source="He et al., arXiv 1512.03385",
        summary="basic residual block: two full convolutions",
        applies=fits_image,
        macs=macs_of(_basic_pieces),
        pieces=_basic_pieces,
        dense=True,
    ),
    Family(
        name="bottleneck",
        parameters=(
            width(0.25),
            kernel(3, 5),
            groups("groups of the middle convolution"),
            ACT,
            OUT_RELU,
        ),
        module=f"{_BLOCKS}:Bottleneck",
        source="He et al., arXiv 1512.03385; Xie et al., arXiv 1611.05431 (groups)",
        summary="bottleneck residual block: pointwise, full convolution, pointwise",
        applies=_bottleneck_applies,
        macs=macs_of(_bottleneck_pieces),
        pieces=_bottleneck_pieces,
        dense=True,
    ),
)
