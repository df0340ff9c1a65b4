"""The exact selector against brute force, against HiGHS, and on what floats and ties do to it."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lanaprof.errors import InfeasibleBudget
from lanaprof.solver import Problem, load_problem, problem_from_arrays, solve

_EIGHTHS = st.integers(0, 24).map(lambda n: n / 8)  # exact in binary: ties are ties


def _problem(costs: Any, scores: Any, **more: Any) -> Problem:
    """Return a problem with one cost "t" from (layers, candidates) arrays."""
    layers, count = np.shape(costs)
    names = [[f"c{j}" for j in range(count)]] * layers
    return problem_from_arrays(
        [f"l{i}" for i in range(layers)], names, scores=scores, costs={"t": costs}, **more
    )


def _realistic(rng: np.random.Generator, layers: int, count: int, *, noise: float) -> tuple[Any, Any]:
    """Return costs and scores where cheaper candidates lose more, with noise."""
    ratio = rng.lognormal(-0.6, 0.45, (layers, count))
    cost = rng.lognormal(0, 0.6, (layers, 1)) * ratio
    score = -rng.lognormal(0, 1, (layers, 1)) * np.exp(-ratio) * rng.lognormal(0, noise, ratio.shape)
    return cost, score


@pytest.mark.parametrize("style", ["whole", "float", "decimal", "ties"])
@pytest.mark.parametrize("block", range(4))
def test_equals_brute_force_on_random_problems(cases: Any, style: str, block: int) -> None:
    """Score, proof and the least reachable cost are those of trying everything, infeasible cases included."""
    for seed in range(100 * block, 100 * block + 100):
        rng = random.Random(seed)
        document = cases.random_document(rng, style=style, costs=("t",), layers=rng.randint(1, 5), most=4)
        budgets = cases.random_budgets(rng, document, style)
        best = cases.try_everything(document, budgets)
        if best.score is None:
            with pytest.raises(InfeasibleBudget) as caught:
                solve(load_problem(document), budgets)
            assert caught.value.least == pytest.approx(dict(best.least), rel=1e-12, abs=1e-12)
            continue
        solution = solve(load_problem(document), budgets)
        assert solution.score == pytest.approx(best.score, abs=1e-12)
        assert (solution.proved, solution.method) == (True, "exact")
        assert solution.bound == solution.score


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(_EIGHTHS, _EIGHTHS), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(-8, 80).map(lambda n: n / 8),
    st.integers(-24, 24).map(lambda n: n / 8),
)
def test_equals_brute_force_by_hypothesis(
    layers: list[list[tuple[float, float]]], budget: float, fixed: float
) -> None:
    """Whatever the numbers: the best choice inside the budget, or infeasible when there is none."""
    document = {
        "format": "lanaprof-problem/1",
        "layers": [
            {
                "name": f"l{i}",
                "candidates": [
                    {"name": f"c{j}", "score": s, "costs": {"t": c}} for j, (c, s) in enumerate(row)
                ],
            }
            for i, row in enumerate(layers)
        ],
        "fixed": {"t": fixed},
    }
    reached: dict[float, float] = {fixed: 0.0}  # exact numbers: cost → best score
    for row in layers:
        options = [(c + cost, s + score) for c, s in reached.items() for cost, score in row]
        reached = {}
        for cost, score in options:
            reached[cost] = max(score, reached.get(cost, -math.inf))
    inside = [score for cost, score in reached.items() if cost <= budget]
    if inside:
        assert solve(load_problem(document), {"t": budget}).score == max(inside)
    else:
        with pytest.raises(InfeasibleBudget) as caught:
            solve(load_problem(document), {"t": budget})
        assert caught.value.least == {"t": min(reached)}


@pytest.mark.parametrize("block", range(5))
def test_equals_the_integer_program(block: int) -> None:
    """Two hundred problems of up to 40 layers: the same score as PuLP and HiGHS at gap 0, both proved."""
    for seed in range(40 * block, 40 * block + 40):
        rng = np.random.default_rng(seed)
        layers, count = int(rng.integers(1, 40)), int(rng.integers(1, 12))
        cost, score = _realistic(rng, layers, count, noise=float(rng.choice([0.01, 0.3, 0.7])))
        if seed % 4 == 1:
            cost = np.round(cost * 20)  # whole numbers, zeros among them
        if seed % 4 == 2:
            score = np.round(score * 4)  # ties
        if seed % 4 == 3:
            score = -score  # gains: the teacher is not the best
        fixed = float(rng.uniform(-1, 1))
        least, most = cost.min(axis=1).sum(), cost.max(axis=1).sum()
        budget = {"t": fixed + float(least + rng.uniform(0, 1) * (most - least))}
        problem = _problem(cost, score, fixed={"t": fixed})
        exact, program = solve(problem, budget), solve(problem, budget, method="mip")
        assert (exact.proved, program.proved, program.method) == (True, True, "mip")
        assert exact.score == pytest.approx(program.score, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("layers", "count", "noise"), [(46, 197, 0.7), (200, 60, 0.05), (30, 200, 1e-9), (2_000, 8, 0.5)]
)
def test_larger_problems_are_proved(layers: int, count: int, noise: float) -> None:
    """Real sizes end with a proof, also where hardly a candidate is dominated; more budget is never worse."""
    cost, score = _realistic(np.random.default_rng(1), layers, count, noise=noise)
    problem, scores = _problem(cost, score), []
    for share in (0.2, 0.5, 0.8, 1.0):
        budget = cost.min(axis=1).sum() + share * (cost.max(axis=1).sum() - cost.min(axis=1).sum())
        solution = solve(problem, {"t": budget})
        assert solution.proved
        assert solution.costs["t"] <= budget * (1 + 1e-12)
        scores.append(solution.score)
    assert scores == sorted(scores)


def test_zero_costs_take_the_best_scores() -> None:
    """Where nothing costs anything, a budget of 0 admits the best of every layer."""
    solution = solve(_problem([[0.0, 0.0], [0.0, 0.0]], [[-1.0, -2.0], [-4.0, -3.0]]), {"t": 0.0})
    assert solution.choices == {"l0": "c0", "l1": "c1"}


def test_single_candidates_leave_no_choice() -> None:
    """One candidate a layer is the answer when it fits, to the last digit of the budget."""
    problem = _problem([[0.1], [0.1], [0.1]], [[-1.0], [-1.0], [-1.0]])
    assert solve(problem, {"t": 0.3}).score == -3.0


def test_negative_fixed_gives_room() -> None:
    """A negative fixed part lowers what the layers add up to, also below zero."""
    problem = _problem([[1.0, 3.0]], [[-1.0, 0.0]], fixed={"t": -3.5})
    assert solve(problem, {"t": -0.5}).costs == {"t": -0.5}
    assert solve(problem, {"t": -0.6}).costs == {"t": -2.5}


def test_infeasible_budget_names_the_least() -> None:
    """The least reachable cost, fixed included, is itself a budget that can be met."""
    problem = _problem([[0.7, 0.1], [0.2, 0.9]], [[0.0, -1.0], [0.0, -1.0]], fixed={"t": 0.04})
    with pytest.raises(InfeasibleBudget, match=r"least reachable 0\.34") as caught:
        solve(problem, {"t": 0.33})
    assert solve(problem, caught.value.least).choices == {"l0": "c1", "l1": "c0"}


@pytest.mark.parametrize("factor", [1e-200, 1e-9, 1e9, 1e200])
def test_units_change_nothing(factor: float) -> None:
    """The same problem in other units of cost and score has the same choices."""
    cost, score = _realistic(np.random.default_rng(2), 12, 20, noise=0.3)
    budget = float(cost.mean(axis=1).sum())
    expected = solve(_problem(cost, score), {"t": budget})
    actual = solve(_problem(cost * factor, score * factor), {"t": budget * factor})
    assert actual.choices == expected.choices


def test_outliers_do_not_spoil_the_sums() -> None:
    """Scores of -1e30 and costs of 1e30, as people mark what must not be chosen, leave the others exact."""
    cost, score = _realistic(np.random.default_rng(3), 12, 20, noise=0.3)
    budget = {"t": float(cost.mean(axis=1).sum())}
    expected = solve(_problem(cost, score), budget)
    extra = np.full((12, 1), 1e30)
    wide = _problem(np.hstack([cost, extra, 0 * extra]), np.hstack([score, 0 * extra, -extra]))
    assert solve(wide, budget).choices == expected.choices


def test_one_huge_layer() -> None:
    """A layer of 20,000 candidates on a smooth curve, nothing dominated: the best that fits is found."""
    cost = np.sort(np.random.default_rng(4).random(20_000))[None, :]
    problem = _problem(cost, np.sqrt(cost))
    assert solve(problem, {"t": 0.5}).score == np.sqrt(cost[cost <= 0.5].max())


def test_time_limit_gives_a_certified_gap() -> None:
    """A subset-sum in floats cannot be proved in time: a feasible answer, not proved, and a bound above it."""
    weights = np.random.default_rng(5).random((60, 1))
    values = np.hstack([np.zeros((60, 1)), weights])
    budget = float(weights.sum()) * 0.37
    solution = solve(_problem(values, values), {"t": budget}, time_limit_s=0.3)
    assert (solution.status, solution.proved) == ("feasible", False)
    assert solution.score < solution.bound <= budget * (1 + 1e-12)
    assert solution.score > budget * (1 - 1e-4)  # what is there before the search has any time


def test_whole_costs_waste_no_search_on_half_a_unit() -> None:
    """Where all costs are whole, a budget of 500.5 is one of 500: proved at once, subset-sum or not."""
    weights = np.random.default_rng(6).integers(1, 60, (40, 8)).astype(float)
    solution = solve(_problem(weights, weights), {"t": 1_000.5})
    assert (solution.proved, solution.score) == (True, 1_000.0)


def test_no_budget_takes_the_best_of_each_layer() -> None:
    """Without budgets every layer takes its best score."""
    assert solve(_problem([[1.0, 2.0]], [[-1.0, 0.5]]), {}).choices == {"l0": "c1"}
