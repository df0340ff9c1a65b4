"""The grids that activations are rounded to in int8 and fp8. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lanaprof.errors import UnknownOperation

__all__ = ["FP8_HIGH", "GRIDS", "QUANTISED", "Grid", "get_grid", "grid_at"]

QUANTISED = ("int8", "fp8")  # the precisions that the quantiser knows
FP8_HIGH = 448  # the largest float of 8 bits with 4 of exponent


@dataclass(frozen=True, slots=True)
class Grid:
    """The numbers that stand for activations, value = scale × (number − zero point).

    Weights have a scale for every output channel and a zero point of 0: whole numbers from −127 to 127 beside whole
    numbers, floats of 8 bits beside such floats.

    Args:
        name: the numbers' type.
        low: the least number.
        high: the largest.
        symmetric: the zero point is 0.
        joins_activations: the runtime computes any activation in the kernel of the convolution before it; else only
            those that clip, and the others stand between two roundings of their own.
        is_float: the numbers are floats of 8 bits, else all whole ones from low to high.
    """

    name: str
    low: int
    high: int
    symmetric: bool
    joins_activations: bool
    is_float: bool = False


# ONNX Runtime and OpenVINO compute activations of uint8 fastest on CPUs; behind a ReLU all 256 numbers are used, and
# the ReLU itself is the rounding's lower end. TensorRT takes int8 with a zero point of 0 and nothing else.
GRIDS: Mapping[str, Grid] = {
    "uint8": Grid("uint8", 0, 255, symmetric=False, joins_activations=False),
    "int8": Grid("int8", -128, 127, symmetric=True, joins_activations=True),
    "fp8": Grid("fp8", -FP8_HIGH, FP8_HIGH, symmetric=True, joins_activations=True, is_float=True),
}


def grid_at(precision: str, grid: str) -> str:
    """Return the grid of activations at a precision: a runtime has its own for int8, fp8 is the same for all.

    Args:
        precision: one of PRECISIONS.
        grid: the runtime's.

    Returns:
        Its name; empty where nothing is rounded to a grid.
    """
    return {"int8": grid, "fp8": "fp8"}.get(precision, "")


def get_grid(name: str) -> Grid:
    """Return a grid by name.

    Raises:
        UnknownOperation: there is none.
    """
    if name not in GRIDS:
        raise UnknownOperation(
            f"there is no grid {name!r} for activations", hint=f"known: {', '.join(GRIDS)}"
        )
    return GRIDS[name]
