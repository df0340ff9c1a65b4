"""The exact selector for one budget: bound, fix, and sweep what is left (numpy only).

The candidates that matter become stairs (stairs.py), which are swept (sweeping.py). What the widest sweep leaves open
goes to HiGHS on the few candidates not fixed; the bound returned holds in every case.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from lanaprof.solver.cheapest import least_of_plain
from lanaprof.solver.check import Answer, score_of
from lanaprof.solver.problem import Bools, Ints, Problem, slack_of
from lanaprof.solver.restrict import empty_layers, raise_infeasible, restrict
from lanaprof.solver.stairs import Stairs, build_stairs, sum_of, whole_spare
from lanaprof.solver.structured import solve_structured
from lanaprof.solver.sweeping import Found, solve_stairs

__all__ = ["best_items", "solve_exact", "stairs_of"]


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


def _answer(problem: Problem, stairs: Stairs, found: Found) -> Answer:
    items = stairs.item[found.steps]
    score = sum_of(problem.scores[items])
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
