"""The core of the exact solver: dynamic programming over the few layers and steps the bound leaves open.

States are (cost, score) changes against a base choice; a state is dropped when another is cheaper and as good, or
when its own linear relaxation cannot beat the best choice known. After Pisinger, "A minimal algorithm for the
multiple-choice knapsack problem", European Journal of Operational Research 83 (1995). Ours: the bound of a state is
the relaxation of all layers still open, not of the next one alone, and a width limits how many states are kept:
those with the best bounds, while the best bound dropped is remembered, so that every stop has a certified bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.hull import hull_edges
from lanaprof.solver.problem import Bools, Floats, Ints
from lanaprof.solver.stairs import Stairs

__all__ = ["Core", "Swept", "open_core", "sweep"]

_BLOCK_STATES = 1_000_000  # new states made at a time: about 50 MB of temporaries
_MOST_PENDING = 4_000_000  # new states that wait to be merged: 160 MB


@dataclass(frozen=True, slots=True)
class Core:
    """The steps still open, of the layers with more than one; the others stay at the base.

    Attributes:
        layers: (core,) layer numbers in the order of the sweep.
        rivals: (core,) what the best open step besides the base's loses against it at the critical slope; rising.
        firsts, counts: (core,) the layer's part of the open steps.
        steps: (open steps,) layer by layer, the base's among them.
        regrets: (open steps,) what each loses.
        edges_cost, edges_score, edges_rank: (edges,) hull edges of the open steps, steepest first; rank is the
            layer's place in the order.
        edges_taken: (edges,) whether the base is above the edge.
    """

    layers: Ints
    rivals: Floats
    firsts: Ints
    counts: Ints
    steps: Ints
    regrets: Floats
    edges_cost: Floats
    edges_score: Floats
    edges_rank: Ints
    edges_taken: Bools


@dataclass(frozen=True, slots=True)
class Swept:
    """The end of a sweep: the best choice found (None when nothing beat the given one) and the bound left open.

    ``gain`` is the score change of the best choice against the base; ``open_gain`` bounds the change of every
    choice that was dropped for width or time (-inf when nothing was: the sweep is a proof).
    """

    steps: Ints | None
    gain: float
    open_gain: float


def open_core(stairs: Stairs, base: Ints, regret: Floats, limit: float) -> Core:
    """Return the core: steps that lose less than ``limit`` against the base, layers nearest to a draw first."""
    keep = regret < limit
    keep[base] = True
    step = np.flatnonzero(keep)
    layer = stairs.layer[step]
    wide = np.bincount(layer, minlength=len(base))[layer] > 1
    step, layer = step[wide], layer[wide]
    firsts = np.flatnonzero(np.diff(layer, prepend=-1))
    rival = regret[step]
    rival[step == base[layer]] = np.inf
    rivals = np.minimum.reduceat(rival, firsts) if len(firsts) else rival
    order = np.argsort(rivals, kind="stable")
    counts = np.diff(firsts, append=len(step))
    rank = np.empty(len(firsts), dtype=np.int64)
    rank[order] = np.arange(len(firsts))
    rank_of_step = np.repeat(rank, counts)
    start, end, cost, score = hull_edges(layer, stairs.cost[step], stairs.score[step])
    steepest = np.argsort(-score / cost, kind="stable")
    return Core(
        layers=layer[firsts[order]],
        rivals=rivals[order],
        firsts=firsts[order],
        counts=counts[order],
        steps=step,
        regrets=regret[step],
        edges_cost=cost[steepest],
        edges_score=score[steepest],
        edges_rank=rank_of_step[start[steepest]],
        edges_taken=(step[end] <= base[layer[end]])[steepest],
    )


class _Suffix:
    """The linear relaxation of the layers not swept yet, as a function of the room left."""

    def __init__(self, core: Core) -> None:
        self.cost, self.score = core.edges_cost, core.edges_score
        self.rank, self.taken = core.edges_rank, core.edges_taken

    def after(self, rank: int) -> tuple[Floats, Floats]:
        """Return the corners (room, gain) of the concave bound for the layers behind ``rank``; call in order."""
        later = self.rank > rank
        self.cost, self.score = self.cost[later], self.score[later]
        self.rank, self.taken = self.rank[later], self.taken[later]
        back_cost, back_score = self.cost[self.taken].sum(), self.score[self.taken].sum()
        room = np.concatenate([[0.0], np.cumsum(self.cost)]) - back_cost
        gain = np.concatenate([[0.0], np.cumsum(self.score)]) - back_score
        return room, gain


@dataclass(slots=True)
class _States:
    """Partial choices: change in cost and score, upper bound on the final gain, where they came from."""

    cost: Floats
    score: Floats
    bound: Floats
    parent: Ints
    step: Ints

    def pick(self, index: Ints | Bools) -> _States:
        fields = (self.cost, self.score, self.bound, self.parent, self.step)
        return _States(*(field[index] for field in fields))  # type: ignore[arg-type]


@dataclass(slots=True)
class _Search:
    """What a sweep carries along: the best gain so far and where it was found."""

    gain: float
    room: float
    tiny: float  # a gain by less is rounding
    swept: int = 0  # layers
    best: tuple[int, int, int] | None = None  # (place in the order, state before it, step)

    @property
    def floor(self) -> float:
        """What a state must promise to be kept."""
        return self.gain + self.tiny


def sweep(
    stairs: Stairs,
    core: Core,
    base: Ints,
    *,
    room: float,
    ceiling: float,
    gain: float,
    width: int,
    deadline: float,
) -> Swept:
    """Return the best choice around a base.

    Args:
        stairs: all steps.
        core: the open ones.
        base: (layers,) the base choice.
        room: capacity minus the base's cost, scaled like the stairs.
        ceiling: upper bound on the gain over the base.
        gain: score change of the best choice known; only better ones are looked for.
        width: how many states are kept a layer.
        deadline: by ``time.perf_counter``; when it passes, the rest stays open.
    """
    # Sums of scores near 1 are rounded at 1e-16: a hundred times that is still nothing.
    tiny = 1e-14 * max(abs(ceiling), float(np.max(core.edges_score, initial=0.0)))
    suffix, search = _Suffix(core), _Search(gain, room, tiny)
    none = np.zeros(1, dtype=np.int64)
    states = _States(np.zeros(1), np.zeros(1), np.full(1, ceiling), none, none)
    history: list[tuple[int, Ints, Ints]] = []  # (place in the order, parents, steps)
    open_gain, is_late = -math.inf, False
    for rank, first in enumerate(core.firsts.tolist()):
        if core.rivals[rank] >= ceiling - search.gain:
            break  # of this layer and all behind it only the base's steps are left
        layer = int(core.layers[rank])
        at = int(base[layer])
        mine, regrets = (part[first : first + core.counts[rank]] for part in (core.steps, core.regrets))
        mine = mine[(regrets < ceiling - search.gain) | (mine == at)]
        search.swept = len(history)
        made: list[_States] = []
        for block in _iter_expanded(stairs, states, mine, at=at, corners=suffix.after(rank), search=search):
            made.append(block)
            if sum(len(part.cost) for part in made) > _MOST_PENDING:
                merged, dropped = _narrow(made, search.floor, width)
                made, open_gain = [merged], max(open_gain, dropped)
            is_late = time.perf_counter() > deadline
            if is_late:
                break
        if is_late:
            open_gain = max(open_gain, float(states.bound.max()))
            break
        states, dropped = _narrow(made, search.floor, width)
        open_gain = max(open_gain, dropped)
        history.append((layer, states.parent.astype(np.int32), states.step.astype(np.int32)))
        if len(states.cost) == 0:
            break
    if search.best is None:
        return Swept(None, search.gain, open_gain)
    chosen = base.copy()
    place, state, step = search.best
    chosen[stairs.layer[step]] = step
    for layer, parents, taken in reversed(history[:place]):
        chosen[layer] = taken[state]
        state = int(parents[state])
    return Swept(chosen, search.gain, open_gain)


def _iter_expanded(
    stairs: Stairs, states: _States, mine: Ints, *, at: int, corners: tuple[Floats, Floats], search: _Search
) -> Iterator[_States]:
    """Yield, in blocks, every state with every step of one layer that may still lead to a better choice."""
    count = len(states.cost)
    block = max(1, _BLOCK_STATES // count)
    for start in range(0, len(mine), block):
        some = mine[start : start + block]
        cost = ((stairs.cost[some] - stairs.cost[at])[:, None] + states.cost).ravel()
        score = ((stairs.score[some] - stairs.score[at])[:, None] + states.score).ravel()
        left = search.room - cost
        fitting = np.where(left >= 0, score, -math.inf)
        top = int(np.argmax(fitting))
        if fitting[top] > search.gain:
            search.gain = float(fitting[top])
            search.best = (search.swept, top % count, int(some[top // count]))
        bound = score + np.interp(left, *corners, left=-math.inf)
        kept = np.flatnonzero(bound > search.floor)
        yield _States(cost[kept], score[kept], bound[kept], kept % count, some[kept // count])


def _narrow(made: list[_States], floor: float, width: int) -> tuple[_States, float]:
    """Return the undominated states above the floor, ``width`` at most, and the best bound dropped for width."""
    fields = zip(*((s.cost, s.score, s.bound, s.parent, s.step) for s in made), strict=True)
    states = made[0] if len(made) == 1 else _States(*(np.concatenate(field) for field in fields))
    if len(made) > 1:
        states = states.pick(states.bound > floor)
    # Each step's states are a sorted run already: a stable sort merges the runs.
    states = states.pick(np.argsort(states.cost, kind="stable"))
    rises = np.ones(len(states.score), dtype=np.bool_)
    rises[1:] = states.score[1:] > np.maximum.accumulate(states.score)[:-1]
    if not rises.all():
        states = states.pick(rises)
    if len(states.cost) <= width:
        return states, -math.inf
    order = np.argpartition(-states.bound, width)
    dropped = float(states.bound[order[width:]].max())
    return states.pick(np.sort(order[:width])), dropped
