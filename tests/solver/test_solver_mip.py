"""The general selector: several budgets, rules, spans, pairs, maxima, diversity, and its time limit."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from lanaprof.errors import BadInput, InfeasibleBudget, UserError
from lanaprof.solver import Problem, load_problem, problem_from_arrays, solve, solve_diverse
from lanaprof.solver.linear import linear_model
from lanaprof.solver.prices import priced
from lanaprof.solver.restrict import restrict


def _two_costs(layers: int, count: int, seed: int = 0) -> tuple[Problem, dict[str, float]]:
    """Return a problem with two loosely related costs, and half of the mean as budgets."""
    rng = np.random.default_rng(seed)
    ratio = rng.lognormal(-0.6, 0.45, (layers, count))
    size = rng.lognormal(0, 0.6, (layers, 1))
    costs = {"a": size * ratio, "b": size * ratio * rng.lognormal(0, 0.4, ratio.shape)}
    score = -rng.lognormal(0, 1, (layers, 1)) * np.exp(-ratio) * rng.lognormal(0, 0.7, ratio.shape)
    names = [[f"c{j}" for j in range(count)]] * layers
    problem = problem_from_arrays([f"l{i}" for i in range(layers)], names, scores=score, costs=costs)
    return problem, {name: 0.8 * float(value.mean(axis=1).sum()) for name, value in costs.items()}


def _check_against_everything(cases: Any, document: Any, budgets: Any, method: str) -> None:
    best = cases.try_everything(document, budgets)
    problem = load_problem(document)
    if best.score is not None:
        solution = solve(problem, budgets, method=method)
        assert solution.score == pytest.approx(best.score, abs=1e-9)
        assert solution.proved
        return
    with pytest.raises(InfeasibleBudget) as caught:
        solve(problem, budgets, method=method)
    reachable = {k: v for k, v in best.least.items() if v < float("inf")}
    assert caught.value.least == pytest.approx(reachable, abs=1e-9)


@pytest.mark.parametrize("style", ["whole", "float", "decimal", "ties"])
def test_two_budgets_equal_brute_force(cases: Any, style: str) -> None:
    """Two summed budgets: best score and least reachable costs are those of trying everything."""
    for seed in range(60):
        rng = random.Random(seed)
        document = cases.random_document(rng, style=style, costs=("a", "b"), layers=rng.randint(1, 5), most=4)
        _check_against_everything(cases, document, cases.random_budgets(rng, document, style), "exact")


@pytest.mark.parametrize("style", ["whole", "float", "decimal", "ties"])
@pytest.mark.parametrize("method", ["exact", "mip"])
def test_rules_equal_brute_force(cases: Any, style: str, method: str) -> None:
    """Spans, pairs, maxima, require, forbid and rows, in any mixture, agree with trying everything."""
    for seed in range(150):
        rng = random.Random(seed)
        costs = ("a", "b")[: rng.randint(1, 2)]
        plain = cases.random_document(rng, style=style, costs=costs, layers=rng.randint(2, 5), most=3)
        budgets = cases.random_budgets(rng, plain, style)
        _check_against_everything(cases, cases.with_rules(rng, plain, style), budgets, method)


def test_two_budgets_of_real_size_are_proved() -> None:
    """46 layers × 197 candidates under two budgets end with a proof inside both."""
    problem, budgets = _two_costs(46, 197)
    solution = solve(problem, budgets)
    assert (solution.status, solution.method) == ("optimal", "mip")
    assert all(solution.costs[name] <= budget for name, budget in budgets.items())


def test_prices_bound_every_choice() -> None:
    """The Lagrangian bound at the prices is at least the optimum, and near it."""
    problem, budgets = _two_costs(20, 30)
    model = linear_model(problem, restrict(problem, budgets))
    price, _ = priced(model, seconds=10.0)
    bound = model.constant + model.score_scale * float(model.through(price)[model.first == 0].max())
    best = solve(problem, budgets).score
    assert best <= bound <= best + 0.05 * abs(best)


def test_a_budget_on_a_maximum_needs_no_program(document: Any) -> None:
    """A limit on a maximum only strikes candidates out, so the exact selector does it alone."""
    document["combine"] = {"params": "max"}
    solution = solve(load_problem(document), {"params": 1000.0, "latency_s@cpu": 1.0})
    assert (solution.method, solution.choices) == ("exact", {"blocks.0": "skip", "blocks.1": "teacher"})
    assert solution.costs["params"] == 900.0


def test_span_stands_under_its_key(document: Any) -> None:
    """A chosen span is reported once, under first..last, and its layers are not."""
    span = {"first": "blocks.0", "last": "blocks.1", "name": "fused", "score": 0.5}
    document["spans"] = [{**span, "costs": {"latency_s@cpu": 1e-4, "params": 10}}]
    solution = solve(load_problem(document), {"latency_s@cpu": 5e-4})
    assert solution.choices == {"blocks.0..blocks.1": "fused"}
    assert solution.costs == {"latency_s@cpu": pytest.approx(4.1e-4), "params": 60.0}


def test_forbidden_span_is_not_taken(document: Any) -> None:
    """Spans are named by their key in forbid, and in require."""
    span = {"first": "blocks.0", "last": "blocks.1", "name": "fused", "score": -5.0}
    document["spans"] = [{**span, "costs": {"latency_s@cpu": 1e-4, "params": 10}}]
    document["require"] = {"blocks.0..blocks.1": ["fused"]}
    assert solve(load_problem(document), {}).score == -5.0
    document["forbid"] = document.pop("require")
    assert solve(load_problem(document), {}).score == 0.0


def test_contradicting_rules_have_no_least(document: Any) -> None:
    """When the rules alone rule everything out there is no least reachable value, and the message says so."""
    document["rows"] = [{"name": "never", "terms": [["blocks.0", "skip", 1.0]], "low": 2.0}]
    with pytest.raises(InfeasibleBudget, match="whatever the budget") as caught:
        solve(load_problem(document), {"params": 1e6})
    assert caught.value.least == {}


def test_budgets_that_exclude_each_other() -> None:
    """Budgets that each could be met alone say so, with what each alone reaches."""
    names, values = [["x", "y"]], {"a": [0.0, 1.0], "b": [1.0, 0.0]}
    problem = problem_from_arrays(["l"], names, scores=[0.0, 0.0], costs=values)
    with pytest.raises(InfeasibleBudget, match="all budgets together") as caught:
        solve(problem, {"a": 0.5, "b": 0.5})
    assert caught.value.least == {"a": 0.0, "b": 0.0}


def test_answers_over_budget_by_less_than_highs_sees_are_cut_off() -> None:
    """HiGHS admits sums a 1e-9 over the budget; such an answer is excluded and the next best one proved."""
    over = 0.5 * (1 + 1e-10)
    values = {"a": [over, 0.1, 0.5, 0.1], "b": [0.0, 0.0, 0.0, 0.0]}
    names = [["dear", "cheap"]] * 2
    problem = problem_from_arrays(["l0", "l1"], names, scores=[0.0, -3.0, 0.0, -1.0], costs=values)
    solution = solve(problem, {"a": 1.0, "b": 1.0})
    assert (solution.choices, solution.proved) == ({"l0": "dear", "l1": "cheap"}, True)


def test_time_limit_is_kept_and_reported() -> None:
    """Two subset-sums in floats at once can't be proved in time: feasible, not proved, a finite bound above."""
    weights = np.random.default_rng(8).random((60, 5))
    problem = problem_from_arrays(
        [f"l{i}" for i in range(60)],
        [[f"c{j}" for j in range(5)]] * 60,
        scores=weights,
        costs={"a": weights, "b": weights[:, ::-1] + weights},
    )
    budgets = {"a": float(weights.mean(axis=1).sum()), "b": 2 * float(weights.mean(axis=1).sum())}
    solution = solve(problem, budgets, time_limit_s=0.5)
    assert (solution.status, solution.proved) == ("feasible", False)
    assert solution.score < solution.bound <= budgets["a"] * (1 + 1e-9)


def test_no_time_for_any_choice_is_said() -> None:
    """When time ends before any choice was found the error says what to type; it is not called infeasible."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(1_000, 2_000, (30, 4))
    layers = [f"l{i}" for i in range(30)]
    terms = [[layer, f"c{j}", weights[i, j]] for i, layer in enumerate(layers) for j in range(4)]
    target = float(weights.mean(axis=1).sum())  # to twelve digits: a needle in 4^30 straws
    problem = problem_from_arrays(
        layers,
        [[f"c{j}" for j in range(4)]] * 30,
        scores=rng.random((30, 4)),
        costs={"a": weights},
        optional={"rows": [{"name": "needle", "terms": terms, "low": target, "high": target}]},
    )
    with pytest.raises(UserError, match="time given") as caught:
        solve(problem, {"a": 1e9}, time_limit_s=0.05)
    assert "--time-limit" in caught.value.hint


@pytest.mark.parametrize("time_limit_s", [0.0, -1.0, float("nan")])
def test_time_limit_is_positive(document: Any, time_limit_s: float) -> None:
    """A time limit that is no positive number is refused."""
    with pytest.raises(BadInput, match="time limit"):
        solve(load_problem(document), {}, time_limit_s=time_limit_s)


def test_diverse_solutions_differ_enough() -> None:
    """Ten solutions, best first, each with at most 70 % of its layers as in every earlier one, all proved."""
    problem, budgets = _two_costs(20, 12)
    solutions = solve_diverse(problem, {"a": budgets["a"]}, top=10, overlap=0.7)
    assert len(solutions) == 10
    assert all(s.proved for s in solutions)
    assert [s.score for s in solutions] == sorted((s.score for s in solutions), reverse=True)
    for i, later in enumerate(solutions):
        for earlier in solutions[:i]:
            alike = sum(later.choices[layer] == name for layer, name in earlier.choices.items())
            assert alike <= 14


def test_diverse_solutions_are_the_best_that_differ(cases: Any) -> None:
    """The second solution is the best of all that differ enough from the first, by trying everything."""
    for seed in range(40):
        rng = random.Random(seed)
        document = cases.random_document(rng, style="decimal", costs=("a",), layers=4, most=4)
        problem, budget = load_problem(document), {"a": 3.0}
        try:
            found = solve_diverse(problem, budget, top=2, overlap=0.5)
        except InfeasibleBudget:
            continue
        first = found[0].choices
        scores = [
            sum(option["score"] for _, option in choice)
            for choice in cases.every_choice(document)
            if cases.costs_of_choice(document, choice)["a"] <= 3.0 + 1e-12
            and sum(first[key] == option["name"] for key, option in choice) <= 2
        ]
        assert len(found) == (2 if scores else 1)
        if scores:
            assert found[1].score == pytest.approx(max(scores), abs=1e-9)


def test_diverse_counts_a_span_as_its_layers(document: Any) -> None:
    """Two solutions with the same span over all layers are alike in all of them."""
    span = {"first": "blocks.0", "last": "blocks.1", "name": "fused", "score": 0.5}
    document["spans"] = [{**span, "costs": {"latency_s@cpu": 1e-4, "params": 10}}]
    found = solve_diverse(load_problem(document), {}, top=9, overlap=0.5)
    assert [dict(s.choices) for s in found] == [
        {"blocks.0..blocks.1": "fused"},
        {"blocks.0": "teacher", "blocks.1": "teacher"},
        {"blocks.0": "teacher", "blocks.1": "conv3"},
        {"blocks.0": "skip", "blocks.1": "teacher"},
        {"blocks.0": "skip", "blocks.1": "conv3"},
    ]


@pytest.mark.parametrize(("top", "overlap"), [(0, 0.7), (2, -0.1), (2, 1.1), (2, float("nan"))])
def test_diversity_out_of_range_is_refused(document: Any, top: int, overlap: float) -> None:
    """Fewer than one solution, or an overlap outside 0 to 1, is an error."""
    with pytest.raises(BadInput):
        solve_diverse(load_problem(document), {}, top=top, overlap=overlap)
