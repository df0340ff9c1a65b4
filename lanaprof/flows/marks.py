"""Networks on a chart of latency against quality: marks with their intervals, labels kept apart, the legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lanaprof.flows.axes import SMALL, Frame, marker
from lanaprof.flows.drawing import Path, Shape, Text, text_width
from lanaprof.units import format_duration

if TYPE_CHECKING:
    from lanaprof.lut import Selection

__all__ = ["Mark", "described", "interval_of", "legend", "marked", "selection_marks", "teacher_line"]

_MOST_SELECTIONS = 12  # on a chart, the newest
Box = tuple[float, float, float, float]  # left, top, right, bottom

# kind → form, colour, what the legend calls it: told apart without colours, too
_KINDS = {
    "teacher": ("triangle", "ink", "teacher"),
    "selection": ("circle", "mark", "selection"),
    "student": ("diamond", "good", "fine-tuned student"),
    "baseline": ("square", "muted", "baseline"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A network on a chart.

    Attributes:
        label: written beside it.
        latency_s: across.
        score: upwards, in what the chart shows there.
        measured: whether the latency was timed or predicted.
        title: shown where the pointer rests; default: the label.
        kind: teacher, selection, student or baseline.
        latency_span_s: its interval across; None draws none.
        score_span: its interval upwards.
    """

    label: str
    latency_s: float
    score: float
    measured: bool
    title: str = ""
    kind: str = "selection"
    latency_span_s: tuple[float, float] | None = None
    score_span: tuple[float, float] | None = None


def interval_of(row: Selection) -> tuple[float, float] | None:
    """Return the 95 % interval of a selection's measured latency in seconds; None when it was not timed."""
    return (row.ci_low_s, row.ci_high_s) if row.ci_low_s is not None and row.ci_high_s is not None else None


def selection_marks(selections: Sequence[Selection], device: str) -> list[Mark]:
    """Return marks of what was selected for a device, the newest: where it was timed, else where it was predicted."""
    return [
        Mark(
            label=row.id[:8],
            latency_s=latency_s,
            score=row.score,
            measured=row.measured_s is not None,
            title=f"selection {row.id[:12]}, {row.status}: {format_duration(latency_s)}, score {row.score:.4f}",
            latency_span_s=interval_of(row),
        )
        for row in selections[-_MOST_SELECTIONS:]
        if row.device == device and row.score is not None and (latency_s := row.measured_s or row.predicted_s)
    ]


def marked(marks: Sequence[Mark], frame: Frame) -> list[Shape]:
    """Return the marks; a label that finds no free place beside its mark is left to the tooltip."""
    found: list[Shape] = []
    places = [frame.at(mark.latency_s, mark.score) for mark in marks]
    taken: list[Box] = []  # by labels
    for mark in marks:
        form, colour, _ = _KINDS[mark.kind]
        x, y = frame.at(mark.latency_s, mark.score)
        found += _spans(mark, frame, colour)
        title = mark.title or mark.label
        found.append(marker(form, (x, y), 6, colour=colour, title=title, hollow=not mark.measured))
        box = _free_place(mark.label, (x, y), frame, [*taken, *(_around(at) for at in places)])
        if box is None:
            continue
        taken.append(box)
        left, _, _, base = box
        found.append(Text(at=(left, base), text=mark.label, colour=colour, size=SMALL, bold=True))
    return found


def _around(at: tuple[float, float]) -> Box:
    return at[0] - 6, at[1] - 6, at[0] + 6, at[1] + 6


def _free_place(label: str, at: tuple[float, float], frame: Frame, taken: Sequence[Box]) -> Box | None:
    """Return the label's box below or above its mark, right of it or left, that covers nothing; None without any."""
    width = text_width(label, SMALL)
    for base in (at[1] + 16, at[1] - 7):
        for left in (at[0] + 11, at[0] - width - 11):
            box = left, base - SMALL, left + width, base
            inside = left >= frame.left and box[2] <= frame.right and base <= frame.bottom - 4
            covers = any(
                box[0] < other[2] and other[0] < box[2] and box[1] < other[3] + 2 and other[1] < box[3] + 2
                for other in taken
            )
            if label and inside and not covers:
                return box
    return None


def _spans(mark: Mark, frame: Frame, colour: str) -> list[Shape]:
    lines: list[Shape] = []
    if mark.latency_span_s is not None:
        ends = tuple(frame.at(value, mark.score) for value in mark.latency_span_s)
        lines.append(Path(points=ends, colour=colour, width=1.5))
    if mark.score_span is not None:
        low, high = (frame.at(mark.latency_s, value) for value in mark.score_span)
        lines.append(Path(points=(low, high), colour=colour, width=1.5))
        lines += [Path(points=((x - 4, y), (x + 4, y)), colour=colour, width=1.5) for x, y in (low, high)]
    return lines


def legend(lines: Sequence[tuple[str, str]], marks: Sequence[Mark], *, left: float) -> list[Shape]:
    """Return the legend above a chart: (text, colour) of what is drawn as dots, then the kinds of marks."""
    entries = [("circle", colour, text, False) for text, colour in lines]
    for kind, (form, colour, name) in _KINDS.items():
        sure = {mark.measured for mark in marks if mark.kind == kind}
        mixed = kind == "selection"  # the others are measured unless their name says otherwise
        if True in sure:
            entries.append((form, colour, f"{name}, measured" if mixed else name, False))
        if False in sure:
            entries.append((form, colour, f"{name}, predicted", True))
    found: list[Shape] = []
    across = left
    for form, colour, text, hollow in entries:
        found.append(marker(form, (across + 5, 15), 4.5, colour=colour, hollow=hollow))
        found.append(Text(at=(across + 15, 19), text=text, colour="muted", size=SMALL))
        across += 38 + text_width(text, SMALL)
    return found


def teacher_line(teacher_s: float, frame: Frame) -> list[Shape]:
    """Return the broken line at the teacher's latency with what it is."""
    across = frame.at(teacher_s, frame.y.low)[0]
    near_end = across > frame.right - 130
    label = Text(
        at=(across + (-6 if near_end else 6), frame.bottom - 8),
        text=f"teacher {format_duration(teacher_s, digits=3)}",
        colour="muted",
        size=SMALL,
        anchor="end" if near_end else "start",
    )
    line = Path(points=((across, frame.top), (across, frame.bottom)), colour="muted", width=1.25, dash=True)
    return [line, label]


def described(marks: Sequence[Mark]) -> str:
    """Return in words where the marks stand."""
    return "; ".join(mark.title or mark.label for mark in marks)
