"""The doors of this room: check the budgets, run a selector, recompute its answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from lanaprof.errors import BadInput
from lanaprof.solver.check import Answer, Solution, check_answer
from lanaprof.solver.problem import Problem
from lanaprof.solver.registry import get_selector
from lanaprof.solver.restrict import check_budgets

__all__ = ["solve", "solve_diverse"]


def solve(
    problem: Problem, budgets: Mapping[str, float], *, method: str = "exact", time_limit_s: float = 60.0
) -> Solution:
    """Return the choice with the highest score inside the budgets.

    Args:
        problem: the checked problem.
        budgets: upper bound per cost, in the cost's own unit, ``fixed`` included. May be empty.
        method: a selector's name. ``exact`` hands several summed budgets, rows and pairs over a distance on to ``mip``.
        time_limit_s: after this many seconds the best choice so far is returned as ``feasible``.

    Raises:
        BadProblem: a budget is no finite number or names an unknown cost.
        InfeasibleBudget: no choice meets the budgets; ``least`` says what each could reach alone.
        UserError: the time limit passed before any choice was found.
    """
    _check_time_limit(time_limit_s)
    return _solve(problem, check_budgets(problem, budgets), method, time_limit_s)[1]


def _solve(
    problem: Problem, budgets: Mapping[str, float], method: str, time_limit_s: float
) -> tuple[Answer, Solution]:
    selector = get_selector(method)
    start_s = time.perf_counter()
    answer = selector(problem, budgets, time_limit_s=time_limit_s)
    solution = check_answer(problem, budgets, answer)
    return answer, replace(solution, solve_s=time.perf_counter() - start_s)


def _check_time_limit(time_limit_s: float) -> None:
    if not time_limit_s > 0:
        raise BadInput(
            f"the time limit is {time_limit_s}, not a positive number of seconds", hint="--time-limit 60s"
        )


def solve_diverse(
    problem: Problem,
    budgets: Mapping[str, float],
    *,
    top: int,
    overlap: float = 0.7,
    time_limit_s: float = 60.0,
) -> tuple[Solution, ...]:
    """Return up to ``top`` choices, best first, each with at most ``overlap`` of its layers as in every earlier one.

    Each is the best one under that rule; fewer come back when no further choice keeps it.

    Args:
        problem: the checked problem.
        budgets: upper bound per cost.
        top: how many are wanted, at least 1.
        overlap: share of the layers, 0 to 1, that may agree with any earlier solution.
        time_limit_s: for all of them together.

    Raises:
        BadInput: ``top`` or ``overlap`` is out of range.
        InfeasibleBudget: not even one choice meets the budgets.
    """
    if top < 1:
        raise BadInput(f"{top} solutions were asked for", hint="--top 1 or more")
    if not 0 <= overlap <= 1:
        raise BadInput(f"the overlap is {overlap}, not between 0 and 1", hint="--overlap 0.7")
    _check_time_limit(time_limit_s)
    checked = check_budgets(problem, budgets)
    answer, first = _solve(problem, checked, "exact", time_limit_s)
    if top == 1:
        return (first,)
    from lanaprof.solver.diverse import iter_others  # brings the integer program along

    left_s = max(0.0, time_limit_s - first.solve_s)
    others = iter_others(problem, checked, first=answer, overlap=overlap, count=top - 1, time_limit_s=left_s)
    return (first, *others)
