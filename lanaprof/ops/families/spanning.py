"""The families that stand for several layers only. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.families.parameters import ACT, EXPAND_HELP, OUT_NONE, kernel
from lanaprof.ops.families.shapes import image_reason, round_channels
from lanaprof.ops.family import Family, Parameter, Shape

__all__ = ["SPANNING_FAMILIES"]


def _g_ghost_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    reason = image_reason(input_shape, output_shape)
    if reason is None and output_shape[0] - round_channels(output_shape[0] * parameters["share"]) < 8:
        return f"a share of {parameters['share']:g} leaves nothing of {output_shape[0]} channels"
    return reason


SPANNING_FAMILIES: tuple[Family, ...] = (
    Family(
        name="g_ghost",
        parameters=(
            Parameter("share", 0.5, low=0.125, high=0.875, help="channels that are ghosts, rounded to 8"),
            Parameter("block", "mbconv", allowed=("mbconv", "basic"), help="the narrow blocks in between"),
            Parameter("expand", 2.0, low=0.125, high=8, help=EXPAND_HELP),
            kernel(3, 5),
            Parameter(
                "end",
                "keep",
                allowed=("keep", "none"),
                help="keep the last layer, too, as the authors do; none: a narrow block in its place",
            ),
            ACT,
            OUT_NONE,
        ),
        module="lanaprof.ops.blocks.g_ghost:GGhost",
        source="Han et al., GhostNets on Heterogeneous Devices via Cheap Operations (G-Ghost), arXiv 2201.03297",
        summary=(
            "in place of several layers: the first is kept, narrow blocks compute a share of the deep features, a "
            "pointwise convolution of the first layer's output gives the others, with the means of all in between "
            "mixed in"
        ),
        applies=_g_ghost_applies,
        needs_teacher=True,
    ),
)
