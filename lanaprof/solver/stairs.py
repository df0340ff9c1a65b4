"""Each layer as a staircase: undominated candidates by rising cost, and their upper convex hull.

Everything is flat: one array over all steps of all layers, so that 100,000 layers cost no Python loop.
Sources: dominance and convex hull of the multiple-choice knapsack after Sinha & Zoltners, "The multiple-choice
knapsack problem", Operations Research 27 (1979); the greedy walk over the sorted hull solves its linear relaxation
(Zemel, Information Processing Letters 18, 1984).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.problem import Bools, Floats, Ints

__all__ = [
    "Relaxation",
    "Stairs",
    "build_stairs",
    "complete_front",
    "hull_of",
    "power_of_two",
    "rises",
    "starts_of",
    "thin",
    "undominated",
    "whole_spare",
]

_PIVOT_SLOPES = (1.0, 6.0, 1 / 6)  # of a layer's diagonal: one pivot in the middle, one towards each end
_WHOLE = 1e-6  # this near to a whole number is one: floats below a thousand million are good to 1e-7
_MOST_WHOLE = 1e9
_FEW = 32  # candidates of the largest layer: sorting them all is faster than thinning first
_MANY_HULL_PASSES = 40  # most hulls need under ten passes; after these the rest is done layer by layer


@dataclass(frozen=True, slots=True)
class Stairs:
    """The undominated candidates of all layers, shifted and scaled.

    Costs are shifted so that each layer's cheapest is 0, scores so that each layer's best is 0; both are divided by
    a power of two (which rounds nothing away) to sit near 1.

    Attributes:
        layer, item, cost, score: (steps,) sorted by layer, then rising cost and score.
        starts: (layers + 1,) first step of each layer.
        low_cost: sum of the layers' least costs, unscaled; ``top_score`` likewise of their best scores.
        cost_scale, score_scale: what the shifted values were divided by.
        hull_from, hull_to: (increments,) steps at both ends of the hull's edges, steepest first.
        slope: (increments,) score gained per cost.
    """

    layer: Ints
    item: Ints
    cost: Floats
    score: Floats
    starts: Ints
    low_cost: float
    top_score: float
    cost_scale: float
    score_scale: float
    hull_from: Ints
    hull_to: Ints
    slope: Floats
    hull_cost: Floats  # cost after each increment, from all layers at their cheapest

    def relax(self, capacity: float) -> Relaxation:
        """Return the linear relaxation's solution rounded down, for a scaled capacity of at least 0."""
        taken = int(np.searchsorted(self.hull_cost, capacity, side="right"))
        while True:
            steps = self.starts[:-1].copy()
            # A layer's increments come in order, so the last one written is the dearest one taken.
            steps[self.layer[self.hull_to[:taken]]] = self.hull_to[:taken]
            cost, score = float(self.cost[steps].sum()), float(self.score[steps].sum())
            if cost <= capacity or taken == 0:
                break
            taken -= 1  # the running sum was rounded across the capacity
        slope = float(self.slope[taken]) if taken < len(self.slope) else 0.0
        return Relaxation(steps, cost, score, slope, taken)


@dataclass(frozen=True, slots=True)
class Relaxation:
    """A rounded linear relaxation: the steps taken, their cost and score, the critical slope, increments taken."""

    steps: Ints
    cost: float
    score: float
    slope: float
    taken: int


def build_stairs(
    layer: Ints, item: Ints, *, cost: Floats, score: Floats, spare: float, unit: float
) -> Stairs:
    """Return the stairs of candidates sorted by layer.

    Args:
        layer: (candidates,) layer of each, rising, none missing.
        item: (candidates,) the caller's number of each.
        cost: (candidates,) not negative.
        score: (candidates,) higher is better.
        spare: how much may be spent above the sum of least costs; dearer candidates are left out. May be infinite.
        unit: the largest number among budget and fixed cost; differences below 1e-18 of it count as nothing.
    """
    starts = starts_of(layer)
    sizes = np.diff(starts)
    low = np.minimum.reduceat(cost, starts[:-1])
    shifted = cost - np.repeat(low, sizes)
    keep = shifted <= spare
    if not keep.all():
        layer, item, shifted, score = layer[keep], item[keep], shifted[keep], score[keep]
    if sizes.max() > _FEW:
        layer, item, shifted, score = thin(layer, item, shifted, score)
    top = np.maximum.reduceat(score, starts_of(layer)[:-1])
    score = score - np.repeat(top, np.diff(starts_of(layer)))
    cost_scale, score_scale = power_of_two(shifted.max()), power_of_two(-score.min())
    shifted = shifted / cost_scale
    shifted[shifted < 1e-18 * unit / cost_scale] = 0.0
    order = undominated(layer, shifted, score)
    layer, item, shifted, score = layer[order], item[order], shifted[order], score[order] / score_scale
    starts = starts_of(layer)
    hull = hull_of(layer, shifted, score)
    edge = np.flatnonzero(layer[hull[1:]] == layer[hull[:-1]])
    start, end = hull[edge], hull[edge + 1]
    slope = (score[end] - score[start]) / (shifted[end] - shifted[start])
    order = np.argsort(-slope, kind="stable")
    start, end, slope = start[order], end[order], slope[order]
    return Stairs(
        layer=layer,
        item=item,
        cost=shifted,
        score=score,
        starts=starts,
        low_cost=math.fsum(low.tolist()),
        top_score=math.fsum(top.tolist()),
        cost_scale=cost_scale,
        score_scale=score_scale,
        hull_from=start,
        hull_to=end,
        slope=slope,
        hull_cost=np.cumsum(shifted[end] - shifted[start]),
    )


def complete_front(stairs: Stairs, most: int) -> list[Ints] | None:
    """Return the steps of every point of the front, or None when more than ``most`` states a layer are needed."""
    cost, score = np.zeros(1), np.zeros(1)
    history: list[tuple[Ints, Ints]] = []
    for start, stop in zip(stairs.starts[:-1].tolist(), stairs.starts[1:].tolist(), strict=True):
        if len(cost) * (stop - start) > 40 * most:
            return None
        new_cost = (stairs.cost[start:stop, None] + cost).ravel()
        new_score = (stairs.score[start:stop, None] + score).ravel()
        order = np.lexsort((-new_score, new_cost))
        keep = np.ones(len(order), dtype=np.bool_)
        keep[1:] = new_score[order][1:] > np.maximum.accumulate(new_score[order])[:-1]
        order = order[keep]
        if len(order) > most:
            return None
        history.append((order % len(cost), start + order // len(cost)))
        cost, score = new_cost[order], new_score[order]
    layers = len(history)
    chosen = np.empty((len(cost), layers), dtype=np.int64)
    state = np.arange(len(cost))
    for layer in range(layers - 1, -1, -1):
        parents, steps = history[layer]
        chosen[:, layer] = steps[state]
        state = parents[state]
    return list(chosen)


def whole_spare(costs: Floats, spare: float, slack: float) -> float:
    """Return what may be spent on sums of these costs, without the rest that no such sum can fill.

    Costs that are whole multiples of some number (whole microseconds, parameters, bytes) reach multiples only; what
    a budget has beyond the last multiple would loosen every bound, and keep the search going for nothing.
    """
    unit = _common_unit(np.abs(costs))
    return min(spare, math.floor(spare / unit + _WHOLE) * unit + slack) if unit > 0 else spare


def _common_unit(values: Floats) -> float:
    """Return the largest number of which all values are multiples, of the form whole × 10^-k; 0 if there is none."""
    values = values[values > 0]
    if len(values) == 0:
        return 0.0
    largest = float(values.max())
    for power in range(13):
        factor = 10.0**power
        if largest * factor > _MOST_WHOLE:
            return 0.0
        for some in (values[:32], values):  # a few values tell measured floats apart at once
            scaled = some * factor
            whole = np.round(scaled)
            if (np.abs(scaled - whole) > _WHOLE).any() or whole.min() < 1:
                break
        else:
            return float(np.gcd.reduce(whole.astype(np.int64))) / factor
    return 0.0


def starts_of(layer: Ints) -> Ints:
    """Return the first position of each layer in a rising array, and its length at the end."""
    return np.concatenate([[0], np.flatnonzero(layer[1:] != layer[:-1]) + 1, [len(layer)]]).astype(np.int64)


def power_of_two(value: float) -> float:
    """Return the power of two just above a value; 1 for 0: dividing by it rounds nothing away."""
    return math.ldexp(1.0, math.frexp(value)[1]) if value > 0 else 1.0


def thin(layer: Ints, item: Ints, cost: Floats, score: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """Drop what one of a few good candidates of its layer dominates: cheap, and spares sorting most of them."""
    for factor in _PIVOT_SLOPES:
        starts = starts_of(layer)
        sizes, first = np.diff(starts), starts[:-1]
        width = np.maximum.reduceat(cost, first)
        height = np.maximum.reduceat(score, first) - np.minimum.reduceat(score, first)
        slope = np.zeros(len(first))
        with np.errstate(over="ignore"):  # a denormal width: any pivot is as right as another
            np.divide(factor * height, width, out=slope, where=width > 0)
        slope = np.minimum(slope, 1e300)
        with np.errstate(over="ignore"):
            value = score - np.repeat(slope, sizes) * cost
        best = np.flatnonzero(value == np.repeat(np.maximum.reduceat(value, first), sizes))
        pivot = best[np.searchsorted(best, first)]
        keep = cost < np.repeat(cost[pivot], sizes)
        keep |= score > np.repeat(score[pivot], sizes)
        keep[pivot] = True
        layer, item, cost, score = layer[keep], item[keep], cost[keep], score[keep]
    return layer, item, cost, score


def undominated(layer: Ints, cost: Floats, score: Floats) -> Ints:
    """Return which steps no other of their layer dominates, by layer, then by rising cost and score.

    Args:
        layer: (steps,) rising, none missing.
        cost: (steps,).
        score: (steps,).
    """
    starts = starts_of(layer)
    sizes = np.diff(starts)
    width = int(sizes.max())
    if width * len(sizes) > 3 * len(layer):
        order = np.lexsort((-score, cost, layer))
        return order[rises(layer[order], score[order])]
    # Layers of about one size are the rows of a table, and rows are sorted many times faster than keys.
    rows = np.repeat(np.arange(len(sizes)), sizes)
    columns = np.arange(len(layer)) - np.repeat(starts[:-1], sizes)
    costs, scores = np.full((len(sizes), width), np.inf), np.full((len(sizes), width), -np.inf)
    costs[rows, columns], scores[rows, columns] = cost, score
    order = np.argsort(costs, axis=1)
    scores = np.take_along_axis(scores, order, axis=1)
    keep = np.ones(scores.shape, dtype=np.bool_)
    keep[:, 1:] = scores[:, 1:] > np.maximum.accumulate(scores, axis=1)[:, :-1]
    found = (order + starts[:-1, None])[keep]
    # Of steps that cost the same the last one kept scores most: the sort left their order open.
    last = np.ones(len(found), dtype=np.bool_)
    last[:-1] = (cost[found[1:]] > cost[found[:-1]]) | (layer[found[1:]] != layer[found[:-1]])
    return found[last]


def rises(layer: Ints, score: Floats) -> Bools:
    """Return where a layer's score exceeds all scores before it in the layer."""
    order = np.argsort(score, kind="stable")
    ordered = score[order]
    rank = np.empty(len(score), dtype=np.int64)  # integers, so that layers can be kept apart without rounding
    rank[order] = np.concatenate([[0], np.cumsum(ordered[1:] > ordered[:-1])])
    rank += layer * (len(score) + 1)
    keep = np.ones(len(score), dtype=np.bool_)
    keep[1:] = rank[1:] > np.maximum.accumulate(rank)[:-1]
    return keep


def hull_of(layer: Ints, cost: Floats, score: Floats) -> Ints:
    """Return the steps on each layer's upper convex hull, for steps that rise in cost and score."""
    hull = np.arange(len(layer), dtype=np.int64)
    for _ in range(_MANY_HULL_PASSES):
        bad = _below_neighbours(layer[hull], cost[hull], score[hull])
        if not bad.any():
            return hull
        hull = hull[~bad]
    unfinished = np.unique(layer[hull[_below_neighbours(layer[hull], cost[hull], score[hull])]])
    drop = np.zeros(len(layer), dtype=np.bool_)
    for one in unfinished.tolist():
        mine = hull[layer[hull] == one]
        drop[mine] = True
        drop[_chain(mine, cost[mine].tolist(), score[mine].tolist())] = False
    return hull[~drop[hull]]


def _below_neighbours(layer: Ints, cost: Floats, score: Floats) -> Bools:
    same = layer[1:] == layer[:-1]
    slope = np.zeros(len(same))
    np.divide(score[1:] - score[:-1], cost[1:] - cost[:-1], out=slope, where=same)
    bad = np.zeros(len(layer), dtype=np.bool_)
    # A step on or under the line between two others of its layer is not on the hull, so all go at once.
    bad[1:-1] = same[1:] & same[:-1] & (slope[:-1] <= slope[1:])
    return bad


def _chain(steps: Ints, cost: list[float], score: list[float]) -> Ints:
    """Return the hull of one layer's steps by Andrew's monotone chain: linear time, but in Python."""
    kept: list[int] = []
    for i in range(len(cost)):
        while len(kept) > 1:
            a, b = kept[-2], kept[-1]
            if (score[b] - score[a]) * (cost[i] - cost[b]) > (score[i] - score[b]) * (cost[b] - cost[a]):
                break
            kept.pop()
        kept.append(i)
    return steps[kept]
