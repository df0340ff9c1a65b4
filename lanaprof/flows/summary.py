"""What a measured project looks like: the teacher, the fastest architecture, the slowest layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanaprof.config import Device
from lanaprof.errors import UserError
from lanaprof.flows.predicting import open_predictor
from lanaprof.flows.project import Project
from lanaprof.lut import Store
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import Prediction
from lanaprof.units import format_duration

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["LatencySummary", "latency_summary"]

_SLOWEST = 5


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """The outline of a project's latencies.

    Attributes:
        teacher_s: measured; None when nobody timed the teacher.
        fastest: the prediction for the cheapest candidate everywhere.
        slowest: (layer, seconds) of the teacher's slowest layers.
    """

    teacher_s: float | None
    fastest: Prediction
    slowest: tuple[tuple[str, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON keys."""
        return {
            "teacher_latency_s": self.teacher_s,
            "fastest_latency_s": self.fastest.latency_s,
            "slowest_layers": [{"layer": layer, "latency_s": seconds} for layer, seconds in self.slowest],
        }

    def show(self, console: Console) -> None:
        """Print it."""
        if self.teacher_s is not None:
            ratio = self.teacher_s / self.fastest.latency_s if self.fastest.latency_s > 0 else float("inf")
            console.print(
                f"teacher {format_duration(self.teacher_s)}; fastest architecture about "
                f"{format_duration(self.fastest.latency_s)} ({ratio:.1f}× faster)"
            )
        layers = ", ".join(f"{layer} {format_duration(seconds, digits=3)}" for layer, seconds in self.slowest)
        console.print(f"slowest layers: {layers}")


def latency_summary(project: Project, device: Device, store: Store, *, team: str) -> LatencySummary | None:
    """Return the outline, or None while the teacher's own layers are not all measured."""
    try:
        predictor = open_predictor(project, device, store, team=team)
        predictor.expect_teacher()
    except UserError:
        return None
    costs = [
        (layer.name, predictor.candidate_features(layer.name, TEACHER)[0]) for layer in project.space.layers
    ]
    costs.sort(key=lambda pair: -pair[1])
    return LatencySummary(
        predictor.teacher_s, predictor.predict(predictor.cheapest()), tuple(costs[:_SLOWEST])
    )
