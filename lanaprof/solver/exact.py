"""The exact selector for one budget: bound, fix, and sweep what is left (numpy only).

The steps: dominance and hull (stairs.py), the Lagrangian bound at the critical slope, a first choice by rounding
and single exchanges, fixing of every candidate whose regret exceeds the gap, and dynamic programming over the
core (core.py), first narrow for a better choice, then wide for the proof. What the widest sweep leaves open goes
to HiGHS on the few candidates not fixed; the bound returned holds in every case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lanaprof.solver.check import Answer, score_of
from lanaprof.solver.core import open_core, sweep
from lanaprof.solver.problem import Bools, Floats, Ints, Problem, slack_of
from lanaprof.solver.restrict import empty_layers, raise_infeasible, restrict
from lanaprof.solver.stairs import Relaxation, Stairs, build_stairs, sum_of, whole_spare
from lanaprof.solver.structured import solve_structured

__all__ = ["Found", "solve_exact", "solve_stairs", "stairs_of"]

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


def solve_exact(problem: Problem, budgets: Mapping[str, float], *, time_limit_s: float) -> Answer:
    """Return the best choice for at most one summed budget, spans and pairs of neighbours included.

    Anything else is handed on to the integer program.

    Raises:
        InfeasibleBudget: no choice meets the budget.
    """
    deadline = time.perf_counter() + time_limit_s
    restriction = restrict(problem, budgets)
    if not restriction.is_plain or len(restriction.sums) > 1:
        answer = solve_structured(problem, budgets, restriction, deadline=deadline)
        if answer is not None:
            return answer
        from lanaprof.solver.mip import solve_mip

        return solve_mip(problem, budgets, time_limit_s=time_limit_s)
    if len(empty_layers(problem, restriction.allowed)):
        raise_infeasible(budgets, _least(problem, budgets))
    if not restriction.sums:
        items = best_items(problem, restriction.allowed)
        return Answer(tuple(items.tolist()), score_of(problem, items), True, "exact")
    k, budget = restriction.sums[0]
    stairs, spare = stairs_of(problem, restriction.allowed, k, budget=budget)
    if spare < 0:
        raise_infeasible(budgets, _least(problem, budgets))
    slack = slack_of(budget, float(problem.fixed[k]))
    spare = whole_spare(stairs.cost * stairs.cost_scale, spare, slack)
    found = solve_stairs(
        stairs, spare / stairs.cost_scale, slack=slack / stairs.cost_scale, deadline=deadline
    )
    answer = _answer(problem, stairs, found)
    if found.proved or found.open_steps is None or time.perf_counter() > deadline:
        return answer
    return _finish_with_mip(problem, budgets, stairs, found, answer=answer, deadline=deadline)


def stairs_of(problem: Problem, allowed: Bools, k: int, *, budget: float) -> tuple[Stairs, float]:
    """Return the stairs of the allowed candidates by cost ``k``, and what the budget leaves above the least cost.

    Every layer must have an allowed candidate. When the spare amount is negative nothing is left out of the stairs.
    """
    count = problem.candidate_count
    item: Ints | None = None
    starts, cost, score = problem.starts, problem.costs[k, :count], problem.scores[:count]
    if not allowed[:count].all():
        item = np.flatnonzero(allowed[:count])
        starts, cost, score = np.searchsorted(item, starts), cost[item], score[item]
    fixed = float(problem.fixed[k])
    slack = slack_of(budget, fixed)
    spare = budget + slack - sum_of(np.append(np.minimum.reduceat(cost, starts[:-1]), fixed))
    reach = spare if spare >= 0 else math.inf
    stairs = build_stairs(starts, item, cost=cost, score=score, spare=reach, unit=slack * 1e12)
    return stairs, spare


def best_items(problem: Problem, allowed: Bools) -> Ints:
    """Return each layer's best-scoring allowed candidate: the answer when no sum is bounded."""
    score = np.where(allowed, problem.scores, -math.inf)[: problem.candidate_count]
    top = np.maximum.reduceat(score, problem.starts[:-1])
    best = np.flatnonzero(score == np.repeat(top, np.diff(problem.starts)))
    return best[np.searchsorted(best, problem.starts[:-1])]


def _least(problem: Problem, budgets: Mapping[str, float]) -> dict[str, float]:
    if not (problem.spans or problem.rows or problem.pairs):
        return least_of_plain(problem, budgets)
    from lanaprof.solver.mip import least_of  # the budgets left a plain problem, but each alone may not

    return least_of(problem, budgets)


def least_of_plain(problem: Problem, budgets: Mapping[str, float]) -> dict[str, float]:
    """Return the least reachable value of each budgeted cost, ignoring spans, pairs and rows."""
    allowed = restrict(problem, {}).allowed
    if len(empty_layers(problem, allowed)):
        return {}
    least = {}
    for name in budgets:
        k = problem.cost_index(name)
        cost = np.where(allowed, problem.costs[k], math.inf)[: problem.candidate_count]
        lows = [float(problem.fixed[k]), *np.minimum.reduceat(cost, problem.starts[:-1]).tolist()]
        least[name] = max(lows) if problem.is_max[k] else math.fsum(lows)
    return least


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


def _answer(problem: Problem, stairs: Stairs, found: Found) -> Answer:
    items = stairs.item[found.steps]
    score = score_of(problem, items)
    bound = score if found.proved else max(score, stairs.top_score + found.bound * stairs.score_scale)
    return Answer(tuple(items.tolist()), bound, found.proved, "exact")


def _finish_with_mip(
    problem: Problem,
    budgets: Mapping[str, float],
    stairs: Stairs,
    found: Found,
    *,
    answer: Answer,
    deadline: float,
) -> Answer:
    """Return the answer after HiGHS looked at the steps a better choice may still use."""
    from lanaprof.solver.mip import solve_mip

    allowed = np.zeros(len(problem.scores), dtype=np.bool_)
    allowed[stairs.item[found.open_steps]] = True
    left = max(0.0, deadline - time.perf_counter())
    other = solve_mip(problem, budgets, time_limit_s=left, allowed=allowed, known=answer)
    return Answer(other.items, min(answer.bound, other.bound), other.proved, "exact")
