"""A report's sections on what the project is: its configuration, its steps, its space."""

from __future__ import annotations

from lanaprof.flows.pages import Cell, Section, facts, table
from lanaprof.flows.report.facts import ReportFacts, duration_cell, latency_of
from lanaprof.ops import TEACHER
from lanaprof.units import format_count

__all__ = ["project_section", "space_section"]


def project_section(known: ReportFacts) -> Section:
    """Return what the project is made of, and its steps."""
    project, space = known.project, known.project.space
    weights = str(project.facts.get("weights") or project.config.weights or "")
    if project.facts.get("seeded"):
        weights = "seeded random weights: good for latencies, useless for scores"
    rows = [
        ("teacher", space.teacher),
        ("weights", weights),
        ("input", "×".join(map(str, space.input_shape))),
        ("data", project.config.data),
        ("operations", project.config.ops),
        ("devices", "; ".join(project.config.devices)),
        ("costs", ", ".join(project.config.costs)),
        ("seed", str(project.config.seed)),
    ]
    steps = table(
        ["step", "state", "how far"],
        [
            (
                f"{step.name} {step.device}".strip(),
                "stale" if step.stale else "done" if step.done else "open",
                step.detail,
            )
            for step in known.steps
        ],
        label="Steps of the project",
    )
    return Section(name="project", title="Project", body=facts(rows) + steps)


def space_section(known: ReportFacts) -> Section:
    """Return the layers with their shapes, candidates and latencies."""
    rows: list[list[Cell]] = []
    for layer in known.project.space.places:
        times = [latency_of(known.predictor, layer.name, op) for op in layer.candidates if op != TEACHER]
        cheapest_s = min((seconds for seconds in times if seconds is not None), default=None)
        rows.append(
            [
                layer.name,
                "×".join(map(str, layer.input_shape)),
                "×".join(map(str, layer.output_shape)),
                (format_count(layer.params), layer.params),
                (str(len(layer.candidates)), len(layer.candidates)),
                duration_cell(_teacher_s(known, layer.name)),
                duration_cell(cheapest_s),
            ]
        )
    columns = ["layer", "input", "output", "#parameters", "#candidates", "#teacher", "#cheapest"]
    body = table(columns, rows, label="Layers of the space", sortable=True)
    return Section(name="space", title="Space", body=body)


def _teacher_s(known: ReportFacts, place: str) -> float | None:
    """Return the latency of the teacher's own layer; of a run of them, all together."""
    times = [latency_of(known.predictor, name, TEACHER) for name in known.project.space.covered(place)]
    found = [seconds for seconds in times if seconds is not None]
    return sum(found) if len(found) == len(times) else None
