"""How numbers lie: the samples of one measurement, also round by round, and the ratios of a comparison."""

from __future__ import annotations

from bisect import bisect_right

from lanaprof.flows.axes import SMALL, Axis, Frame, axis_for, marker, time_unit
from lanaprof.flows.comparing import SourceComparison
from lanaprof.flows.drawing import Dots, Drawing, Path, Rectangle, Shape, Text
from lanaprof.lut import Measurement
from lanaprof.units import format_duration

__all__ = ["histogram", "ratios_histogram", "rounds_chart"]

_WIDTH, _HEIGHT = 860.0, 300.0
_LEFT, _TOP, _RIGHT, _BOTTOM = 70.0, 20.0, 20.0, 52.0
_BINS_MOST = 40


def histogram(row: Measurement) -> Drawing:
    """Return how many samples took how long, with the latency and its interval; the row has samples."""
    samples, shown_s = sorted(row.samples), _shown_s(row)
    bins = min(_BINS_MOST, max(5, round(2 * len(samples) ** 0.5)))
    low, high = samples[0], min(samples[-1], shown_s)
    width_s = (high - low) / bins or high / 100 or 1e-9
    counts = [0] * bins
    for each in samples:
        if each <= shown_s:
            counts[min(bins - 1, int((each - low) / width_s))] += 1
    across = _time_axis([low, low + bins * width_s, *_interval(row)])
    frame = _frame(across, axis_for([0.0, float(max(counts))], ticks=4))
    shapes = frame.shapes(f"time of one run, {time_unit(high)[0]}", "runs")
    for number, count in enumerate(counts):
        left, top = frame.at(low + number * width_s, float(count))
        right = frame.at(low + (number + 1) * width_s, 0.0)[0]
        begin, end = (format_duration(low + (number + more) * width_s, digits=4) for more in (0, 1))
        title = f"{count} between {begin} and {end}"
        shapes.append(
            Rectangle(
                corner=(left, top), width=max(0.5, right - left - 1), height=frame.bottom - top, colour="soft",
                title=title,
            )
        )  # fmt: skip
    for value, dash in zip(_interval(row), (True, False, True), strict=False):
        x = frame.at(value, 0.0)[0]
        shapes.append(Path(points=((x, frame.top), (x, frame.bottom)), colour="mark", width=1.5, dash=dash))
    shapes += _beyond(row, frame)
    return _sheet(shapes, f"{len(samples)} samples between {_text(low)} and {_text(samples[-1])}", row)


def ratios_histogram(found: SourceComparison) -> Drawing:
    """Return how many operators have which ratio B / A; there is one at least.

    Inside a bar, a narrow one counts those that changed beyond their intervals.
    """
    ratios = sorted(row.ratio for row in found.ratios)
    axis = axis_for([*ratios, 1.0], ticks=10)
    bins = min(_BINS_MOST, max(10, round(2 * len(ratios) ** 0.5)))
    edges = [axis.low + (axis.high - axis.low) * number / bins for number in range(bins + 1)]
    counts, changed = [0] * bins, [0] * bins
    for row in found.ratios:
        place = min(bins - 1, max(0, bisect_right(edges, row.ratio) - 1))
        counts[place] += 1
        changed[place] += row.disagree or row.changed
    frame = _frame(axis, axis_for([0.0, float(max(counts))], ticks=4))
    shapes = frame.shapes("latency new / old", "operators")
    for number, count in enumerate(counts):
        for many, share, colour in ((count, 1.0, "soft"), (changed[number], 0.4, "mark")):
            left, top = frame.at(edges[number], float(many))
            width = frame.at(edges[number + 1], 0.0)[0] - left
            title = (
                f"{count} between {edges[number]:.3f} and {edges[number + 1]:.3f}, {changed[number]} changed"
            )
            if many:
                shapes.append(
                    Rectangle(
                        corner=(left + width * (1 - share) / 2, top), width=max(0.5, width * share - 1),
                        height=frame.bottom - top, colour=colour, title=title,
                    )
                )  # fmt: skip
    lines = [(1.0, "muted", False)]
    if found.common_ratio is not None:
        lines.append((found.common_ratio, "accent", True))
    for value, colour, dash in lines:
        x = frame.at(value, 0.0)[0]
        shapes.append(Path(points=((x, frame.top), (x, frame.bottom)), colour=colour, width=1.5, dash=dash))
    label = (
        f"Ratios of {len(ratios)} operators from {ratios[0]:.3f} to {ratios[-1]:.3f}; {sum(changed)} changed"
    )
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes))


def rounds_chart(row: Measurement) -> Drawing:
    """Return every sample in its round: what drifted or was disturbed stands out; the row has samples."""
    shown_s = _shown_s(row)
    upward = _time_axis([*(each for each in row.samples if each <= shown_s), *_interval(row)])
    frame = _frame(axis_for([0.0, float(max(row.rounds) or 1)], ticks=8), upward)
    shapes = frame.shapes("round", f"time of one run, {time_unit(upward.high)[0]}")
    for value, dash in zip(_interval(row), (True, False, True), strict=False):
        height = frame.at(frame.x.low, value)[1]
        shapes.append(
            Path(points=((frame.left, height), (frame.right, height)), colour="mark", width=1.5, dash=dash)
        )
    taken = list(zip(row.rounds, row.samples, strict=True))
    points = tuple(frame.at(float(number), each) for number, each in taken if each <= shown_s)
    shapes.append(Dots(points=points, radius=2.5, colour="accent"))
    for number, each in taken:
        if each > shown_s:
            at = frame.at(float(number), upward.low)[0], frame.top + 4
            shapes.append(marker("triangle", at, 3.5, colour="accent", title=_text(each)))
    shapes += _beyond(row, frame)
    return _sheet(shapes, f"{len(row.samples)} samples in {len(set(row.rounds))} rounds", row)


def _shown_s(row: Measurement) -> float:
    """Return how long a run may have taken to be drawn to scale: a few that were disturbed would squeeze the rest."""
    samples = sorted(row.samples)
    most = samples[int(0.98 * (len(samples) - 1))]
    cut_s = max(most + 0.5 * (most - samples[0]), *_interval(row), samples[0])
    return cut_s if samples[-1] > cut_s else samples[-1]


def _beyond(row: Measurement, frame: Frame) -> list[Shape]:
    """Return the line that says how many runs took longer than what is drawn."""
    shown_s = _shown_s(row)
    count = sum(each > shown_s for each in row.samples)
    text = f"{count} more took up to {_text(max(row.samples))}"
    at = (frame.right, frame.top - 6)
    return [Text(at=at, text=text, colour="muted", size=SMALL, anchor="end")] if count else []


def _interval(row: Measurement) -> tuple[float, ...]:
    """Return the interval's lower end, the latency and the upper end; nothing where it failed."""
    values = (row.ci_low_s, row.latency_s, row.ci_high_s)
    return tuple(each for each in values if each is not None)


def _time_axis(values: list[float]) -> Axis:
    return axis_for(values, unit=time_unit(max(values))[1])


def _frame(across: Axis, upward: Axis) -> Frame:
    return Frame(across, upward, _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM)


def _text(seconds: float) -> str:
    return format_duration(seconds, digits=4) if seconds > 0 else "0 s"


def _sheet(shapes: list[Shape], what: str, row: Measurement) -> Drawing:
    low, latency, high = (_text(each) for each in _interval(row)) if _interval(row) else ("", "", "")
    label = what + (f"; latency {latency}, 95 % interval {low} to {high}" if latency else "")
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes))
