"""The grids that activations are rounded to in int8. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lanaprof.errors import UnknownOperation

__all__ = ["GRIDS", "QUANTISED", "Grid", "get_grid"]

QUANTISED = ("int8",)  # the precisions that the quantiser knows


@dataclass(frozen=True, slots=True)
class Grid:
    """The whole numbers that stand for activations, value = scale × (number − zero point).

    Weights are the same for all: int8 by output channel, symmetric, −127 to 127.

    Args:
        name: the numbers' type.
        low: the least number.
        high: the largest.
        symmetric: the zero point is 0.
        joins_activations: the runtime computes any activation in the kernel of the convolution before it; else only
            those that clip, and the others stand between two roundings of their own.
    """

    name: str
    low: int
    high: int
    symmetric: bool
    joins_activations: bool


# ONNX Runtime and OpenVINO compute activations of uint8 fastest on CPUs; behind a ReLU all 256 numbers are used, and
# the ReLU itself is the rounding's lower end. TensorRT takes int8 with a zero point of 0 and nothing else.
GRIDS: Mapping[str, Grid] = {
    "uint8": Grid("uint8", 0, 255, symmetric=False, joins_activations=False),
    "int8": Grid("int8", -128, 127, symmetric=True, joins_activations=True),
}


def get_grid(name: str) -> Grid:
    """Return a grid by name.

    Raises:
        UnknownOperation: there is none.
    """
    if name not in GRIDS:
        raise UnknownOperation(
            f"there is no grid {name!r} for activations in int8", hint=f"known: {', '.join(GRIDS)}"
        )
    return GRIDS[name]
