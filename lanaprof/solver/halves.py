"""The best solution near the bound under several rows: two halves of the layers, each listed, then matched.

At the prices of the linear relaxation a solution's score is the ceiling less the regrets of its columns and less each
row's price for what it leaves of the row. So all solutions within a reach of the ceiling are made of columns whose
regrets add up to no more: few, where the reach is small. Half of the layers has about the square root as many choices
as all of them, and of a half's choices only those match one of the other half that nearly fill the dearest row with it.
After Horowitz & Sahni, "Computing partitions with applications to the knapsack problem", Journal of the ACM 21 (1974).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.linear import LinearModel
from lanaprof.solver.problem import Floats, Ints

__all__ = ["Reached", "best_near", "best_within"]

_MOST_CHOICES = 600_000  # of one half: about 150 MB with ten rows
_MOST_PAIRS = 100_000_000  # looked at for one reach: some seconds
_PAIRS = 2_000_000  # looked at together
_BINS = 24  # of the second half's choices by regret: most of them match few of the first
_STEP = 1.5  # from one reach to the next; a step costs two to five times as much as the one before
_FIRST_OPEN = 10  # layers with a second choice within the first reach
_ROUNDING = 1e-12  # of rows scaled to sit near 1


@dataclass(frozen=True, slots=True)
class Reached:
    """The best columns found within the reach (None: no sound ones), and whether all within it were looked at."""

    columns: Ints | None
    is_complete: bool


@dataclass(frozen=True, slots=True)
class _Half:
    """Choices for some layers: (choices,) regret, (rows, choices) use, and how to read their columns."""

    regret: Floats
    use: Floats
    history: tuple[tuple[Ints, Ints], ...]  # per layer: parents, columns

    def columns_of(self, choice: int) -> list[int]:
        found = []
        for parents, columns in reversed(self.history):
            found.append(int(columns[choice]))
            choice = int(parents[choice])
        return found


def best_near(
    model: LinearModel,
    price: Floats,
    regret: Floats,
    *,
    gap: float,
    is_sound: Callable[[Ints], bool],
    deadline: float,
) -> tuple[Reached, float]:
    """Return the best solution within the gap below the ceiling, and the reach that was searched in full.

    The reach grows until a solution is found, the gap is searched, or the halves get too large: then the columns are
    None, ``is_complete`` is False, and no solution is better than the ceiling less the reach. Arguments as for
    ``best_within``; the gap may be infinite.
    """
    order = np.lexsort((regret, model.first))
    second = np.flatnonzero(model.first[order[1:]] == model.first[order[:-1]])
    firsts = np.concatenate([[True], model.first[order[1:]] != model.first[order[:-1]]])
    rivals = np.sort(regret[order[second + 1]][firsts[second]])
    everything = float(
        np.bincount(model.first, weights=np.maximum(regret, 0.0)).sum()
    )  # beyond it nothing lies
    last = min(
        gap, everything + float(price @ np.abs(model.high)) + float(price @ np.abs(model.matrix).sum(axis=1))
    )
    reach = float(rivals[min(_FIRST_OPEN, len(rivals)) - 1]) if len(rivals) else last
    searched = 0.0
    while True:
        reach = min(max(reach, 1e-12), last)
        found = best_within(model, price, regret, reach=reach, is_sound=is_sound, deadline=deadline)
        if found.columns is not None or not found.is_complete or reach >= last:
            return found, reach if found.is_complete else searched
        searched, reach = reach, reach * _STEP


def best_within(
    model: LinearModel,
    price: Floats,
    regret: Floats,
    *,
    reach: float,
    is_sound: Callable[[Ints], bool],
    deadline: float,
) -> Reached:
    """Return the best solution whose score is within a reach of the ceiling.

    Args:
        model: without spans and products.
        price: (rows,) at least 0.
        regret: (columns,) of each column at these prices; 0 for the best ones of each layer.
        reach: how far below the ceiling to look, scaled like the scores.
        is_sound: judges the columns of a solution in exact numbers.
        deadline: by ``time.perf_counter``.
    """
    open_ = np.flatnonzero(regret <= reach)
    groups = np.split(open_, np.flatnonzero(np.diff(model.first[open_])) + 1)
    if len(open_) == 0 or len(groups) < model.layer_count:
        return Reached(None, is_complete=True)
    settled = [int(group[0]) for group in groups if len(group) == 1]
    several = sorted(
        (group for group in groups if len(group) > 1), key=lambda group: np.sort(regret[group])[1]
    )
    spent = float(regret[settled].sum())
    halves = [_half(model, several[start::2], regret, reach - spent, deadline=deadline) for start in (0, 1)]
    if halves[0] is None or halves[1] is None:
        return Reached(None, is_complete=False)
    room = model.high - model.matrix[:, settled].sum(axis=1)
    search = _Search(halves[0], halves[1], price, room, reach - spent)

    def judged(one: int, other: int) -> Ints | None:
        columns = [*settled, *search.one.columns_of(one), *search.other.columns_of(other)]
        found = np.sort(np.array(columns, dtype=np.int64))
        return found if is_sound(found) else None

    is_complete = search.run(judged, deadline)
    return Reached(search.best, is_complete)


def _half(
    model: LinearModel, groups: list[Ints], regret: Floats, reach: float, *, deadline: float
) -> _Half | None:
    """Return every choice for some layers whose regrets add up to at most the reach; None when they are too many."""
    total, use = np.zeros(1), np.zeros((len(model.high), 1))
    history: list[tuple[Ints, Ints]] = []
    for columns in groups:
        sums = (regret[columns][:, None] + total).ravel()
        kept = np.flatnonzero(sums <= reach)
        if len(kept) > _MOST_CHOICES or time.perf_counter() > deadline:
            return None
        parents, chosen = kept % len(total), columns[kept // len(total)]
        use = use[:, parents] + model.matrix[:, chosen]
        total = sums[kept]
        history.append((parents.astype(np.int32), chosen.astype(np.int32)))
    return _Half(total, use, tuple(history))


class _Search:
    """Matches the choices of two halves, the best pair first where the order is free."""

    def __init__(self, one: _Half, other: _Half, price: Floats, room: Floats, reach: float) -> None:
        self.one, self.other, self.price, self.room, self.reach = one, other, price, room, reach
        self.best: Ints | None = None
        spread = np.array([np.ptp(use) for use in other.use])
        self.key = int(np.argmax(price * spread))  # the row that tells most pairs apart

    def run(self, judged: Callable[[int, int], Ints | None], deadline: float) -> bool:
        """Look at all pairs within the reach, which shrinks with what is found; return whether all were."""
        one, other, key = self.one, self.other, self.key
        ahead = np.argsort(one.regret)
        edges = np.linspace(0.0, self.reach, _BINS + 1)
        by_bin = np.minimum(np.searchsorted(edges, other.regret, side="right") - 1, _BINS - 1)
        looked = 0
        for number in range(_BINS):
            mine = np.flatnonzero(by_bin == number)
            if len(mine) == 0 or edges[number] > self.reach:
                continue
            mine = mine[np.argsort(other.use[key, mine])]
            uses = other.use[key, mine]
            some = ahead[: np.searchsorted(one.regret[ahead], self.reach - edges[number], side="right")]
            left = self.room[key] - one.use[key, some]
            until = np.searchsorted(uses, left + _ROUNDING, side="right")
            since = np.zeros(len(some), dtype=np.int64)
            if self.price[key] > 0:
                window = (self.reach - edges[number] - one.regret[some]) / self.price[key]
                since = np.searchsorted(uses, left - window - _ROUNDING, side="left")
            counts = np.maximum(until - since, 0)
            looked += int(counts.sum())
            if looked > _MOST_PAIRS:
                return False
            ends = np.cumsum(counts)
            start = 0
            while start < len(some):
                if time.perf_counter() > deadline:
                    return False
                before = int(ends[start - 1]) if start else 0
                stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
                part = slice(start, stop)
                first = np.repeat(some[part], counts[part])
                place = np.arange(len(first)) - np.repeat(ends[part] - counts[part] - before, counts[part])
                second = mine[np.repeat(since[part], counts[part]) + place]
                self._match(first, second, judged)
                start = stop
        return True

    def _match(self, first: Ints, second: Ints, judged: Callable[[int, int], Ints | None]) -> None:
        """Take the best sound one of these pairs if it is within the reach."""
        one, other, key = self.one, self.other, self.key
        regret = one.regret[first] + other.regret[second]
        slack = self.room[key] - one.use[key, first] - other.use[key, second]
        near = np.flatnonzero(regret + self.price[key] * slack <= self.reach)
        first, second, regret = first[near], second[near], regret[near]
        for row in range(len(self.room)):
            slack = self.room[row] - one.use[row, first] - other.use[row, second]
            regret = regret + self.price[row] * np.maximum(slack, 0.0)
            fits = np.flatnonzero((slack >= -_ROUNDING) & (regret <= self.reach))
            first, second, regret = first[fits], second[fits], regret[fits]
        for at in np.argsort(regret).tolist():
            found = judged(int(first[at]), int(second[at]))
            if found is not None:
                self.best, self.reach = found, float(regret[at])
                return
