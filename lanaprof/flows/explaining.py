"""What stands behind a selection: what other candidates would change, and what its budget is worth."""

from __future__ import annotations

from dataclasses import replace

from lanaprof.flows.choosing import Question
from lanaprof.flows.operators import Choices
from lanaprof.flows.proving import Proof
from lanaprof.flows.refusing import without
from lanaprof.solver import Explanation, explain, solve

__all__ = ["explain_selection"]


def explain_selection(
    question: Question, choices: Choices, proof: Proof | None, *, time_limit_s: float = 30.0
) -> Explanation:
    """Return what the selected architecture could trade for latency on its device; the other budgets hold.

    Latencies are those the answer was found by: the table's, corrected by what the proving loop timed. What the
    runtime refused in that loop is offered to nobody.

    Args:
        question: what select was asked.
        choices: the answer.
        proof: how the proving loop ended; None where nothing was timed.
        time_limit_s: for its neighbours; what is not proved by then says so.
    """
    problem = question.problem(proof.corrected if proof is not None else None)
    named = question.project.space.named(choices)
    if proof is not None:
        problem = without(problem, [one.choices for one in proof.refused], proof.suspects)
    items = {problem.item_names(item): item for item in range(len(problem.scores))}
    only = tuple((place, (items[place, operation],)) for place, operation in named)
    answer = solve(replace(problem, require=(*problem.require, *only)), {}, time_limit_s=time_limit_s)
    return explain(
        problem, question.budgets, answer, cost=question.predictor.cost_name, time_limit_s=time_limit_s
    )
