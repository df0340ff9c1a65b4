"""Each layer as a staircase: undominated candidates by rising cost, and their upper convex hull.

Everything is flat: one array over all steps of all layers, so that 100,000 layers cost no Python loop.
Sources: dominance and convex hull of the multiple-choice knapsack after Sinha & Zoltners, "The multiple-choice
knapsack problem", Operations Research 27 (1979); the greedy walk over the sorted hull solves its linear relaxation
(Zemel, Information Processing Letters 18, 1984).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lanaprof.solver.hull import BLOCK, hull_edges
from lanaprof.solver.problem import Bools, Floats, Ints

__all__ = [
    "Relaxation",
    "Stairs",
    "build_stairs",
    "complete_front",
    "power_of_two",
    "rises",
    "starts_of",
    "sum_of",
    "thin",
    "undominated",
    "whole_spare",
]

_PIVOT_SLOPES = (1.0, 6.0, 1 / 6)  # of a layer's diagonal: one pivot in the middle, one towards each end
_WHOLE = 1e-6  # this near to a whole number is one: floats below a thousand million are good to 1e-7
_MOST_WHOLE = 1e9
_FEW = 32  # candidates of the largest layer: sorting them all is faster than thinning first


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
    starts: Ints, item: Ints | None, *, cost: Floats, score: Floats, spare: float, unit: float
) -> Stairs:
    """Return the stairs of candidates sorted by layer.

    Args:
        starts: (layers + 1,) first candidate of each layer, and their number; no layer is empty.
        item: (candidates,) the caller's number of each; None numbers them as they stand.
        cost: (candidates,) not negative.
        score: (candidates,) higher is better.
        spare: how much may be spent above the sum of least costs; dearer candidates are left out. May be infinite.
        unit: the largest number among budget and fixed cost; differences below 1e-18 of it count as nothing.
    """
    parts = [
        _steps_of(starts[a : b + 1], cost=cost, score=score, spare=spare, least=1e-18 * unit)
        for a, b in pairwise(_cuts(starts))
    ]
    step, counts, shifted, score, low, top = (np.concatenate(part) for part in zip(*parts, strict=True))
    layer = np.repeat(np.arange(len(counts)), counts)
    cost_scale, score_scale = power_of_two(shifted.max()), power_of_two(-score.min())
    shifted /= cost_scale
    score /= score_scale
    start, end, dearer, better = hull_edges(layer, shifted, score)
    slope = better / dearer
    order = _order_of(-slope)
    return Stairs(
        layer=layer,
        item=step if item is None else item[step],
        cost=shifted,
        score=score,
        starts=np.concatenate([[0], np.cumsum(counts)]),
        low_cost=sum_of(low),
        top_score=sum_of(top),
        cost_scale=cost_scale,
        score_scale=score_scale,
        hull_from=start[order],
        hull_to=end[order],
        slope=slope[order],
        hull_cost=np.cumsum(dearer[order]),
    )


def _cuts(starts: Ints) -> list[int]:
    """Return where to cut a row of layers into blocks whose arrays stay in the processor's cache."""
    cuts = np.unique(np.searchsorted(starts[:-1], np.arange(0, starts[-1], BLOCK)))
    return [*cuts[cuts < len(starts) - 1].tolist(), len(starts) - 1]


def _steps_of(
    starts: Ints, *, cost: Floats, score: Floats, spare: float, least: float
) -> tuple[Ints, Ints, Floats, Floats, Floats, Floats]:
    """Return the steps of some layers: numbers, how many in each layer, shifted costs and scores, and the shifts.

    Args:
        starts: of these layers, in the arrays of all.
        cost: (candidates of all layers,).
        score: (candidates of all layers,).
        spare: the most that a step may cost above the layer's cheapest.
        least: what costs less than this above it costs nothing.
    """
    begin = int(starts[0])
    cost, score, starts = cost[begin : starts[-1]], score[begin : starts[-1]], starts - begin
    low = np.minimum.reduceat(cost, starts[:-1])
    step, layer = undominated(starts, cost, score, spare=spare)
    shifted = cost[step] - low[layer]
    shifted[shifted < least] = 0.0
    # Of steps that cost the same the last one scores most.
    keep = np.ones(len(step), dtype=np.bool_)
    keep[:-1] = (shifted[1:] > shifted[:-1]) | (layer[1:] != layer[:-1])
    keep &= shifted <= spare
    step, layer, shifted = step[keep], layer[keep], shifted[keep]
    counts = np.bincount(layer, minlength=len(low))
    score = score[step]
    top = score[np.cumsum(counts) - 1]
    return begin + step, counts, shifted, score - top[layer], low, top


def _order_of(values: Floats) -> Ints:
    """Return the stable order of values, by the quick sort that is not: what is equal is put right afterwards."""
    order = np.argsort(values)
    ordered = values[order]
    same = ordered[1:] == ordered[:-1]
    if same.any():
        run = np.concatenate([[0], np.cumsum(~same)])  # counts different values
        order = np.sort(run * len(order) + order) % len(order)
    return order


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
    # A few values tell measured floats apart at once.
    parts = [values[:32], *(values[at : at + BLOCK] for at in range(32, len(values), BLOCK))]
    for power in range(13):
        factor = 10.0**power
        if largest * factor > _MOST_WHOLE:
            return 0.0
        unit = 0
        for part in parts:
            scaled = part * factor
            whole = np.round(scaled)
            if (np.abs(scaled - whole) > _WHOLE).any() or whole.min() < 1:
                break
            if unit != 1:
                unit = math.gcd(unit, int(np.gcd.reduce(whole.astype(np.int64))))
        else:
            return unit / factor
    return 0.0


def sum_of(values: Floats) -> float:
    """Return a sum that is good to its last digits; `math.fsum`, which is exact, needs a Python object a number."""
    return math.fsum(values.tolist()) if len(values) < BLOCK else float(values.sum(dtype=np.longdouble))


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


def undominated(starts: Ints, cost: Floats, score: Floats, *, spare: float) -> tuple[Ints, Ints]:
    """Return which candidates no other of their layer dominates, by layer, then by rising cost and score.

    Of several that cost the same more than one may come back; the last scores most.

    Args:
        starts: (layers + 1,) first candidate of each layer, and their number; no layer is empty.
        cost: (candidates,).
        score: (candidates,).
        spare: how much more than the cheapest of its layer one may cost where some have to be left out.

    Returns:
        Their numbers and their layers.
    """
    sizes = np.diff(starts)
    if sizes.max() <= _FEW:
        return _rising_of(starts, cost, score)
    layer = np.repeat(np.arange(len(sizes)), sizes)
    shifted, step = cost - np.repeat(np.minimum.reduceat(cost, starts[:-1]), sizes), np.arange(len(cost))
    near = shifted <= spare
    if not near.all():
        layer, step, shifted, score = layer[near], step[near], shifted[near], score[near]
    layer, step, shifted, score = thin(layer, step, shifted, score)
    found, layer = _rising_of(starts_of(layer), shifted, score)
    return step[found], layer


def _rising_of(starts: Ints, cost: Floats, score: Floats) -> tuple[Ints, Ints]:
    sizes = np.diff(starts)
    rows, width = len(sizes), int(sizes.max())
    if width * rows > 3 * len(cost):
        layer = np.repeat(np.arange(rows), sizes)
        order = np.lexsort((-score, cost, layer))
        found = order[rises(layer[order], score[order])]
        return found, layer[found]
    # Layers of about one size are the rows of a table, and rows are sorted many times faster than keys.
    shift = width * np.arange(rows) - starts[:-1]
    if width * rows > len(cost):
        place = np.arange(len(cost)) + np.repeat(shift, sizes)
        costs, scores = np.full(rows * width, np.inf), np.full(rows * width, -np.inf)
        costs[place], scores[place] = cost, score
        cost, score = costs, scores
    order = np.argsort(cost.reshape(rows, width), axis=1)
    order += width * np.arange(rows)[:, None]
    ranked = np.take(score, order)
    keep = np.ones(ranked.shape, dtype=np.bool_)
    if width > _FEW:
        keep[:, 1:] = ranked[:, 1:] > np.maximum.accumulate(ranked, axis=1)[:, :-1]
    else:  # column by column: accumulating along short rows takes longer
        best = ranked[:, 0].copy()
        for column in range(1, width):
            np.greater(ranked[:, column], best, out=keep[:, column])
            np.maximum(ranked[:, column], best, out=best)
    row = np.repeat(np.arange(rows), np.count_nonzero(keep, axis=1))
    return order[keep] - shift[row], row


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
