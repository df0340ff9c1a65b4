"""Better paths of a chain by exchanging one item at a time, terms with its neighbours counted."""

from __future__ import annotations

import math

import numpy as np

from lanaprof.solver.chain import Chain, Path
from lanaprof.solver.problem import Floats, Ints

__all__ = ["exchanged"]

_MOST_EXCHANGES = 60  # the sweeps do the rest better


def exchanged(chain: Chain, path: Path, capacity: float) -> Path | None:
    """Return the path after the best single exchanges, from where it stands; None when it stays beyond the capacity."""
    place = _Place(chain, path.steps)
    spent = path.cost
    for _ in range(_MOST_EXCHANGES):
        change, gain = place.changes()
        fits = spent + change <= capacity
        if spent <= capacity:
            fits &= gain > 0
        best = int(np.argmax(np.where(fits, gain, -math.inf)))
        if not fits[best]:
            break
        spent += float(change[best])
        place.exchange(best)
    if spent > capacity:
        return None
    return Path(place.steps, spent, float(chain.score[place.steps].sum()))


class _Place:
    """A path in its chain, with what the terms at each boundary cost any entry and exit beside it."""

    def __init__(self, chain: Chain, steps: Ints) -> None:
        self.chain = chain
        self.steps = steps[np.argsort(chain.exit[chain.group[steps]])]
        boundaries = np.arange(len(chain.entry_starts) - 1)
        self._first = np.repeat(boundaries, np.diff(chain.entry_starts))[chain.entry]
        self._last = np.repeat(boundaries, np.diff(chain.exit_starts))[chain.exit]
        self._entered, self._left = (
            np.zeros(int(chain.entry_starts[-1])),
            np.zeros(int(chain.exit_starts[-1])),
        )
        held = chain.group[self.steps]
        self._after = dict(
            zip(self._first[held].tolist(), range(len(held)), strict=True)
        )  # boundary → its step
        at = np.full(len(boundaries), -1)
        at[self._first[held]] = np.arange(len(held))
        self._slot = at[self._first]  # (groups,) whose place on the path the group may take, or -1
        self._slot[self._last != self._last[held][self._slot]] = -1
        for boundary in chain.tables:
            self._look(boundary)

    def _look(self, boundary: int) -> None:
        table, number = self.chain.tables.get(boundary), self._after.get(boundary)
        if table is None or number is None:
            return
        chain, stop = self.chain, self.chain.stops[boundary]
        before, after = chain.group[self.steps[number - 1]], chain.group[self.steps[number]]
        self._entered[stop.entries] = table[chain.exit[before] - stop.exits.start]
        self._left[stop.exits] = table[:, chain.entry[after] - stop.entries.start]

    def changes(self) -> tuple[Floats, Floats]:
        """Return what taking each step instead of the one in its place changes in cost and score, (steps,)."""
        chain = self.chain
        beside = self._entered[chain.entry] + self._left[chain.exit]
        held = chain.group[self.steps]
        cost, score = chain.cost[self.steps] + beside[held], chain.score[self.steps]
        # Groups that fit no place change the cost by infinity.
        fitting = np.where(self._slot >= 0, beside - cost[self._slot], math.inf)
        return chain.cost + fitting[chain.group], chain.score - score[self._slot][chain.group]

    def exchange(self, step: int) -> None:
        """Put a step in its place."""
        group = int(self.chain.group[step])
        self.steps[int(self._slot[group])] = step
        self._look(int(self._first[group]))
        self._look(int(self._last[group]))
