"""Layers as a chain: spans and terms between neighbours as a layered graph in which best paths are cheap to find.

An item (candidate or span) leads from the boundary before its first layer to the one behind its last. What the pair
terms of a boundary make of two items depends on their row and column there: items of equal rows share an *exit*, items
of equal columns an *entry*, and a path goes entry, item, exit, table, next entry. A boundary that no span crosses and
where one row or one column is left is a *cut*; what lies between two cuts is a *block*. Without spans and pairs every
layer is a block of its own, and so is most of what the bounds leave of any problem.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lanaprof.solver.problem import Bools, Floats, Ints

__all__ = ["Chain", "Path", "Stop"]


@dataclass(frozen=True, slots=True)
class Stop:
    """A boundary behind the first of a block longer than a layer: what arrives at it and leaves it."""

    boundary: int
    arriving: slice  # groups
    arriving_entries: Ints
    arriving_firsts: Ints  # of each exit, within the arriving groups
    exits: slice
    is_end: bool
    entries: slice
    departing: Ints  # groups in order of their entries; none at the end of the block
    departing_exits: Ints
    departing_firsts: Ints

    def groups_of(self, exit_: int) -> slice:
        """Return the groups that end in an exit of this boundary."""
        at = exit_ - self.exits.start
        lo = self.arriving.start + int(self.arriving_firsts[at])
        is_last = at + 1 == len(self.arriving_firsts)
        return slice(
            lo, self.arriving.stop if is_last else self.arriving.start + int(self.arriving_firsts[at + 1])
        )


@dataclass(frozen=True, slots=True)
class Path:
    """A choice: one step of each block or more, its cost (tables included) and score, shifted and scaled."""

    steps: Ints
    cost: float
    score: float


@dataclass(frozen=True, slots=True)
class Chain:
    """The undominated items of a problem under one cost, as a graph.

    Costs are shifted so that the cheapest path costs 0 and no piece less than 0, scores so that the best path scores 0
    and no item more; both are divided by a power of two (which rounds nothing away) to sit near 1.

    Attributes:
        item, cost, score: (steps,) sorted by group, then rising cost and score.
        group: (steps,) group of each; a group is all the steps of one entry and one exit.
        firsts: (groups,) first step of each; groups are sorted by exit.
        entry, exit: (groups,).
        block: (groups,) block of each.
        block_exits: (blocks,) the exit in which each block ends.
        lone: (groups,) whether the group is all of a block of one layer.
        entry_starts, exit_starts: (boundaries + 1,) first entry and exit of each boundary.
        long: (first boundary, last boundary) of each other block.
        stops: the boundaries behind the first of long blocks, in order.
        tables: boundary → (exits, entries) cost, where there is more than one of either.
        least_cost, top_score: what the shifts took off; ``cost_scale``, ``score_scale`` what was divided by.
    """

    item: Ints
    cost: Floats
    score: Floats
    group: Ints
    firsts: Ints
    entry: Ints
    exit: Ints
    block: Ints
    block_exits: Ints
    lone: Bools
    entry_starts: Ints
    exit_starts: Ints
    long: tuple[tuple[int, int], ...]
    stops: dict[int, Stop]
    tables: dict[int, Floats]
    least_cost: float = 0.0
    top_score: float = 0.0
    cost_scale: float = 1.0
    score_scale: float = 1.0

    def forward(self, value: Floats, price: float) -> tuple[Floats, Floats]:
        """Return the best sum from its block's beginning to each entry and each exit, for (groups,) values."""
        entries, exits = np.zeros(int(self.entry_starts[-1])), np.zeros(int(self.exit_starts[-1]))
        exits[self.exit[self.lone]] = value[self.lone]
        for stop in self.stops.values():
            arrived = value[stop.arriving] + entries[stop.arriving_entries]
            exits[stop.exits] = reached = np.maximum.reduceat(arrived, stop.arriving_firsts)
            if not stop.is_end:
                table = self.tables.get(stop.boundary)
                if table is not None:
                    reached = (reached[:, None] - price * table).max(axis=0)
                entries[stop.entries] = reached
        return entries, exits

    def backward(self, value: Floats, price: float) -> Floats:
        """Return the best sum from each exit to its block's end."""
        exits = np.zeros(int(self.exit_starts[-1]))
        for stop in reversed(self.stops.values()):
            if stop.is_end:
                continue
            onward = value[stop.departing] + exits[stop.departing_exits]
            reached = np.maximum.reduceat(onward, stop.departing_firsts)
            table = self.tables.get(stop.boundary)
            exits[stop.exits] = reached if table is None else (reached - price * table).max(axis=1)
        return exits

    def best_path(self, reduced: Floats, price: float) -> tuple[Path, Floats, Floats]:
        """Return a path of the highest sum of (steps,) reduced values, with the sums of ``forward``."""
        value = np.maximum.reduceat(reduced, self.firsts)
        entries, exits = self.forward(value, price)
        number = np.where(reduced == value[self.group], np.arange(len(reduced)), len(reduced))
        best = np.minimum.reduceat(number, self.firsts)
        walked: list[int] = []
        in_tables = 0.0
        for first, last in self.long:
            boundary, at = last, self.stops[last].exits.start
            while True:
                stop = self.stops[boundary]
                ways = stop.groups_of(at)
                group = ways.start + int(np.argmax(value[ways] + entries[self.entry[ways]]))
                walked.append(int(best[group]))
                entry = int(self.entry[group])
                boundary = int(np.searchsorted(self.entry_starts, entry, side="right")) - 1
                if boundary == first:
                    break
                at = self.stops[boundary].exits.start
                table = self.tables.get(boundary)
                if table is not None:
                    column = table[:, entry - self.stops[boundary].entries.start]
                    came = int(np.argmax(exits[self.stops[boundary].exits] - price * column))
                    at, in_tables = at + came, in_tables + float(column[came])
        steps = np.concatenate([best[self.lone], np.array(walked, dtype=np.int64)])
        path = Path(steps, float(self.cost[steps].sum()) + in_tables, float(self.score[steps].sum()))
        return path, entries, exits

    def regrets(self, price: float, entries: Floats, exits: Floats) -> Floats:
        """Return by how much the best path through each step falls short of the best of all, at a price; (steps,).

        ``entries`` and ``exits`` are the sums of ``forward`` at this price.
        """
        reduced = self.score - price * self.cost
        onward = self.backward(np.maximum.reduceat(reduced, self.firsts), price)
        through = entries[self.entry] + onward[self.exit] - exits[self.block_exits][self.block]
        return -(through[self.group] + reduced)
