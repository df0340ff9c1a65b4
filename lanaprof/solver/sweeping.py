"""The best steps of stairs for a capacity: bound, fix, and sweep what is left.

The steps: the Lagrangian bound at the critical slope, a first choice by rounding and single exchanges, fixing of every
candidate whose regret exceeds the gap, and dynamic programming over the core (core.py), first narrow for a better
choice, then wide for the proof.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.core import open_core, sweep
from lanaprof.solver.problem import Bools, Floats, Ints
from lanaprof.solver.stairs import Relaxation, Stairs

__all__ = ["Found", "solve_stairs"]

_WIDTHS = (5_000, 100_000, 1_000_000)  # states kept a layer, sweep after sweep
_MOST_HISTORY = 40_000_000  # states remembered in one sweep: 320 MB
_SHARES = (1 / 64, 1.0)  # of the gap: what steps may lose to be exchanged for, a few steps before all
_MANY = 10_000  # steps, from which on looking at a few before all pays
_EXCHANGES = 30  # single exchanges before the sweeps; they do the rest better


@dataclass(frozen=True, slots=True)
class Found:
    """The best steps found for a capacity, the scaled upper bound, and which steps a better choice may use."""

    steps: Ints
    bound: float
    proved: bool
    open_steps: Bools | None = None


def solve_stairs(stairs: Stairs, capacity: float, *, slack: float = 0.0, deadline: float) -> Found:
    """Return the best steps whose scaled cost is at most the capacity (which is at least 0).

    ``slack`` is the part of the capacity that is there for rounding only: it admits choices, but is not worth a
    search, so the bound is that of the capacity without it.
    """
    relaxed = stairs.relax(capacity)
    if relaxed.taken == len(stairs.slope):
        return Found(relaxed.steps, relaxed.score, True)
    base, slope = relaxed.steps, relaxed.slope
    reduced = stairs.score - slope * stairs.cost
    top = np.maximum.reduceat(reduced, stairs.starts[:-1])
    regret = top[stairs.layer] - reduced
    # The Lagrangian bound holds at every slope, rounded or not; score and cost sum to it at the critical one.
    ceiling = max(0.0, float(top.sum() + slope * (capacity - slack) - relaxed.score))
    rounding = 1e-13 * (abs(relaxed.score) + slope * capacity)  # of the sums the gap is the difference of
    room = capacity - relaxed.cost
    steps, gain = _first_choice(stairs, relaxed, regret, room=room, ceiling=ceiling)
    open_gain, last_width = math.inf, 0
    for widest in _WIDTHS:
        core = open_core(stairs, base, regret, ceiling - gain)
        if not len(core.layers) or ceiling - gain <= rounding:
            return Found(steps, relaxed.score + gain, True)
        width = min(widest, max(_WIDTHS[0], _MOST_HISTORY // len(core.layers)))
        if width <= last_width or time.perf_counter() > deadline:
            break
        last_width = width
        swept = sweep(
            stairs, core, base, room=room, ceiling=ceiling, gain=gain, width=width, deadline=deadline
        )
        if swept.steps is not None:
            steps, gain = swept.steps, swept.gain
        if swept.open_gain == -math.inf:
            return Found(steps, relaxed.score + gain, True)
        open_gain = min(open_gain, max(swept.open_gain, gain))
    ceiling = min(ceiling, open_gain)
    open_steps = regret < ceiling - gain
    open_steps[base] = True
    open_steps[steps] = True
    return Found(steps, relaxed.score + ceiling, False, open_steps)


def _first_choice(
    stairs: Stairs, relaxed: Relaxation, regret: Floats, *, room: float, ceiling: float
) -> tuple[Ints, float]:
    """Return a good choice inside the capacity and its gain: the base, or the base and one edge more, exchanged.

    Regrets and gain make up for the ceiling at most, so steps that lose much need no look once a good choice is found.
    """
    edge = stairs.hull_to[relaxed.taken]
    best = relaxed.steps, 0.0
    for share in _SHARES if len(regret) > _MANY else _SHARES[-1:]:
        allowed = np.flatnonzero(regret < share * ceiling)
        for first in (None, edge):
            choice = _exchange(stairs, relaxed.steps, first, room=room, allowed=allowed)
            if choice is not None and choice[1] > best[1]:
                best = choice
        if ceiling - best[1] <= share * ceiling:
            break
    return best


def _exchange(
    stairs: Stairs, base: Ints, first: int | None, *, room: float, allowed: Ints
) -> tuple[Ints, float] | None:
    """Return the choice after the best single exchanges, with its gain over the base; None if it stays too dear.

    Args:
        stairs: all steps.
        base: (layers,) the choice to begin with.
        first: a step to exchange for before all others.
        room: how much more than the base the choice may cost.
        allowed: the steps to exchange for.
    """
    steps, spent, gain, best = base.copy(), 0.0, 0.0, first
    layer, cost, score = stairs.layer[allowed], stairs.cost[allowed], stairs.score[allowed]
    for _ in range(_EXCHANGES):
        if best is not None:
            old = steps[stairs.layer[best]]
            spent += float(stairs.cost[best] - stairs.cost[old])
            gain += float(stairs.score[best] - stairs.score[old])
            steps[stairs.layer[best]] = best
        there = steps[layer]
        better = score - stairs.score[there]
        inside = spent + (cost - stairs.cost[there]) <= room
        if spent <= room:
            inside &= better > 0
        if not inside.any():
            break
        best = int(allowed[np.argmax(np.where(inside, better, -math.inf))])
    return None if spent > room else (steps, gain)
