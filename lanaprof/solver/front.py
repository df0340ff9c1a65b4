"""The best score for every budget on one cost.

While few points exist, all of them are built exactly. Otherwise one dense dynamic program over a grid of budgets
finds where the front rises, and the points shown, spread over these rises, are solved exactly in floats.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

import numpy as np

from lanaprof.errors import BadInput, UserError
from lanaprof.solver.chain_front import answers_of_chain
from lanaprof.solver.check import Answer, Solution, check_answer, score_of
from lanaprof.solver.exact import best_items, stairs_of
from lanaprof.solver.problem import Bools, Floats, Ints, Problem
from lanaprof.solver.registry import get_selector
from lanaprof.solver.restrict import empty_layers, raise_infeasible, restrict
from lanaprof.solver.stairs import Stairs, complete_front
from lanaprof.solver.sweeping import solve_stairs

__all__ = ["best_scores", "frontier"]

_MOST_COMPLETE = 2_000  # states a layer while the whole front is built
_GRID_BUDGETS = 20_000  # 1 µs each for 20 ms
_GRID_WORK = 2_000_000_000  # steps × budgets: about two seconds
_GENERAL_POINTS = 25  # budgets swept where each costs an integer program


def frontier(
    problem: Problem, cost: str, *, points: int = 200, time_limit_s: float = 60.0
) -> tuple[Solution, ...]:
    """Return solutions from the cheapest to the best score, each costing more and scoring more than the last.

    Each one is the best for a budget of its own cost. With up to ``points`` of them in all, the front is complete;
    else those shown are spread over the budgets where a grid of 20,000 (fewer for very large problems) sees the
    front rise, or with spans and pairs of neighbours over even budgets. Problems with rows or pairs over a distance are
    solved at 25 budgets.

    Raises:
        BadProblem: no candidate carries the cost.
        BadInput: fewer than two points.
        InfeasibleBudget: rows, require and forbid leave no choice at all.
    """
    if points < 2:
        raise BadInput(f"a front of {points} points was asked for", hint="ask for 2 or more")
    k = problem.cost_index(cost)
    deadline = time.perf_counter() + time_limit_s
    structure = restrict(problem, {})
    if not structure.is_plain or any(pair.cost == k for pair in problem.pairs):
        found = _front_of_chain(problem, k, structure.allowed, points, deadline)
        if found is None:
            found = _general_front(problem, cost, min(points, _GENERAL_POINTS), deadline)
    elif len(empty_layers(problem, structure.allowed)):
        raise_infeasible({}, {})
    elif problem.is_max[k]:
        found = _front_of_maximum(problem, k, structure.allowed, points)
    else:
        found = _front_of_sum(problem, k, structure.allowed, points, deadline)
    return _rising(found, cost)


def _rising(solutions: list[Solution], cost: str) -> tuple[Solution, ...]:
    """Return the solutions that score more than every cheaper one; neither counts by what sums round."""
    kept: list[Solution] = []
    for solution in sorted(solutions, key=lambda s: (s.costs[cost], -s.score)):
        if kept and solution.score <= kept[-1].score + 1e-13 * abs(kept[-1].score):
            continue
        if kept and solution.costs[cost] - kept[-1].costs[cost] <= 1e-13 * abs(solution.costs[cost]):
            kept.pop()
        kept.append(solution)
    return tuple(kept)


def _front_of_sum(problem: Problem, k: int, allowed: Bools, points: int, deadline: float) -> list[Solution]:
    # A budget that everything fits into, with the unit of rounding that goes with it.
    ample = abs(float(problem.fixed[k])) + float(problem.costs[k].sum())
    stairs, _ = stairs_of(problem, allowed, k, budget=ample)
    complete = complete_front(stairs, _MOST_COMPLETE)
    if complete is not None:
        chosen = (
            complete if len(complete) <= points else [complete[i] for i in _spread(len(complete), points)]
        )
        return [_checked(problem, stairs.item[steps], True, None, 0.0) for steps in chosen]
    budgets = _budgets_worth_showing(stairs, points)
    found = []
    for capacity in budgets.tolist():
        start_s = time.perf_counter()
        best = solve_stairs(stairs, capacity, deadline=deadline)
        bound = stairs.top_score + best.bound * stairs.score_scale
        took_s = time.perf_counter() - start_s
        found.append(_checked(problem, stairs.item[best.steps], best.proved, bound, took_s))
    return found


def _checked(problem: Problem, items: Ints, proved: bool, bound: float | None, solve_s: float) -> Solution:
    score = score_of(problem, items)
    answer = Answer(
        tuple(items.tolist()), score if proved or bound is None else max(bound, score), proved, "exact"
    )
    return replace(check_answer(problem, {}, answer), solve_s=solve_s)


def _spread(count: int, wanted: int) -> list[int]:
    """Return indices spread evenly over ``count``, the first and the last among them."""
    places = np.linspace(0, count - 1, min(wanted, count)).round()
    return [int(place) for place in np.unique(places)]


def _budgets_worth_showing(stairs: Stairs, points: int) -> Floats:
    """Return scaled capacities at which the grid sees the front rise, at most ``points``, spread evenly in cost."""
    dearest = stairs.starts[1:] - 1
    reach = float(stairs.cost[dearest].sum())
    budgets = int(np.clip(_GRID_WORK // len(stairs.cost), 10 * points, _GRID_BUDGETS))
    step = reach / budgets
    whole = stairs.cost * stairs.cost_scale
    if reach * stairs.cost_scale <= 5 * budgets and (whole == np.round(whole)).all():
        # Whole numbers, and few: the grid is the problem itself.
        step, budgets = 1 / stairs.cost_scale, round(reach * stairs.cost_scale)
    scores = best_scores(stairs, step, budgets)
    rises = np.flatnonzero(scores[1:] > scores[:-1]) + 1
    # Costs were rounded up on the grid: the cheapest choice is below its first budget, and all fits at the end.
    wanted = np.linspace(0.0, reach, max(points - 2, 1))
    nearest = np.unique(rises[np.clip(np.searchsorted(rises * step, wanted), 0, len(rises) - 1)])
    return np.concatenate([[0.0], nearest * step, [reach * (1 + 1e-12)]])


def best_scores(stairs: Stairs, step: float, budgets: int) -> Floats:
    """Return the best scaled score for each budget 0, step, … budgets × step; -inf where nothing fits.

    Costs are rounded up to the grid, so that every score is reachable; when all costs are multiples of the step,
    every score is the optimum.
    """
    cells = np.ceil(stairs.cost / step - 1e-9).astype(np.int64).tolist()
    scores = stairs.score.tolist()
    best = np.zeros(budgets + 1)  # after no layer everything costs nothing
    starts = stairs.starts.tolist()
    for start, stop in itertools.pairwise(starts):
        new = np.full(budgets + 1, -math.inf)
        for at in range(start, stop):
            cell = cells[at]
            if cell > budgets:
                break
            np.maximum(new[cell:], best[: budgets + 1 - cell] + scores[at], out=new[cell:])
        best = new
    return best


def _front_of_maximum(problem: Problem, k: int, allowed: Bools, points: int) -> list[Solution]:
    """Return the front of a cost that combines by maximum: a limit only strikes candidates out."""
    count = problem.candidate_count
    items = np.flatnonzero(allowed[:count])
    items = items[np.argsort(problem.costs[k, items], kind="stable")]
    layer_of = problem.layer_of_items()
    best: dict[int, float] = {}
    limits = []
    layers, costs = layer_of[items].tolist(), problem.costs[k, items].tolist()
    for layer, cost, score in zip(layers, costs, problem.scores[items].tolist(), strict=True):
        if score > best.get(layer, -math.inf):
            best[layer] = score
            if len(best) == len(problem.layer_names):
                limits.append(cost)
    limits = sorted({max(limit, float(problem.fixed[k])) for limit in limits})
    return [
        _checked(problem, best_items(problem, allowed & (problem.costs[k] <= limits[i])), True, None, 0.0)
        for i in _spread(len(limits), points)
    ]


def _front_of_chain(
    problem: Problem, k: int, allowed: Bools, points: int, deadline: float
) -> list[Solution] | None:
    """Return the front with spans and pairs of neighbours; None when they or other rules need the integer program."""
    if problem.rows or problem.is_max[k]:
        return None
    answers = answers_of_chain(problem, k, allowed, points=points, most=_MOST_COMPLETE, deadline=deadline)
    if answers is None:
        return None
    if not answers:
        raise_infeasible({}, {})
    shown = [answers[i] for i in _spread(len(answers), points)]
    return [replace(check_answer(problem, {}, answer), solve_s=took_s) for answer, took_s in shown]


def _general_front(problem: Problem, cost: str, points: int, deadline: float) -> list[Solution]:
    """Return the front by one integer program for each of some budgets, spread between the ends."""
    from lanaprof.solver.mip import least_of  # brings the integer program along

    selector = get_selector("exact")

    def solved(budgets: dict[str, float], seconds: float) -> Solution:
        start_s = time.perf_counter()
        answer = selector(problem, budgets, time_limit_s=max(seconds, 1e-3))
        return replace(check_answer(problem, budgets, answer), solve_s=time.perf_counter() - start_s)

    def left(share: int) -> float:
        return (deadline - time.perf_counter()) / share

    best = solved({}, left(points))
    least = least_of(problem, {cost: 0.0})[cost]
    found = [best]
    for number, budget in enumerate(np.linspace(least, best.costs[cost], points)[:-1].tolist()):
        try:
            found.append(solved({cost: budget}, left(points - number)))
        except UserError:
            continue  # out of time, or the least was rounded up to the next number: the other points stand
    return found
