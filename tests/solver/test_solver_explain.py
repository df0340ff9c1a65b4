"""What an exchange would buy, and the neighbours of a choice, against trying everything."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

from lanaprof.errors import BadInput, BadProblem, InfeasibleBudget
from lanaprof.solver import explain, load_problem, problem_from_arrays, solve


def _everything(cases: Any, document: Any) -> list[tuple[float, float]]:
    """Return (cost "a", score) of every choice that keeps the rules."""
    return [
        (cases.costs_of_choice(document, choice)["a"], math.fsum(o["score"] for _, o in choice))
        for choice in cases.every_choice(document)
        if cases.obeys_rules(document, {key: o["name"] for key, o in choice})
    ]


@pytest.mark.parametrize("style", ["whole", "float"])
@pytest.mark.parametrize("rules", ["none", "neighbours", "any"])
def test_neighbours_are_those_of_trying_everything(cases: Any, style: str, rules: str) -> None:
    """Cheaper is the best of all that cost less, better the cheapest of all that score more; both are proved."""
    tried = 0
    for seed in range(24 if rules == "any" else 40):
        rng = random.Random(seed)
        document = cases.random_document(rng, style=style, costs=("a",), layers=rng.randint(1, 4), most=3)
        budget = cases.random_budgets(rng, document, style)
        if rules == "neighbours":
            document = cases.with_neighbours(rng, document, style)
        elif rules == "any":
            document = cases.with_rules(rng, document, style)
        problem = load_problem(document)
        if problem.is_max[0]:
            continue
        try:
            solution = solve(problem, budget)
        except InfeasibleBudget:
            continue
        tried += 1
        found = explain(problem, budget, solution, cost="a")
        every = _everything(cases, document)
        mine, score = solution.costs["a"], solution.score
        less = [s for c, s in every if c < mine - 1e-8]
        more = [c for c, s in every if s > score + 1e-9]
        assert (found.cheaper is None, found.better is None) == (not less, not more)
        if found.cheaper is not None:
            assert found.cheaper.score == pytest.approx(max(less))
            assert found.cheaper.proved
        if found.better is not None:
            assert found.better.cost == pytest.approx(min(more), abs=1e-7)
            assert found.better.proved
    assert tried > 4


def test_exchanges_are_the_best_of_each_layer(cases: Any) -> None:
    """Each upgrade has the highest rate of its layer, each saving the lowest, pairs with neighbours counted."""
    for seed in range(30):
        rng = random.Random(seed)
        plain = cases.random_document(rng, style="float", costs=("a",), layers=4, most=4)
        document = {**cases.with_neighbours(rng, plain, "float"), "spans": []}
        problem = load_problem(document)
        budget = {"a": solve(problem, {}).costs["a"] * 0.9}
        try:
            solution = solve(problem, budget)
        except InfeasibleBudget:
            continue
        rates: dict[tuple[str, bool], list[float]] = {}
        for choice in cases.every_choice(document):
            names = {key: option["name"] for key, option in choice}
            other = [key for key in names if names[key] != solution.choices[key]]
            if len(other) == 1:
                cost = cases.costs_of_choice(document, choice)["a"] - solution.costs["a"]
                score = math.fsum(o["score"] for _, o in choice) - solution.score
                if score * cost > 0:
                    rates.setdefault((other[0], score > 0), []).append(score / cost)
        found = explain(problem, budget, solution, cost="a")
        upgrades = {one.change.layer: one.rate for one in found.upgrades}
        savings = {one.change.layer: one.rate for one in found.savings}
        assert upgrades == pytest.approx({k: max(v) for (k, up), v in rates.items() if up})
        assert savings == pytest.approx({k: min(v) for (k, up), v in rates.items() if not up})
        assert [one.rate for one in found.upgrades] == sorted(upgrades.values(), reverse=True)
        assert [one.rate for one in found.savings] == sorted(savings.values())


def test_other_budgets_and_rows_hold() -> None:
    """An exchange that would break another budget or a row is not offered."""
    costs = {"a": [0.0, 1.0, 2.0], "b": [0.0, 9.0, 1.0]}
    problem = problem_from_arrays(["l"], [["x", "y", "z"]], scores=[0.0, 5.0, 1.0], costs=costs)
    budgets = {"a": 0.5, "b": 5.0}
    found = explain(problem, budgets, solve(problem, budgets), cost="a")
    assert [(one.change.after, one.rate) for one in found.upgrades] == [("z", 0.5)]
    row = {"name": "no z", "terms": [["l", "z", 1.0]], "high": 0.0}
    optional = {"rows": [row]}
    ruled = problem_from_arrays(
        ["l"], [["x", "y", "z"]], scores=[0.0, 5.0, 1.0], costs=costs, optional=optional
    )
    found = explain(ruled, budgets, solve(ruled, budgets), cost="a")
    assert (found.upgrades, found.better, found.cheaper) == ((), None, None)


def test_a_span_that_comes_and_one_that_goes_are_changes(document: Any) -> None:
    """A key that only one of the two choices has is None in the other."""
    span = {"first": "blocks.0", "last": "blocks.1", "name": "fused", "score": -0.05}
    document["spans"] = [{**span, "costs": {"latency_s@cpu": 2e-4, "params": 10}}]
    problem = load_problem(document)
    budget = {"latency_s@cpu": 7e-4}
    cheaper = explain(problem, budget, solve(problem, budget), cost="latency_s@cpu").cheaper
    assert cheaper is not None
    assert {(one.layer, one.before, one.after) for one in cheaper.changes} == {
        ("blocks.0", "teacher", None),
        ("blocks.1", "teacher", None),
        ("blocks.0..blocks.1", None, "fused"),
    }


def test_unknown_costs_and_maxima_are_refused(document: Any) -> None:
    """A cost that nobody carries, or that combines by maximum, has nothing to explain."""
    document["combine"] = {"params": "max"}
    problem = load_problem(document)
    solution = solve(problem, {})
    with pytest.raises(BadProblem, match="known"):
        explain(problem, {}, solution, cost="energy")
    with pytest.raises(BadInput, match="maximum"):
        explain(problem, {}, solution, cost="params")
