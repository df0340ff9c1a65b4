"""A sample of what benchmarks/solver.py compares two thousand times: exact = integer program on every kind."""

from __future__ import annotations

import pytest
from solver_cases import FAMILIES, STRUCTURES, random_case

from lanaprof.solver import load_problem, solve
from solver import one_case, turned_round


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_equals_the_program_on_every_kind(family: str, structure: str) -> None:
    """Same score, both proved, bounds hold, more budget is no worse, and order changes nothing."""
    assert one_case(family, structure, 1_000) is None


def test_cases_have_what_they_are_named_for() -> None:
    """Spans and pairs are in the problems of these structures, and in no others."""
    for structure in STRUCTURES:
        documents = [random_case("realistic", structure, seed)[0] for seed in range(10)]
        assert any(document.get("spans") for document in documents) == ("spans" in structure)
        assert any(document.get("pairs") for document in documents) == ("pairs" in structure)


def test_turned_round_twice_is_the_same_problem() -> None:
    """Turning round keeps what can be chosen: twice gives the problem back, once the same optimum."""
    document, budget = random_case("realistic", "spans and pairs", 5)
    once = turned_round(document)
    assert load_problem(turned_round(once)) == load_problem(document)
    scores = [solve(load_problem(one), {"latency_us": budget}).score for one in (document, once)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)
