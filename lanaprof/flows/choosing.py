"""select as the command means it: predictors, scores, budgets, a solution, a stored selection."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lanaprof.config import Device
from lanaprof.errors import BadInput, InfeasibleBudget, LanaprofError
from lanaprof.flows.devicing import default_device
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor, open_predictor
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import (
    Scores,
    build_problem,
    choices_of,
    confidence_from,
    find_scores,
    resolve_budgets,
    scores_from_file,
    solve_with_margin,
    without_many_pairs,
)
from lanaprof.lut import Selection, Store, utc_now
from lanaprof.profiler.calibration import Prediction
from lanaprof.solver import Problem, Solution, solve_diverse
from lanaprof.units import RelativeBudget, format_duration, parse_latency_budget

__all__ = [
    "Chosen",
    "Question",
    "ask",
    "choose",
    "choose_diverse",
    "store_selection",
]

_LATENCY = "latency_s@"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What select was asked.

    Attributes:
        project, device: the device whose latency is meant where none is named, and proved.
        predictors: by device text, that device's first.
        scores: by (layer, operation).
        budgets: cost name → value.
        sizes: the other budgeted costs.
        confidence: that each latency stays inside; None for the plain prediction.
        method: the selector.
        fraction: of the teacher's latency, where that is how the proved device's budget was given.
    """

    project: Project
    device: Device
    predictors: Mapping[str, Predictor]
    scores: Scores
    budgets: Mapping[str, float]
    sizes: tuple[str, ...] = ()
    confidence: float | None = None
    method: str = "exact"
    fraction: float | None = None

    @property
    def predictor(self) -> Predictor:
        """Return the predictor of the device that is proved."""
        return self.predictors[self.device.text]

    @property
    def budget_s(self) -> float:
        """Return the proved device's budget; infinite when only others are budgeted."""
        return self.budgets.get(self.predictor.cost_name, float("inf"))

    def problem(self, predictor: Predictor | None = None) -> Problem:
        """Return the problem, with another predictor for the proved device."""
        predictors = [
            (predictor or own) if text == self.device.text else own for text, own in self.predictors.items()
        ]
        budgeted = [p for p in predictors if p.cost_name in self.budgets] or predictors[:1]
        return build_problem(self.project, budgeted, self.scores, sizes=self.sizes)


@dataclass(frozen=True, slots=True)
class Chosen:
    """An answer from the tables alone."""

    choices: Choices
    solution: Solution
    prediction: Prediction
    margin_s: float
    alternatives: tuple[Solution, ...] = field(default=())


def ask(
    project: Project,
    store: Store,
    *,
    device: str | None,
    budgets: Sequence[tuple[str | None, str]],
    sizes: Mapping[str, float],
    team: str,
    settings: Mapping[str, Any],
) -> Question:
    """Return the question that the options of select pose.

    Args:
        project: whose space.
        store: the database.
        device: text or None.
        budgets: (device text or None, budget text).
        sizes: further budgets by cost name.
        team: whose measurements come first.
        settings: ``scores`` (path or None), ``metric``, ``environment``, ``confidence``, ``proving``, ``method``.

    Raises:
        UserError: whatever is missing, with the command that helps.
    """
    main = default_device(project, store, device or next((name for name, _ in budgets if name), None))
    texts = [(project.device(name).text if name else None, budget) for name, budget in budgets]
    parsed = {name or main.text: parse_latency_budget(budget) for name, budget in texts}
    _refuse_unlisted(project, main, [*(f"latency_s@{name or main.text}" for name, _ in texts), *sizes])
    wanted = dict.fromkeys([main.text, *(name for name, _ in texts if name)])
    predictors = {
        text: open_predictor(
            project,
            project.device(text),
            store,
            team=team,
            environment=settings.get("environment") if text == main.text else None,
        )
        for text in wanted
    }
    path: Path | None = settings.get("scores")
    scores = (
        scores_from_file(path) if path is not None else find_scores(project, store, settings.get("metric"))
    )
    resolved = {**resolve_budgets(texts, predictors, main.text), **sizes}
    if not resolved:
        raise BadInput("no budget was given", hint="lanaprof select --budget 5ms")
    own = parsed.get(main.text)
    return Question(
        project=project,
        device=main,
        predictors=predictors,
        scores=scores,
        budgets=resolved,
        sizes=tuple(sizes),
        confidence=confidence_from(settings.get("confidence"), proving=bool(settings.get("proving"))),
        method=settings.get("method") or "exact",
        fraction=own.fraction if isinstance(own, RelativeBudget) else None,
    )


def _refuse_unlisted(project: Project, main: Device, asked: Sequence[str]) -> None:
    """Refuse budgets on costs the project was not made for: candidates that only matter for them are not trained."""
    config = project.config
    listed = config.costs or tuple(_LATENCY + project.device(text).text for text in config.devices)
    listed = listed or (_LATENCY + main.text,)
    devices = [name.removeprefix(_LATENCY) for name in listed if name.startswith(_LATENCY)]
    for name in asked:
        if name in listed:
            continue
        device = name.removeprefix(_LATENCY) if name.startswith(_LATENCY) else ""
        key, value = (
            ("devices", [*devices, device]) if device and not config.costs else ("costs", [*listed, name])
        )
        steps = [
            *([f"lanaprof measure --device {device}"] if device else []),
            "lanaprof distill",
            "lanaprof score",
        ]
        add = f"{key} = {json.dumps(value)} in lanaprof.toml, then {', '.join(steps)}"
        if device and devices:
            raise BadInput(
                f"a budget on device {device!r} was asked, and this project was made for {', '.join(devices)}: "
                f"candidates that matter only on {device} are not trained",
                hint=f"--device {devices[0]}; to fit {device}, too: {add}",
            )
        raise BadInput(
            f"{name!r} is not among the costs of this project ({', '.join(listed)}): candidates that matter only "
            "for it are not trained",
            hint=f"set {add}",
        )


def choose(question: Question, *, time_limit_s: float = 60.0) -> Chosen:
    """Return the best architecture by the tables, with the margin its confidence takes.

    Raises:
        InfeasibleBudget: nothing is cheap enough; names the least.
    """
    problem = question.problem()
    _refuse_unreachable(question)
    solution, margins = solve_with_margin(
        problem,
        question.budgets,
        tuple(question.predictors.values()),
        confidence=question.confidence,
        method=question.method,
        time_limit_s=time_limit_s,
    )
    choices = choices_of(question.project, solution)
    prediction = question.predictor.predict(choices)
    return Chosen(choices, solution, prediction, margins.get(question.predictor.cost_name, 0.0))


def _refuse_unreachable(question: Question) -> None:
    """Refuse a latency that no network of the space can have, whatever the fitted line says far below its networks.

    Raises:
        InfeasibleBudget: names the least.
    """
    least = {}
    for predictor in question.predictors.values():
        budget_s = question.budgets.get(predictor.cost_name)
        if budget_s is None:
            continue
        level = 2 * question.confidence - 1 if question.confidence is not None else 0.5
        prediction = predictor.predict(predictor.cheapest(), level=level)
        least[predictor.cost_name] = (
            prediction.latency_s if question.confidence is None else prediction.high_s
        )
    beyond = {name: value for name, value in least.items() if question.budgets[name] < value}
    if beyond:
        parts = [f"{name}: asked {format_duration(question.budgets[name])}, least reachable "
                 f"{format_duration(value)}" for name, value in beyond.items()]  # fmt: skip
        raise InfeasibleBudget(
            "no architecture meets the budget: " + "; ".join(parts),
            least=least,
            hint="raise the budget, or offer cheaper operations (init --ops FILE)",
        )


def choose_diverse(question: Question, *, top: int, overlap: float, time_limit_s: float = 60.0) -> Chosen:
    """Return the best architectures that differ from each other, the best first."""
    first = choose(question, time_limit_s=time_limit_s)
    tightened = dict(question.budgets)
    if question.predictor.cost_name in tightened:
        tightened[question.predictor.cost_name] -= first.margin_s
    problem = without_many_pairs(question.problem())
    found = solve_diverse(problem, tightened, top=top, overlap=overlap, time_limit_s=time_limit_s)
    return Chosen(first.choices, first.solution, first.prediction, first.margin_s, found)


def store_selection(question: Question, store: Store, choices: Choices, **fields: Any) -> Selection:
    """Add the selection to the database and return it.

    Args:
        question: what was asked.
        store: the database.
        choices: the answer.
        fields: score, bound, proved, status, predicted_s, measured_s, ci_low_s, ci_high_s, rounds, team.
    """
    project, device = question.project, question.device
    record = Selection(
        teacher=project.weights_digest,
        space=project.space.relay_digest(device.batch, precision=device.precision),
        device=device.text,
        environment=question.predictor.table.environment.id,
        budgets=tuple(sorted(question.budgets.items())),
        choices=project.space.named(choices),
        method=question.method,
        time=utc_now(),
        **fields,
    )
    report = store.add([record])
    if report.refused:
        raise LanaprofError(f"the selection was refused by the database: {report.refused[0].reason}")
    return record
