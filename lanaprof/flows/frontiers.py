"""The frontier of a project: the best score for every latency, from the tables alone, and how it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lanaprof.errors import LanaprofError
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import Scores, build_problem
from lanaprof.lut import FRONTIER, Selection, SelectionGroup, Store, utc_now
from lanaprof.solver import frontier
from lanaprof.units import format_duration

__all__ = [
    "POINT_COLUMNS",
    "FrontierPoint",
    "StoredFrontier",
    "point_cells",
    "project_frontier",
    "store_frontier",
]

POINT_COLUMNS = ("#latency", "#of the teacher", "#score")
"""What a table of the frontier says of a point, on pages and in the terminal."""


@dataclass(frozen=True, slots=True)
class FrontierPoint:
    """The best architecture at one latency.

    Attributes:
        bound: no architecture of this latency scores higher; None where nobody asked.
        proved: it is the best there is.
        method: the solver that found it.
    """

    latency_s: float
    score: float
    choices: Mapping[str, str]
    bound: float | None = None
    proved: bool = False
    method: str = ""


def point_cells(point: FrontierPoint, teacher_s: float | None) -> list[tuple[str, float | None]]:
    """Return a point's cells under `POINT_COLUMNS`, each with the number it is sorted by.

    >>> point_cells(FrontierPoint(0.002, -0.25, {}), 0.005)
    [('2 ms', 0.002), ('40%', 0.4), ('-0.2500', -0.25)]
    """
    latency = format_duration(point.latency_s) if point.latency_s > 0 else "0 s"
    share = point.latency_s / teacher_s if teacher_s else None
    return [
        (latency, point.latency_s),
        (f"{share:.0%}" if share is not None else "–", share),
        (f"{point.score:.4f}", point.score),
    ]


@dataclass(frozen=True, slots=True)
class StoredFrontier:
    """What became of a frontier to be stored: ``added`` points at ``time``, or none: they were stored then already."""

    time: str
    added: int


def project_frontier(project: Project, predictor: Predictor, scores: Scores) -> tuple[FrontierPoint, ...]:
    """Return the best score for every latency, cheapest first."""
    problem = build_problem(project, [predictor], scores)
    return tuple(
        FrontierPoint(
            each.costs[predictor.cost_name], each.score, dict(each.choices), each.bound, each.proved, each.method
        )
        for each in frontier(problem, predictor.cost_name)
    )  # fmt: skip


def store_frontier(
    project: Project, predictor: Predictor, points: Sequence[FrontierPoint], store: Store, *, team: str
) -> StoredFrontier:
    """Add a frontier's points to the database, each as a selection with the status ``frontier``; all share one time.

    They are predictions: nobody chose or timed them, and no command takes one for the latest selection. The same
    frontier as the newest one that the team stored of the same environment is not stored again.
    """
    device = predictor.device
    group = SelectionGroup(
        teacher=project.weights_digest, space=project.space.relay_digest(device.batch, precision=device.precision),
        device=device.text, frontier=True, environment=predictor.table.environment.id, team=team, time=utc_now(),
        count=len(points), size=0,
    )  # fmt: skip
    records = [_record(group, predictor.cost_name, each) for each in points]
    before = next((each for each in store.selection_groups() if _is_same(each, group)), None)
    if before is not None and {_content(each) for each in store.selections_of(before)} == set(
        map(_content, records)
    ):
        return StoredFrontier(before.time, 0)
    report = store.add(records)
    if report.refused:
        raise LanaprofError(f"the frontier was refused by the database: {report.refused[0].reason}")
    return StoredFrontier(group.time, report.added)


def _record(group: SelectionGroup, cost: str, point: FrontierPoint) -> Selection:
    return Selection(
        teacher=group.teacher, space=group.space, device=group.device, environment=group.environment,
        budgets=((cost, point.latency_s),), choices=tuple(point.choices.items()), score=point.score, bound=point.bound,
        proved=point.proved, status=FRONTIER, predicted_s=point.latency_s, method=point.method, team=group.team,
        time=group.time,
    )  # fmt: skip


def _is_same(one: SelectionGroup, other: SelectionGroup) -> bool:
    names = ("teacher", "space", "device", "frontier", "environment", "team")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _content(row: Selection) -> tuple[object, ...]:
    return row.choices, row.score, row.predicted_s
