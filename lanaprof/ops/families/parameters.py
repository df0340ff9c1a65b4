"""Parameters that several families share. No torch."""

from __future__ import annotations

from lanaprof.ops.family import ACTIVATIONS, Parameter

__all__ = [
    "ACT",
    "EXPAND_HELP",
    "GELU",
    "LAST_ACT",
    "OUT_NONE",
    "OUT_RELU",
    "SE",
    "groups",
    "heads",
    "kernel",
    "width",
]

EXPAND_HELP = "hidden channels over input channels, rounded to 8"
SE = Parameter("se", 0.0, low=0, high=1, help="squeeze-and-excitation channels over input channels; 0: none")
ACT = Parameter("act", "relu", allowed=ACTIVATIONS, help="activation inside")
GELU = Parameter("act", "gelu", allowed=ACTIVATIONS, help="activation inside")
LAST_ACT = Parameter("act", "relu", allowed=ACTIVATIONS, help="activation after the sum")
OUT_RELU = Parameter("out", "relu", allowed=ACTIVATIONS, help="activation after the residual addition")
OUT_NONE = Parameter("out", "none", allowed=ACTIVATIONS, help="activation after the residual addition")


def kernel(*allowed: int, default: int = 3, what: str = "size of the spatial kernel") -> Parameter:
    """Return the parameter of a kernel's size."""
    return Parameter("kernel", default, allowed=allowed, help=what)


def width(default: float, *, low: float = 0.015625) -> Parameter:
    """Return the parameter of inner channels; 1/64 is the least: 32 of 2048 channels."""
    return Parameter(
        "width", default, low=low, high=4, help="inner channels over output channels, rounded to 8"
    )


def groups(what: str) -> Parameter:
    """Return the parameter of a convolution's groups."""
    return Parameter("groups", 1, low=1, high=4096, help=what)


def heads(default: int) -> Parameter:
    """Return the parameter of attention heads."""
    return Parameter("heads", default, low=1, high=64, help="attention heads")
