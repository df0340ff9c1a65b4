"""Shapes and sizes: what fits where, and how wide it becomes. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.ops.family import Macs, Pieces, Shape
from lanaprof.ops.pieces import total_macs

__all__ = [
    "OUTLOOK",
    "eca_kernel",
    "find_strides",
    "find_window",
    "fits_image",
    "head_channels",
    "image_reason",
    "macs_of",
    "round_channels",
    "split_gate_channels",
    "strides_of",
]

OUTLOOK = 3  # pixels of the side of what outlook attention mixes, as published


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


def strides_of(input_shape: Shape, output_shape: Shape) -> tuple[int, int]:
    """Return the strides between two shapes that ``applies`` found to fit.

    Raises:
        ValueError: there are none.
    """
    strides = find_strides(input_shape, output_shape)
    if strides is None:
        raise ValueError(f"no stride turns {input_shape} into {output_shape}")
    return strides


def head_channels(channels: int, width: float, heads: int) -> int:
    """Return the channels of one attention head: its share of width × channels, rounded to 8.

    >>> head_channels(96, 1.0, 4), head_channels(96, 0.25, 4)
    (24, 8)
    """
    return round_channels(channels * width / heads)


def find_window(size: int, wanted: int) -> int | None:
    """Return the largest window of at most ``wanted`` pixels that tiles a side; None below three pixels.

    >>> find_window(56, 7), find_window(30, 7), find_window(2, 7), find_window(19, 7)
    (7, 6, 2, None)
    """
    window = max(one for one in range(1, min(wanted, size) + 1) if size % one == 0)
    return window if window >= min(3, size) else None


def eca_kernel(channels: int) -> int:
    """Return the odd kernel of efficient channel attention: about log2(channels) / 2 + 1 / 2.

    >>> eca_kernel(64), eca_kernel(512)
    (3, 5)
    """
    reach = int((channels.bit_length() - 1 + 1) / 2)
    return max(3, reach if reach % 2 else reach + 1)


def split_gate_channels(width: int, radix: int) -> int:
    """Return the inner channels of a split attention's gate, as ResNeSt sets them.

    >>> split_gate_channels(64, 2), split_gate_channels(512, 2)
    (32, 256)
    """
    return max(32, round_channels(width * radix / 4))


def image_reason(input_shape: Shape, output_shape: Shape) -> str | None:
    """Return why no operation on images stands between two shapes, or None."""
    if len(input_shape) != 3 or len(output_shape) != 3:
        return f"it needs images (C, H, W), not {input_shape} to {output_shape}"
    if find_strides(input_shape, output_shape) is None:
        return f"no stride turns {input_shape[1:]} into {output_shape[1:]}"
    return None


def fits_image(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> str | None:
    """Return why an operation that fits every image cannot stand between two shapes, or None."""
    del parameters
    return image_reason(input_shape, output_shape)


def macs_of(pieces: Pieces) -> Macs:
    """Return the formula of multiply-accumulates that pieces give."""

    def macs(input_shape: Shape, output_shape: Shape, parameters: Mapping[str, Any]) -> int:
        return total_macs(pieces(input_shape, output_shape, parameters))

    return macs
