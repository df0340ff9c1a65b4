"""Searches that lanaprof is compared with, and how students are compared."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from lana_searches import Library, by_evolution, by_flops, by_greed, by_luck, library_of
from lana_summary import paired, student_rows, summary

from lanaprof.errors import InfeasibleBudget
from lanaprof.solver import Problem, problem_from_arrays

NAMES = ("teacher", "half", "skip")
LAYERS = 5
COST = "latency_s@cpu"


@pytest.fixture
def problem() -> Problem:
    """Five layers of three candidates; latency and arithmetic disagree."""
    generator = np.random.default_rng(0)
    latency_s = np.sort(generator.uniform(1e-4, 1e-3, (LAYERS, 3)), axis=1)[:, ::-1]
    macs = latency_s * generator.uniform(0.5, 2.0, (LAYERS, 3)) * 1e9
    scores = -np.cumsum(generator.uniform(0.01, 1.0, (LAYERS, 3)), axis=1)
    scores[:, 0] = 0
    return problem_from_arrays(
        [f"layer{number}" for number in range(LAYERS)],
        [NAMES] * LAYERS,
        scores=scores.ravel().tolist(),
        costs={COST: latency_s.ravel().tolist(), "macs": macs.ravel().tolist()},
        fixed={COST: 1e-4, "macs": 1000.0},
    )


@pytest.fixture
def library(problem: Problem) -> Library:
    """The problem's candidates."""
    return library_of(problem, COST)


def best_score(library: Library, budget_s: float) -> float:
    """Return the best sum of scores within the budget, by trying everything."""
    return max(
        library.score_of(places)
        for places in product(range(3), repeat=LAYERS)
        if library.latency_of(places) <= budget_s
    )


def budget_of(library: Library, share: float) -> float:
    """Return so much of the teacher's predicted latency."""
    return share * library.latency_of([0] * LAYERS)


def test_a_library_adds_what_the_problem_says(problem: Problem, library: Library) -> None:
    """Latencies and scores of a network are the problem's sums, the fixed part included."""
    places = [0, 1, 2, 1, 0]
    items = [3 * layer + place for layer, place in enumerate(places)]

    assert problem.costs[problem.cost_index(COST)][items].sum() + 1e-4 == pytest.approx(
        library.latency_of(places)
    )
    assert problem.scores[items].sum() == pytest.approx(library.score_of(places))


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_every_search_stays_within_the_budget(problem: Problem, library: Library, share: float) -> None:
    """What a search returns fits by the table it was given."""
    budget_s = budget_of(library, share)
    found = {
        "random": by_luck(library, budget_s, seed=1),
        "greedy": by_greed(library, budget_s),
        "flops": by_flops(problem, library, budget_s),
        "evolution": by_evolution(library, budget_s, seed=1, seconds=0.05),
    }

    for name, choices in found.items():
        assert library.latency_of(library.places_of(choices)) <= budget_s, name


def test_no_search_beats_the_best(problem: Problem, library: Library) -> None:
    """Sums of scores are at most the best there is; evolution ends no worse than where it began."""
    budget_s = budget_of(library, 0.6)
    best = best_score(library, budget_s)
    evolved = by_evolution(library, budget_s, seed=0, seconds=0.1)
    first = by_luck(library, budget_s, seed=0)

    assert library.score_of(library.places_of(first)) <= library.score_of(library.places_of(evolved))
    assert library.score_of(library.places_of(evolved)) <= best + 1e-12
    assert library.score_of(library.places_of(by_greed(library, budget_s))) <= best + 1e-12
    assert library.score_of(library.places_of(by_flops(problem, library, budget_s))) <= best + 1e-12


def test_luck_follows_its_seed(library: Library) -> None:
    """The same seed draws the same network, another seed another one."""
    budget_s = budget_of(library, 0.7)
    drawn = [by_luck(library, budget_s, seed=seed) for seed in range(6)]

    assert drawn == [by_luck(library, budget_s, seed=seed) for seed in range(6)]
    assert len(set(drawn)) > 1


def test_a_budget_below_everything_is_refused(library: Library) -> None:
    """A search that cannot fit says so."""
    with pytest.raises(InfeasibleBudget):
        by_greed(library, 1e-9)


def student(method: str, seed: int, wrong: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a job and its result."""
    job = {"uses": [{"speed": 2.0, "method": method, "seed": seed}]}
    result = {
        "wrong": wrong, "unlike": wrong, "images": 100, "heldout_kl": 0.1, "reestimated_kl": 0.2, "seconds": 1.0,
    }  # fmt: skip
    return job, result


def test_students_are_compared_on_the_same_images() -> None:
    """Being behind is counted image by image beside ours of the same seed; its error is of the paired difference."""
    timed = {"latency_s": 1e-3, "ci_low_s": 1e-3, "ci_high_s": 1e-3, "budget_s": 1e-3, "teacher_s": 2e-3}
    networks = [
        {"speed": 2.0, "method": "lanaprof", "draw": 0, "choices": ["a"], **timed},
        {"speed": 2.0, "method": "uniform", "draw": 0, "scaled": "width 0.5", **timed},
    ]
    made = {
        "a": student("lanaprof", 0, [1, 2]),
        "b": student("lanaprof", 1, [1]),
        "c": student("scratch", 0, [2, 3, 4, 5]),
        "d": student("scratch", 1, [1, 7]),
        "e": student("uniform", 0, [1, 2]),
    }
    rows = student_rows(networks, {k: v[0] for k, v in made.items()}, {k: v[1] for k, v in made.items()})
    found = {
        row["method"]: row
        for row in summary({"teacher": {"wrong_count": 1, "images": 100}, "students": rows})
    }

    # seeds 0 and 1: (3 − 1) / 100 and 1 / 100
    assert pytest.approx(0.015) == found["scratch"]["behind"]
    assert pytest.approx(0.97) == found["scratch"]["quality"]
    assert (0.0, 0.0) == (found["uniform"]["behind"], found["uniform"]["standard_error"])
    assert [0.02, 0.0199] == paired([2, 3, 4, 5], [1, 2], 100)
    assert 2 == found["lanaprof"]["seeds"]
