"""The undominated paths of a block, by setting labels boundary after boundary.

A label is a partial path: its cost, its score, and the exit it has come to. It goes when another of the same exit is
cheaper and as good, when it passes the capacity, or when a Lagrangian bound says that no path through it beats the best
choice known. After Desrochers & Soumis, "A generalized permanent labelling algorithm for the shortest path problem with
time windows", INFOR 26 (1988). Ours: several prices at once, so that the bound bends with the room left, and a width:
only so many labels a boundary are kept, and the best bound dropped is remembered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.chain import Chain, Stop
from lanaprof.solver.problem import Floats, Ints

__all__ = ["Bound", "Front", "Limits", "front_of_block"]

_MOST_HISTORY = 40_000_000  # labels remembered in one block: 320 MB
_MOST_MADE = 20_000_000  # labels with every step on from them, before any is dropped: 500 MB


@dataclass(frozen=True, slots=True)
class Bound:
    """The Lagrangian bound at a price: the ceiling over all choices, and best sums of blocks and from exits on."""

    price: float
    ceiling: float
    blocks: Floats
    onward: Floats

    def of(self, block: int, exit_: Ints | int, cost: Floats, score: Floats) -> Floats:
        """Return the bound on every choice that begins a block with these labels."""
        found: Floats = score - self.price * cost
        found += self.ceiling - self.blocks[block] + self.onward[exit_]
        return found


@dataclass(frozen=True, slots=True)
class Limits:
    """What labels must keep: the capacity, a bound above the floor by all prices, so many a boundary, and a time."""

    capacity: float
    floor: float
    bounds: Sequence[Bound]
    width: int
    deadline: float


@dataclass(frozen=True, slots=True)
class _Labels:
    """Partial paths: cost, score, exit, the label each came from (at its step's first boundary), and the step."""

    cost: Floats
    score: Floats
    exit: Ints
    parent: Ints
    step: Ints

    def pick(self, index: Ints) -> _Labels:
        return _Labels(
            self.cost[index], self.score[index], self.exit[index], self.parent[index], self.step[index]
        )


@dataclass(frozen=True, slots=True)
class Front:
    """The undominated paths of a block by rising cost and score, and the best bound of a label dropped for width.

    ``history`` holds (parents, steps) by boundary; ``first`` and ``last`` are those of the block.
    """

    cost: Floats
    score: Floats
    dropped: float
    first: int
    last: int
    history: dict[int, tuple[Ints, Ints]]

    def steps_of(self, chain: Chain, path: int) -> list[int]:
        """Return the steps of one path."""
        found = []
        boundary, label = self.last, path
        while boundary != self.first:
            parents, steps = self.history[boundary]
            step = int(steps[label])
            found.append(step)
            label = int(parents[label])
            entry = int(chain.entry[chain.group[step]])
            boundary = int(np.searchsorted(chain.entry_starts, entry, side="right")) - 1
        return found


def front_of_block(chain: Chain, ends: tuple[int, int], limits: Limits) -> Front:
    """Return the front of a long block of the chain.

    Args:
        chain: the chain.
        ends: the block's first boundary and its last.
        limits: what may be dropped; without bounds every undominated path is kept.
    """
    first, last = ends
    block = int(np.searchsorted(chain.block_exits, chain.exit_starts[last]))
    one = np.zeros(1, dtype=np.int64)
    live = {first: _Labels(np.zeros(1), np.zeros(1), one, one, one)}
    history: dict[int, tuple[Ints, Ints]] = {}
    until = np.zeros(len(chain.entry_starts), dtype=np.int64)  # the last exit reached from each boundary
    begin = np.searchsorted(chain.entry_starts, chain.entry, side="right") - 1
    np.maximum.at(until, begin, chain.exit)
    ways = int(
        np.bincount(begin[chain.group], minlength=last + 1)[first:last].max()
    )  # steps on from a boundary
    width = min(limits.width, _MOST_HISTORY // (last - first), max(1, _MOST_MADE // ways))
    dropped = -math.inf
    for boundary in range(first + 1, last + 1):
        stop = chain.stops.get(boundary)
        if stop is None:
            continue
        labels = _arrived(chain, stop, block, live, limits)
        if time.perf_counter() > limits.deadline and boundary < last:
            dropped = max([dropped, *_best_bound(limits, block, labels).tolist()])
            return Front(np.zeros(0), np.zeros(0), dropped, first, last, history)
        if len(labels.cost) > width:
            worth = _best_bound(limits, block, labels)
            order = np.argpartition(-worth, width)
            dropped = max(dropped, float(worth[order[width:]].max()))
            labels = labels.pick(np.sort(order[:width]))
        history[boundary] = (labels.parent.astype(np.int32), labels.step.astype(np.int32))
        live[boundary] = labels
        for past in [at for at in live if at < boundary and until[at] < chain.exit_starts[boundary + 1]]:
            del live[past]  # no item leads from there beyond this boundary
    done = live[last]
    return Front(done.cost, done.score, dropped, first, last, history)


def _best_bound(limits: Limits, block: int, labels: _Labels) -> Floats:
    found = np.full(len(labels.cost), math.inf)
    for bound in limits.bounds:
        np.minimum(found, bound.of(block, labels.exit, labels.cost, labels.score), out=found)
    return found


def _arrived(chain: Chain, stop: Stop, block: int, live: dict[int, _Labels], limits: Limits) -> _Labels:
    """Return the undominated labels at a boundary, by exit."""
    entered: dict[int, tuple[Floats, Floats, Ints]] = {}
    found: list[_Labels] = []
    for exit_ in range(stop.exits.start, stop.exits.stop):
        made: list[_Labels] = []
        for group in range(*stop.groups_of(exit_).indices(len(chain.firsts))):
            entry = int(chain.entry[group])
            if entry not in entered:
                entered[entry] = _entering(chain, entry, live)
            made.append(_expanded(chain, group, entered[entry], exit_, block, limits))
        labels = _Labels(*(np.concatenate(column) for column in zip(*map(_columns, made), strict=True)))
        order = np.lexsort((-labels.score, labels.cost))
        found.append(labels.pick(order[_rising(labels.score[order])]))
    return _Labels(*(np.concatenate(column) for column in zip(*map(_columns, found), strict=True)))


def _columns(labels: _Labels) -> tuple[Floats, Floats, Ints, Ints, Ints]:
    return labels.cost, labels.score, labels.exit, labels.parent, labels.step


def _rising(score: Floats) -> Ints:
    """Return where the scores exceed all before."""
    keep = np.ones(len(score), dtype=np.bool_)
    keep[1:] = score[1:] > np.maximum.accumulate(score)[:-1]
    return np.flatnonzero(keep)


def _entering(chain: Chain, entry: int, live: dict[int, _Labels]) -> tuple[Floats, Floats, Ints]:
    """Return cost, score and number of the undominated labels that go on into an entry."""
    boundary = int(np.searchsorted(chain.entry_starts, entry, side="right")) - 1
    labels = live[boundary]
    table = chain.tables.get(boundary)
    if table is None:
        return labels.cost, labels.score, np.arange(len(labels.cost))
    column = table[:, entry - int(chain.entry_starts[boundary])]
    cost = labels.cost + column[labels.exit - int(chain.exit_starts[boundary])]
    order = np.lexsort((-labels.score, cost))
    order = order[_rising(labels.score[order])]
    return cost[order], labels.score[order], order


def _expanded(
    chain: Chain,
    group: int,
    entered: tuple[Floats, Floats, Ints],
    exit_: int,
    block: int,
    limits: Limits,
) -> _Labels:
    """Return the labels of one entry with each step of a group, as far as they keep the limits."""
    lo = int(chain.firsts[group])
    hi = int(chain.firsts[group + 1]) if group + 1 < len(chain.firsts) else len(chain.item)
    cost = (chain.cost[lo:hi, None] + entered[0]).ravel()
    score = (chain.score[lo:hi, None] + entered[1]).ravel()
    keep = cost <= limits.capacity
    for bound in limits.bounds:
        keep &= bound.of(block, exit_, cost, score) > limits.floor
    kept = np.flatnonzero(keep)
    count = max(1, len(entered[0]))
    exits = np.full(len(kept), exit_)
    return _Labels(cost[kept], score[kept], exits, entered[2][kept % count], lo + kept // count)
