"""What a report's sections are made of, read once, and how they say numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lanaprof.config import Device
from lanaprof.distill.dropped import DroppedCandidate
from lanaprof.flows.artifacts import Trained
from lanaprof.flows.pages import Cell
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.report.baselines import Baseline
from lanaprof.flows.selecting import Scores
from lanaprof.flows.stating import Step
from lanaprof.flows.summary import LatencySummary
from lanaprof.lut import Score, Selection, Store
from lanaprof.ops import SKIP, TEACHER
from lanaprof.space import Space
from lanaprof.units import format_duration

__all__ = [
    "DASH",
    "ReportFacts",
    "duration_cell",
    "latency_of",
    "number_cell",
    "number_text",
    "replaced_count",
    "speed_up",
]

DASH = "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """All that the sections are made of, read once.

    Attributes:
        project, store, team: whose report; no store before the first measurement.
        device: whose latencies are shown.
        predictors: by device text.
        summary: the outline of the latencies.
        score_rows: the newest score of every candidate, by (layer, operation), all of one metric.
        trained: what the last recipe trained, by (layer, operation without its precision).
        dropped: what it gave up early, likewise.
        selections: oldest first, other teams' before our own.
        steps: of the project.
        baselines: networks from elsewhere to compare with.
    """

    project: Project
    store: Store | None
    team: str
    device: Device
    predictors: Mapping[str, Predictor]
    summary: LatencySummary | None
    score_rows: Mapping[tuple[str, str], Score]
    trained: Mapping[tuple[str, str], Trained]
    dropped: Mapping[tuple[str, str], DroppedCandidate]
    selections: tuple[Selection, ...]
    steps: tuple[Step, ...]
    baselines: tuple[Baseline, ...] = field(default=())

    @property
    def predictor(self) -> Predictor | None:
        """Return the device's predictor; None while nothing is measured on it."""
        return self.predictors.get(self.device.text)

    @property
    def scores(self) -> Scores:
        """Return the scores without what stands beside them."""
        return {name: row.score for name, row in self.score_rows.items()}

    @property
    def metric(self) -> str:
        """Return what the scores are of; empty without scores."""
        return next((row.metric for row in self.score_rows.values()), "")

    @property
    def shown(self) -> Selection | None:
        """Return the selection drawn layer by layer: the latest on this device, else the latest."""
        own = tuple(row for row in self.selections if row.device == self.device.text)
        return next(reversed(own or self.selections), None)

    @property
    def own_predictors(self) -> list[Predictor]:
        """Return those of the devices that decide which candidates can matter: lanaprof.toml's, else the report's."""
        named = [self.project.device(text).text for text in self.project.config.devices]
        return [self.predictors[text] for text in named or [self.device.text] if text in self.predictors]

    def command(self, name: str) -> str:
        """Return what fills a part: the step's own command, on this device where it has one."""
        for step in self.steps:
            if step.name == name and step.device in ("", self.device.text) and step.command:
                return step.command
        return f"lanaprof {name}"


def speed_up(known: ReportFacts, selection: Selection) -> float | None:
    """Return how many times faster than the teacher a selection is; None when one of the two is unknown."""
    predictor = known.predictors.get(selection.device)
    latency_s = selection.measured_s or selection.predicted_s
    if predictor is None or predictor.teacher_s is None or not latency_s:
        return None
    return predictor.teacher_s / latency_s


def replaced_count(space: Space, choices: Iterable[tuple[str, str]]) -> int:
    """Return how many layers of a network are not the teacher's; a span counts for all that it covers."""
    replaced = [name for name, operation in choices if operation != TEACHER]
    # kept choices may name what the space offered once
    return sum(len(space.covered(name)) if space.find_layer(name) else 1 for name in replaced)


def latency_of(predictor: Predictor | None, layer: str, operation: str) -> float | None:
    """Return the table's latency of a candidate in seconds; None when there is none."""
    if operation == SKIP:
        return 0.0
    estimate = predictor.find_estimate(layer, operation) if predictor is not None else None
    return estimate.latency_s if estimate is not None else None


def number_text(number: float | None, *, digits: int = 4) -> str:
    """Return a score for people; tiny ones keep their leading digits."""
    if number is None:
        return DASH
    size = abs(number)
    text = f"{number:.1e}" if 0 < size < 10.0**-digits else f"{number:.{digits}f}"
    return text.replace("-", "−")


def number_cell(number: float | None, *, digits: int = 4) -> Cell:
    """Return a number as a cell that is sorted by it."""
    return number_text(number, digits=digits), number


def duration_cell(seconds: float | None, *, digits: int = 3, signed: bool = False) -> Cell:
    """Return a time as a cell that is sorted by it."""
    if seconds is None:
        return DASH, None
    plus = "+" if signed and seconds > 0 else ""
    return plus + format_duration(seconds, digits=digits).replace("-", "−"), seconds
