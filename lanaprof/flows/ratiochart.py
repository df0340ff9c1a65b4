"""The chart of lut compare: every operator's ratio with its interval, sorted, and the common ratio."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import TYPE_CHECKING

from lanaprof.errors import BadInput
from lanaprof.flows.axes import marker
from lanaprof.flows.drawing import Drawing, Path, Shape, Text, text_width
from lanaprof.flows.plotting import Axis, Words, axis_for, write_drawing

if TYPE_CHECKING:
    from lanaprof.flows.comparing import SourceComparison
    from lanaprof.lut import OperatorRatio

__all__ = ["ratios_chart", "write_ratios"]

_WIDTH, _TOP, _RIGHT, _FOOT = 860.0, 40.0, 24.0, 52.0
_SMALL = 11.0
_LINE, _ROW = 12.0, 5.0  # a row is as high as its name's lines, and this
_NAMED_MOST = 120  # rows; more have no names, and share this height:
_ROWS_HEIGHT = 1100.0
_LONGEST = 44  # letters of a line of a name
_LINES_MOST = 3


def ratios_chart(found: SourceComparison) -> Drawing:
    """Return the ratios B / A of all operators, the slowest on top; those that changed of their own stand out."""
    rows = sorted(found.ratios, key=lambda row: row.ratio, reverse=True)
    names = [found.name(row.operator) or row.operator[:12] for row in rows]
    lines = [_lines(name) for name in names] if len(rows) <= _NAMED_MOST else []
    height = max(2.0, _ROWS_HEIGHT / len(rows))
    if lines:
        height = _ROW + _LINE * max(map(len, lines))
    left = 24 + max((text_width(line, _SMALL) for name in lines for line in name), default=0.0)
    bottom = _TOP + height * len(rows)
    ends = [end for row in rows for end in (row.low, row.high) if end is not None and end > 0]
    axis = axis_for([*ends, *(row.ratio for row in rows), 1.0], ticks=8)

    def across(value: float) -> float:
        return left + min(1.0, max(0.0, axis.share(value))) * (_WIDTH - _RIGHT - left)

    shapes: list[Shape] = []
    for value, text in axis.ticks:
        x = across(value)
        shapes.append(Path(points=((x, _TOP), (x, bottom)), colour="grid"))
        shapes.append(Text(at=(x, bottom + 17), text=text, colour="muted", size=_SMALL, anchor="middle"))
    shapes.append(Text(at=((left + _WIDTH - _RIGHT) / 2, bottom + 38), text="latency B / A", anchor="middle"))
    shapes.append(Path(points=((across(1.0), _TOP), (across(1.0), bottom)), colour="muted", width=1.25))
    if found.common_ratio is not None:
        x = across(found.common_ratio)
        shapes.append(Path(points=((x, _TOP), (x, bottom)), colour="accent", width=1.25, dash=True))
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        middle = _TOP + (number + 0.5) * height
        for place, line in enumerate(lines[number] if lines else ()):
            y = middle + 4 + (place - (len(lines[number]) - 1) / 2) * _LINE
            shapes.append(Text(at=(left - 10, y), text=line, colour="ink", size=_SMALL, anchor="end"))
        shapes += _row(row, name, (across(row.ratio), middle), _span(row, axis, across), height)
    shapes += _legend(found)
    changed = sum(1 for row in rows if row.changed)
    label = (
        f"Latency ratios B / A of {len(rows)} operators with 95 % intervals; {changed} changed of their own"
    )
    return Drawing(width=_WIDTH, height=bottom + _FOOT, label=label, shapes=tuple(shapes))


def _lines(name: str) -> list[str]:
    """Return a name as lines; only what is longer than all of them together is cut, and whole in the row's title."""
    return textwrap.wrap(name, _LONGEST, max_lines=_LINES_MOST, placeholder=" …", break_on_hyphens=False)


def _span(row: OperatorRatio, axis: Axis, across: Callable[[float], float]) -> tuple[float, float]:
    return across(row.low), across(axis.high if row.high is None else row.high)


def _row(
    row: OperatorRatio, name: str, at: tuple[float, float], span: tuple[float, float], height: float
) -> list[Shape]:
    colour = "mark" if row.changed else "accent"
    high = "∞" if row.high is None else f"{row.high:.3f}"
    title = f"{name}: {row.ratio:.3f} ({row.low:.3f} … {high})" + (", noisy" if row.noisy else "")
    return [
        Path(
            points=((span[0], at[1]), (span[1], at[1])), colour=colour if row.changed else "soft", width=1.5
        ),
        marker(
            "diamond" if row.changed else "circle", at, max(1.5, min(3.5, height / 3)), colour=colour, title=title,
            hollow=row.noisy,
        ),
    ]  # fmt: skip


def _legend(found: SourceComparison) -> list[Shape]:
    entries = [
        ("changed of its own", "diamond", "mark", False),
        ("not told from the rest", "circle", "accent", False),
    ]
    if any(row.noisy for row in found.ratios):
        entries.append(("noisy", "circle", "accent", True))
    shapes: list[Shape] = []
    x = 24.0
    for text, form, colour, hollow in entries:
        shapes.append(marker(form, (x + 5, 15), 4.5, colour=colour, hollow=hollow))
        shapes.append(Text(at=(x + 15, 19), text=text, colour="muted", size=_SMALL))
        x += 38 + text_width(text, _SMALL)
    if found.common_ratio is not None:
        shapes.append(Path(points=((x, 15.0), (x + 16, 15.0)), colour="accent", width=1.25, dash=True))
        text = f"common ratio {found.common_ratio:.3f}"
        shapes.append(Text(at=(x + 22, 19), text=text, colour="muted", size=_SMALL))
    return shapes


def write_ratios(path: FilePath, found: SourceComparison) -> None:
    """Write the chart as .html, .svg or .png.

    Raises:
        BadInput: nothing to draw, another ending, or a place that cannot be written.
    """
    if not found.ratios:
        raise BadInput(
            "there is nothing to draw: no operator was measured in the same cache state and space on both sides",
            hint="lanaprof lut ls shows what each side has",
        )
    caption = "Latency in B over latency in A, with 95 % intervals; the slowest in B on top."
    words = Words("Latency B / A by operator", caption, example="ratios.html")
    write_drawing(path, ratios_chart(found), words)
