"""Every candidate of every layer as a report shows it: latency, score, error, its fate, and why one was chosen."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lanaprof.distill.dropped import DroppedCandidate
from lanaprof.errors import UserError
from lanaprof.flows.artifacts import Curve, Trained, without_precision
from lanaprof.flows.learning import wanted_candidates
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.report.facts import ReportFacts
from lanaprof.flows.scales import is_teacher_at_precision
from lanaprof.lut import Estimate
from lanaprof.ops import SKIP, TEACHER
from lanaprof.space import Layer

__all__ = ["STATES", "Alternative", "Candidate", "LayerView", "candidates_csv", "layer_views"]

# what became of a candidate → how the page says it
STATES: Mapping[str, str] = {
    "teacher": "the teacher's own",
    "skip": "skip",
    "scored": "scored",
    "trained": "trained, no score",
    "stopped": "stopped early",
    "hopeless": "hopeless by the table",
    "failed": "failed",
    "waiting": "not trained",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One operation in one layer.

    Attributes:
        operation: its text.
        state: one of STATES.
        latency_s, ci_low_s, ci_high_s: the table's entry.
        cost_s: what it adds to a network's predicted latency; differs from the entry once calibrated.
        score, standard_error: on held-out data; the teacher's own layer scores 0.
        error: of distilling, mean squared over the output's power.
        steps: it was trained for.
        curve: how the error fell.
        note: why it was dropped, in words.
    """

    operation: str
    state: str
    latency_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None
    cost_s: float | None = None
    score: float | None = None
    standard_error: float | None = None
    error: float | None = None
    steps: int | None = None
    curve: Curve = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Alternative:
    """What another candidate would change in the network: seconds and score, both signed."""

    operation: str
    seconds: float
    score: float

    @property
    def per_ms(self) -> float:
        """Return the score that a millisecond is worth here; at least 0 where less latency costs score."""
        return self.score / (self.seconds * 1e3)


@dataclass(frozen=True, slots=True)
class LayerView:
    """A layer with its candidates, or a run of layers with the spans that may stand for it.

    Attributes:
        layer: of the space.
        candidates: in the order of the space; a run's first is what the teacher has there, all layers together.
        chosen: the shown selection's; None before any, and where it has something over other layers in this place.
        cheaper: of those that cost less, the one that loses least score per millisecond saved.
        dearer: of those that cost more, the one that gains most score per millisecond.
    """

    layer: Layer
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None = None
    cheaper: Alternative | None = None
    dearer: Alternative | None = None

    @property
    def teacher(self) -> Candidate:
        """Return the teacher's own layer."""
        return self.candidates[0]

    @property
    def counts(self) -> Counter[str]:
        """Return how many candidates are in which state."""
        return Counter(candidate.state for candidate in self.candidates)

    @property
    def frontier(self) -> tuple[Candidate, ...]:
        """Return the candidates with a score that no cheaper one reaches, cheapest first."""
        best: list[Candidate] = []
        known = [one for one in self.candidates if one.latency_s is not None and one.score is not None]
        for one in sorted(known, key=lambda each: (each.latency_s or 0.0, -(each.score or 0.0))):
            if not best or (one.score or 0.0) > (best[-1].score or 0.0):
                best.append(one)
        return tuple(best)


def layer_views(known: ReportFacts) -> tuple[LayerView, ...]:
    """Return all layers with all their candidates."""
    row = known.shown
    predictor = known.predictor
    if row is not None:
        predictor = known.predictors.get(row.device, predictor)
    choices = dict(row.choices) if row is not None else {}
    wanted = wanted_candidates(known.project, known.own_predictors).candidates
    views: list[LayerView] = []
    for layer in known.project.space.places:
        kept = set(wanted.get(layer.name, ()))
        found = tuple(
            _candidate(known, predictor, layer.name, operation, is_wanted=operation in kept)
            for operation in layer.candidates
        )
        chosen = next((one for one in found if one.operation == choices.get(layer.name)), None)
        standing = chosen
        if layer in known.project.space.runs:
            inside = [
                known_view
                for name in known.project.space.covered(layer.name)
                for known_view in views
                if known_view.layer.name == name
            ]
            found = (_together([view.teacher for view in inside]), *found)
            standing = chosen or _together([view.chosen for view in inside])
        views.append(LayerView(layer, found, chosen, *_alternatives(found, standing)))
    return tuple(views)


def _together(parts: Sequence[Candidate | None]) -> Candidate:
    """Return what stands in several layers as one candidate; what is not known of one is not known of all."""

    def total(name: str) -> float | None:
        values = [getattr(one, name) if one is not None else None for one in parts]
        known = [value for value in values if value is not None]
        return math.fsum(known) if len(known) == len(values) else None

    return Candidate(
        operation=TEACHER,
        state=TEACHER,
        latency_s=total("latency_s"),
        cost_s=total("cost_s"),
        score=total("score"),
    )


def _candidate(
    known: ReportFacts, predictor: Predictor | None, layer: str, operation: str, *, is_wanted: bool
) -> Candidate:
    row = known.score_rows.get((layer, operation))
    name = (layer, without_precision(operation))
    trained, dropped = known.trained.get(name), known.dropped.get(name)
    estimate = predictor.find_estimate(layer, operation) if predictor is not None else None
    latency_s = 0.0 if operation == SKIP else estimate.latency_s if estimate is not None else None
    if operation in (TEACHER, SKIP):
        state = operation
    elif row is not None:
        state = "scored"
    elif trained is not None or is_teacher_at_precision(operation):
        state = "trained"
    elif dropped is not None:
        state = "stopped"
    elif is_wanted:
        state = "waiting"
    else:
        state = "failed" if estimate is None else "hopeless"
    is_teacher = operation == TEACHER
    learnt = trained if trained is not None else dropped
    return Candidate(
        operation=operation,
        state=state,
        latency_s=latency_s,
        ci_low_s=estimate.ci_low_s if estimate is not None else None,
        ci_high_s=estimate.ci_high_s if estimate is not None else None,
        cost_s=_cost_s(predictor, layer, operation, estimate),
        score=0.0 if is_teacher else row.score if row is not None else None,
        standard_error=row.standard_error if row is not None else None,
        error=0.0 if is_teacher else learnt.error if learnt is not None else None,
        steps=_steps(learnt),
        curve=learnt.curve if learnt is not None else (),
        note=_reason(learnt) if isinstance(learnt, DroppedCandidate) else "",
    )


def _steps(learnt: Trained | DroppedCandidate | None) -> int | None:
    if isinstance(learnt, DroppedCandidate):
        return learnt.step
    return learnt.steps if learnt is not None else None


def _reason(dropped: DroppedCandidate) -> str:
    return (
        f"given up after {dropped.step} steps: {dropped.rival} costs no more and was at an error of "
        f"{dropped.rival_error:.3g} by then"
    )


def _cost_s(
    predictor: Predictor | None, layer: str, operation: str, estimate: Estimate | None
) -> float | None:
    if predictor is None or (estimate is None and operation != SKIP):
        return None
    try:
        return predictor.candidate_cost_s(layer, operation)
    except UserError:
        return None


def _alternatives(
    candidates: Sequence[Candidate], chosen: Candidate | None
) -> tuple[Alternative | None, Alternative | None]:
    """Return the best trades to less and to more latency."""
    if chosen is None or chosen.cost_s is None or chosen.score is None:
        return None, None
    found = [
        Alternative(one.operation, one.cost_s - chosen.cost_s, one.score - chosen.score)
        for one in candidates
        if one.cost_s is not None and one.score is not None and one.cost_s != chosen.cost_s
    ]
    cheaper = min((one for one in found if one.seconds < 0), key=lambda one: one.per_ms, default=None)
    dearer = max((one for one in found if one.seconds > 0), key=lambda one: one.per_ms, default=None)
    return cheaper, dearer


def candidates_csv(views: Sequence[LayerView]) -> str:
    """Return all candidates as CSV, one a row; what is unknown is empty."""
    names = (
        "state", "latency_s", "ci_low_s", "ci_high_s", "cost_s", "score", "standard_error", "error", "steps", "note",
    )  # fmt: skip
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("layer", "operation", "chosen", *names))
    for view in views:
        for one in view.candidates:
            values = [getattr(one, name) for name in names]
            chosen = int(view.chosen is not None and one.operation == view.chosen.operation)
            cells = ["" if value is None else value for value in values]
            writer.writerow((view.layer.name, one.operation, chosen, *cells))
    return out.getvalue()
