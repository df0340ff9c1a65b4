"""How many pairs of neighbours the solver is told of."""

from __future__ import annotations

from lanaprof.flows.selecting import without_many_pairs
from lanaprof.solver import Problem, problem_from_arrays


def _paired(count: int) -> Problem:
    """Return two layers of ``count`` candidates, each with a term beside each of the other layer."""
    names = [[f"c{j}" for j in range(count)]] * 2
    terms = [[a, b, -0.5] for a in names[0] for b in names[1]]
    costs = {"latency_s@cpu": [1.0] * (2 * count)}
    optional = {"pairs": [{"layers": ["a", "b"], "cost": "latency_s@cpu", "terms": terms}]}
    return problem_from_arrays(["a", "b"], names, scores=[0.0] * (2 * count), costs=costs, optional=optional)


def test_few_pairs_stay() -> None:
    """What an integer program can take is left as it is."""
    problem = _paired(20)
    assert without_many_pairs(problem) is problem


def test_too_many_pairs_are_left_out() -> None:
    """Beyond 20,000 terms the problem loses its pairs, and nothing else."""
    problem = _paired(142)
    without = without_many_pairs(problem)
    assert (without.pairs, without.candidate_names) == ((), problem.candidate_names)
