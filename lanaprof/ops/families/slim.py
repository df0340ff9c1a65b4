"""The family that is made from the teacher's own layer. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.family import Family, Parameter, Shape, Value

__all__ = ["SLIM_FAMILIES"]

_WIDTHS = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)


def _slim_applies(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    del input_shape, output_shape
    if parameters == {"width": 1.0, "kernel": 0, "se": "keep", "act": "own"}:
        return "it would change nothing: that is teacher"
    return None


def _lana() -> tuple[Mapping[str, Value], ...]:
    """Return the pool: every width by itself and with each cheaper part, and the parts by themselves."""
    parts: tuple[dict[str, Value], ...] = (
        {"kernel": 3},
        {"kernel": 5},
        {"se": "drop"},
        {"act": "relu"},
        {"act": "hswish"},
        {"se": "drop", "act": "relu"},
        {"kernel": 3, "act": "relu"},
        {"kernel": 3, "se": "drop"},
        {"kernel": 3, "se": "drop", "act": "relu"},
    )
    plain: list[dict[str, Value]] = [{"width": width} for width in _WIDTHS]
    whole = [{"width": 1.0, **part} for part in parts]
    both = [{"width": width, **part} for width in (0.75, 0.5, 0.25) for part in parts]
    return (*plain, *whole, *both)


SLIM_FAMILIES: tuple[Family, ...] = (
    Family(
        name="slim",
        parameters=(
            Parameter(
                "width",
                0.5,
                low=0.015625,
                high=1,
                help="inner channels over the teacher's own, rounded to 8; the most important stay",
            ),
            Parameter(
                "kernel",
                0,
                allowed=(0, 3, 5, 7),
                help="larger kernels cropped to their centre; 0: as they are",
            ),
            Parameter("se", "keep", allowed=("keep", "drop"), help="squeeze-and-excitation"),
            Parameter(
                "act",
                "own",
                allowed=("own", "relu", "relu6", "hswish"),
                help="activations inside; own: as they are",
            ),
        ),
        module="lanaprof.ops.slimming:Slim",
        source=(
            "Li et al., arXiv 1608.08710 (dropping channels by their weights' norms); Puzzle, arXiv 2411.19146 "
            "(narrower parts of the teacher's own layers); Fang et al., DepGraph, arXiv 2301.12900 (which channels "
            "go together); Cai et al., Once-for-All, arXiv 1908.09791 (cropped kernels)"
        ),
        summary=(
            "the teacher's own layer with fewer inner channels or attention heads, or with cheaper parts; it starts "
            "from the teacher's weights, and is a candidate only where all that is asked for changes something"
        ),
        applies=_slim_applies,
        needs_teacher=True,
        lana=_lana(),
    ),
)
