"""Sizes of operations on tokens, as their modules and their costs both need them. No torch."""

from __future__ import annotations

import math

__all__ = ["find_grid", "hidden_tokens", "kept_rank"]


def find_grid(tokens: int) -> tuple[int, int] | None:
    """Return the side of the square grid that tokens lie on and how many prefix tokens (0 or 1) precede it.

    >>> find_grid(196), find_grid(197), find_grid(198)
    ((14, 0), (14, 1), None)
    """
    for prefix in (0, 1):
        side = math.isqrt(max(tokens - prefix, 0))
        if side > 1 and side * side == tokens - prefix:
            return side, prefix
    return None


def kept_rank(width: int, rank: float) -> int:
    """Return the channels between two linear maps: a share of the width, a multiple of 8, at least 8.

    >>> kept_rank(192, 0.25), kept_rank(192, 0.01)
    (48, 8)
    """
    return max(8, int(width * rank + 4) // 8 * 8)


def hidden_tokens(tokens: int, expand: float) -> int:
    """Return the hidden size of a mixer across tokens: a share of their number, at least 4.

    >>> hidden_tokens(197, 0.5), hidden_tokens(49, 0.01)
    (98, 4)
    """
    return max(4, int(tokens * expand))
