"""What budgets and rules leave over: budgets on maxima, ``require`` and ``forbid`` only strike items out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lanaprof.errors import BadProblem, InfeasibleBudget
from lanaprof.solver.problem import Problem, slack_of

__all__ = ["Restriction", "check_budgets", "raise_infeasible", "restrict"]


@dataclass(frozen=True, slots=True)
class Restriction:
    """The items still allowed and the budgets that bound a sum.

    Attributes:
        allowed: (items,) whether each item may be chosen.
        sums: (cost index, budget) for every budget on a summed cost.
        is_plain: one candidate a layer and the summed budgets are all there is: no spans, rows, or pairs that
            touch a budget.
    """

    allowed: NDArray[np.bool_]
    sums: tuple[tuple[int, float], ...]
    is_plain: bool


def check_budgets(problem: Problem, budgets: Mapping[str, float]) -> dict[str, float]:
    """Return the budgets as floats.

    Raises:
        BadProblem: a budget is no finite number, or no candidate carries its cost.
    """
    checked = {}
    for name, budget in budgets.items():
        problem.cost_index(name)
        try:
            value = float(budget)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if not math.isfinite(value):
            raise BadProblem(f"the budget on {name!r} is {budget!r}, not a finite number", hint=f"{name}=1.5")
        checked[name] = value
    return checked


def restrict(problem: Problem, budgets: Mapping[str, float]) -> Restriction:
    """Return what the budgets, ``require`` and ``forbid`` leave of the problem; layers may end up empty."""
    allowed = np.ones(len(problem.scores), dtype=np.bool_)
    sums = []
    for name, budget in budgets.items():
        k = problem.cost_index(name)
        if not problem.is_max[k]:
            sums.append((k, budget))
            continue
        limit = budget + slack_of(budget)
        allowed &= (problem.costs[k] <= limit) & (problem.fixed[k] <= limit)
    for _, items in problem.forbid:
        allowed[list(items)] = False
    for key, items in problem.require:
        first, last = _layers_of_key(problem, key)
        rivals = np.zeros(len(allowed), dtype=np.bool_)
        rivals[problem.starts[first] : problem.starts[last + 1]] = True
        for number, span in enumerate(problem.spans):
            rivals[problem.candidate_count + number] = span.first <= last and span.last >= first
        rivals[list(items)] = False
        allowed &= ~rivals
    budgeted = {k for k, _ in sums}
    has_spans = bool(allowed[problem.candidate_count :].any())
    has_pairs = any(pair.cost in budgeted and pair.terms for pair in problem.pairs)
    return Restriction(allowed, tuple(sums), not (has_spans or has_pairs or problem.rows))


def _layers_of_key(problem: Problem, key: str) -> tuple[int, int]:
    if key in problem.layer_names:
        layer = problem.layer_names.index(key)
        return layer, layer
    span = next(span for span in problem.spans if problem.span_key(span) == key)
    return span.first, span.last


def empty_layers(problem: Problem, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the layers that no allowed candidate or span covers."""
    count = problem.candidate_count
    if allowed[:count].all():
        return np.zeros(0, dtype=np.int64)
    held = np.add.reduceat(allowed[:count].astype(np.int64), problem.starts[:-1])
    for number, span in enumerate(problem.spans):
        held[span.first : span.last + 1] += allowed[count + number]
    return np.flatnonzero(held == 0)


def raise_infeasible(budgets: Mapping[str, float], least: Mapping[str, float]) -> NoReturn:
    """Raise the InfeasibleBudget that fits: nothing at all, one budget too small, or all together too small.

    Args:
        budgets: what was asked.
        least: the least reachable value of each budgeted cost, each alone; empty when ``require``, ``forbid``
            and ``rows`` alone rule everything out.
    """
    if not least:
        raise InfeasibleBudget(
            "no choice satisfies the rows, require and forbid, whatever the budget",
            least={},
            hint="drop one of the rows, of require or of forbid",
        )
    missed = {
        name: value for name, value in least.items() if value > budgets[name] + slack_of(budgets[name], value)
    }
    if missed:
        text = "; ".join(f"{n}: budget {budgets[n]:.6g}, least reachable {v:.6g}" for n, v in missed.items())
        hint = "raise the budget, for example " + " ".join(f"--budget {n}={v!r}" for n, v in missed.items())
        raise InfeasibleBudget(f"no choice meets the budget ({text})", least=least, hint=hint)
    text = "; ".join(f"{name} {value:.6g}" for name, value in least.items())
    raise InfeasibleBudget(
        f"no choice meets all budgets together; each alone reaches {text}",
        least=least,
        hint="raise one budget",
    )
