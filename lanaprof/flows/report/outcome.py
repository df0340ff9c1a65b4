"""A report's sections on what came out: the frontier and the selections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lanaprof.errors import UserError
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.finalists import read_finalists
from lanaprof.flows.frontiers import POINT_COLUMNS, FrontierPoint, point_cells, project_frontier
from lanaprof.flows.layermap import frontier_map
from lanaprof.flows.marks import Mark, selection_marks
from lanaprof.flows.pages import Cell, Section, details, figure, hint, table
from lanaprof.flows.plotting import frontier_chart
from lanaprof.flows.report.facts import (
    DASH,
    ReportFacts,
    duration_cell,
    number_cell,
    number_text,
    replaced_count,
    speed_up,
)
from lanaprof.flows.report.students import quality_marks
from lanaprof.lut import Selection
from lanaprof.space import Space
from lanaprof.units import format_count, format_duration, format_percent, format_size

__all__ = ["finalists_section", "frontier_section", "selections_section"]

_SHOWN_FINALS = 4  # selections with finalists, the newest
_FAR = 4.0  # times the worst score on the chart; further down nothing is drawn
_SHOWN_POINTS = 40  # of the frontier, in the table under its chart


def frontier_section(known: ReportFacts) -> Section:
    """Return the chart of the best score for every latency, with what was selected, fine-tuned and found elsewhere."""
    title, predictor = "Frontier", known.predictor
    missing = known.command("measure" if known.scores else "score")
    if predictor is None or not known.scores:
        return Section(name="frontier", title=title, body="", missing=missing)
    try:
        points = project_frontier(known.project, predictor, known.scores)
    except UserError as error:
        body = f'<p class="todo">{escape(error.message)}</p>' + (hint(error.hint) if error.hint else "")
        return Section(name="frontier", title=title, body=body)
    marks = [*selection_marks(known.selections, known.device.text), *_tuned_marks(known)]
    shown = _near(points, [mark.score for mark in marks])
    drawing = frontier_chart(shown, device=known.device.text, teacher_s=predictor.teacher_s, marks=marks)
    caption = (
        f"{len(points)} architectures: the best score ({known.metric}) that the table allows for every latency. "
        "Predicted latencies; selections that were timed stand at their measured latency."
    )
    if len(shown) < len(points):
        caption += f" The cheapest {len(points) - len(shown)} score far below the rest and are left out."
    if any(mark.kind == "student" for mark in marks):
        caption += (
            " A fine-tuned student stands at its own divergence from the teacher: a sum of scores guesses "
        )
        caption += "that of the network as assembled."
    body = figure(svg_from_drawing(drawing), caption) + _points_table(known, points)
    layers = frontier_map(points, [layer.name for layer in known.project.space.layers])
    body += details("The frontier by layers", layers) if layers else ""
    return Section(name="frontier", title=title, body=body)


def _near(points: tuple[FrontierPoint, ...], scores: list[float]) -> tuple[FrontierPoint, ...]:
    """Return the points that are not far worse than what was selected: they would squeeze everything else."""
    floor = _FAR * min(scores, default=0.0)
    return tuple(point for point in points if point.score >= floor) if floor < 0 else points


def _points_table(known: ReportFacts, points: tuple[FrontierPoint, ...]) -> str:
    """Return the frontier in numbers: all points, or some evenly from the cheapest to the dearest."""
    count = min(len(points), _SHOWN_POINTS)
    numbers = sorted({round(n * (len(points) - 1) / max(1, count - 1)) for n in range(count)})
    teacher_s = known.predictor.teacher_s if known.predictor is not None else None
    rows: list[list[Cell]] = []
    for point in (points[number] for number in numbers):
        replaced = replaced_count(known.project.space, point.choices.items())
        rows.append([*point_cells(point, teacher_s), (str(replaced), replaced)])
    columns = [*POINT_COLUMNS, "#layers replaced"]
    shown = f"{len(rows)} of its {len(points)} points" if len(rows) < len(points) else "all its points"
    label = f"The frontier in numbers: {shown}"
    return details(label, table(columns, rows, label=label, sortable=True))


def _tuned_marks(known: ReportFacts) -> list[Mark]:
    """Return the students and baselines whose divergence is known, where scores are minus that and no roots."""
    if not (known.metric.startswith("kl(") and known.metric.endswith("power=1)")):
        return []
    return [
        Mark(
            label=mark.label,
            latency_s=mark.latency_s,
            score=-mark.score,
            measured=mark.measured,
            title=mark.title,
            kind=mark.kind,
            latency_span_s=mark.latency_span_s,
            score_span=mark.score_span and (-mark.score_span[1], -mark.score_span[0]),
        )
        for mark in quality_marks(known, "kl")
        if mark.kind != "teacher"
    ]


# ---------------------------------------------------------------------------------------------- selections


def selections_section(known: ReportFacts) -> Section:
    """Return what was selected for which budgets, and whether it was proved."""
    if not known.selections:
        missing = known.command("select")
        return Section(name="selections", title="Selections", body="", missing=missing)
    rows: list[list[Cell]] = []
    for row in reversed(known.selections):
        speed = speed_up(known, row)
        error = row.predicted_s / row.measured_s - 1 if row.predicted_s and row.measured_s else None
        rows.append(
            [
                row.id[:12],
                row.device,
                "; ".join(_budget_text(cost, value) for cost, value in row.budgets),
                duration_cell(row.predicted_s, digits=4),
                (_measured_text(row), row.measured_s),
                (format_percent(error).replace("-", "−"), error) if error is not None else (DASH, None),
                (f"{speed:.2f}×", speed) if speed else (DASH, None),
                number_cell(row.score),
                row.status,
            ]
        )
    columns = [
        "selection", "device", "budget", "#predicted", "#measured (95 %)", "#error", "#speed-up", "#score", "state",
    ]  # fmt: skip
    note = (
        "The newest first, our own team's before others'. "
        "Verified: the whole network was timed on the device and lies inside its budget."
    )
    shown = table(columns, rows, label="Selections", marked=True, sortable=True)
    body = f'{shown}<p class="muted">{note}</p>'
    return Section(name="selections", title="Selections", body=body)


def _measured_text(row: Selection) -> str:
    if row.measured_s is None:
        return DASH
    text = format_duration(row.measured_s)
    if row.ci_low_s is None or row.ci_high_s is None:
        return text
    half = (row.ci_high_s - row.ci_low_s) / 2 / row.measured_s
    return f"{text} ± {half:.1%}"


def _budget_text(cost: str, value: float) -> str:
    name, _, device = cost.partition("@")
    if name == "latency_s":
        return f"{format_duration(value)} on {device}"
    if name.endswith("_bytes"):
        return f"{format_size(value)} {name.removesuffix('_bytes')}"
    return f"{format_count(value)} {name}"


# ----------------------------------------------------------------------------------------------- finalists


def finalists_section(known: ReportFacts) -> Section:
    """Return the networks that a selection was picked from by their own quality; empty when none were held."""
    found = [
        (row, rows) for row in reversed(known.selections) if (rows := read_finalists(known.project, row.id))
    ]
    body = "".join(
        f"<h3>Selection {escape(row.id[:12])}: {len(rows)} finalists</h3>{_finalists_table(known.project.space, rows)}"
        for row, rows in found[:_SHOWN_FINALS]
    )
    if body:
        body = (
            "<p>Several different networks within the budget, timed beside each other; those inside were judged by "
            "their own divergence from the teacher on held-out data, the best once more after a short fine-tune.</p>"
        ) + body
    return Section(name="finalists", title="Finalists", body=body)


def _finalists_table(space: Space, finalists: Sequence[Mapping[str, Any]]) -> str:
    rows: list[list[Cell]] = []
    for one in finalists:
        state = "chosen" if one.get("chosen") else "over the budget" if one.get("inside") is False else ""
        replaced = replaced_count(space, one.get("choices", {}).items())
        rows.append(
            [
                (str(replaced), replaced),
                number_cell(one.get("score")),
                duration_cell(one.get("predicted_s"), digits=4),
                duration_cell(one.get("measured_s"), digits=4),
                _uncertain(one.get("kl"), one.get("kl_standard_error")),
                _uncertain(one.get("tuned_kl"), one.get("tuned_kl_standard_error")),
                _uncertain(one.get("tuned_difference"), one.get("tuned_difference_standard_error")),
                state,
            ]
        )
    columns = [
        "#layers replaced", "#score", "#predicted", "#measured", "#divergence ± standard error",
        "#after a short fine-tune", "#behind the chosen one", "state",
    ]  # fmt: skip
    own = {number for number, one in enumerate(finalists) if one.get("chosen")}
    return table(columns, rows, label="Finalists, the best first", sortable=True, own=own)


def _uncertain(value: float | None, standard_error: float | None) -> Cell:
    text = number_text(value)
    return (text if standard_error is None else f"{text} ± {number_text(standard_error)}"), value
