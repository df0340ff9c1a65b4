"""From tables and scores to a problem, and from a problem to an architecture. Needs no torch."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lanaprof.errors import BadInput, InfeasibleBudget, MissingScores, UnknownOperation, UserError
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.lut import GraphStatistics, Score, Store
from lanaprof.ops import SKIP, TEACHER, parse_operation
from lanaprof.solver import Problem, Solution, problem_from_arrays, solve
from lanaprof.space import Architecture, Space, place_ends
from lanaprof.units import RelativeBudget, format_duration, parse_latency_budget

__all__ = [
    "SIZE_COSTS",
    "Scores",
    "build_problem",
    "choices_of",
    "find_score_records",
    "find_scores",
    "resolve_budgets",
    "scores_from_file",
    "solve_with_margin",
    "without_many_pairs",
]

Scores = Mapping[tuple[str, str], float]

# cost → how a candidate's operator gives it; all are sums but the peak
SIZE_COSTS: Mapping[str, Callable[[GraphStatistics], float]] = {
    "params": lambda s: float(s.params),
    "weight_bytes": lambda s: float(s.weight_bytes),
    "peak_bytes": lambda s: float(s.peak_bytes),
    "macs": lambda s: float(s.macs),
}
_MARGIN_ROUNDS = 5
# Terms of neighbours that spare each other something. A chain of layers reads and solves a million in seconds; beside
# other budgets, or for several solutions, they are products of an integer program, which takes minutes.
_MOST_PAIRED = 1_000_000
_MOST_PRODUCTS = 20_000


def find_scores(project: Project, store: Store, metric: str | None = None) -> dict[tuple[str, str], float]:
    """Return the newest score of every candidate of this teacher.

    Args:
        project: whose candidates.
        store: where ``score`` put them.
        metric: only this one; default: that of the newest score.

    Raises:
        MissingScores: there are none.
    """
    rows = find_score_records(project, store, metric)
    return {(row.layer, row.operation): row.score for row in rows}


def find_score_records(project: Project, store: Store, metric: str | None = None) -> tuple[Score, ...]:
    """Return the newest score record of every candidate of this teacher, as :func:`find_scores` does."""
    rows = [row for row in store.scores(teacher=project.weights_digest) if metric in (None, row.metric)]
    if not rows:
        raise MissingScores(
            "the candidates of this project have no scores"
            + (f" by the metric {metric!r}" if metric else ""),
            hint="lanaprof distill, then lanaprof score (or give --scores FILE)",
        )
    newest = max(rows, key=lambda row: (row.time, row.id))
    same: list[Score] = [row for row in rows if (row.metric, row.data) == (newest.metric, newest.data)]
    return tuple({(row.layer, row.operation): row for row in same}.values())  # sorted by time: the last wins


def scores_from_file(path: Path) -> dict[tuple[str, str], float]:
    """Return the scores in a CSV or JSON file with columns layer, operation, score.

    Raises:
        BadInput: it cannot be read, lacks a column, or holds something that is no finite number.
    """
    try:
        text = path.read_text(encoding="utf-8")
        rows: Any = (
            json.loads(text)
            if text.lstrip().startswith(("[", "{"))
            else list(csv.DictReader(text.splitlines()))
        )
    except OSError as error:
        raise BadInput(
            f"the scores {path} cannot be read: {error.strerror or error}",
            hint="name a CSV or JSON file with layer, operation, score",
        ) from error
    except ValueError as error:
        raise BadInput(
            f"the scores {path} cannot be read: {error}", hint="columns: layer,operation,score"
        ) from error
    if isinstance(rows, Mapping):
        rows = rows.get("scores")
    if not isinstance(rows, list) or not rows:
        raise BadInput(f"{path} holds no scores", hint="columns: layer,operation,score")
    found = {}
    for number, row in enumerate(rows, start=1):
        try:
            name = (str(row["layer"]), parse_operation(str(row["operation"])).text)
            value = float(row["score"])
        except (KeyError, TypeError, ValueError, UnknownOperation) as error:
            raise BadInput(
                f"{path}, row {number} is no score: {row!r}", hint="columns: layer,operation,score"
            ) from error
        if not math.isfinite(value):
            raise BadInput(f"{path}, row {number}: the score is {value}, not a finite number")
        found[name] = value
    return found


def build_problem(
    project: Project, predictors: Sequence[Predictor], scores: Scores, *, sizes: Sequence[str] = ()
) -> Problem:
    """Return the selection problem: candidates that have a score and, on every device, a latency.

    Args:
        project: whose space.
        predictors: one per device.
        scores: by (layer, operation); ``teacher`` is 0.
        sizes: further costs, of SIZE_COSTS.

    Raises:
        MissingMeasurement: the teacher's own layers are not measured.
        MissingScores: no score fits this space.
    """
    for predictor in predictors:
        predictor.expect_teacher()
    allowed = [predictor.measured_candidates() for predictor in predictors]
    kept = {
        layer.name: [
            operation
            for operation in layer.candidates
            if (operation == TEACHER or (layer.name, operation) in scores)
            and all(operation in measured[layer.name] for measured in allowed)
        ]
        for layer in project.space.places
    }
    names = [kept[layer.name] for layer in project.space.layers]
    spans = [(run.name, operation) for run in project.space.runs for operation in kept[run.name]]
    chosen = [(layer, operation) for layer, row in kept.items() for operation in row]  # spans last
    if not spans and all(len(row) == 1 for row in names):
        raise MissingScores(
            "no score belongs to a measured candidate of this space",
            hint="lanaprof distill, then lanaprof score",
        )
    costs: dict[str, list[float]] = {}
    fixed: dict[str, float] = {}
    for predictor in predictors:
        raw = {name: predictor.candidate_cost_s(*name) for name in chosen}
        costs[predictor.cost_name], fixed[predictor.cost_name] = _shifted(
            raw, project.space, predictor.fixed_s
        )
    for size in sizes:
        statistics = [_size(predictors[0], size, layer, operation) for layer, operation in chosen]
        costs[size], fixed[size] = statistics, _fixed_size(predictors[0], size)
    count = len(chosen) - len(spans)
    return problem_from_arrays(
        [layer.name for layer in project.space.layers],
        names,
        scores=[
            0.0 if operation == TEACHER else scores[layer, operation] for layer, operation in chosen[:count]
        ],
        costs={name: values[:count] for name, values in costs.items()},
        fixed=fixed,
        optional={
            **_optional(predictors, names, sizes),
            **_spans(spans, scores, {name: values[count:] for name, values in costs.items()}),
        },
    )


def _spans(
    spans: Sequence[tuple[str, str]], scores: Scores, costs: Mapping[str, Sequence[float]]
) -> dict[str, Any]:
    """Return the candidates that stand for several layers, as ``spans`` of a selection problem."""
    found = []
    for number, (run, operation) in enumerate(spans):
        first, last = place_ends(run)
        own = {name: values[number] for name, values in costs.items()}
        found.append(
            {"first": first, "last": last, "name": operation, "score": scores[run, operation], "costs": own}
        )
    return {"spans": found} if found else {}


def _optional(
    predictors: Sequence[Predictor], names: Sequence[Sequence[str]], sizes: Sequence[str]
) -> dict[str, Any]:
    """Return how costs combine where they are no sums over candidates."""
    pairs = [pair for predictor in predictors for pair in predictor.joined_costs_s(names)]
    is_chain = len(predictors) == 1 and not set(sizes) - {"peak_bytes"}
    if sum(len(pair["terms"]) for pair in pairs) > (_MOST_PAIRED if is_chain else _MOST_PRODUCTS):
        pairs = []  # each candidate then costs what it does beside float32: never less than in the network
    combine = {"combine": {"peak_bytes": "max"}} if "peak_bytes" in sizes else {}
    return {**combine, **({"pairs": pairs} if pairs else {})}


def without_many_pairs(problem: Problem) -> Problem:
    """Return the problem as an integer program can take it: without pairs where they are too many."""
    count = sum(len(pair.terms) for pair in problem.pairs)
    return replace(problem, pairs=()) if count > _MOST_PRODUCTS else problem


def _shifted(raw: Mapping[tuple[str, str], float], space: Space, fixed: float) -> tuple[list[float], float]:
    """Return costs without negative ones: each layer's least negative cost moves into the fixed part.

    A span takes the place of its layers, hence of what was moved from each of them; where that does not make it
    positive, more is moved from its first layer.

    Args:
        raw: by (layer or ``first..last``, operation).
        space: whose.
        fixed: what no choice changes.

    Returns:
        The costs in the order of ``raw``, and the new fixed part.
    """
    moved = dict.fromkeys((layer.name for layer in space.layers), 0.0)
    covered = {layer: space.covered(layer) for layer, _ in raw}
    for (layer, _), cost in raw.items():  # layers stand before the spans over them
        left = cost - sum(moved[name] for name in covered[layer])
        moved[covered[layer][0]] += min(0.0, left)
    shifted = [cost - sum(moved[name] for name in covered[layer]) for (layer, _), cost in raw.items()]
    return shifted, fixed + sum(moved.values())


def _size(predictor: Predictor, size: str, layer: str, operation: str) -> float:
    key = predictor.operators.operator(layer, operation)
    if operation == SKIP or key is None:
        return 0.0
    return SIZE_COSTS[size](predictor.statistics[key])


def _fixed_size(predictor: Predictor, size: str) -> float:
    circuit = predictor.operators.circuit
    values = [
        SIZE_COSTS[size](predictor.statistics[key])
        for key in (circuit.segments if circuit is not None else ())
    ]
    return max(values, default=0.0) if size == "peak_bytes" else sum(values)


def resolve_budgets(
    texts: Sequence[tuple[str | None, str]], predictors: Mapping[str, Predictor], default: str
) -> dict[str, float]:
    """Return cost name → seconds for latency budgets such as ``5ms``, ``50%``, ``2x``, ``cpu,threads=2=20ms``.

    Args:
        texts: (device text or None, budget text).
        predictors: by device text.
        default: the device of a budget that names none.

    Raises:
        BadInput: a budget without a unit, not greater than zero, or of a device twice.
    """
    budgets: dict[str, float] = {}
    for device, text in texts:
        predictor = predictors[device or default]
        value = parse_latency_budget(text)
        if isinstance(value, RelativeBudget):
            teacher_s = predictor.teacher_s
            if teacher_s is None:
                teacher_s = predictor.predict((TEACHER,) * len(predictor.project.space.layers)).latency_s
            value = value.fraction * teacher_s
        if predictor.cost_name in budgets:
            raise BadInput(f"device {predictor.device.text!r} has two budgets", hint="keep one of them")
        budgets[predictor.cost_name] = value
    return budgets


def choices_of(project: Project, solution: Solution) -> Choices:
    """Return a solution's operations in the space's order."""
    return Architecture("", tuple(solution.choices.items())).complete(project.space)


def solve_with_margin(
    problem: Problem,
    budgets: Mapping[str, float],
    predictors: Sequence[Predictor],
    *,
    confidence: float | None,
    method: str = "exact",
    time_limit_s: float = 60.0,
) -> tuple[Solution, dict[str, float]]:
    """Solve so that each latency stays within its budget with a confidence.

    A quantile of the whole prediction is no sum, so: solve with a margin, recompute the margin at the answer, until
    it stands.

    Returns:
        The solution, and per latency cost the margin in seconds.
    """
    asked = _Asked(
        problem,
        budgets,
        {predictor.cost_name: predictor for predictor in predictors if predictor.cost_name in budgets},
        confidence,
        method,
        time_limit_s,
    )
    margins = dict.fromkeys(asked.predictors, 0.0)
    try:
        for _ in range(_MARGIN_ROUNDS if confidence is not None else 0):
            solution = asked.solve(margins)
            needed = asked.margins_at(solution)
            if all(needed[name] <= margins[name] * (1 + 1e-9) for name in margins):
                return solution, margins
            margins = {name: max(needed[name], margins[name]) for name in margins}
        return asked.solve(margins), margins
    except InfeasibleBudget as error:
        return asked.at_the_least(error)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A problem with budgets, and the predictors of the latencies among them, by cost."""

    problem: Problem
    budgets: Mapping[str, float]
    predictors: Mapping[str, Predictor]
    confidence: float | None
    method: str
    time_limit_s: float

    def solve(self, margins: Mapping[str, float]) -> Solution:
        """Solve with each budget less its margin."""
        tightened = {name: value - margins.get(name, 0.0) for name, value in self.budgets.items()}
        return solve(self.problem, tightened, method=self.method, time_limit_s=self.time_limit_s)

    def margins_at(self, solution: Solution) -> dict[str, float]:
        """Return how far each latency's quantile lies above what the solver counts for this answer."""
        if self.confidence is None:
            return dict.fromkeys(self.predictors, 0.0)
        found = {}
        for name, predictor in self.predictors.items():
            choices = choices_of(predictor.project, solution)
            prediction = predictor.predict(choices, level=2 * self.confidence - 1)
            found[name] = max(0.0, prediction.high_s - solution.costs[name])
        return found

    def at_the_least(self, error: InfeasibleBudget) -> tuple[Solution, dict[str, float]]:
        """Return the cheapest architecture, when it fits although the margin of a dearer one left no room for it.

        Raises:
            InfeasibleBudget: it does not fit; names the least that would, margins included.
        """
        margins = {}
        for name in self.predictors:
            cheapest = solve(self.problem, {name: error.least[name]}, time_limit_s=self.time_limit_s)
            margins[name] = self.margins_at(cheapest)[name]
        least = {name: value + margins.get(name, 0.0) for name, value in error.least.items()}
        if all(least[name] <= value for name, value in self.budgets.items()):
            room = {name: self.budgets[name] - error.least[name] for name in margins}
            with contextlib.suppress(InfeasibleBudget):  # each budget alone can be met, all together cannot
                return self.solve(room), room
        parts = [
            f"{name}: asked {_amount(name, self.budgets[name])}, least reachable {_amount(name, least[name])}"
            for name in least
        ]
        shares = [
            f"of it {format_duration(margin)} is the margin for the confidence asked"
            for margin in margins.values()
            if margin
        ]
        raise InfeasibleBudget(
            "no architecture meets the budget: " + "; ".join([*parts, *shares]),
            least=least,
            hint="raise the budget, or offer cheaper operations (init --ops FILE)",
        ) from error


def _amount(cost: str, value: float) -> str:
    return format_duration(value) if cost.startswith("latency_s") else f"{value:g}"


def confidence_from(value: float | None, *, proving: bool) -> float | None:
    """Return the confidence to use: 0.95 when nothing will be proved, none when it will.

    Raises:
        UserError: not between 0.5 and 1.
    """
    if value is None:
        return None if proving else 0.95
    if not 0.5 <= value < 1:
        raise UserError(f"--confidence {value} is not from 0.5 to below 1", hint="--confidence 0.95")
    return value
