"""Families that are trained wide and deployed merged (structural reparameterisation). No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import ACT, EXPAND_HELP, LAST_ACT, OUT_NONE, kernel
from lanaprof.ops.families.shapes import fits_image, macs_of, strides_of
from lanaprof.ops.family import Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, Walk

__all__ = ["COLLAPSING_FAMILIES"]

_BLOCKS = "lanaprof.ops.blocks"


def _one_conv_pieces(
    input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]
) -> tuple[Piece, ...]:
    """The identity is merged into the kernel, too: nothing is added any more."""
    walk = Walk(input_shape)
    walk.conv(output_shape[0], kernel=parameters["kernel"], stride=strides_of(input_shape, output_shape))
    return walk.end(output_shape, parameters["act"], residual=False)


def _mobileone_pieces(
    input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]
) -> tuple[Piece, ...]:
    walk, channels = Walk(input_shape), input_shape[0]
    stride = strides_of(input_shape, output_shape)
    walk.conv(channels, kernel=parameters["kernel"], stride=stride, groups=channels, act=parameters["act"])
    walk.conv(output_shape[0])
    return walk.end(output_shape, parameters["out"], residual=False)


COLLAPSING_FAMILIES: tuple[Family, ...] = (
    Family(
        name="repvgg",
        parameters=(kernel(3), LAST_ACT),
        module=f"{_BLOCKS}:RepVGG",
        source="Ding et al., RepVGG, arXiv 2101.03697",
        summary="3×3, 1×1 and identity branches while training, one 3×3 convolution when deployed",
        applies=fits_image,
        macs=macs_of(_one_conv_pieces),
        pieces=_one_conv_pieces,
        dense=True,
        wide=True,
    ),
    Family(
        name="dbb",
        parameters=(kernel(3, 5, 7), LAST_ACT),
        module=f"{_BLOCKS}:DiverseBranch",
        source="Ding et al., Diverse Branch Block, arXiv 2103.13425",
        summary="k×k, 1×1, 1×1–k×k, 1×1–average and identity branches while training, one convolution when "
        "deployed",
        applies=fits_image,
        macs=macs_of(_one_conv_pieces),
        pieces=_one_conv_pieces,
        dense=True,
        wide=True,
    ),
    Family(
        name="linear",
        parameters=(
            Parameter("expand", 2.0, low=0.25, high=8, help=f"{EXPAND_HELP}; while training"),
            kernel(3, 5, 7),
            LAST_ACT,
        ),
        module=f"{_BLOCKS}:CollapsibleLinear",
        source="Bhardwaj et al., SESR, arXiv 2103.09404; Bhardwaj et al., RAN, arXiv 2208.08562",
        summary="1×1, k×k and 1×1 convolution without activations between and the identity while training, "
        "one convolution when deployed",
        applies=fits_image,
        macs=macs_of(_one_conv_pieces),
        pieces=_one_conv_pieces,
        dense=True,
        wide=True,
    ),
    Family(
        name="mobileone",
        parameters=(
            kernel(3, 5, 7),
            Parameter("branches", 4, low=1, high=8, help="equal branches of each convolution"),
            ACT,
            OUT_NONE,
        ),
        module=f"{_BLOCKS}:MobileOne",
        source="Vasu et al., MobileOne, arXiv 2206.04040",
        summary="depthwise, then pointwise, each of several branches while training and one when deployed",
        applies=fits_image,
        macs=macs_of(_mobileone_pieces),
        pieces=_mobileone_pieces,
        wide=True,
    ),
)
