"""The proving loop: solve, build, time, correct the table, solve again, until the measured latency is inside.

A budget is a promise about the device, not about the table. Several neighbouring budgets are proposed per round, so
that one campaign, in which the calibration's networks are timed again beside them, usually brackets the budget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from lanaprof.errors import BackendError, InfeasibleBudget
from lanaprof.flows.measuring import Bench
from lanaprof.flows.networks import calibration_networks, time_networks
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.lut import Measurement
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import fit
from lanaprof.solver import Problem, Solution, solve

__all__ = ["Proof", "prove"]

_ROUNDS = 6
_USED = 0.96  # below this share of the budget it is worth trying for more
_SPREAD = (1.0, 0.97, 0.985, 1.015, 1.03)  # budgets proposed per round, relative to the corrected one
_OWN_WEIGHT = 4.0  # a proposal says more about its neighbours than a random network does


@dataclass(frozen=True, slots=True)
class Proof:
    """How the loop ended.

    Attributes:
        status: ``verified`` or ``over_budget``.
        choices: the answer, or the best attempt.
        score: its score.
        measurement: its latency, from a fresh process when verified.
        teacher: the teacher's, timed beside it; None when nothing was inside.
        rounds: campaigns of the loop.
        predicted_s: what the corrected model says of it.
    """

    status: str
    choices: Choices
    score: float
    measurement: Measurement
    teacher: Measurement | None
    rounds: int
    predicted_s: float


@dataclass(frozen=True, slots=True)
class _Attempt:
    choices: Choices
    score: float
    measurement: Measurement


def prove(
    project: Project,
    bench: Bench,
    predictor: Predictor,
    *,
    problem_of: Callable[[Predictor], Problem],
    budgets: Mapping[str, float],
    anchors: int = 16,
    tell: Callable[[str], None] = lambda _text: None,
) -> Proof:
    """Run the loop.

    Args:
        project: whose networks.
        bench: this machine as the device whose latency is proved.
        predictor: of the same device and environment.
        problem_of: the problem as a predictor sees it.
        budgets: every budget; the device's latency is corrected, the others stay.
        anchors: calibration networks timed beside the proposals.
        tell: told how it goes.

    Raises:
        InfeasibleBudget: nothing is cheap enough even before timing.
    """
    name = predictor.cost_name
    budget_s = budgets[name]
    beside = calibration_networks(predictor, anchors, project.config.seed)
    timed: dict[Choices, Measurement] = {}
    attempts: list[_Attempt] = []
    current, ratio, rounds = predictor, 1.0, 0
    while rounds < _ROUNDS:
        try:
            proposals = _proposals(project, problem_of(current), budgets, name, budget_s / ratio)
        except InfeasibleBudget:
            if not attempts:
                raise
            break  # the table promised more than the device holds: the best attempt is the answer
        new = {choices: score for choices, score in proposals.items() if choices not in timed}
        if not new:
            break
        rounds += 1
        measured = time_networks(project, bench, [*new, *(c for c in beside if c not in new)])
        timed.update({choices: measured[choices] for choices in new})
        attempts += [_Attempt(choices, score, measured[choices]) for choices, score in new.items()]
        current = _corrected(predictor, measured, attempts)
        best = _best_inside(attempts, budget_s)
        tell(_line(rounds, attempts, best, budget_s))
        if best is not None and _high_s(best) >= 0 and _latency_s(best) >= _USED * budget_s:
            break
        # What was measured above its corrected prediction must not be proposed again as if it were inside.
        ratio = max(
            [1.0, *(_high_s(a) / current.predict(a.choices).latency_s for a in attempts[-len(new) :])]
        )
    return _final(project, bench, current, attempts, budget_s, rounds)


def _proposals(
    project: Project, problem: Problem, budgets: Mapping[str, float], name: str, budget_s: float
) -> dict[Choices, float]:
    found: dict[Choices, float] = {}
    failure: InfeasibleBudget | None = None
    for factor in _SPREAD:
        try:
            solution: Solution = solve(problem, {**budgets, name: budget_s * factor})
        except InfeasibleBudget as error:
            failure = failure or error
            continue
        found.setdefault(
            tuple(solution.choices[layer.name] for layer in project.space.layers), solution.score
        )
    if not found and failure is not None:
        raise failure
    return found


def _corrected(
    predictor: Predictor, measured: Mapping[Choices, Measurement], attempts: list[_Attempt]
) -> Predictor:
    """Return the predictor with its calibration fitted to what was just timed, proposals counting more."""
    rows, seconds, weights = [], [], []
    own = {attempt.choices for attempt in attempts}
    everything = {**measured, **{a.choices: a.measurement for a in attempts}}
    for choices, record in everything.items():
        assert record.latency_s is not None
        rows.append(predictor.features(choices))
        seconds.append(record.latency_s)
        weights.append(_OWN_WEIGHT if choices in own else 1.0)
    return replace(predictor, fitted=fit(rows, seconds, weights))


def _latency_s(attempt: _Attempt) -> float:
    assert attempt.measurement.latency_s is not None
    return attempt.measurement.latency_s


def _high_s(attempt: _Attempt) -> float:
    assert attempt.measurement.ci_high_s is not None
    return attempt.measurement.ci_high_s


def _best_inside(attempts: list[_Attempt], budget_s: float) -> _Attempt | None:
    inside = [attempt for attempt in attempts if _high_s(attempt) <= budget_s]
    return max(inside, key=lambda attempt: attempt.score, default=None)


def _line(rounds: int, attempts: list[_Attempt], best: _Attempt | None, budget_s: float) -> str:
    if best is None:
        nearest = min(_high_s(attempt) for attempt in attempts)
        return f"round {rounds}: nothing inside yet, the nearest is {nearest / budget_s:.1%} of the budget"
    return f"round {rounds}: best inside uses {_latency_s(best) / budget_s:.1%} of the budget"


def _final(
    project: Project,
    bench: Bench,
    predictor: Predictor,
    attempts: list[_Attempt],
    budget_s: float,
    rounds: int,
) -> Proof:
    """Time the best again in a fresh process beside the teacher: the loop's own numbers are selected, hence lucky."""
    inside = sorted((a for a in attempts if _high_s(a) <= budget_s), key=lambda a: -a.score)
    teacher = (TEACHER,) * len(project.space.layers)
    for attempt in inside:
        try:
            fresh = time_networks(project, bench, [attempt.choices, teacher])
        except BackendError:
            continue
        record = fresh[attempt.choices]
        assert record.ci_high_s is not None
        if record.ci_high_s <= budget_s:
            predicted_s = predictor.predict(attempt.choices).latency_s
            return Proof(
                "verified", attempt.choices, attempt.score, record, fresh[teacher], rounds, predicted_s
            )
    nearest = min(attempts, key=_high_s)
    predicted_s = predictor.predict(nearest.choices).latency_s
    return Proof(
        "over_budget", nearest.choices, nearest.score, nearest.measurement, None, rounds, predicted_s
    )
