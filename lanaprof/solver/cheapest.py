"""The least that can be reached of a cost, without an integer program."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from lanaprof.solver.links import build_chain, neighbour_terms
from lanaprof.solver.problem import Bools, Ints, Problem
from lanaprof.solver.restrict import empty_layers, restrict

__all__ = ["cheapest_items", "least_of_plain"]


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


def cheapest_items(problem: Problem, k: int, allowed: Bools) -> Ints | None:
    """Return the items of the cheapest choice by a summed cost, for problems without rows; None if it is no chain.

    An empty array says that there is no choice at all.
    """
    terms = None if problem.rows else neighbour_terms(problem, k)
    if terms is None:
        return None
    chain = build_chain(problem, k, allowed, terms=terms, room=math.inf)
    if chain is None:
        return np.zeros(0, dtype=np.int64)
    return chain.item[chain.best_path(-chain.cost, 1.0)[0].steps]
