"""The frontier explorer: stored selections of one space on one device, and the best of them within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lanaprof.digest import digest
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.frontiers import FrontierPoint
from lanaprof.flows.pages import Cell, figure, hint, table
from lanaprof.flows.plotting import Mark, frontier_chart
from lanaprof.hub.asking import Here
from lanaprof.hub.rendering import render
from lanaprof.hub.visiting import Seen
from lanaprof.lut import Selection
from lanaprof.units import format_duration

__all__ = ["Group", "front", "groups_of", "router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_MARKED_MOST = 40  # selections beside the frontier that are drawn
Name = Annotated[str, Query(pattern="^[0-9a-f]{0,12}$")]
Microseconds = Annotated[int | None, Query(ge=0, le=10**12)]


@dataclass(frozen=True, slots=True)
class Group:
    """Selections that can be compared: of one teacher, in one space, on one device; those with score and latency."""

    name: str
    text: str
    selections: tuple[Selection, ...]


def latency_of(selection: Selection) -> float:
    """Return a selection's latency: timed if it was, else predicted."""
    found = selection.measured_s if selection.measured_s is not None else selection.predicted_s
    assert found is not None
    return found


def score_of(selection: Selection) -> float:
    """Return a selection's score."""
    assert selection.score is not None
    return selection.score


def groups_of(selections: Iterable[Selection]) -> tuple[Group, ...]:
    """Return the groups that selections fall into, the largest first."""
    found: dict[tuple[str, str, str], list[Selection]] = {}
    for each in selections:
        if each.score is not None and (each.measured_s is not None or each.predicted_s is not None):
            found.setdefault((each.device, each.space, each.teacher), []).append(each)
    groups = [
        Group(digest(list(key))[:12], f"{key[0]}, space {key[1][:8]}, teacher {key[2][:8]}", tuple(group))
        for key, group in found.items()
    ]
    return tuple(sorted(groups, key=lambda group: (-len(group.selections), group.name)))


def front(selections: Sequence[Selection]) -> tuple[Selection, ...]:
    """Return the selections that no other one beats in both latency and score, the fastest first."""
    best: list[Selection] = []
    for each in sorted(selections, key=lambda one: (latency_of(one), -score_of(one), one.id)):
        if not best or score_of(each) > score_of(best[-1]):
            best.append(each)
    return tuple(best)


@router.get("/frontier")
def frontier(hub: Here, visitor: Seen, group: Name = "", budget_us: Microseconds = None) -> HTMLResponse:
    """Return the stored frontier with a slider for the budget; without a script, a button beside it asks again."""
    groups = groups_of(hub.store.selections())
    chosen = next((each for each in groups if each.name == group), groups[0] if groups else None)
    if chosen is None:
        body = hint("lanaprof select, then lanaprof push")
        return render("base.html", visitor, title="Frontier", body=body, here="/frontier")
    points = front(chosen.selections)
    low, high = latency_of(points[0]), latency_of(points[-1])
    least_us = int(low * 1e6)
    step_us = max(1, int((high - low) * 1e6) // 200)
    most_us = least_us + step_us * ceil(
        ((high - low) * 1e6 + 1) / step_us
    )  # on a step: the slider reaches it
    budget = most_us if budget_us is None else budget_us
    within = [number for number, each in enumerate(points) if latency_of(each) <= budget * 1e-6]
    own = within[-1:]  # the front rises: the dearest within the budget is the best
    return render(
        "frontier.html", visitor, title="Frontier", here="/frontier", groups=groups, chosen=chosen.name,
        least_us=least_us, most_us=most_us, budget_us=min(max(budget, least_us), most_us),
        step_us=step_us, said=_said(points[own[0]] if own else None, budget, low),
        body=_chart(chosen, points) + _table(points, own),
    )  # fmt: skip


def _said(best: Selection | None, budget_us: int, low: float) -> str:
    budget = format_duration(budget_us * 1e-6, digits=4) if budget_us else "0 s"
    if best is None:
        return f"Within {budget}: none; the fastest takes {format_duration(low, digits=4)}."
    latency = format_duration(latency_of(best), digits=4)
    return f"Within {budget}: score {score_of(best):.4g} at {latency}, selection {best.id[:12]}."


def _chart(group: Group, points: Sequence[Selection]) -> str:
    line = [FrontierPoint(latency_of(each), score_of(each), {}) for each in points]
    beaten = [each for each in group.selections if each not in points][-_MARKED_MOST:]
    marks = [
        Mark(
            label="", latency_s=latency_of(each), score=score_of(each), measured=each.measured_s is not None,
            title=f"{each.id[:12]} of {each.team}",
        )
        for each in beaten
    ]  # fmt: skip
    drawing = frontier_chart(line, device=points[0].device, teacher_s=None, marks=marks)
    return figure(
        svg_from_drawing(drawing),
        "The stairs: the best stored score for every latency. Beside them: selections that others beat.",
    )


def _table(points: Sequence[Selection], own: Sequence[int]) -> str:
    rows: list[list[Cell]] = [
        [
            each.id[:12],
            (format_duration(latency_of(each), digits=4), latency_of(each)),
            (f"{score_of(each):.4g}", score_of(each)),
            "measured" if each.measured_s is not None else "predicted",
            each.status,
            each.team,
            each.time[:10],
        ]
        for each in points
    ]
    columns = ["selection", "#latency", "#score", "latency is", "status", "team", "day"]
    return table(columns, rows, label="Frontier", marked=True, own=own)
