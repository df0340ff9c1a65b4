"""Families around depthwise convolutions and cheap mixing of channels. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import ACT, EXPAND_HELP, GELU, OUT_NONE, SE, groups, kernel, width
from lanaprof.ops.families.shapes import (
    eca_kernel,
    fits_image,
    image_reason,
    macs_of,
    round_channels,
    strides_of,
)
from lanaprof.ops.family import Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, Walk

__all__ = ["MOBILE_FAMILIES"]

_BLOCKS = "lanaprof.ops.blocks"
_Given = Mapping[str, Any]


def _uib_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is not None or parameters["start"] or parameters["middle"]:
        return reason
    if strides_of(input_shape, output_shape) != (1, 1):
        return "without a depthwise convolution nothing strides"
    return None


def _ghost_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None and output_shape[0] % parameters["ratio"]:
        return f"a ratio of {parameters['ratio']} does not divide {output_shape[0]} channels"
    return reason


def _partial_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None and round_channels(input_shape[0] * parameters["share"]) >= input_shape[0]:
        return f"a share of {parameters['share']:g} is all of {input_shape[0]} channels"
    return reason


def _shuffle_applies(input_shape: Shape, output_shape: Shape, parameters: _Given) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None:
        hidden = round_channels(output_shape[0] * parameters["width"])
        for channels in (input_shape[0], hidden, output_shape[0]):
            if channels % parameters["groups"]:
                return f"{parameters['groups']} groups do not divide {channels} channels"
    return reason


def _uib_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, channels = Walk(input_shape), input_shape[0]
    hidden, act = round_channels(channels * parameters["expand"]), parameters["act"]
    stride = strides_of(input_shape, output_shape)
    if parameters["start"]:
        first = (1, 1) if parameters["middle"] else stride
        walk.conv(channels, kernel=parameters["start"], stride=first, groups=channels)
    walk.conv(hidden, act=act)
    if parameters["middle"]:
        walk.conv(hidden, kernel=parameters["middle"], stride=stride, groups=hidden, act=act)
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _eca_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, hidden = Walk(input_shape), round_channels(input_shape[0] * parameters["expand"])
    stride, act = strides_of(input_shape, output_shape), parameters["act"]
    walk.conv(hidden, act=act)
    walk.conv(hidden, kernel=parameters["kernel"], stride=stride, groups=hidden, act=act)
    reach = eca_kernel(hidden)
    walk.step("channel_gate", reach, macs=reach * hidden)
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _ghost_module(walk: Walk, outputs: int, parameters: _Given, act: str) -> None:
    primary = outputs // parameters["ratio"]
    walk.conv(primary, act=act)
    walk.conv(outputs - primary, kernel=parameters["kernel"], groups=primary, act=act)
    walk.channels = outputs
    walk.step("concat")


def _ghost_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, hidden = Walk(input_shape), round_channels(input_shape[0] * parameters["expand"])
    stride = strides_of(input_shape, output_shape)
    _ghost_module(walk, hidden, parameters, parameters["act"])
    if stride != (1, 1):
        walk.conv(hidden, kernel=3, stride=stride, groups=hidden)
    walk.squeeze_excite(round_channels(input_shape[0] * parameters["se"]) if parameters["se"] else 0)
    _ghost_module(walk, output_shape[0], parameters, "none")
    return walk.end(output_shape, parameters["out"])


def _partial_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, channels = Walk(input_shape), input_shape[0]
    touched, stride = round_channels(channels * parameters["share"]), strides_of(input_shape, output_shape)
    walk.step("split", touched)
    if stride != (1, 1):
        walk.step("average", *stride)
    walk.channels = touched
    walk.conv(touched, kernel=parameters["kernel"], stride=stride)
    walk.channels = channels
    walk.step("concat")
    walk.conv(round_channels(channels * parameters["expand"]), act=parameters["act"])
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _shuffle_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, hidden = Walk(input_shape), round_channels(output_shape[0] * parameters["width"])
    stride, count = strides_of(input_shape, output_shape), parameters["groups"]
    walk.conv(hidden, groups=count, act=parameters["act"])
    walk.step("shuffle", count)
    walk.conv(hidden, kernel=parameters["kernel"], stride=stride, groups=hidden)
    walk.conv(output_shape[0], groups=count)
    return walk.end(output_shape, parameters["out"])


def _convnext_pieces(input_shape: Shape, output_shape: Shape, parameters: _Given) -> tuple[Piece, ...]:
    walk, channels = Walk(input_shape), input_shape[0]
    stride = strides_of(input_shape, output_shape)
    walk.conv(channels, kernel=parameters["kernel"], stride=stride, groups=channels)
    if parameters["norm"] == "layer":
        walk.step("layer_norm")
    walk.conv(round_channels(channels * parameters["expand"]), act=parameters["act"])
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"])


def _expand(default: float) -> Parameter:
    return Parameter("expand", default, low=0.015625, high=16, help=EXPAND_HELP)


MOBILE_FAMILIES: tuple[Family, ...] = (
    Family(
        name="uib",
        parameters=(
            _expand(4.0),
            Parameter("start", 3, allowed=(0, 3, 5, 7), help="first depthwise kernel; 0: none"),
            Parameter("middle", 3, allowed=(0, 3, 5, 7), help="middle depthwise kernel; 0: none"),
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:UniversalInverted",
        source="Qin et al., MobileNetV4, arXiv 2404.10518",
        summary="universal inverted bottleneck: a depthwise convolution before, between, both or neither of "
        "two pointwise ones",
        applies=_uib_applies,
        macs=macs_of(_uib_pieces),
        pieces=_uib_pieces,
    ),
    Family(
        name="eca",
        parameters=(_expand(4.0), kernel(3, 5, 7, 9), ACT, OUT_NONE),
        module=f"{_BLOCKS}:EfficientChannelAttention",
        source="Wang et al., ECA-Net, arXiv 1910.03151",
        summary="inverted residual whose gate looks at a channel's neighbours only: hardly any weights",
        applies=fits_image,
        macs=macs_of(_eca_pieces),
        pieces=_eca_pieces,
    ),
    Family(
        name="ghost",
        parameters=(
            _expand(2.0),
            Parameter("ratio", 2, allowed=(2, 4), help="all channels over those that are really computed"),
            kernel(3, 5, what="size of the kernel that derives the others"),
            SE,
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:Ghost",
        source="Han et al., GhostNet, arXiv 1911.11907",
        summary="two pointwise convolutions for a part of the channels; depthwise ones derive the rest",
        applies=_ghost_applies,
        macs=macs_of(_ghost_pieces),
        pieces=_ghost_pieces,
    ),
    Family(
        name="partial",
        parameters=(
            Parameter(
                "share", 0.25, low=0.015625, high=0.75, help="channels the kernel touches, rounded to 8"
            ),
            kernel(3, 5, 7),
            _expand(2.0),
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:Partial",
        source="Chen et al., FasterNet, arXiv 2303.03667",
        summary="a full convolution of a share of the channels, then two pointwise ones of all",
        applies=_partial_applies,
        macs=macs_of(_partial_pieces),
        pieces=_partial_pieces,
        dense=True,
    ),
    Family(
        name="shuffle",
        parameters=(width(0.25), groups("groups of the pointwise convolutions"), kernel(3, 5), ACT, OUT_NONE),
        module=f"{_BLOCKS}:Shuffle",
        source="Zhang et al., ShuffleNet, arXiv 1707.01083",
        summary="pointwise convolutions in groups, channels shuffled between them",
        applies=_shuffle_applies,
        macs=macs_of(_shuffle_pieces),
        pieces=_shuffle_pieces,
    ),
    Family(
        name="convnext",
        parameters=(
            _expand(4.0),
            kernel(3, 5, 7, 9, default=7),
            Parameter("norm", "layer", allowed=("layer", "batch"), help="layer norm, or batch norm: faster"),
            GELU,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:ConvNeXt",
        source="Liu et al., A ConvNet for the 2020s, arXiv 2201.03545",
        summary="depthwise convolution, norm, two pointwise convolutions",
        applies=fits_image,
        macs=macs_of(_convnext_pieces),
        pieces=_convnext_pieces,
    ),
)
