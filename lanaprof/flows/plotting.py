"""The charts: latency against score, and latencies layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from lanaprof.errors import BadInput
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
from lanaprof.units import format_duration

if TYPE_CHECKING:
    from lanaprof.flows.choosing import FrontierPoint

__all__ = [
    "Axis",
    "Bar",
    "Mark",
    "axis_for",
    "bars_chart",
    "frontier_chart",
    "write_drawing",
    "write_frontier",
    "write_text",
]

_TEXT = 12.0  # units; a chart is about 860 wide
_SMALL = 11.0
_WIDTH = 860.0
_HEIGHT = 430.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 24.0, 34.0, 52.0
_TIME_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9))


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale with round ticks: the ends in data units, and (value, label) per tick."""

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high end."""
        return (value - self.low) / (self.high - self.low)


def axis_for(values: Sequence[float], *, ticks: int = 6, unit: float = 1.0) -> Axis:
    """Return an axis that holds all values and begins and ends on a round number.

    Args:
        values: at least one, finite.
        ticks: about so many.
        unit: labels are in this unit, e.g. 1e-3 for milliseconds of values in seconds.

    >>> axis_for([0.0, 0.0094], ticks=5, unit=1e-3).ticks
    ((0.0, '0'), (0.002, '2'), (0.004, '4'), (0.006, '6'), (0.008, '8'), (0.01, '10'))
    """
    low, high = min(values) / unit, max(values) / unit
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        half = abs(high) / 2 or 0.5
        low, high = low - half, high + half
    raw = (high - low) / max(1, ticks)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    digits += not math.isclose(step * 10**digits, round(step * 10**digits))  # 2.5 needs one more
    labels = [(number * step, f"{number * step:.{digits}f}") for number in range(first, last + 1)]
    exact = [(float(f"{value * unit:.12g}"), text.replace("-", "−")) for value, text in labels]
    return Axis(exact[0][0], exact[-1][0], tuple(exact))


def _time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit in which times up to this one read best, and its seconds."""
    return next(((name, scale) for name, scale in _TIME_UNITS if seconds >= scale), _TIME_UNITS[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A selection on the frontier's chart; ``measured`` says whether the latency was timed or predicted."""

    label: str
    latency_s: float
    score: float
    measured: bool
    title: str = ""


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where the data lies on the sheet."""

    x: Axis
    y: Axis
    left: float
    top: float
    right: float
    bottom: float

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = self.left + self.x.share(x) * (self.right - self.left)
        return across, self.bottom - self.y.share(y) * (self.bottom - self.top)

    def shapes(self, x_title: str, y_title: str) -> list[Shape]:
        """Return grid, ticks and titles."""
        found: list[Shape] = []
        for value, text in self.y.ticks:
            height = self.at(self.x.low, value)[1]
            found.append(Path(points=((self.left, height), (self.right, height)), colour="grid"))
            found.append(
                Text(at=(self.left - 8, height + 4), text=text, colour="muted", size=_SMALL, anchor="end")
            )
        for value, text in self.x.ticks:
            across = self.at(value, self.y.low)[0]
            found.append(Path(points=((across, self.bottom), (across, self.bottom + 5)), colour="muted"))
            label = Text(
                at=(across, self.bottom + 19), text=text, colour="muted", size=_SMALL, anchor="middle"
            )
            found.append(label)
        found.append(Path(points=((self.left, self.bottom), (self.right, self.bottom)), colour="muted"))
        middle = (self.left + self.right) / 2, (self.top + self.bottom) / 2
        found.append(
            Text(at=(middle[0], self.bottom + 40), text=x_title, colour="ink", size=_TEXT, anchor="middle")
        )
        found.append(
            Text(at=(16, middle[1]), text=y_title, colour="ink", size=_TEXT, anchor="middle", upright=True)
        )
        return found


def frontier_chart(
    points: Sequence[FrontierPoint], *, device: str, teacher_s: float | None, marks: Sequence[Mark] = ()
) -> Drawing:
    """Return the chart of the best score for every latency: a staircase, the teacher, and selections.

    Args:
        points: from cheap to dear, at least one.
        device: named in the axis' title.
        teacher_s: the teacher's latency, drawn as a broken line; None leaves it out.
        marks: selections drawn on top.
    """
    times = [point.latency_s for point in points] + [mark.latency_s for mark in marks]
    scores = [point.score for point in points] + [mark.score for mark in marks]
    if teacher_s is not None:
        times.append(teacher_s)
    name, unit = _time_unit(max(times))
    spread = max(times) - min(times)
    x = axis_for([*times, max(times) + 0.02 * spread], ticks=7, unit=unit)
    y = axis_for([*scores, 0.0], ticks=5)
    frame = _Frame(x, y, _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM)
    shapes = frame.shapes(f"latency on {device} ({name})", "score (teacher = 0)")
    if teacher_s is not None:
        across = frame.at(teacher_s, y.low)[0]
        shapes.append(
            Path(points=((across, frame.top), (across, frame.bottom)), colour="muted", width=1.25, dash=True)
        )
        near_end = across > frame.right - 130
        label = f"teacher {format_duration(teacher_s, digits=3)}"
        shapes.append(
            Text(
                at=(across + (-6 if near_end else 6), frame.bottom - 8),
                text=label,
                colour="muted",
                size=_SMALL,
                anchor="end" if near_end else "start",
            )
        )
    shapes += _staircase(points, frame)
    shapes += _marks(marks, frame)
    shapes += _legend([("best score within a latency", "accent", False)], marks)
    best = max(scores)
    label = (
        f"Best score for every latency on {device}: {len(points)} architectures from "
        f"{format_duration(points[0].latency_s)} to {format_duration(points[-1].latency_s)}, best score {best:.4g}"
    )
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes))


def _staircase(points: Sequence[FrontierPoint], frame: _Frame) -> list[Shape]:
    """Return the frontier: between two points, the cheaper one is the best there is."""
    line: list[tuple[float, float]] = []
    for point in points:
        at = frame.at(point.latency_s, point.score)
        if line:
            line.append((at[0], line[-1][1]))
        line.append(at)
    line.append((frame.right, line[-1][1]))
    radius = 3.5 if len(points) <= 60 else 2.25
    dots = [
        Circle(
            centre=frame.at(point.latency_s, point.score),
            radius=radius,
            colour="accent",
            title=f"{format_duration(point.latency_s)}, score {point.score:.4f}",
        )
        for point in points
    ]
    return [Path(points=tuple(line), colour="accent", width=1.5), *dots]


def _marks(marks: Sequence[Mark], frame: _Frame) -> list[Shape]:
    """Return selections, labels kept apart: a label that would cover another one is left to the tooltip."""
    found: list[Shape] = []
    taken: list[tuple[float, float, float]] = []  # left, right, baseline
    for mark in marks:
        x, y = frame.at(mark.latency_s, mark.score)
        title = mark.title or mark.label
        found.append(Circle(centre=(x, y), radius=6, colour="mark", title=title, hollow=not mark.measured))
        width = text_width(mark.label, _SMALL)
        left = x - width - 11 if x + 11 + width > frame.right else x + 11
        base = min(y + 16, frame.bottom - 6)
        covers = any(
            left < end and begin < left + width and abs(base - other) < _SMALL + 3
            for begin, end, other in taken
        )
        if covers:
            continue
        taken.append((left, left + width, base))
        found.append(Text(at=(left, base), text=mark.label, colour="mark", size=_SMALL, bold=True))
    return found


def _legend(lines: Sequence[tuple[str, str, bool]], marks: Sequence[Mark]) -> list[Shape]:
    entries = list(lines)
    if any(mark.measured for mark in marks):
        entries.append(("selection, measured", "mark", False))
    if any(not mark.measured for mark in marks):
        entries.append(("selection, predicted", "mark", True))
    found: list[Shape] = []
    across = _LEFT
    for text, colour, hollow in entries:
        found.append(Circle(centre=(across + 5, 15), radius=4.5, colour=colour, hollow=hollow))
        found.append(Text(at=(across + 15, 19), text=text, colour="muted", size=_SMALL))
        across += 38 + text_width(text, _SMALL)
    return found


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
    name, unit = _time_unit(longest)
    axis = axis_for([0.0, longest], ticks=6, unit=unit)
    left = min(260.0, 24 + max(text_width(bar.name, _SMALL) for bar in bars))
    row = 30.0 if paired else 20.0
    top = 34.0 if paired else 12.0
    bottom = top + row * len(bars)
    right = _WIDTH - (190.0 if paired else 76.0)  # room for what the bars say
    shapes: list[Shape] = []
    for value, text in axis.ticks:
        across = left + axis.share(value) * (right - left)
        shapes.append(Path(points=((across, top), (across, bottom)), colour="grid"))
        shapes.append(Text(at=(across, bottom + 17), text=text, colour="muted", size=_SMALL, anchor="middle"))
    shapes.append(
        Text(at=((left + right) / 2, bottom + 38), text=f"{title} ({name})", size=_TEXT, anchor="middle")
    )
    scale = (right - left) / (axis.high - axis.low)
    for number, bar in enumerate(bars):
        shapes += _bar(bar, (left, top + number * row), scale, paired=paired)
    if paired:
        for across, text, colour in ((left, "teacher", "soft"), (left + 92, "selected", "accent")):
            shapes.append(Rectangle(corner=(across, 9), width=11, height=11, colour=colour))
            shapes.append(Text(at=(across + 17, 19), text=text, colour="muted", size=_SMALL))
    return Drawing(
        width=_WIDTH, height=bottom + 50, label=f"{title} of {len(bars)} layers", shapes=tuple(shapes)
    )


def _bar(bar: Bar, corner: tuple[float, float], scale: float, *, paired: bool) -> list[Shape]:
    left, top = corner
    thick = 10.0 if paired else 13.0
    middle = top + (15.0 if paired else 10.0)
    teacher = format_duration(bar.teacher_s, digits=3)
    shapes: list[Shape] = [
        Text(at=(left - 10, middle + 4), text=bar.name, colour="ink", size=_SMALL, anchor="end"),
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
        shapes.append(Text(at=(end, middle + 4), text=teacher, colour="muted", size=_SMALL))
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
    shapes.append(Text(at=(end, middle + 4), text=note, colour="muted", size=_SMALL))
    return shapes


def write_frontier(
    path: FilePath, points: Sequence[FrontierPoint], *, device: str, teacher_s: float | None
) -> None:
    """Write the frontier's chart: a self-contained page (.html), a drawing (.svg) or a picture (.png).

    Raises:
        BadInput: another ending, no points, or a place that cannot be written.
    """
    if not points:
        raise BadInput("the frontier has no points to draw", hint="lanaprof score")
    drawing = frontier_chart(points, device=device, teacher_s=teacher_s)
    write_drawing(path, drawing, heading="The best score for every latency", example="frontier.html")


def write_drawing(path: FilePath, drawing: Drawing, *, heading: str, example: str) -> None:
    """Write a chart: a self-contained page (.html), a drawing (.svg) or a picture (.png).

    Args:
        path: its ending says which.
        drawing: the chart.
        heading: of the page.
        example: a file name for the hint.

    Raises:
        BadInput: another ending, or a place that cannot be written.
    """
    if path.suffix not in (".html", ".png", ".svg"):
        raise BadInput(
            f"cannot tell a picture's format from {path.name!r}; known: .html, .png, .svg",
            hint=f"--plot {example}",
        )
    if path.suffix == ".png":
        write_text(path, png_from_drawing(drawing))
        return
    svg = svg_from_drawing(drawing)
    if path.suffix == ".svg":
        write_text(path, svg.replace(">", f"><style>{CSS}text{{font-family:sans-serif}}</style>", 1))
        return
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(heading)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{CSS}body{{margin:2rem auto;max-width:920px;padding:0 1rem;background:var(--paper);"
        "color:var(--ink);font:15px/1.5 system-ui,sans-serif}h1{font-size:1.3rem}</style></head><body>"
        f"<h1>{escape(heading)}</h1>{svg}</body></html>\n"
    )
    write_text(path, page)


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
