"""The upper convex hull of every layer's steps, block by block: a layer has few of them, and there are many layers.

Source: the hull bounds the multiple-choice knapsack after Sinha & Zoltners, "The multiple-choice knapsack problem",
Operations Research 27 (1979).
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from lanaprof.solver.problem import Bools, Floats, Ints

__all__ = ["BLOCK", "hull_edges"]

BLOCK = 2**15  # numbers looked at together: a dozen arrays of them stay in the processor's cache
_MANY_HULL_PASSES = 40  # most hulls need under ten passes; after these the block is done step by step


def hull_edges(layer: Ints, cost: Floats, score: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """Return the edges of each layer's upper convex hull, for steps that rise in cost and score.

    Returns:
        Of each edge its two steps, and the cost and the score between them; by layer, steepest first.
    """
    cuts = [*np.unique(np.searchsorted(layer, layer[::BLOCK])).tolist(), len(layer)]
    parts = [(a, *_edges_of(layer[a:b], cost[a:b], score[a:b])) for a, b in pairwise(cuts)]
    if not parts:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0)
    begins, starts, ends, dearer, better = zip(*parts, strict=True)
    start, end = (
        np.concatenate([begin + part for begin, part in zip(begins, some, strict=True)])
        for some in (starts, ends)
    )
    return start, end, np.concatenate(dearer), np.concatenate(better)


def _edges_of(layer: Ints, cost: Floats, score: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    hull = np.arange(len(layer), dtype=np.int64)
    is_first = np.concatenate([[True], layer[1:] != layer[:-1]])
    for _ in range(_MANY_HULL_PASSES):
        dearer, better = cost[1:] - cost[:-1], score[1:] - score[:-1]
        with np.errstate(all="ignore"):  # from one layer to the next it is no slope
            slope = better / dearer
        slope[is_first[1:]] = math.nan  # compares as neither more nor less
        # A step on or under the line between two others of its layer is not on the hull, so all go at once.
        below = slope[:-1] <= slope[1:]
        if not below.any():
            break
        keep = np.flatnonzero(np.concatenate([[True], ~below, [True]]))
        hull, is_first, cost, score = hull[keep], is_first[keep], cost[keep], score[keep]
    else:
        keep = np.flatnonzero(_chained(is_first, cost, score))
        hull, is_first = hull[keep], is_first[keep]
        dearer, better = np.diff(cost[keep]), np.diff(score[keep])
    edge = np.flatnonzero(~is_first[1:])
    return hull[edge], hull[edge + 1], dearer[edge], better[edge]


def _chained(is_first: Bools, cost: Floats, score: Floats) -> Bools:
    """Return which steps are on their layers' hulls by Andrew's monotone chain: linear time, but in Python."""
    keep = np.zeros(len(cost), dtype=np.bool_)
    for first, end in pairwise([*np.flatnonzero(is_first).tolist(), len(cost)]):
        keep[[first + at for at in _chain(cost[first:end].tolist(), score[first:end].tolist())]] = True
    return keep


def _chain(cost: list[float], score: list[float]) -> list[int]:
    kept: list[int] = []
    for i in range(len(cost)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (score[b] - score[a]) * (cost[i] - cost[b]) > (score[i] - score[b]) * (cost[b] - cost[a]):
                break
            kept.pop()
        kept.append(i)
    return kept
