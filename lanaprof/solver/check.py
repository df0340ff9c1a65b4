"""Answers recomputed from the problem: what a selector hands back is believed only after this."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lanaprof.errors import LanaprofError
from lanaprof.solver.problem import Ints, Problem, slack_of

__all__ = ["Answer", "Solution", "check_answer", "costs_of", "iter_violations", "score_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a selector hands back: the chosen items (spans included) and how good they are proved to be.

    ``bound`` is an upper bound on the score of every choice inside the budgets; ``proved`` says that none is
    better than this one. ``method`` names who found it.
    """

    items: tuple[int, ...]
    bound: float
    proved: bool
    method: str


@dataclass(frozen=True, slots=True)
class Solution:
    """A checked choice for a problem and budgets.

    Attributes:
        status: ``optimal`` when proved, else ``feasible``.
        score: sum of the chosen scores.
        bound: no choice inside the budgets has a higher score.
        proved: the choice is the best there is.
        costs: every cost of the problem, ``fixed`` included, in its own unit.
        choices: layer → candidate; a chosen span stands under ``first..last``.
        solve_s: seconds from the loaded arrays to the checked answer.
        method: the selector that found it.
    """

    status: str
    score: float
    bound: float
    proved: bool
    costs: Mapping[str, float]
    choices: Mapping[str, str]
    solve_s: float
    method: str

    def to_json(self) -> dict[str, Any]:
        """Return the solution as plain data."""
        return {
            "status": self.status,
            "score": self.score,
            "bound": self.bound,
            "proved": self.proved,
            "costs": dict(self.costs),
            "choices": dict(self.choices),
            "solve_s": self.solve_s,
            "method": self.method,
        }


def score_of(problem: Problem, items: tuple[int, ...] | Ints) -> float:
    """Return the sum of the items' scores, rounded once."""
    return math.fsum(problem.scores[np.asarray(items, dtype=np.int64)].tolist())


def costs_of(problem: Problem, items: tuple[int, ...] | Ints) -> tuple[float, ...]:
    """Return every cost of the chosen items, ``fixed`` and pairs included, each rounded once."""
    chosen = np.asarray(items, dtype=np.int64)
    held: dict[int, int] = {}  # by layer, candidates only
    if problem.pairs:
        single = chosen[chosen < problem.candidate_count]
        layers = np.searchsorted(problem.starts, single, side="right") - 1
        held = dict(zip(layers.tolist(), single.tolist(), strict=True))
    found = []
    for k, is_max in enumerate(problem.is_max):
        values = [float(problem.fixed[k]), *problem.costs[k, chosen].tolist()]
        for pair in problem.pairs:
            if pair.cost == k:
                a, b = (held.get(layer) for layer in pair.layers)
                values += [value for i, j, value in pair.terms if i == a and j == b]
        found.append(max(values) if is_max else math.fsum(values))
    return tuple(found)


def iter_violations(
    problem: Problem,
    budgets: Mapping[str, float],
    items: tuple[int, ...] | Ints,
    *,
    leniency: float = 1.0,
    costs: Sequence[float] | None = None,
) -> Iterator[str]:
    """Yield, for people, everything the chosen items break: coverage, budgets, rows, require, forbid.

    Args:
        problem: what the items belong to.
        budgets: upper bound per cost.
        items: the chosen items, spans included.
        leniency: multiplies the slack for rounding.
        costs: what `costs_of` says of the items, where it has been asked.
    """
    chosen = np.asarray(items, dtype=np.int64)
    count = problem.candidate_count
    single = chosen[chosen < count]
    layers = np.searchsorted(problem.starts, single, side="right") - 1
    covered = np.bincount(layers, minlength=len(problem.layer_names))
    for item in chosen[chosen >= count].tolist():
        span = problem.spans[item - count]
        covered[span.first : span.last + 1] += 1
    for layer in np.flatnonzero(covered != 1).tolist():
        yield f"layer {problem.layer_names[layer]!r} is chosen {covered[layer]} times"
    if costs is None:
        costs = costs_of(problem, chosen) if budgets else ()
    for name, budget in budgets.items():
        k = problem.cost_index(name)
        if costs[k] > budget + leniency * slack_of(budget, float(problem.fixed[k])):
            yield f"{name} is {costs[k]!r}, over the budget of {budget!r}"
    if not (problem.rows or problem.require or problem.forbid):
        return
    held = set(chosen.tolist())
    for row in problem.rows:
        terms = [value for item, value in row.terms if item in held]
        total = math.fsum(terms)
        slack = leniency * slack_of(0.0, *terms, *(s for s in (row.low, row.high) if math.isfinite(s)))
        if not row.low - slack <= total <= row.high + slack:
            yield f"row {row.name!r} is {total!r}, outside {row.low!r} to {row.high!r}"
    for key, listed in problem.require:
        if held.isdisjoint(listed):
            yield f"{key!r} holds nothing of what is required"
    for key, listed in problem.forbid:
        if not held.isdisjoint(listed):
            yield f"{key!r} holds what is forbidden"


def check_answer(
    problem: Problem, budgets: Mapping[str, float], answer: Answer, *, solve_s: float = 0.0
) -> Solution:
    """Return the solution an answer stands for, recomputed from the problem.

    Raises:
        LanaprofError: the answer breaks the problem or its own bound; a fault of the selector, never the user's.
    """
    items = np.asarray(answer.items, dtype=np.int64)
    costs = costs_of(problem, items)
    for violation in iter_violations(problem, budgets, items, leniency=2.0, costs=costs):
        raise LanaprofError(
            f"the selector {answer.method!r} gave a wrong answer: {violation}",
            hint="please report it with the problem; another --method may do meanwhile",
        )
    score = score_of(problem, items)
    scale = float(np.abs(problem.scores[items]).sum())
    # A thousand roundings of the scores' sum: a bound below the score by more is a wrong bound.
    if answer.bound < score - 1e-9 * max(scale, abs(answer.bound)):
        raise LanaprofError(
            f"the selector {answer.method!r} gave the bound {answer.bound} below the score {score}"
        )
    starts, count = problem.starts, problem.candidate_count
    ordered = np.sort(items)
    single = ordered[ordered < count]
    layers = np.searchsorted(starts, single, side="right") - 1
    names, rows = problem.layer_names, problem.candidate_names
    if len(single) < len(names):  # spans hold the other layers
        held = layers.tolist()
        names, rows = tuple(names[layer] for layer in held), tuple(rows[layer] for layer in held)
    places = (single - starts[layers]).tolist()
    candidates = [row[place] for row, place in zip(rows, places, strict=True)]
    choices = dict(zip(names, candidates, strict=True))
    choices.update(problem.item_names(int(item)) for item in ordered[ordered >= count])
    return Solution(
        status="optimal" if answer.proved else "feasible",
        score=score,
        bound=score if answer.proved else max(answer.bound, score),
        proved=answer.proved,
        costs=dict(zip(problem.cost_names, costs, strict=True)),
        choices=choices,
        solve_s=solve_s,
        method=answer.method,
    )
