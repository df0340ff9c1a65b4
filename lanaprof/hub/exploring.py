"""The frontier explorer: a stored frontier, the best architecture within a budget, its layers, and what changes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lanaprof.digest import digest
from lanaprof.flows.architectures import (
    Part,
    Scores,
    adding_up,
    changes_text,
    layers_of,
    parts_of,
    summary_of,
)
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.frontiers import FrontierPoint
from lanaprof.flows.layermap import HOW_TO_READ, layer_map, map_rows, thinned
from lanaprof.flows.pages import Cell, details, facts, figure, hint, table
from lanaprof.flows.plotting import Mark, frontier_chart, frontier_places
from lanaprof.hub.asking import Here
from lanaprof.hub.rendering import render
from lanaprof.hub.state import Hub
from lanaprof.hub.visiting import Seen
from lanaprof.lut import Selection, SelectionGroup
from lanaprof.units import format_duration

__all__ = ["Explored", "front", "router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_MARKED_MOST = 40  # selections beside the frontier that are drawn
_STEPS = 250  # of the slider, about
_LARGEST = 20_000_000  # characters of choices of one frontier: more is not read for a page
_LAYERS_MOST = 500  # that are shown
_POINTS_MOST = 400  # likewise; of more, some from the fastest to the dearest
_GROUPS_MOST = 200  # that can be chosen, the newest
Name = Annotated[str, Query(pattern="^[0-9a-f]{0,12}$")]
Microseconds = Annotated[float | None, Query(ge=0, le=1e12, allow_inf_nan=False)]


def latency_of(selection: Selection) -> float:
    """Return a selection's latency in seconds: timed if it was, else predicted."""
    found = selection.measured_s if selection.measured_s is not None else selection.predicted_s
    assert found is not None
    return found


def score_of(selection: Selection) -> float:
    """Return a selection's score."""
    assert selection.score is not None
    return selection.score


def front(selections: Sequence[Selection]) -> tuple[Selection, ...]:
    """Return the selections that no other one beats in both latency and score, the fastest first."""
    best: list[Selection] = []
    for each in sorted(selections, key=lambda one: (latency_of(one), -score_of(one), one.id)):
        if not best or score_of(each) > score_of(best[-1]):
            best.append(each)
    return tuple(best)


def _name_of(group: SelectionGroup) -> str:
    key = [group.teacher, group.space, group.device, group.frontier, group.environment, group.team]
    return digest([*key, group.time if group.frontier else ""])[:12]


def _text_of(group: SelectionGroup) -> str:
    what = f"{group.count} selections"
    if group.frontier:
        what = f"frontier of {group.count} points, {group.team}, {group.time[:16].replace('T', ' ')}"
    return f"{group.device}: {what}; space {group.space[:8]}, teacher {group.teacher[:8]}"


@dataclass(frozen=True, slots=True)
class Explored:
    """A frontier, and the point a budget chooses.

    Attributes:
        points: from the fastest; none is beaten by another.
        beside: selections that are drawn, too.
        layers: that the points are made of, in order.
        rows: by point, what stands in each layer.
        scores: of the candidates, where the database has those that the points were chosen by; else empty.
        note: what of it is not shown; may be empty.
        chosen: the number of the best point within the budget; None when even the fastest is too slow.
    """

    points: tuple[Selection, ...]
    beside: tuple[Selection, ...]
    layers: tuple[str, ...]
    rows: tuple[tuple[Part, ...], ...]
    scores: Scores
    note: str
    chosen: int | None = None

    @property
    def shown(self) -> int:
        """Return the point whose layers are shown: the chosen one, else the fastest."""
        return self.chosen or 0

    @property
    def marks(self) -> list[Mark]:
        """Return the selections beside the frontier as marks of its chart."""
        return [
            Mark(
                label="", latency_s=latency_of(each), score=score_of(each), measured=each.measured_s is not None,
                title=f"{each.id[:12]} of {each.team}, {each.status}",
            )
            for each in self.beside
        ]  # fmt: skip

    @property
    def line(self) -> list[FrontierPoint]:
        """Return the points as the chart takes them."""
        return [FrontierPoint(latency_of(each), score_of(each), {}) for each in self.points]

    @property
    def teacher_s(self) -> float | None:
        """Return the latency of the point that keeps every layer; None without one."""
        whole = (
            latency_of(point)
            for point, row in zip(self.points, self.rows, strict=True)
            if all(part.kind == "kept" for part in row)
        )
        return next(whole, None)


def _explore(hub: Hub, group: SelectionGroup, groups: Sequence[SelectionGroup]) -> Explored:
    """Return a group's frontier; nothing is chosen yet."""
    found = hub.store.selections_of(group)
    whole = front(found)
    points = thinned(whole, _POINTS_MOST)
    if group.frontier:
        alike = (each for each in groups if not each.frontier and _place_of(each) == _place_of(group))
        others = next((hub.store.selections_of(each) for each in alike if each.size <= _LARGEST), ())
    else:
        inside = {each.id for each in whole}
        others = tuple(each for each in found if each.id not in inside)
    newest = sorted(others, key=lambda each: (each.time.rstrip("Z"), each.id))[-_MARKED_MOST:]
    layers = layers_of(each.choices for each in points)
    shown = layers[:_LAYERS_MOST]
    notes = [
        f"{few:,} of {many:,} {what} are shown."
        for few, many, what in ((len(points), len(whole), "points"), (len(shown), len(layers), "layers"))
        if few < many
    ]
    rows = tuple(parts_of(each.choices, shown) for each in points)
    scores = adding_up(hub.store.score_sets(group.teacher), points)
    return Explored(points, tuple(newest), shown, rows, scores, " ".join(notes))


def _place_of(group: SelectionGroup) -> tuple[str, str, str]:
    return group.teacher, group.space, group.device


@dataclass(frozen=True, slots=True)
class Slider:
    """Where the slider for the budget begins and ends, and its step, in microseconds; texts as HTML has them."""

    least: str
    most: str
    step: str
    value: str


def _slider(points: Sequence[Selection], budget_us: float | None) -> Slider:
    low, high = latency_of(points[0]) * 1e6, latency_of(points[-1]) * 1e6
    span = max(high - low, abs(high) * 1e-3, 1e-3)
    power = 10.0 ** math.floor(math.log10(span / _STEPS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / _STEPS)
    first, last = (
        max(0, math.floor(low / step)),
        max(1, math.ceil(high / step)),
    )  # on steps: both ends are reached
    value = (
        (first + last) // 2 * step if budget_us is None else min(max(budget_us, first * step), last * step)
    )
    return Slider(*(f"{each:.12g}" for each in (first * step, last * step, step, value)))


@router.get("/frontier")
def frontier(hub: Here, visitor: Seen, group: Name = "", budget_us: Microseconds = None) -> HTMLResponse:
    """Return a stored frontier with a slider for the budget; without a script, a button beside it asks again."""
    groups = hub.store.selection_groups()
    readable = (each for each in groups if each.size <= _LARGEST)
    chosen = next((each for each in groups if _name_of(each) == group), next(readable, None))
    if chosen is None:
        body = hint("lanaprof frontier --store && lanaprof push")
        return render("base.html", visitor, title="Frontier", body=body, here="/frontier")
    listed = list(dict.fromkeys([*groups[:_GROUPS_MOST], chosen]))
    if chosen.size > _LARGEST:
        body = facts(
            [("too large for a page", _text_of(chosen)), ("to look at it", "lanaprof pull, then lut export")]
        )
        return render("base.html", visitor, title="Frontier", body=body, here="/frontier")
    whole = _explore(hub, chosen, groups)
    slider = _slider(whole.points, budget_us)
    budget = float(slider.value) if budget_us is None else budget_us
    within = [
        number for number, each in enumerate(whole.points) if latency_of(each) * 1e6 <= budget * (1 + 1e-9)
    ]
    found = replace(whole, chosen=within[-1] if within else None)
    return render(
        "frontier.html", visitor, title="Frontier", here="/frontier",
        note=whole.note, groups=[(_name_of(each), _text_of(each)) for each in listed], chosen=_name_of(chosen),
        slider=slider, budget=_budget_text(budget), said=_said(found, budget), about=_about(found, found.shown),
        links=_links(found, _name_of(chosen)),
        data=json.dumps(_data(found), separators=(",", ":")),
        body=_chart(found) + _map(found) + _layers(found) + _points(found),
    )  # fmt: skip


def _budget_text(budget_us: float) -> str:
    return format_duration(budget_us * 1e-6, digits=4) if budget_us else "0 s"


def _said(found: Explored, budget_us: float) -> str:
    budget = _budget_text(budget_us)
    if found.chosen is None:
        return f"Within {budget}: none; the fastest takes {_time(found.points[0])}."
    return f"Within {budget}: {_point_text(found, found.chosen)}."


def _point_text(found: Explored, number: int) -> str:
    point = found.points[number]
    return f"score {score_of(point):.4g} at {_time(point)}, selection {point.id[:12]}"


def _time(point: Selection) -> str:
    latency_s = latency_of(point)
    return format_duration(latency_s, digits=4) if latency_s > 0 else f"{latency_s:.4g} s"


def _about(found: Explored, number: int) -> list[str]:
    """Return what a point is made of, and what changes towards the next cheaper and the next dearer one."""
    here = found.rows[number]
    texts = [summary_of(here) + "."]
    for word, other in (("cheaper", number - 1), ("dearer", number + 1)):
        if not 0 <= other < len(found.points):
            texts.append(f"There is no {word} point.")
            continue
        change = changes_text(found.layers, here, found.rows[other])
        texts.append(f"The next {word} point has {_point_text(found, other)}; it changes {change}.")
    return texts


def _links(found: Explored, group: str) -> list[tuple[str, str]]:
    """Return where the next cheaper and the next dearer point are shown."""
    numbers = (("Next cheaper", found.shown - 1), ("Next dearer", found.shown + 1))
    return [
        (text, f"/frontier?group={group}&budget_us={latency_of(found.points[number]) * 1e6:.9g}")
        for text, number in numbers
        if 0 <= number < len(found.points)
    ]


def _data(found: Explored) -> dict[str, Any]:
    """Return what the page's script needs to show any other point: texts once, and numbers of them by point."""
    parts = list(dict.fromkeys(part for row in found.rows for part in row))
    numbers = {part: number for number, part in enumerate(parts)}
    rows = map_rows(len(found.rows))
    places = frontier_places(found.line, teacher_s=found.teacher_s, marks=found.marks)
    return {
        "us": [float(f"{latency_of(each) * 1e6:.12g}") for each in found.points],
        "said": [_point_text(found, number) for number in range(len(found.points))],
        "least": _time(found.points[0]),
        "about": [_about(found, number) for number in range(len(found.points))],
        "parts": [[part.text, part.kind, *_score_of_part(found, part)] for part in parts],
        "rows": [[numbers[part] for part in row] for row in found.rows],
        "chart": [[round(x, 1), round(y, 1)] for x, y in places],
        "map": [round(rows.middle(number), 1) for number in range(len(found.rows))],
    }


def _chart(found: Explored) -> str:
    drawing = frontier_chart(
        found.line, device=found.points[0].device, teacher_s=found.teacher_s, marks=found.marks, chosen=found.shown
    )  # fmt: skip
    text = "The stairs: the best stored score for every latency. The ring: the point that is shown."
    if found.marks:
        text += " Beside them: what was selected, filled where it was timed."
    return figure(svg_from_drawing(drawing), text)


def _layers(found: Explored) -> str:
    """Return the table of the shown architecture, and what its neighbours on the frontier have instead."""
    here = found.rows[found.shown]
    others = [
        found.rows[number] if 0 <= number < len(found.rows) else here
        for number in (found.shown - 1, found.shown + 1)
    ]
    rows: list[list[Cell]] = []
    own = []
    for number, (layer, part) in enumerate(zip(found.layers, here, strict=True)):
        changes = ["same" if other[number].text == part.text else other[number].text for other in others]
        own += [number] if changes != ["same", "same"] else []
        rows.append([layer, part.text, part.kind, *_score_of_part(found, part), *changes])
    columns = [
        "layer",
        "operation",
        "it is",
        *(["#score"] if found.scores else []),
        "next cheaper",
        "next dearer",
    ]
    note = '<p class="muted">Layers in which a neighbour on the frontier differs stand out.'
    if found.scores:
        note += " Scores add up to the point's, the teacher's is 0; a span's stands in all its layers."
    note += "</p>"
    return "<h2>Its layers</h2>" + note + table(columns, rows, label="Layers", own=own)


def _score_of_part(found: Explored, part: Part) -> list[str]:
    """Return a part's score as its cell; no cell where the scores are not known."""
    if not found.scores:
        return []
    score = 0.0 if part.operation == "teacher" else found.scores.get((part.place, part.operation))
    return ["–" if score is None else f"{score:.4g}"]


def _map(found: Explored) -> str:
    times = [latency_of(each) for each in found.points]
    drawing = layer_map(found.layers, found.rows, times, chosen=found.shown)
    caption = f"{HOW_TO_READ} The line: the point that is shown."
    return "<h2>All points by layers</h2>" + figure(svg_from_drawing(drawing), caption)


def _points(found: Explored) -> str:
    rows: list[list[Cell]] = [
        [
            each.id[:12],
            (_time(each), latency_of(each)),
            (f"{score_of(each):.4g}", score_of(each)),
            "measured" if each.measured_s is not None else "predicted",
            each.status,
            each.team,
            each.time[:10],
        ]
        for each in found.points
    ]
    columns = ["selection", "#latency", "#score", "latency is", "status", "team", "day"]
    shown = [] if found.chosen is None else [found.chosen]
    text = f"The frontier in numbers: {len(rows)} points"
    return details(text, table(columns, rows, label="Points", marked=True, own=shown, sortable=True))
