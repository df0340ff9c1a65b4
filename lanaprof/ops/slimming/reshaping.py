"""Where channels go when a tensor is given another shape."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lanaprof.ops.slimming.classes import Ids
from lanaprof.ops.slimming.tracking import Marks, Tracker

__all__ = ["merge_or_split"]

Shape = tuple[int, ...]


def _matching_runs(before: Shape, after: Shape) -> list[tuple[list[int], list[int]]]:
    """Return runs of dimensions (before, after) of equal size; dimensions of size 1 are left out.

    >>> _matching_runs((2, 12, 5), (2, 3, 4, 1, 5))
    [([0], [0]), ([1], [1, 2]), ([2], [4])]
    """
    left = [dim for dim, size in enumerate(before) if size > 1]
    right = [dim for dim, size in enumerate(after) if size > 1]
    runs: list[tuple[list[int], list[int]]] = []
    while left or right:
        old, new = [left.pop(0)], [right.pop(0)]
        while (have := math.prod(before[dim] for dim in old)) != (
            want := math.prod(after[dim] for dim in new)
        ):
            (old if have < want else new).append((left if have < want else right).pop(0))
        runs.append((old, new))
    return runs


def merge_or_split(tracker: Tracker, marks: Marks, before: Shape, after: Shape) -> list[Ids | None] | None:
    """Return the marks after a change of shape; None where channels are mixed in a way that is not followed.

    Channels split over several dimensions may be dropped along one of them only: attention's heads where
    these are there, else the last. Channels merged with others stay apart: one of them is many of the result.
    """
    found: list[Ids | None] = [None] * len(after)
    for old, new in _matching_runs(before, after):
        numbered = [dim for dim in old if marks[dim] is not None]
        if not numbered:
            continue
        own = marks[numbered[0]]
        assert own is not None
        if len(numbered) > 1 or (len(old) > 1 and len(new) > 1):
            return None
        if len(new) == 1:
            table = own.reshape([-1 if dim == numbered[0] else 1 for dim in old])
            found[new[0]] = np.broadcast_to(table, [before[dim] for dim in old]).ravel()
            continue
        sizes = [after[dim] for dim in new]
        axis = _axis(tracker, sizes)
        rows = np.moveaxis(own.reshape(sizes), axis, -1).reshape(-1, sizes[axis])
        tracker.classes.unite_rows(rows)
        found[new[axis]] = rows[0]
        for name, heads in tracker.open_heads:
            if heads == sizes[axis]:
                tracker.heads[name] = rows[0]
    return found


def _axis(tracker: Tracker, sizes: Sequence[int]) -> int:
    """Return the place among the sizes along which channels may be dropped."""
    for _, heads in reversed(tracker.open_heads):
        places = [place for place, size in enumerate(sizes[:-1]) if size == heads]
        if places:
            return places[-1]  # of (3, heads, width) the second, even where there are three heads
    return len(sizes) - 1
