"""Further solutions that differ: each the best one that agrees with every earlier one in few enough layers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

from lanaprof.errors import UserError
from lanaprof.solver.check import Answer, Solution, check_answer
from lanaprof.solver.linear import linear_model
from lanaprof.solver.mip import maximise
from lanaprof.solver.problem import Problem
from lanaprof.solver.restrict import restrict

__all__ = ["iter_others"]


def iter_others(
    problem: Problem,
    budgets: Mapping[str, float],
    *,
    first: Answer,
    overlap: float,
    count: int,
    time_limit_s: float,
) -> Iterator[Solution]:
    """Yield up to ``count`` solutions after the first, best first.

    Every solution is given an even share of the time that is left; what one does not use goes to the later ones.
    """
    deadline = time.perf_counter() + time_limit_s
    restriction = restrict(problem, budgets)
    # 0.7 × 10 layers is 7.000000000000001 or 6.999…: the nearest whole number is meant.
    most_alike = math.floor(overlap * len(problem.layer_names) + 1e-9)
    alike = [first.items]
    for left in range(count, 0, -1):
        start_s = time.perf_counter()
        model = linear_model(problem, restriction, alike=alike, most_alike=most_alike)
        share = start_s + max(0.0, deadline - start_s) / left
        try:
            answer = maximise(problem, budgets, model, deadline=share, alike=alike, most_alike=most_alike)
        except UserError:
            return  # out of time before any: what was found so far is the answer
        if answer is None:
            return
        solution = check_answer(problem, budgets, answer)
        yield replace(solution, solve_s=time.perf_counter() - start_s)
        alike.append(answer.items)
