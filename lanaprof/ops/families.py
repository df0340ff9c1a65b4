"""The families that come with lanaprof, with where each fits and what it costs. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.family import ACTIVATIONS, Family, Parameter, Shape

__all__ = ["BUILTIN_FAMILIES", "find_strides", "round_channels"]

_BLOCKS = "lanaprof.ops.blocks"


def round_channels(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8: what vector units and tensor cores are built for.

    >>> round_channels(3), round_channels(20), round_channels(96)
    (8, 24, 96)
    """
    return max(8, int(channels + 4) // 8 * 8)


def find_strides(input_shape: Shape, output_shape: Shape) -> tuple[int, int] | None:
    """Return the least strides (height, width) that turn one (C, H, W) shape into the other, else None.

    A convolution with an odd kernel and padding kernel // 2 gives ceil(size / stride), whatever the kernel.

    >>> find_strides((16, 15, 15), (32, 8, 8)), find_strides((16, 8, 8), (16, 16, 16))
    ((2, 2), None)
    """
    strides = []
    for size, wanted in zip(input_shape[1:], output_shape[1:], strict=True):
        if wanted < 1:
            return None
        stride = -(-size // wanted)
        if -(-size // stride) != wanted:
            return None
        strides.append(stride)
    return strides[0], strides[1]


def _image_reason(input_shape: Shape, output_shape: Shape) -> str | None:
    if len(input_shape) != 3 or len(output_shape) != 3:
        return f"it needs images (C, H, W), not {input_shape} to {output_shape}"
    if find_strides(input_shape, output_shape) is None:
        return f"no stride turns {input_shape[1:]} into {output_shape[1:]}"
    return None


def _always(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    del input_shape, output_shape, parameters
    return None


def _skip_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    del parameters
    if input_shape != output_shape:
        return f"the identity cannot turn {input_shape} into {output_shape}"
    return None


def _image_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    del parameters
    return _image_reason(input_shape, output_shape)


def _conv_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    reason = _image_reason(input_shape, output_shape)
    groups = parameters["groups"]
    if reason is None and (input_shape[0] % groups or output_shape[0] % groups):
        return f"{groups} groups do not divide {input_shape[0]} and {output_shape[0]} channels"
    return reason


def _bottleneck_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    reason = _image_reason(input_shape, output_shape)
    if reason is None:
        middle, groups = round_channels(output_shape[0] * parameters["width"]), parameters["groups"]
        if middle % groups:
            return f"{groups} groups do not divide {middle} inner channels"
    return reason


def _pixels(shape: Shape) -> int:
    return shape[1] * shape[2]


def _no_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    del input_shape, output_shape, parameters
    return 0


def _conv_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    weights = input_shape[0] * output_shape[0] * parameters["kernel"] ** 2 // parameters["groups"]
    return int(weights * _pixels(output_shape))


def _repvgg_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    del parameters
    return input_shape[0] * output_shape[0] * 9 * _pixels(output_shape)


def _ds_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    weights = input_shape[0] * (parameters["kernel"] ** 2 + output_shape[0])
    return int(weights * _pixels(output_shape))


def _se_macs(hidden: int, channels: int, ratio: float) -> int:
    return 2 * hidden * round_channels(channels * ratio) if ratio else 0


def _mbconv_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    channels, hidden = input_shape[0], round_channels(input_shape[0] * parameters["expand"])
    first = channels * hidden * _pixels(input_shape)
    rest = hidden * (parameters["kernel"] ** 2 + output_shape[0]) * _pixels(output_shape)
    return int(first + rest + _se_macs(hidden, channels, parameters["se"]))


def _fused_mbconv_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    channels, hidden = input_shape[0], round_channels(input_shape[0] * parameters["expand"])
    weights = hidden * (channels * parameters["kernel"] ** 2 + output_shape[0])
    return int(weights * _pixels(output_shape) + _se_macs(hidden, channels, parameters["se"]))


def _basic_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    middle = round_channels(output_shape[0] * parameters["width"])
    return int(
        middle * (input_shape[0] + output_shape[0]) * parameters["kernel"] ** 2 * _pixels(output_shape)
    )


def _bottleneck_macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
    middle = round_channels(output_shape[0] * parameters["width"])
    inner = middle * middle * parameters["kernel"] ** 2 // parameters["groups"]
    return int(
        input_shape[0] * middle * _pixels(input_shape)
        + (inner + middle * output_shape[0]) * _pixels(output_shape)
    )


def _kernel(*allowed: int, default: int = 3) -> Parameter:
    return Parameter("kernel", default, allowed=allowed, help="size of the spatial kernel")


def _width(default: float) -> Parameter:
    return Parameter(
        "width", default, low=0.0625, high=4, help="inner channels over output channels, rounded to 8"
    )


_EXPAND_HELP = "hidden channels over input channels, rounded to 8"
_SE = Parameter("se", 0.0, low=0, high=1, help="squeeze-and-excitation channels over input channels; 0: none")
_ACT = Parameter("act", "relu", allowed=ACTIVATIONS, help="activation inside")
_OUT_RELU = Parameter("out", "relu", allowed=ACTIVATIONS, help="activation after the residual addition")
_OUT_NONE = Parameter("out", "none", allowed=ACTIVATIONS, help="activation after the residual addition")

BUILTIN_FAMILIES: tuple[Family, ...] = (
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
        macs=_no_macs,
        dense=True,
    ),
    Family(
        name="conv",
        parameters=(
            _kernel(1, 3, 5, 7),
            Parameter("groups", 1, low=1, high=4096, help="groups of channels"),
            Parameter("act", "relu", allowed=ACTIVATIONS, help="activation after the residual addition"),
        ),
        module=f"{_BLOCKS}:Conv",
        source="He et al., arXiv 1512.03385 (the residual); Xie et al., arXiv 1611.05431 (groups)",
        summary="one convolution, batch norm, addition, activation",
        applies=_conv_applies,
        macs=_conv_macs,
        dense=True,
    ),
    Family(
        name="ds",
        parameters=(_kernel(3, 5, 7), _ACT, _OUT_NONE),
        module=f"{_BLOCKS}:DepthwiseSeparable",
        source="Howard et al., MobileNets, arXiv 1704.04861",
        summary="depthwise, then pointwise convolution",
        applies=_image_applies,
        macs=_ds_macs,
    ),
    Family(
        name="mbconv",
        parameters=(
            Parameter("expand", 6.0, low=0.25, high=16, help=_EXPAND_HELP),
            _kernel(3, 5, 7),
            _SE,
            _ACT,
            _OUT_NONE,
        ),
        module=f"{_BLOCKS}:MBConv",
        source="Sandler et al., MobileNetV2, arXiv 1801.04381; Hu et al., arXiv 1709.01507 (se)",
        summary="inverted residual: pointwise, depthwise, pointwise",
        applies=_image_applies,
        macs=_mbconv_macs,
    ),
    Family(
        name="fused_mbconv",
        parameters=(
            Parameter("expand", 4.0, low=0.25, high=16, help=_EXPAND_HELP),
            _kernel(3, 5),
            _SE,
            _ACT,
            _OUT_NONE,
        ),
        module=f"{_BLOCKS}:FusedMBConv",
        source="Tan and Le, EfficientNetV2, arXiv 2104.00298",
        summary="inverted residual whose first two convolutions are one full convolution",
        applies=_image_applies,
        macs=_fused_mbconv_macs,
        dense=True,
    ),
    Family(
        name="basic",
        parameters=(_kernel(3, 5), _width(1.0), _ACT, _OUT_RELU),
        module=f"{_BLOCKS}:Basic",
        source="He et al., arXiv 1512.03385",
        summary="basic residual block: two full convolutions",
        applies=_image_applies,
        macs=_basic_macs,
        dense=True,
    ),
    Family(
        name="bottleneck",
        parameters=(
            _width(0.25),
            _kernel(3, 5),
            Parameter("groups", 1, low=1, high=4096, help="groups of the middle convolution"),
            _ACT,
            _OUT_RELU,
        ),
        module=f"{_BLOCKS}:Bottleneck",
        source="He et al., arXiv 1512.03385; Xie et al., arXiv 1611.05431 (groups)",
        summary="bottleneck residual block: pointwise, full convolution, pointwise",
        applies=_bottleneck_applies,
        macs=_bottleneck_macs,
        dense=True,
    ),
    Family(
        name="repvgg",
        parameters=(
            _kernel(3),
            Parameter("act", "relu", allowed=ACTIVATIONS, help="activation after the sum"),
        ),
        module=f"{_BLOCKS}:RepVGG",
        source="Ding et al., RepVGG, arXiv 2101.03697",
        summary="3×3, 1×1 and identity branches while training, one 3×3 convolution when deployed",
        applies=_image_applies,
        macs=_repvgg_macs,
        dense=True,
    ),
)
