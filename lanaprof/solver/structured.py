"""The exact selector for one budget with spans and with pairs of neighbours.

As for plain problems (exact.py), in a graph (chain.py, made by links.py): a Lagrangian bound by longest paths at the
critical price; every step through which no path comes within the gap is struck out, and what is left falls apart into
blocks. The undominated paths of a block (labels.py) are the steps of one layer of a plain problem, swept as such.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.chain import Chain, Path
from lanaprof.solver.check import Answer, score_of
from lanaprof.solver.exchange import exchanged
from lanaprof.solver.labels import Bound, Front, Limits, front_of_block
from lanaprof.solver.links import Terms, build_chain, neighbour_terms
from lanaprof.solver.problem import Floats, Ints, Problem, slack_of
from lanaprof.solver.restrict import Restriction, raise_infeasible
from lanaprof.solver.stairs import Stairs, build_stairs, starts_of, whole_spare
from lanaprof.solver.sweeping import solve_stairs

__all__ = ["Search", "maximised", "merged", "solve_structured", "steps_of"]

_WIDTHS = (1_000, 20_000, 300_000)  # labels kept a boundary, sweep after sweep
_MOST_PRICES = 40  # most problems need about ten
_NEAR = 0.02  # of the gap to the best choice: a bound so near to the best one strikes out as much
_FEWER = 0.7  # of the steps: when fixing leaves less, a new chain of the rest is worth its time
_BENT = (
    1.0,
    0.5,
    0.75,
    1.5,
    2.5,
)  # of the critical price: a bound at each bends with the room a label has left


@dataclass(frozen=True, slots=True)
class _Dual:
    """The Lagrangian bound of a chain at its critical price, with the best path inside that the search met."""

    price: float
    ceiling: float
    entries: Floats
    exits: Floats
    inside: Path


@dataclass(slots=True)
class Search:
    """What a run carries along: the question, the best choice known, and the bound on all choices."""

    problem: Problem
    k: int | None
    terms: Terms
    room: float
    slack: float
    deadline: float
    items: tuple[int, ...] | None = None
    score: float = -math.inf
    ceiling: float = math.inf
    left: tuple[int, ...] = ()  # items of choices not looked at when the search ended

    def offer(self, items: Ints) -> None:
        """Take the items as the best choice known if they score more and are inside the budget in exact numbers."""
        score = score_of(self.problem, items)
        if score > self.score and self._cost_of(items) <= self.room + self.slack:
            self.items, self.score = tuple(sorted(items.tolist())), score

    def _cost_of(self, items: Ints) -> float:
        """Return the cost of the items, terms included, ``fixed`` not."""
        if self.k is None:
            return 0.0
        held = np.zeros(len(self.problem.scores), dtype=np.bool_)
        held[items] = True
        both = held[self.terms.before] & held[self.terms.after]
        return math.fsum([*self.problem.costs[self.k, items].tolist(), *self.terms.value[both].tolist()])

    def floor(self, chain: Chain) -> float:
        """Return what a better choice must score in the chain's numbers: more than rounding above the best known."""
        gain = (self.score - chain.top_score) / chain.score_scale
        return gain + 1e-13 * max(1.0, abs(gain)) if math.isfinite(gain) else gain

    def answer(self, *, proved: bool) -> Answer:
        """Return the best choice known, with its bound."""
        assert self.items is not None
        bound = self.score if proved else max(self.score, self.ceiling)
        return Answer(self.items, bound, proved, "exact")


def solve_structured(
    problem: Problem, budgets: Mapping[str, float], restriction: Restriction, *, deadline: float
) -> Answer | None:
    """Return the best choice; None when the problem is no chain: rows, several sums, pairs over a distance.

    Raises:
        InfeasibleBudget: no choice meets the budgets.
    """
    if problem.rows or len(restriction.sums) > 1:
        return None
    k, budget = restriction.sums[0] if restriction.sums else (None, 0.0)
    terms = neighbour_terms(problem, -1 if k is None else k)
    if terms is None:
        return None
    fixed = float(problem.fixed[k]) if k is not None else 0.0
    slack = slack_of(budget, fixed)
    search = Search(problem, k, terms, budget + slack - fixed, slack, deadline)
    chain = build_chain(problem, k, restriction.allowed, terms=terms, room=search.room)
    if chain is None:
        raise_infeasible(budgets, _least(problem, budgets))
    answer = maximised(search, chain)
    if answer.proved or time.perf_counter() > deadline:
        return answer
    return _finished_by_program(problem, budgets, search, answer)


def _finished_by_program(
    problem: Problem, budgets: Mapping[str, float], search: Search, answer: Answer
) -> Answer:
    """Return the answer after HiGHS looked at the items that a better choice may still use."""
    from lanaprof.solver.mip import solve_mip

    allowed = np.zeros(len(problem.scores), dtype=np.bool_)
    allowed[[*search.left, *answer.items]] = True
    left_s = max(0.0, search.deadline - time.perf_counter())
    other = solve_mip(problem, budgets, time_limit_s=left_s, allowed=allowed, known=answer)
    return Answer(other.items, min(answer.bound, other.bound), other.proved, "exact")


def maximised(search: Search, chain: Chain, *, hull: list[Path] | None = None) -> Answer:
    """Return the best choice among the paths of a chain, of which at least one is inside the room.

    Args:
        search: the question; not used for another one yet.
        chain: all that may be chosen.
        hull: paths known to support the concave hull of (cost, score) over all paths; those found are added.
    """
    reduced, dual = _reduced(search, chain, hull)
    if reduced is None or dual is None:
        return search.answer(proved=True)
    chain = reduced
    for width in _WIDTHS:
        dropped, bound = _swept(search, chain, dual, width)
        floor = search.floor(chain)
        if max(dropped, bound) <= floor:
            return search.answer(proved=True)
        search.ceiling = min(search.ceiling, chain.top_score + max(dropped, bound) * chain.score_scale)
        search.left = tuple(chain.item.tolist())
        if time.perf_counter() > search.deadline or dropped == -math.inf:
            break  # wider labels would change nothing: it is their merged problem that stays open
        reduced, again = _reduced(search, chain)
        if reduced is None or again is None:
            return search.answer(proved=True)
        chain, dual = reduced, again
    return search.answer(proved=False)


def _reduced(
    search: Search, chain: Chain, hull: list[Path] | None = None
) -> tuple[Chain | None, _Dual | None]:
    """Return what is left of a chain when all is fixed that can be, with its bound; None when nothing better is."""
    while True:
        capacity = _capacity(search, chain)
        dual = _dual(search, chain, capacity, [] if hull is None else hull)
        hull = None  # another chain has another one
        search.offer(chain.item[dual.inside.steps])
        floor = search.floor(chain)
        search.ceiling = min(search.ceiling, chain.top_score + dual.ceiling * chain.score_scale)
        if dual.ceiling <= floor:
            return None, None
        open_steps = dual.ceiling - chain.regrets(dual.price, dual.entries, dual.exits) > floor
        left = int(open_steps.sum())
        if left == len(open_steps):
            return chain, dual
        allowed = np.zeros(len(search.problem.scores), dtype=np.bool_)
        allowed[chain.item[open_steps]] = True
        smaller = build_chain(search.problem, search.k, allowed, terms=search.terms, room=search.room)
        if smaller is None:
            return None, None
        is_worth = left < _FEWER * len(open_steps)
        chain = smaller
        if not is_worth:
            return chain, _dual(search, chain, _capacity(search, chain), [])


def _capacity(search: Search, chain: Chain) -> float:
    """Return what may be spent above the cheapest path, in the chain's numbers."""
    spare = search.room - chain.least_cost
    if math.isinf(spare):
        return spare
    costs = [chain.cost, *(table.ravel() for table in chain.tables.values())]
    whole = whole_spare(np.concatenate(costs) * chain.cost_scale, spare, search.slack)
    return max(0.0, whole / chain.cost_scale)


def _dual(search: Search, chain: Chain, capacity: float, hull: list[Path]) -> _Dual:
    """Return the bound at the critical price, by secants between a path inside the capacity and one beyond it.

    Every price's path supports the concave hull of (cost, score) over all paths, and the secant's price is that of the
    hull's edge at the capacity when no path is above it (Handler & Zang, Networks 10, 1980).
    """
    if not hull:
        hull += [chain.best_path(-chain.cost, 1.0)[0], chain.best_path(chain.score, 0.0)[0]]
    inside = max((path for path in hull if path.cost <= capacity), key=lambda path: path.cost)
    beyond = min((path for path in hull if path.cost > capacity), key=lambda path: path.cost, default=None)
    best = max((path for path in hull if path.cost <= capacity), key=lambda path: path.score)
    if beyond is None:
        _, entries, exits = chain.best_path(chain.score, 0.0)
        return _Dual(0.0, best.score, entries, exits, best)
    price = ceiling = 0.0
    for _ in range(_MOST_PRICES):
        price = (beyond.score - inside.score) / max(beyond.cost - inside.cost, 1e-300)
        path, entries, exits = chain.best_path(chain.score - price * chain.cost, price)
        hull.append(path)
        value = math.fsum(exits[chain.block_exits].tolist())
        ceiling = value + price * capacity
        if path.cost <= capacity:
            best = max(best, path, key=lambda one: one.score)
        above = value - (inside.score - price * inside.cost)  # the bound over the least one any price has
        if above <= max(1e-13 * max(1.0, abs(value)), _NEAR * (ceiling - best.score)):
            break
        if path.cost <= capacity:
            inside = path
        else:
            beyond = path
        if time.perf_counter() > search.deadline:
            break
    starts = (exchanged(chain, path, capacity) for path in (inside, beyond))
    best = max([best, *(path for path in starts if path is not None)], key=lambda one: one.score)
    return _Dual(price, ceiling, entries, exits, best)


def _swept(search: Search, chain: Chain, dual: _Dual, width: int) -> tuple[float, float]:
    """Look for a better choice among the chain's paths.

    Returns:
        The bound on paths dropped for the labels' width, and on those that the merged problem leaves open; -inf each
        when there are none.
    """
    capacity = _capacity(search, chain)
    floor = search.floor(chain)
    bounds = [] if not chain.long else [_bound(chain, dual.price * bend, capacity) for bend in _BENT]
    limits = Limits(capacity, floor, bounds, width, search.deadline)
    fronts = [front_of_block(chain, ends, limits) for ends in chain.long]
    dropped = max((front.dropped for front in fronts), default=-math.inf)
    if any(len(front.cost) == 0 for front in fronts):
        return dropped, -math.inf
    stairs = merged(chain, fronts, capacity=capacity, unit=search.slack * 1e12 / chain.cost_scale)
    spare = capacity - stairs.low_cost
    if spare < 0:
        return dropped, -math.inf
    found = solve_stairs(
        stairs,
        spare / stairs.cost_scale,
        slack=min(search.slack / chain.cost_scale, spare) / stairs.cost_scale,
        deadline=search.deadline,
    )
    search.offer(chain.item[steps_of(chain, fronts, stairs.item[found.steps])])
    bound = -math.inf if found.proved else stairs.top_score + found.bound * stairs.score_scale
    return dropped, bound


def _bound(chain: Chain, price: float, capacity: float) -> Bound:
    reduced = chain.score - price * chain.cost
    value = np.maximum.reduceat(reduced, chain.firsts)
    _, exits = chain.forward(value, price)
    blocks = exits[chain.block_exits]
    return Bound(price, math.fsum(blocks.tolist()) + price * capacity, blocks, chain.backward(value, price))


def merged(chain: Chain, fronts: list[Front], *, capacity: float, unit: float) -> Stairs:
    """Return the plain problem whose layers are the blocks: items are steps, and behind them paths of fronts."""
    lone = chain.lone[chain.group]
    long_blocks = np.flatnonzero(~np.isin(np.arange(len(chain.block_exits)), chain.block[chain.lone]))
    layer = np.concatenate(
        [
            chain.block[chain.group][lone],
            *(np.full(len(front.cost), at) for front, at in zip(fronts, long_blocks.tolist(), strict=True)),
        ]
    )
    count = sum(len(front.cost) for front in fronts)
    item = np.concatenate([np.flatnonzero(lone), len(chain.item) + np.arange(count)])
    cost = np.concatenate([chain.cost[lone], *(front.cost for front in fronts)])
    score = np.concatenate([chain.score[lone], *(front.score for front in fronts)])
    order = np.argsort(layer, kind="stable")
    starts = starts_of(layer[order])
    return build_stairs(starts, item[order], cost=cost[order], score=score[order], spare=capacity, unit=unit)


def steps_of(chain: Chain, fronts: list[Front], chosen: Ints) -> Ints:
    """Return the chain's steps behind the items of the merged problem."""
    ends = len(chain.item) + np.cumsum([0, *(len(front.cost) for front in fronts)])
    steps = chosen[chosen < len(chain.item)].tolist()
    for number in chosen[chosen >= len(chain.item)].tolist():
        at = int(np.searchsorted(ends, number, side="right")) - 1
        steps += fronts[at].steps_of(chain, number - int(ends[at]))
    return np.array(steps, dtype=np.int64)


def _least(problem: Problem, budgets: Mapping[str, float]) -> dict[str, float]:
    from lanaprof.solver.mip import least_of

    return least_of(problem, budgets)
