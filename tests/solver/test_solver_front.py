"""The front: every point the best for its own cost, none missing where the front is short."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest

from lanaprof.errors import BadInput, BadProblem, InfeasibleBudget
from lanaprof.solver import (
    Problem,
    Solution,
    frontier,
    load_problem,
    problem_from_arrays,
    problem_to_json,
    solve,
)
from lanaprof.solver.exact import stairs_of
from lanaprof.solver.front import best_scores


def _problem(layers: int, count: int, *, whole: bool) -> Problem:
    rng = np.random.default_rng(7)
    ratio = rng.lognormal(-0.6, 0.45, (layers, count))
    cost = 200 * rng.lognormal(0, 0.6, (layers, 1)) * ratio
    score = -rng.lognormal(0, 1, (layers, 1)) * np.exp(-ratio) * rng.lognormal(0, 0.5, ratio.shape)
    names = [[f"c{j}" for j in range(count)]] * layers
    layer_names = [f"l{i}" for i in range(layers)]
    costs = {"t": np.round(cost) if whole else cost}
    return problem_from_arrays(layer_names, names, scores=score, costs=costs, fixed={"t": -40.0})


def _expected(cases: Any, document: Any, cost: str) -> list[tuple[float, float]]:
    """Return the front by trying everything, as (cost, score)."""
    points = sorted(  # costs that differ by rounding alone are equal
        (round(cases.costs_of_choice(document, choice)[cost], 12), -math.fsum(o["score"] for _, o in choice))
        for choice in cases.every_choice(document)
        if cases.obeys_rules(document, {key: o["name"] for key, o in choice})
    )
    front: list[tuple[float, float]] = []
    for value, loss in points:
        if not front or -loss > front[-1][1] + 1e-12:
            front.append((value, -loss))
    return front


def _points(solutions: tuple[Solution, ...], cost: str) -> list[Any]:
    return [pytest.approx((s.costs[cost], s.score), abs=1e-9) for s in solutions]


@pytest.mark.parametrize("style", ["whole", "float", "decimal", "ties"])
def test_short_front_is_complete(cases: Any, style: str) -> None:
    """Of a small problem every point of the front is there, and nothing else."""
    for seed in range(60):
        rng = random.Random(seed)
        document = cases.random_document(rng, style=style, costs=("t",), layers=rng.randint(1, 5), most=4)
        solutions = frontier(load_problem(document), "t")
        assert _expected(cases, document, "t") == _points(solutions, "t")
        assert all(s.proved for s in solutions)


def test_front_of_a_maximum_is_complete(cases: Any) -> None:
    """A cost that combines by maximum has the front that trying everything finds."""
    for seed in range(40):
        rng = random.Random(seed)
        document = cases.random_document(rng, style="decimal", costs=("t",), layers=3, most=4)
        document["combine"] = {"t": "max"}
        assert _expected(cases, document, "t") == _points(frontier(load_problem(document), "t"), "t")


@pytest.mark.parametrize("whole", [True, False])
def test_points_of_a_long_front_are_exact(whole: bool) -> None:
    """Each point shown is what solve finds for a budget of its cost; costs and scores rise strictly."""
    problem = _problem(46, 60, whole=whole)
    solutions = frontier(problem, "t", points=60)
    assert 40 <= len(solutions) <= 60
    for earlier, later in itertools.pairwise(solutions):
        assert earlier.costs["t"] < later.costs["t"]
        assert earlier.score < later.score
    for solution in solutions[::6]:
        assert solve(problem, {"t": solution.costs["t"]}).score == pytest.approx(solution.score, rel=1e-12)


def test_long_front_reaches_both_ends() -> None:
    """The first point is the cheapest choice there is, the last the best-scoring one."""
    problem = _problem(46, 60, whole=False)
    solutions = frontier(problem, "t", points=20)
    with pytest.raises(InfeasibleBudget) as caught:
        solve(problem, {"t": -40.0})
    assert solutions[0].costs == caught.value.least
    assert solutions[-1].score == solve(problem, {}).score


def test_grid_scores_are_the_optima_of_whole_budgets() -> None:
    """On whole costs the grid holds the optimum of every budget."""
    problem = _problem(12, 10, whole=True)
    stairs, _ = stairs_of(problem, np.ones(120, dtype=np.bool_), 0, budget=1e5)
    scores = best_scores(stairs, 1 / stairs.cost_scale, 2_000)
    for spare in range(0, 2_000, 97):
        actual = stairs.top_score + scores[spare] * stairs.score_scale
        budget = stairs.low_cost - 40.0 + spare
        assert actual == pytest.approx(solve(problem, {"t": budget}).score, rel=1e-12)


@pytest.mark.parametrize("style", ["whole", "float", "ties"])  # decimals differ in the last bit by order
def test_short_front_with_spans_and_pairs_is_complete(cases: Any, style: str) -> None:
    """With spans and pairs of neighbours, too, every point of a small problem's front is there, and nothing else."""
    for seed in range(60):
        rng = random.Random(seed)
        plain = cases.random_document(rng, style=style, costs=("t",), layers=rng.randint(1, 5), most=4)
        document = cases.with_neighbours(rng, plain, style)
        solutions = frontier(load_problem(document), "t")
        assert _expected(cases, document, "t") == _points(solutions, "t")
        assert all(s.proved for s in solutions)


def test_points_of_a_long_front_with_spans_and_pairs_are_exact() -> None:
    """Each point shown is what solve finds for a budget of its cost, from the cheapest choice to the best one."""
    plain = problem_to_json(_problem(30, 20, whole=False))
    costs = [[c["costs"]["t"] for c in layer["candidates"]] for layer in plain["layers"]]
    terms = [["c0", "c1", 5.0], ["c3", "c1", -4.0], ["c7", "c9", 3.0], ["c5", "c5", -2.0]]
    pairs = [{"layers": [f"l{i}", f"l{i + 1}"], "cost": "t", "terms": terms} for i in range(29)]
    spans = [
        {"first": f"l{i}", "last": f"l{i + 1}", "name": "s", "score": -0.1 * i,
         "costs": {"t": 0.7 * (min(costs[i]) + costs[i + 1][0])}}
        for i in range(0, 20, 4)
    ]  # fmt: skip
    problem = load_problem({**plain, "pairs": pairs, "spans": spans})
    solutions = frontier(problem, "t", points=40)
    assert 30 <= len(solutions) <= 40
    for earlier, later in itertools.pairwise(solutions):
        assert earlier.costs["t"] < later.costs["t"]
        assert earlier.score < later.score
    for solution in solutions[::5]:
        assert solve(problem, {"t": solution.costs["t"]}).score == pytest.approx(solution.score, rel=1e-12)
    assert solutions[-1].score == solve(problem, {}).score
    with pytest.raises(InfeasibleBudget) as caught:
        solve(problem, {"t": -40.0})
    assert solutions[0].costs == caught.value.least


def test_front_with_rules_is_exact_at_its_points(cases: Any) -> None:
    """With spans, pairs and rows each point is the best for its cost, and both ends are there."""
    tried = 0
    for seed in range(25):
        rng = random.Random(seed)
        plain = cases.random_document(rng, style="float", costs=("t",), layers=3, most=3)
        document = cases.with_rules(rng, plain, "float")
        expected = _expected(cases, document, "t")
        if not expected:
            with pytest.raises(InfeasibleBudget):
                frontier(load_problem(document), "t")
            continue
        tried += 1
        found = [(s.costs["t"], s.score) for s in frontier(load_problem(document), "t")]
        assert found[0] == pytest.approx(expected[0], abs=1e-9)
        assert found[-1] == pytest.approx(expected[-1], abs=1e-9)
        assert all(any(point == pytest.approx(e, abs=1e-9) for e in expected) for point in found)
    assert tried > 10


def test_unknown_cost_and_single_point_are_refused(document: Any) -> None:
    """A cost nobody carries, or a front of one point, is an error."""
    with pytest.raises(BadProblem, match="known: latency_s@cpu, params"):
        frontier(load_problem(document), "latency_s@gpu")
    with pytest.raises(BadInput, match="1 points"):
        frontier(load_problem(document), "params", points=1)
