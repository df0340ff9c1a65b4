"""What stands behind a choice: which exchange would buy most, and what its neighbours on the front change."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lanaprof.errors import BadInput, InfeasibleBudget, UserError
from lanaprof.solver.check import Solution, iter_violations
from lanaprof.solver.problem import Floats, Ints, Problem
from lanaprof.solver.restrict import check_budgets, restrict
from lanaprof.solver.select import solve

__all__ = ["Change", "Exchange", "Explanation", "Neighbour", "explain"]

_NOTHING = 1e-9  # of a cost: choices that differ by less cost the same


@dataclass(frozen=True, slots=True)
class Change:
    """What stands under a layer or span key, and what would: None where one of them has no such key."""

    layer: str
    before: str | None
    after: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain data."""
        return {"layer": self.layer, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One candidate for another in its layer, all else as it is: what changes in score and in the cost."""

    change: Change
    score: float
    cost: float

    @property
    def rate(self) -> float:
        """Score per cost: what is gained for each unit spent, or lost for each unit saved."""
        return self.score / self.cost

    def to_json(self) -> dict[str, Any]:
        """Return the exchange as plain data."""
        return {**self.change.to_json(), "score": self.score, "cost": self.cost, "rate": self.rate}


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The next choice on the front: score and cost in all, whether it is proved to be the next, and what it changes."""

    score: float
    cost: float
    proved: bool
    changes: tuple[Change, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the neighbour as plain data."""
        changes = [change.to_json() for change in self.changes]
        return {"score": self.score, "cost": self.cost, "proved": self.proved, "changes": changes}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a choice could trade for one cost.

    Attributes:
        cost: its name.
        upgrades: for each layer the exchange that gains most score per cost, the best layer first.
        savings: for each layer the exchange that loses least score per cost saved, the best layer first.
        cheaper: the best of all choices that cost less; None when there is none.
        better: the cheapest of all choices that score more; None when there is none.
    """

    cost: str
    upgrades: tuple[Exchange, ...]
    savings: tuple[Exchange, ...]
    cheaper: Neighbour | None
    better: Neighbour | None

    def to_json(self) -> dict[str, Any]:
        """Return the explanation as plain data."""
        return {
            "cost": self.cost,
            "upgrades": [one.to_json() for one in self.upgrades],
            "savings": [one.to_json() for one in self.savings],
            "cheaper": self.cheaper.to_json() if self.cheaper else None,
            "better": self.better.to_json() if self.better else None,
        }


def explain(
    problem: Problem,
    budgets: Mapping[str, float],
    solution: Solution,
    *,
    cost: str,
    time_limit_s: float = 30.0,
) -> Explanation:
    """Return what a solution could trade for one cost; the other budgets hold.

    Args:
        problem: the problem.
        budgets: those the solution was made for.
        solution: what ``solve`` returned.
        cost: name of a summed cost.
        time_limit_s: for the neighbours together; what is not proved by then says so.

    Raises:
        BadProblem: no candidate carries the cost.
        BadInput: the cost combines by maximum.
    """
    k = problem.cost_index(cost)
    if problem.is_max[k]:
        raise BadInput(f"{cost!r} combines by maximum: no layer pays for it alone", hint="name a summed cost")
    deadline = time.perf_counter() + time_limit_s
    others = {name: value for name, value in check_budgets(problem, budgets).items() if name != cost}
    found = list(_iter_exchanges(problem, others, solution, k))
    upgrades = sorted((one for one in found if one.score > 0), key=lambda one: -one.rate)
    savings = sorted((one for one in found if one.score < 0), key=lambda one: one.rate)
    return Explanation(
        cost,
        tuple(upgrades),
        tuple(savings),
        _cheaper(problem, others, solution, cost, deadline),
        _better(problem, others, solution, cost, deadline),
    )


def _iter_exchanges(
    problem: Problem, others: Mapping[str, float], solution: Solution, k: int
) -> Iterator[Exchange]:
    """Yield each layer's best upgrade and its best saving that keep the other budgets and the rules."""
    items = _items_of(problem, solution)
    allowed = restrict(problem, others).allowed
    is_free = not problem.rows and all(problem.is_max[problem.cost_index(name)] for name in others)
    alone = problem.costs[k] + _beside(problem, items, k)
    for place, item in enumerate(items.tolist()):
        rivals = _rivals(problem, item)
        rivals = rivals[allowed[rivals]]
        score, cost = problem.scores[rivals] - problem.scores[item], alone[rivals] - alone[item]
        for fitting, sign in (((score > 0) & (cost > 0), -1), ((score < 0) & (cost < 0), 1)):
            at = np.flatnonzero(fitting)
            for best in at[np.argsort(sign * score[at] / cost[at], kind="stable")].tolist():
                changed = items.copy()
                changed[place] = rivals[best]
                if is_free or next(iter_violations(problem, others, changed), None) is None:
                    key, before = problem.item_names(item)
                    change = Change(key, before, problem.item_names(int(rivals[best]))[1])
                    yield Exchange(change, float(score[best]), float(cost[best]))
                    break


def _beside(problem: Problem, items: Ints, k: int) -> Floats:
    """Return what the pairs add to each item's cost beside those chosen, (items,)."""
    added, held = np.zeros(len(problem.scores)), set(items.tolist())
    for pair in problem.pairs:
        if pair.cost == k:
            for a, b, value in pair.terms:
                added[a] += value if b in held else 0.0
                added[b] += value if a in held else 0.0
    return added


def _items_of(problem: Problem, solution: Solution) -> Ints:
    layers = {name: i for i, name in enumerate(problem.layer_names)}
    spans = {
        (problem.span_key(span), span.name): problem.candidate_count + number
        for number, span in enumerate(problem.spans)
    }
    found = []
    for key, name in solution.choices.items():
        if key in layers:
            layer = layers[key]
            found.append(int(problem.starts[layer]) + problem.candidate_names[layer].index(name))
        else:
            found.append(spans[key, name])
    return np.array(found, dtype=np.int64)


def _rivals(problem: Problem, item: int) -> Ints:
    """Return the other items over the same layers."""
    count = problem.candidate_count
    if item < count:
        layer = int(np.searchsorted(problem.starts, item, side="right")) - 1
        same = np.arange(int(problem.starts[layer]), int(problem.starts[layer + 1]))
    else:
        key = problem.span_key(problem.spans[item - count])
        alike = [problem.span_key(span) == key for span in problem.spans]
        same = count + np.flatnonzero(alike)
    others: Ints = same[same != item]
    return others


def _cheaper(
    problem: Problem, others: Mapping[str, float], solution: Solution, cost: str, deadline: float
) -> Neighbour | None:
    below = solution.costs[cost] - _nothing(problem, solution, cost)
    try:
        found = solve(problem, {**others, cost: below}, time_limit_s=_left(deadline))
    except InfeasibleBudget:
        return None
    return _neighbour(solution, found, cost, proved=found.proved)


def _better(
    problem: Problem, others: Mapping[str, float], solution: Solution, cost: str, deadline: float
) -> Neighbour | None:
    """Return the cheapest choice that scores more, by halving the budgets in which it must lie."""
    known = solve(problem, others, time_limit_s=_left(deadline))
    gain = 1e-12 * max(abs(solution.score), abs(known.score))
    if known.score <= solution.score + gain:
        return None
    proved = known.proved
    low, high, nothing = solution.costs[cost], known, _nothing(problem, solution, cost)
    while time.perf_counter() < deadline:
        if high.costs[cost] - low <= nothing:
            break
        budget = (low + high.costs[cost]) / 2
        try:
            found = solve(problem, {**others, cost: budget}, time_limit_s=_left(deadline))
        except InfeasibleBudget:  # the solution was not inside its own cost: rounding
            low = budget
            continue
        except UserError:
            proved = False
            break
        if found.score > solution.score + gain:
            high = found
        else:
            low = budget
            proved &= found.proved
    return _neighbour(solution, high, cost, proved=proved and high.costs[cost] - low <= nothing)


def _nothing(problem: Problem, solution: Solution, cost: str) -> float:
    """Return by how much two choices may differ in a cost and still cost the same."""
    k = problem.cost_index(cost)
    some = problem.costs[k][problem.costs[k] > 0]
    usual = float(np.median(some)) if len(some) else 1.0
    return _NOTHING * max(abs(solution.costs[cost]), abs(float(problem.fixed[k])), usual)


def _left(deadline: float) -> float:
    return max(0.05, deadline - time.perf_counter())


def _neighbour(solution: Solution, other: Solution, cost: str, *, proved: bool) -> Neighbour:
    keys = dict.fromkeys([*solution.choices, *other.choices])
    changes = (Change(key, solution.choices.get(key), other.choices.get(key)) for key in keys)
    return Neighbour(
        other.score, other.costs[cost], proved, tuple(one for one in changes if one.before != one.after)
    )
