"""A report's sections layer by layer: what was chosen and why, and all the candidates it was chosen from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.pages import Cell, Section, details, figure, grid, table
from lanaprof.flows.plotting import Bar, bars_chart
from lanaprof.flows.report.candidates import STATES, Alternative, Candidate, LayerView
from lanaprof.flows.report.charts import candidates_chart
from lanaprof.flows.report.facts import (
    DASH,
    ReportFacts,
    duration_cell,
    number_cell,
    number_text,
    replaced_count,
)
from lanaprof.ops import SKIP, TEACHER
from lanaprof.units import format_duration

__all__ = ["candidates_section", "layers_section"]

_SHOWN_BARS = 40  # layers in a chart; the table below has them all
_SHOWN_ROWS = 1500  # candidates in all tables together: the page stays below a megabyte or two
_LEAST_ROWS = 12


def layers_section(known: ReportFacts, views: Sequence[LayerView]) -> Section:
    """Return the latest selection beside the teacher, layer by layer, with what other choices would have changed."""
    title, row = "Layer by layer", known.shown
    if row is None:
        return Section(name="layers", title=title, body="", missing=known.command("select"))
    space = known.project.space
    body = (
        f"<p>Selection {escape(row.id[:12])}, made {escape(row.time)}: {replaced_count(space, row.choices)} of "
        f"{len(space.layers)} layers replaced.</p>"
    )
    standing = [view for view in views if view.chosen is not None]
    bars = [
        Bar(
            view.layer.name,
            view.teacher.latency_s,
            view.chosen.latency_s if view.chosen is not None else None,
            view.chosen.operation if view.chosen is not None else "",
        )
        for view in standing
        if view.teacher.latency_s is not None
    ]
    if bars:
        drawing = bars_chart(bars[:_SHOWN_BARS], title=f"latency on {row.device}")
        caption = "The table's entry for each layer: the teacher's own, and what was selected in its place."
        if len(bars) > _SHOWN_BARS:
            caption += f" The first {_SHOWN_BARS} of {len(bars)} layers; the table has all."
        body += figure(svg_from_drawing(drawing), caption)
    body += _choices_table(standing)
    body += _why(views)
    return Section(name="layers", title=title, body=body)


def _choices_table(views: Sequence[LayerView]) -> str:
    rows: list[list[Cell]] = []
    for view in views:
        chosen = view.chosen or view.teacher
        error = (number_text(chosen.standard_error) if chosen.standard_error is not None else "") or ""
        score = number_text(chosen.score) + (f" ± {error}" if error else "")
        rows.append(
            [
                view.layer.name,
                chosen.operation,
                duration_cell(chosen.latency_s),
                duration_cell(view.teacher.latency_s),
                (score, chosen.score),
            ]
        )
    columns = ["layer", "operation", "#latency", "#the teacher's", "#score ± standard error"]
    return table(columns, rows, label="What was chosen in each layer", sortable=True)


def _why(views: Sequence[LayerView]) -> str:
    """Return what the best other choices would have changed in each layer."""
    rows: list[list[Cell]] = []
    for view in views:
        if view.cheaper is None and view.dearer is None:
            continue
        rows.append([view.layer.name, *_trade(view.cheaper), *_trade(view.dearer)])
    if not rows:
        return ""
    prices = [view.dearer.per_ms for view in views if view.dearer is not None]
    words = (
        "Selecting maximises the sum of scores within the budget. What another choice in one layer would change: "
        "the cheaper candidate that loses least score per millisecond saved, and the dearer one that gains most per "
        "millisecond; latencies as they count in the whole network."
    )
    if prices and max(prices) > 0:
        words += f" More latency would buy a score of at most {max(prices):.3g} per millisecond."
    columns = [
        "layer", "cheaper", "#saves", "#score", "#per ms", "dearer", "#costs", "#score", "#per ms",
    ]  # fmt: skip
    shown = table(columns, rows, label="What other choices would have changed", sortable=True)
    return f"<h3>Why these, and not others</h3><p>{escape(words)}</p>{shown}"


def _trade(other: Alternative | None) -> list[Cell]:
    if other is None:
        return [DASH, (DASH, None), (DASH, None), (DASH, None)]
    plus = "+" if other.score > 0 else ""
    return [
        other.operation,
        duration_cell(abs(other.seconds)),
        (plus + number_text(other.score), other.score),
        number_cell(other.per_ms, digits=3),
    ]


# ---------------------------------------------------------------------------------------------- candidates


def candidates_section(known: ReportFacts, views: Sequence[LayerView]) -> Section:
    """Return what became of all candidates, each layer's chart, and their errors, scores and latencies."""
    title = "Candidates"
    if not known.scores and not known.trained:
        missing = known.command("score" if _is_distilled(known) else "distill")
        return Section(name="scores", title=title, body="", missing=missing)
    counts = Counter(state for view in views for state in view.counts.elements())
    scored = counts["scored"] + sum(1 for view in views for one in view.candidates if _is_scored_skip(one))
    words = f"{scored} candidates scored by {known.metric}" if known.metric else "No candidate is scored yet"
    words += "; the teacher's own layer scores 0, and higher is better."
    body = f"<p>{escape(words)}</p>" + _counts_table(views)
    parts = [(view.layer.name, _card(view)) for view in views if view.frontier]
    if parts:
        body += (
            '<p class="muted">Triangle: the teacher. Diamond: what was chosen. Joined dots: what no cheaper candidate '
            "reaches. Dots on the lower edge lie below it.</p>" + grid(parts)
        )
    room = max(_LEAST_ROWS, _SHOWN_ROWS // len(views))
    for view in views:
        body += _candidates_table(view, room)
    return Section(name="scores", title=title, body=body)


def _is_distilled(known: ReportFacts) -> bool:
    return not any(step.name == "distill" and not step.done for step in known.steps)


def _is_scored_skip(one: Candidate) -> bool:
    return one.operation == SKIP and one.score is not None


def _counts_table(views: Sequence[LayerView]) -> str:
    """Return what became of the candidates, layer by layer and altogether."""
    total = Counter(state for view in views for state in view.counts.elements())
    states = [state for state in STATES if state not in (TEACHER, SKIP) and total[state]]
    rows: list[list[Cell]] = []
    for view in views:
        best = max(
            (
                one
                for one in view.candidates
                if one.operation not in (TEACHER, SKIP) and one.score is not None
            ),
            key=lambda one: one.score or 0.0,
            default=None,
        )
        skip = next((one.score for one in view.candidates if one.operation == SKIP), None)
        counted: list[Cell] = [(str(view.counts[state]), view.counts[state]) for state in states]
        rows.append(
            [
                view.layer.name,
                (str(len(view.candidates)), len(view.candidates)),
                *counted,
                best.operation if best is not None else DASH,
                number_cell(best.score if best is not None else None),
                number_cell(skip),
            ]
        )
    everything: list[Cell] = [(str(total[state]), total[state]) for state in states]
    count = sum(len(view.candidates) for view in views)
    foot: list[Cell] = ["all", (str(count), count), *everything, "", "", ""]
    columns = [
        "layer", "#candidates", *(f"#{STATES[state]}" for state in states), "best replacement", "#its score", "#skip",
    ]  # fmt: skip
    return table(columns, rows, label="What became of the candidates", sortable=True, foot=foot)


def _card(view: LayerView) -> str:
    drawing = candidates_chart(view)
    if drawing is None:
        return ""
    chosen, teacher = view.chosen, view.teacher
    caption = ""
    if chosen is not None and chosen.latency_s is not None and teacher.latency_s is not None:
        caption = (
            f"{chosen.operation}: {format_duration(chosen.latency_s, digits=3)} instead of "
            f"{format_duration(teacher.latency_s, digits=3)}, score {number_text(chosen.score)}"
        )
    return figure(svg_from_drawing(drawing), caption)


def _candidates_table(view: LayerView, room: int) -> str:
    """Return a layer's candidates in a table that is folded away, the most telling ones where there are too many."""
    pinned = {one.operation for one in (*view.frontier, view.teacher, view.chosen) if one is not None}
    ranked = sorted(view.candidates, key=lambda one: _rank(one, is_pinned=one.operation in pinned))[:room]
    rows: list[list[Cell]] = []
    own = set()
    for number, one in enumerate(ranked):
        if view.chosen is not None and one.operation == view.chosen.operation:
            own.add(number)
        error = "" if one.standard_error is None else f" ± {number_text(one.standard_error)}"
        rows.append(
            [
                one.operation + (" (chosen)" if number in own else ""),
                duration_cell(one.latency_s),
                (number_text(one.score) + error, one.score),
                number_cell(one.error),
                number_cell(one.steps, digits=0),
                one.note or STATES[one.state],
            ]
        )
    columns = ["operation", "#latency", "#score ± standard error", "#error of distilling", "#steps", "state"]
    label = f"{view.layer.name}: {len(rows)} of {len(view.candidates)} candidates"
    if len(rows) == len(view.candidates):
        label = f"{view.layer.name}: all {len(rows)} candidates"
    else:
        label += "; all are in the file that lanaprof report --csv FILE.csv writes"
    return details(label, table(columns, rows, label=label, sortable=True, own=own))


def _rank(one: Candidate, *, is_pinned: bool) -> tuple[bool, float, float]:
    """Return the order in which candidates are worth a row."""
    worst = float("inf")
    score = -one.score if one.score is not None else worst
    return not is_pinned, score, one.error if one.error is not None else worst
