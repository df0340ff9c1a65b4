"""Spans and pairs under one budget: the graph's answers against brute force and against HiGHS."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from lanaprof.errors import InfeasibleBudget
from lanaprof.solver import Problem, load_problem, problem_from_arrays, problem_to_json, solve
from lanaprof.solver.links import build_chain, neighbour_terms


def _chained(
    layers: int, count: int, *, seed: int = 0, terms: int = 40, spans: int = 0
) -> tuple[Problem, dict[str, float]]:
    """Return a problem with terms between all neighbours and spans of two to four layers, and a budget."""
    rng = np.random.default_rng(seed)
    ratio = rng.lognormal(-0.6, 0.45, (layers, count))
    cost = rng.lognormal(0, 0.6, (layers, 1)) * ratio
    score = -rng.lognormal(0, 1, (layers, 1)) * np.exp(-ratio) * rng.lognormal(0, 0.5, ratio.shape)
    names, layer_names = [[f"c{j}" for j in range(count)]] * layers, [f"l{i}" for i in range(layers)]
    pairs = []
    for i in range(layers - 1):
        both = {(int(a), int(b)) for a, b in rng.integers(0, count, (terms, 2))}
        values = [[f"c{a}", f"c{b}", 0.06 * float(rng.standard_normal() * cost[i].mean())] for a, b in both]
        pairs.append({"layers": [f"l{i}", f"l{i + 1}"], "cost": "t", "terms": values})
    made = []
    for number in range(spans):
        first = int(rng.integers(0, layers - 4))
        last = first + int(rng.integers(1, 4))
        inside = slice(first, last + 1)
        worth = float(np.median(cost[inside], axis=1).sum() * rng.uniform(0.5, 1))
        loss = float(np.median(score[inside], axis=1).sum() * rng.uniform(0.5, 1))
        made.append({"first": f"l{first}", "last": f"l{last}", "name": f"s{number}", "score": loss,
                     "costs": {"t": worth}})  # fmt: skip
    problem = problem_from_arrays(
        layer_names, names, scores=score, costs={"t": cost}, optional={"pairs": pairs, "spans": made}
    )
    return problem, {"t": 0.8 * float(cost.mean(axis=1).sum())}


@pytest.mark.parametrize("style", ["whole", "float", "decimal", "ties"])
def test_spans_and_pairs_equal_brute_force(cases: Any, style: str) -> None:
    """Score, proof and least reachable cost are those of trying everything, without an integer program."""
    for seed in range(150):
        rng = random.Random(seed)
        plain = cases.random_document(rng, style=style, costs=("t",), layers=rng.randint(1, 5), most=4)
        budgets = cases.random_budgets(rng, plain, style)
        document = cases.with_neighbours(rng, plain, style)
        best = cases.try_everything(document, budgets)
        if best.score is None:
            with pytest.raises(InfeasibleBudget) as caught:
                solve(load_problem(document), budgets)
            assert caught.value.least == pytest.approx(dict(best.least), abs=1e-9)
            continue
        solution = solve(load_problem(document), budgets)
        assert solution.score == pytest.approx(best.score, abs=1e-9)
        assert (solution.proved, solution.method) == (True, "exact")


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_integer_program(seed: int) -> None:
    """Ten layers with pairs and spans: the same score as PuLP and HiGHS at gap 0, both proved."""
    problem, budget = _chained(10, 8, seed=seed, terms=12, spans=3)
    exact, program = solve(problem, budget), solve(problem, budget, method="mip")
    assert (exact.proved, program.proved, exact.method) == (True, True, "exact")
    assert exact.score == pytest.approx(program.score, abs=1e-9)


@pytest.mark.parametrize(("layers", "count", "spans"), [(46, 60, 0), (60, 40, 30), (200, 20, 60)])
def test_real_sizes_are_proved_and_more_budget_is_never_worse(layers: int, count: int, spans: int) -> None:
    """Many layers with pairs at each boundary end with a proof inside the budget; scores rise with budgets."""
    problem, budget = _chained(layers, count, spans=spans)
    scores = []
    for share in (0.8, 1.0, 1.2):
        solution = solve(problem, {"t": share * budget["t"]})
        assert (solution.proved, solution.method) == (True, "exact")
        assert solution.costs["t"] <= share * budget["t"] * (1 + 1e-12)
        scores.append(solution.score)
    assert scores == sorted(scores)


def test_order_of_candidates_and_pairs_changes_nothing() -> None:
    """The same problem with its candidates turned round and its pairs written from the other side scores the same."""
    problem, budget = _chained(12, 10, seed=3, spans=4)
    document = problem_to_json(problem)
    turned = {
        **document,
        "layers": [{**layer, "candidates": layer["candidates"][::-1]} for layer in document["layers"]],
        "spans": document["spans"][::-1],
        "pairs": [
            {**pair, "layers": pair["layers"][::-1], "terms": [[b, a, v] for a, b, v in pair["terms"][::-1]]}
            for pair in document["pairs"]
        ],
    }
    assert solve(load_problem(turned), budget).score == solve(problem, budget).score


def test_pairs_over_a_distance_go_to_the_integer_program() -> None:
    """A pair of layers that are no neighbours is no chain; it is solved all the same."""
    pair = {"layers": ["l0", "l2"], "cost": "t", "terms": [["c1", "c1", 2.0]]}
    problem = problem_from_arrays(
        ["l0", "l1", "l2"],
        [["c0", "c1"]] * 3,
        scores=[-1.0, 0.0] * 3,
        costs={"t": [0.0, 1.0] * 3},
        optional={"pairs": [pair]},
    )
    solution = solve(problem, {"t": 3.5})
    assert (solution.method, solution.score, solution.proved) == ("mip", -1.0, True)


def test_time_limit_gives_a_certified_gap() -> None:
    """A subset-sum in floats with spans and pairs cannot be proved in time: feasible, with a bound just above."""
    weights = np.random.default_rng(5).random(60)
    values = np.stack([np.zeros(60), weights], axis=1)
    pairs = [
        {"layers": [f"l{i}", f"l{i + 1}"], "cost": "t", "terms": [["c0", "c1", 0.0], ["c0", "c0", 1e-9]]}
        for i in range(0, 59, 6)
    ]
    span = {"first": "l3", "last": "l4", "name": "s", "score": weights[3], "costs": {"t": weights[3]}}
    problem = problem_from_arrays(
        [f"l{i}" for i in range(60)],
        [["c0", "c1"]] * 60,
        scores=values,
        costs={"t": values},
        optional={"pairs": pairs, "spans": [span]},
    )
    budget = float(weights.sum()) * 0.37
    solution = solve(problem, {"t": budget}, time_limit_s=0.3)
    assert (solution.status, solution.proved) == ("feasible", False)
    # What is there before the search has any time: a machine may be busy for all of the 0.3 s.
    assert budget * (1 - 1e-4) < solution.score < solution.bound <= budget * (1 + 1e-9)


def test_terms_of_one_side_only_leave_no_table() -> None:
    """Where all candidates behind a boundary have the same terms they are costs of those before: no block grows."""
    terms = [["c0", "c0", 0.5], ["c0", "c1", 0.5]]
    problem = problem_from_arrays(
        ["l0", "l1"],
        [["c0", "c1"]] * 2,
        scores=[0.0, -1.0, 0.0, -1.0],
        costs={"t": [1.0, 0.5, 1.0, 0.5]},
        optional={"pairs": [{"layers": ["l0", "l1"], "cost": "t", "terms": terms}]},
    )
    found = neighbour_terms(problem, 0)
    assert found is not None
    chain = build_chain(problem, 0, np.ones(4, dtype=np.bool_), terms=found, room=9.0)
    assert chain is not None
    assert (chain.long, chain.least_cost, chain.top_score) == ((), 1.0, 0.0)
    assert solve(problem, {"t": 2.0}).choices == {"l0": "c1", "l1": "c0"}
