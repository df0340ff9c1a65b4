"""The charts: latency against score, and latencies layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from lanaprof.errors import BadInput
from lanaprof.flows.axes import SMALL, Axis, Frame, axis_for, time_unit
from lanaprof.flows.drawing import (
    CSS,
    Circle,
    Drawing,
    Path,
    Rectangle,
    Shape,
    Text,
    png_from_drawing,
    svg_from_drawing,
    text_width,
)
from lanaprof.flows.frontiers import POINT_COLUMNS, FrontierPoint, point_cells
from lanaprof.flows.layermap import frontier_map
from lanaprof.flows.marks import Mark, described, legend, marked, teacher_line
from lanaprof.flows.pages import details, figure, page, table
from lanaprof.units import format_duration

__all__ = [
    "Axis",
    "Bar",
    "Mark",
    "Words",
    "axis_for",
    "bars_chart",
    "frontier_chart",
    "frontier_places",
    "write_drawing",
    "write_frontier",
    "write_text",
]

_WIDTH = 860.0
_HEIGHT = 430.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 24.0, 34.0, 52.0
_APART = 1.0  # units: what lies nearer to its neighbour on the frontier cannot be told from it


def frontier_chart(
    points: Sequence[FrontierPoint],
    *,
    device: str,
    teacher_s: float | None,
    marks: Sequence[Mark] = (),
    chosen: int | None = None,
) -> Drawing:
    """Return the chart of the best score for every latency: a staircase, the teacher, and selections.

    Args:
        points: from cheap to dear, at least one.
        device: named in the axis' title.
        teacher_s: the teacher's latency, drawn as a broken line; None leaves it out.
        marks: selections drawn on top.
        chosen: the number of a point with a ring around it, which scripts find by the name ``chosen``.
    """
    frame, name = _frontier_frame(points, teacher_s=teacher_s, marks=marks)
    shapes = frame.shapes(f"latency on {device} ({name})", "score (teacher = 0)")
    if teacher_s is not None:
        shapes += teacher_line(teacher_s, frame)
    shapes += _staircase(points, frame)
    shapes += marked(marks, frame)
    if chosen is not None:
        at = frame.at(points[chosen].latency_s, points[chosen].score)
        shapes.append(Circle(centre=at, radius=8, colour="mark", open=True, name="chosen"))
    shapes += legend([("best score within a latency", "accent")], marks, left=_LEFT)
    best = max(point.score for point in points)
    label = (
        f"Best score for every latency on {device}: {len(points)} architectures from "
        f"{format_duration(points[0].latency_s)} to {format_duration(points[-1].latency_s)}, best score {best:.4g}"
    )
    return Drawing(
        width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes), description=described(marks)
    )


def frontier_places(
    points: Sequence[FrontierPoint], *, teacher_s: float | None, marks: Sequence[Mark] = ()
) -> list[tuple[float, float]]:
    """Return where on the sheet of `frontier_chart` each point lies."""
    frame, _ = _frontier_frame(points, teacher_s=teacher_s, marks=marks)
    return [frame.at(point.latency_s, point.score) for point in points]


def _frontier_frame(
    points: Sequence[FrontierPoint], *, teacher_s: float | None, marks: Sequence[Mark]
) -> tuple[Frame, str]:
    """Return where the frontier's data lies, and the unit of its latencies."""
    times = [point.latency_s for point in points] + [mark.latency_s for mark in marks]
    scores = [point.score for point in points] + [mark.score for mark in marks]
    for mark in marks:
        times += mark.latency_span_s or ()
        scores += mark.score_span or ()
    if teacher_s is not None:
        times.append(teacher_s)
    name, unit = time_unit(max(times))
    spread = max(times) - min(times)
    x = axis_for([*times, max(times) + 0.02 * spread], ticks=7, unit=unit)
    y = axis_for([*scores, 0.0], ticks=5)
    return Frame(x, y, _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM), name


def _staircase(points: Sequence[FrontierPoint], frame: Frame) -> list[Shape]:
    """Return the frontier: between two points, the cheaper one is the best there is."""
    line: list[tuple[float, float]] = []
    shown: list[FrontierPoint] = []
    for number, point in enumerate(points):
        at = frame.at(point.latency_s, point.score)
        is_end = number in (0, len(points) - 1)
        if line and not is_end and abs(at[0] - line[-1][0]) + abs(at[1] - line[-1][1]) < _APART:
            continue
        shown.append(point)
        if line:
            line.append((at[0], line[-1][1]))
        line.append(at)
    line.append((frame.right, line[-1][1]))
    radius = 3.5 if len(shown) <= 60 else 2.25
    dots = [
        Circle(
            centre=frame.at(point.latency_s, point.score),
            radius=radius,
            colour="accent",
            title=f"{format_duration(point.latency_s)}, score {point.score:.4f}",
        )
        for point in shown
    ]
    return [Path(points=tuple(line), colour="accent", width=1.5), *dots]


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a bar chart: the teacher's layer, and what was selected for it (None: nothing yet)."""

    name: str
    teacher_s: float
    selected_s: float | None = None
    operation: str = ""


def bars_chart(bars: Sequence[Bar], *, title: str) -> Drawing:
    """Return horizontal bars, the teacher's layer above what replaces it.

    Args:
        bars: at least one, in the order they are drawn.
        title: of the axis, without its unit.
    """
    paired = any(bar.selected_s is not None for bar in bars)
    longest = max([*(bar.teacher_s for bar in bars), *(bar.selected_s or 0.0 for bar in bars)])
    name, unit = time_unit(longest)
    axis = axis_for([0.0, longest], ticks=6, unit=unit)
    left = min(260.0, 24 + max(text_width(bar.name, SMALL) for bar in bars))
    row = 30.0 if paired else 20.0
    top = 34.0 if paired else 12.0
    bottom = top + row * len(bars)
    right = _WIDTH - (190.0 if paired else 76.0)  # room for what the bars say
    shapes: list[Shape] = []
    for value, text in axis.ticks:
        across = left + axis.share(value) * (right - left)
        shapes.append(Path(points=((across, top), (across, bottom)), colour="grid"))
        shapes.append(Text(at=(across, bottom + 17), text=text, colour="muted", size=SMALL, anchor="middle"))
    shapes.append(Text(at=((left + right) / 2, bottom + 38), text=f"{title} ({name})", anchor="middle"))
    scale = (right - left) / (axis.high - axis.low)
    for number, bar in enumerate(bars):
        shapes += _bar(bar, (left, top + number * row), scale, paired=paired)
    if paired:
        for across, text, colour in ((left, "teacher", "soft"), (left + 92, "selected", "accent")):
            shapes.append(Rectangle(corner=(across, 9), width=11, height=11, colour=colour))
            shapes.append(Text(at=(across + 17, 19), text=text, colour="muted", size=SMALL))
    return Drawing(
        width=_WIDTH, height=bottom + 50, label=f"{title} of {len(bars)} layers", shapes=tuple(shapes)
    )


def _bar(bar: Bar, corner: tuple[float, float], scale: float, *, paired: bool) -> list[Shape]:
    left, top = corner
    thick = 10.0 if paired else 13.0
    middle = top + (15.0 if paired else 10.0)
    teacher = format_duration(bar.teacher_s, digits=3)
    shapes: list[Shape] = [
        Text(at=(left - 10, middle + 4), text=bar.name, colour="ink", size=SMALL, anchor="end"),
        Rectangle(
            corner=(left, top + (4 if paired else 3)),
            width=max(1.0, bar.teacher_s * scale),
            height=thick,
            colour="soft" if paired else "accent",
            title=f"{bar.name}: teacher {teacher}",
        ),
    ]
    end = left + max(bar.teacher_s, bar.selected_s or 0.0) * scale + 8
    if bar.selected_s is None:
        shapes.append(Text(at=(end, middle + 4), text=teacher, colour="muted", size=SMALL))
        return shapes
    chosen = format_duration(bar.selected_s, digits=3)
    if bar.selected_s > 0:
        shapes.append(
            Rectangle(
                corner=(left, top + 15),
                width=max(1.0, bar.selected_s * scale),
                height=thick,
                colour="accent",
                title=f"{bar.name}: {bar.operation} {chosen}",
            )
        )
    note = bar.operation if len(bar.operation) <= 34 else bar.operation[:33] + "…"
    shapes.append(Text(at=(end, middle + 4), text=note, colour="muted", size=SMALL))
    return shapes


def write_frontier(
    path: FilePath,
    points: Sequence[FrontierPoint],
    *,
    device: str,
    teacher_s: float | None,
    marks: Sequence[Mark] = (),
) -> None:
    """Write the frontier's chart: a self-contained page (.html), a drawing (.svg) or a picture (.png).

    Raises:
        BadInput: another ending, no points, or a place that cannot be written.
    """
    if not points:
        raise BadInput("the frontier has no points to draw", hint="lanaprof score")
    drawing = frontier_chart(points, device=device, teacher_s=teacher_s, marks=marks)
    rows = [point_cells(point, teacher_s) for point in points]
    label = f"The frontier in numbers: {len(points)} points"
    numbers = details(label, table(POINT_COLUMNS, rows, label=label, sortable=True))
    caption = "The best score that the table allows for every latency; latencies are predicted unless a mark says more."
    layers = frontier_map(points) if path.suffix == ".html" else ""
    more = numbers + (f"<h2>The frontier by layers</h2>{layers}" if layers else "")
    words = Words("The best score for every latency", caption, example="frontier.html", more=more)
    write_drawing(path, drawing, words)


@dataclass(frozen=True, slots=True)
class Words:
    """What stands beside a chart on a page of its own.

    Attributes:
        heading: of the page.
        caption: how to read it.
        example: a file name for the hint when another ending is asked for.
        more: HTML under the chart.
    """

    heading: str
    caption: str
    example: str
    more: str = ""


def write_drawing(path: FilePath, drawing: Drawing, words: Words) -> None:
    """Write a chart: a self-contained page (.html), a drawing (.svg) or a picture (.png), as the path's ending says.

    Raises:
        BadInput: another ending, or a place that cannot be written.
    """
    if path.suffix not in (".html", ".png", ".svg"):
        raise BadInput(
            f"cannot tell a picture's format from {path.name!r}; known: .html, .png, .svg",
            hint=f"--plot {words.example}",
        )
    if path.suffix == ".png":
        write_text(path, png_from_drawing(drawing))
        return
    svg = svg_from_drawing(drawing)
    if path.suffix == ".svg":
        write_text(path, svg.replace(">", f"><style>{CSS}text{{font-family:sans-serif}}</style>", 1))
        return
    top = figure(svg, words.caption) + words.more
    write_text(path, page(words.heading, lead=(), top=top, sections=(), foot="lanaprof"))


def write_text(path: FilePath, content: str | bytes, *, option: str = "--plot") -> None:
    """Write a file for the user, whole or not at all.

    Raises:
        BadInput: it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None
        raise BadInput(
            f"{path} cannot be written: {error.strerror or error}", hint=f"choose another {option}"
        ) from error
