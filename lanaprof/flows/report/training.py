"""A report's section on training: how candidates' errors and students' divergences fell."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lanaprof.flows.artifacts import read_history
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.pages import Cell, Section, details, figure, grid, table
from lanaprof.flows.report.candidates import LayerView
from lanaprof.flows.report.charts import curves_chart, history_chart
from lanaprof.flows.report.facts import DASH, ReportFacts, number_cell
from lanaprof.lut import Selection

__all__ = ["training_section"]

_SHOWN_HISTORIES = 12  # students, the newest


def training_section(known: ReportFacts, views: Sequence[LayerView]) -> Section:
    """Return the curves of distilling, layer by layer, and of fine-tuning, student by student."""
    title = "Training"
    curves = [(view.layer.name, drawing) for view in views if (drawing := curves_chart(view)) is not None]
    histories = [
        (row, history)
        for row in known.selections[-_SHOWN_HISTORIES:]
        if len(history := read_history(known.project, row)) > 1
    ]
    if not curves and not histories:
        missing = known.command("distill") if not known.trained else known.command("finetune")
        return Section(name="training", title=title, body="", missing=missing)
    body = ""
    if curves:
        stopped = sum(1 for view in views for one in view.candidates if one.note)
        words = (
            "Distilling, layer by layer: the mean squared error of each candidate's output over the power of the "
            "teacher's, on a logarithmic scale. Thick: what was chosen."
        )
        if stopped:
            words += f" Broken: the {stopped} that were given up early."
        body += f"<p>{escape(words)}</p>"
        body += grid([(name, figure(svg_from_drawing(drawing), "")) for name, drawing in curves])
    if histories:
        words = (
            "Fine-tuning the whole network: thick with dots, its divergence from the teacher on held-out data; broken, "
            "the loss on what it trains on."
        )
        body += f"<p>{escape(words)}</p>" + grid(_histories(histories))
        body += _looks(histories)
    return Section(name="training", title=title, body=body)


History = Sequence[dict[str, float | None]]


def _histories(histories: Sequence[tuple[Selection, History]]) -> list[tuple[str, str]]:
    drawn = ((row, history_chart(history, name=f"selection {row.id[:12]}")) for row, history in histories)
    return [
        (f"selection {row.id[:12]}", figure(svg_from_drawing(drawing), ""))
        for row, drawing in drawn
        if drawing is not None
    ]


def _looks(histories: Sequence[tuple[Selection, History]]) -> str:
    """Return the looks at held-out data in numbers."""
    rows: list[list[Cell]] = []
    for row, history in histories:
        for point in history:
            accuracy = point.get("accuracy")
            rows.append(
                [
                    row.id[:12],
                    number_cell(point.get("step"), digits=0),
                    number_cell(point.get("train_loss")),
                    number_cell(point.get("kl")),
                    (f"{accuracy:.2%}", accuracy) if accuracy is not None else (DASH, None),
                ]
            )
    columns = ["selection", "#step", "#training loss", "#held-out divergence", "#held-out accuracy"]
    label = "Fine-tuning in numbers"
    return details(label, table(columns, rows, label=label, sortable=True))
