"""The best score for every budget where layers form a chain: spans, and pairs of neighbours."""

from __future__ import annotations

import math
import time

import numpy as np

from lanaprof.solver.chain import Chain, Path
from lanaprof.solver.check import Answer, score_of
from lanaprof.solver.labels import Limits, front_of_block
from lanaprof.solver.links import build_chain, neighbour_terms
from lanaprof.solver.problem import Bools, Ints, Problem, slack_of
from lanaprof.solver.stairs import complete_front
from lanaprof.solver.structured import Search, maximised, merged, steps_of

__all__ = ["answers_of_chain"]


def answers_of_chain(
    problem: Problem, k: int, allowed: Bools, *, points: int, most: int, deadline: float
) -> list[tuple[Answer, float]] | None:
    """Return choices with the seconds each took: the whole front while it is short, else the best of even budgets.

    Args:
        problem: without rows.
        k: index of a summed cost.
        allowed: (items,).
        points: about how many to return.
        most: labels kept a boundary while the whole front is built.
        deadline: by ``time.perf_counter``; budgets not reached by then are left out.

    Returns:
        None when the layers are no chain, an empty list when there is no choice at all.
    """
    terms = neighbour_terms(problem, k)
    if terms is None:
        return None
    chain = build_chain(problem, k, allowed, terms=terms, room=math.inf)
    if chain is None:
        return []
    whole = _whole_front(chain, most, deadline)
    if whole is not None:
        return [(_certain(problem, items), 0.0) for items in whole]
    fixed = float(problem.fixed[k])
    hull: list[Path] = []
    found: list[tuple[Answer, float]] = []
    reach = chain.best_path(chain.score, 0.0)[0].cost * chain.cost_scale
    for spare in np.linspace(0.0, reach, points).tolist():
        start_s = time.perf_counter()
        if start_s > deadline:
            break
        room = chain.least_cost + spare
        slack = slack_of(room + fixed, fixed)
        answer = maximised(Search(problem, k, terms, room + slack, slack, deadline), chain, hull=hull)
        found.append((answer, time.perf_counter() - start_s))
    return found


def _certain(problem: Problem, items: Ints) -> Answer:
    return Answer(tuple(items.tolist()), score_of(problem, items), True, "exact")


def _whole_front(chain: Chain, most: int, deadline: float) -> list[Ints] | None:
    """Return the items of every point of the front; None when it gets too long, or the time does."""
    limits = Limits(math.inf, -math.inf, (), most, deadline)
    fronts = []
    for ends in chain.long:
        front = front_of_block(chain, ends, limits)
        if front.dropped > -math.inf:
            return None
        fronts.append(front)
    stairs = merged(chain, fronts, capacity=math.inf, unit=0.0)
    complete = complete_front(stairs, most)
    if complete is None:
        return None
    return [chain.item[steps_of(chain, fronts, stairs.item[steps])] for steps in complete]
