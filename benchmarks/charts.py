"""The charts of docs/benchmarks.md, drawn with the shapes of lanaprof's own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lanaprof.flows.drawing import (
    CSS,
    Circle,
    Drawing,
    Path,
    Rectangle,
    Shape,
    Text,
    svg_from_drawing,
    text_width,
)
from lanaprof.flows.plotting import Axis, axis_for

_WIDTH, _HEIGHT = 860.0, 430.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 24.0, 50.0, 52.0  # above: two lines of legend
_TEXT, _SMALL = 12.0, 11.0
_COLOURS = ("accent", "mark", "good", "bad", "muted", "soft")

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one colour; ``line`` joins them, ``titles`` are shown where the pointer rests."""

    name: str
    points: tuple[Point, ...]
    line: bool = False
    titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Two axes with titles, and reference lines drawn broken.

    Attributes:
        x, y: the scales.
        x_title, y_title: with units.
        references: (points, what it is).
    """

    x: Axis
    y: Axis
    x_title: str
    y_title: str
    references: tuple[tuple[tuple[Point, ...], str], ...] = ()

    def at(self, point: Point) -> Point:
        """Return where a point of the data lies on the sheet."""
        across = _LEFT + self.x.share(point[0]) * (_WIDTH - _LEFT - _RIGHT)
        return across, _HEIGHT - _BOTTOM - self.y.share(point[1]) * (_HEIGHT - _BOTTOM - _TOP)

    def shapes(self) -> list[Shape]:
        """Return grid, ticks, titles and reference lines."""
        found: list[Shape] = []
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for value, text in self.y.ticks:
            height = self.at((self.x.low, value))[1]
            found.append(Path(points=((_LEFT, height), (right, height)), colour="grid"))
            found.append(
                Text(at=(_LEFT - 8, height + 4), text=text, colour="muted", size=_SMALL, anchor="end")
            )
        for value, text in self.x.ticks:
            across = self.at((value, self.y.low))[0]
            found.append(Path(points=((across, bottom), (across, bottom + 5)), colour="muted"))
            found.append(
                Text(at=(across, bottom + 19), text=text, colour="muted", size=_SMALL, anchor="middle")
            )
        found.append(Path(points=((_LEFT, bottom), (right, bottom)), colour="muted"))
        middle = (_LEFT + right) / 2, (_TOP + bottom) / 2
        found.append(Text(at=(middle[0], bottom + 40), text=self.x_title, size=_TEXT, anchor="middle"))
        found.append(Text(at=(16, middle[1]), text=self.y_title, size=_TEXT, anchor="middle", upright=True))
        for points, label in self.references:
            drawn = tuple(self.at(point) for point in points)
            found.append(Path(points=drawn, colour="muted", width=1.25, dash=True))
            found.append(
                Text(
                    at=(drawn[-1][0] - 6, drawn[-1][1] - 6),
                    text=label,
                    colour="muted",
                    size=_SMALL,
                    anchor="end",
                )
            )
        return found


def log_axis(values: Sequence[float], labels: Mapping[float, str]) -> Axis:
    """Return an axis over the decimal logarithm of the values; ``labels`` are the ticks to choose from."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.05, 0.06 * (high - low))
    ticks = tuple((math.log10(value), text) for value, text in sorted(labels.items()))
    shown = tuple(tick for tick in ticks if low - room <= tick[0] <= high + room)
    return Axis(low - room, high + room, shown)


def plot(plane: Plane, series: Sequence[Series], *, label: str) -> Drawing:
    """Return a chart of points and lines with a legend above it."""
    shapes = plane.shapes()
    across, down = _LEFT, 15.0
    for number, one in enumerate(series):
        colour = _COLOURS[number % len(_COLOURS)]
        drawn = [plane.at(point) for point in one.points]
        if one.line:
            shapes.append(Path(points=tuple(drawn), colour=colour, width=1.75))
        titles = one.titles or ("",) * len(drawn)
        for centre, title in zip(drawn, titles, strict=True):
            shapes.append(Circle(centre=centre, radius=3.0, colour=colour, title=title))
        width = 30 + text_width(one.name, _SMALL)
        if across + width > _WIDTH:
            across, down = _LEFT, down + 17.0
        shapes.append(Circle(centre=(across + 5, down), radius=4.5, colour=colour))
        shapes.append(Text(at=(across + 15, down + 4), text=one.name, colour="muted", size=_SMALL))
        across += width
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes))


def strips(rows: Sequence[tuple[str, Sequence[float]]], *, x_title: str, label: str) -> Drawing:
    """Return one strip of dots per row over a common axis, its middle half as a bar: how values are distributed.

    Args:
        rows: (name, values), at least one value each.
        x_title: of the axis, with its unit.
        label: what is to be seen.
    """
    values = [value for _, own in rows for value in own]
    axis = axis_for([0.0, *values], ticks=8)
    left = 24 + max(text_width(name, _SMALL) for name, _ in rows)
    right, top, row = _WIDTH - _RIGHT, 14.0, 38.0
    bottom = top + row * len(rows)

    def across(value: float) -> float:
        return left + axis.share(value) * (right - left)

    shapes: list[Shape] = []
    for value, text in axis.ticks:
        colour = "muted" if value == 0 else "grid"
        shapes.append(Path(points=((across(value), top), (across(value), bottom)), colour=colour))
        shapes.append(
            Text(at=(across(value), bottom + 17), text=text, colour="muted", size=_SMALL, anchor="middle")
        )
    for number, (name, own) in enumerate(rows):
        middle = top + (number + 0.5) * row
        ordered = sorted(own)
        quarter = len(ordered) // 4
        low, high = ordered[quarter], ordered[-1 - quarter]
        bar = max(1.5, across(high) - across(low))
        shapes.append(Text(at=(left - 10, middle + 4), text=name, size=_SMALL, anchor="end"))
        shapes.append(Rectangle(corner=(across(low), middle - 12), width=bar, height=24, colour="soft"))
        for place, value in enumerate(own):
            height = middle + (
                (place * 7) % 19 - 9
            )  # spread, so that equal values are seen, and always the same way
            shapes.append(Circle(centre=(across(value), height), radius=2.25, colour="accent"))
    shapes.append(Text(at=((left + right) / 2, bottom + 38), text=x_title, size=_TEXT, anchor="middle"))
    return Drawing(width=_WIDTH, height=bottom + 50, label=label, shapes=tuple(shapes))


def svg_file(drawing: Drawing) -> str:
    """Return the drawing as an SVG file on its own paper, light or dark as the reader has it."""
    paper = Rectangle(corner=(0, 0), width=drawing.width, height=drawing.height, colour="paper")
    sheet = Drawing(
        width=drawing.width, height=drawing.height, label=drawing.label, shapes=(paper, *drawing.shapes)
    )
    style = f"<style>{CSS}text{{font-family:sans-serif}}</style>"
    return svg_from_drawing(sheet).replace(">", f">{style}", 1) + "\n"
