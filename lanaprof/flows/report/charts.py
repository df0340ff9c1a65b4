"""A report's own charts: quality, errors of predictions, and small ones per layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lanaprof.flows.axes import SMALL, Axis, Frame, axis_for, log_axis_for, marker, time_unit
from lanaprof.flows.drawing import Dots, Drawing, Path, Shape, Text, text_width
from lanaprof.flows.marks import Mark, described, legend, marked, teacher_line
from lanaprof.flows.report.candidates import Candidate, LayerView
from lanaprof.flows.report.facts import number_text
from lanaprof.flows.verified import TimedNetwork
from lanaprof.units import format_duration, format_percent

__all__ = [
    "candidates_chart",
    "curves_chart",
    "errors_chart",
    "history_chart",
    "quality_chart",
]

_WIDTH, _HEIGHT = 860.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 66.0, 24.0, 34.0, 52.0
_SMALL_WIDTH, _SMALL_HEIGHT = 320.0, 210.0
_FAR = 4.0  # times the chosen one's score; what is worse lies on the lower edge
_MOST_CURVES = 24  # in one small chart; more are a thicket


def quality_chart(marks: Sequence[Mark], *, device: str, metric: str, teacher_s: float | None) -> Drawing:
    """Return latency against quality of networks, with their intervals.

    Args:
        marks: at least one.
        device: named in the axis' title.
        metric: what the upright axis says.
        teacher_s: the teacher's latency; None leaves it out.
    """
    times = [mark.latency_s for mark in marks] + ([teacher_s] if teacher_s is not None else [])
    values = [mark.score for mark in marks]
    for mark in marks:
        times += mark.latency_span_s or ()
        values += mark.score_span or ()
    name, unit = time_unit(max(times))
    spread = max(times) - min(times)
    room = 0.04 * (max(values) - min(values))  # marks stand clear of the frame
    lowest = min(values) - room if min(values) < 0 else max(0.0, min(values) - room)
    frame = Frame(
        axis_for([max(0.0, min(times) - 0.03 * spread), max(times) + 0.08 * spread], ticks=7, unit=unit),
        axis_for([lowest, max(values) + room], ticks=5),
        _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM,
    )  # fmt: skip
    shapes = frame.shapes(f"latency on {device} ({name})", metric)
    if teacher_s is not None:
        shapes += teacher_line(teacher_s, frame)
    shapes += marked(marks, frame)
    shapes += legend([], marks, left=_LEFT)
    label = f"Latency on {device} against {metric} of {len(marks)} networks"
    return Drawing(
        width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes), description=described(marks)
    )


_NETWORKS: Mapping[str, tuple[str, str, str]] = {  # kind → form, colour, name in the legend
    "calibration": ("circle", "accent", "calibration, each left out"),
    "verified": ("square", "good", "verified"),
    "selection": ("diamond", "mark", "selection"),
}


def errors_chart(networks: Sequence[TimedNetwork], *, device: str) -> Drawing:
    """Return by how much predictions are off, with their intervals, over the measured latency."""
    times = [one.measured_s for one in networks]
    ends = [0.0]
    for one in networks:
        ends += [
            end / one.measured_s - 1 for end in (one.predicted_s, one.low_s, one.high_s) if end is not None
        ]
    name, unit = time_unit(max(times))
    spread = max(times) - min(times)
    frame = Frame(
        axis_for([max(0.0, min(times) - 0.02 * spread), max(times) + 0.02 * spread], ticks=7, unit=unit),
        axis_for(ends, ticks=6, unit=0.01), _LEFT, _TOP, _WIDTH - _RIGHT, _HEIGHT - _BOTTOM,
    )  # fmt: skip
    shapes = frame.shapes(f"measured latency on {device} ({name})", "predicted / measured − 1 (%)")
    zero = frame.at(frame.x.low, 0.0)[1]
    shapes.append(Path(points=((frame.left, zero), (frame.right, zero)), colour="muted", width=1.25))
    across = _LEFT
    for kind, (form, colour, text) in _NETWORKS.items():
        own = [one for one in networks if one.kind == kind]
        if not own:
            continue
        shapes.append(marker(form, (across + 5, 15), 4.5, colour=colour))
        shapes.append(Text(at=(across + 15, 19), text=text, colour="muted", size=SMALL))
        across += 38 + text_width(text, SMALL)
        for one in own:
            shapes += _error(one, frame, form, colour)
    label = f"Errors of predicted latencies of {len(networks)} networks on {device}"
    worst = max(networks, key=lambda one: abs(one.error))
    text = f"The largest error is {format_percent(worst.error)}, of {worst.name}."
    return Drawing(width=_WIDTH, height=_HEIGHT, label=label, shapes=tuple(shapes), description=text)


def _error(one: TimedNetwork, frame: Frame, form: str, colour: str) -> list[Shape]:
    shapes: list[Shape] = []
    if one.low_s is not None and one.high_s is not None:
        ends = tuple(frame.at(one.measured_s, end / one.measured_s - 1) for end in (one.low_s, one.high_s))
        shapes.append(Path(points=ends, colour=colour, width=1))
    title = (
        f"{one.name}: predicted {format_duration(one.predicted_s)}, measured {format_duration(one.measured_s)}, "
        f"{format_percent(one.error)}"
    )
    return [*shapes, marker(form, frame.at(one.measured_s, one.error), 4, colour=colour, title=title)]


# ------------------------------------------------------------------------------------ small, one a layer


def _small_frame(x: Axis, y: Axis) -> Frame:
    return Frame(x, y, 52.0, 22.0, _SMALL_WIDTH - 14, _SMALL_HEIGHT - 36)


def _small_titles(frame: Frame, x_title: str, y_title: str) -> list[Shape]:
    return [
        Text(at=(4, 12), text=y_title, colour="muted", size=SMALL),
        Text(at=(frame.right, frame.bottom + 32), text=x_title, colour="muted", size=SMALL, anchor="end"),
    ]


def candidates_chart(view: LayerView) -> Drawing | None:
    """Return latency against score of a layer's candidates; None while fewer than two have both.

    Those that no cheaper one reaches are joined. Far below them the axis ends: dots on the lower edge lie below it.
    """
    known = [(one, one.latency_s, one.score) for one in view.candidates]
    points = [(one, x, y) for one, x, y in known if x is not None and y is not None]
    if len(points) < 2:
        return None
    front = view.frontier
    ranked = sorted(y for _, _, y in points)
    own = view.chosen.score if view.chosen is not None and view.chosen.score is not None else 0.0
    floor = min(_FAR * own, 1.5 * ranked[len(ranked) // 2], -1e-9)
    name, unit = time_unit(max(x for _, x, _ in points))
    across = axis_for([0.0, *(x for _, x, _ in points)], ticks=4, unit=unit)
    upwards = axis_for([max(y, floor) for _, _, y in points], ticks=4)
    frame = _small_frame(across, upwards)
    shapes = [*frame.shapes("", ""), *_small_titles(frame, f"latency ({name})", "score")]
    places = tuple(frame.at(x, max(y, upwards.low)) for _, x, y in points)
    shapes.append(Dots(points=places, radius=1.75, colour="soft"))
    line = tuple(frame.at(one.latency_s or 0.0, max(one.score or 0.0, upwards.low)) for one in front)
    shapes.append(Path(points=line, colour="accent", width=1))
    special = {one.operation: one for one in (*front, view.teacher, view.chosen) if one is not None}
    for one in special.values():
        if one.latency_s is None or one.score is None:
            continue
        form, colour, radius = _form(one, view)
        at = frame.at(one.latency_s, max(one.score, upwards.low))
        title = f"{one.operation}: {format_duration(one.latency_s, digits=3)}, score {number_text(one.score)}"
        shapes.append(marker(form, at, radius, colour=colour, title=title))
    label = f"Latency against score of {len(points)} candidates of {view.layer.name}"
    return Drawing(
        width=_SMALL_WIDTH, height=_SMALL_HEIGHT, label=label, shapes=tuple(shapes), description=_told(view)
    )


def _form(one: Candidate, view: LayerView) -> tuple[str, str, float]:
    if view.chosen is not None and one.operation == view.chosen.operation:
        return "diamond", "mark", 5.5
    return ("triangle", "ink", 4.5) if one is view.teacher else ("circle", "accent", 2.5)


def _told(view: LayerView) -> str:
    named = (("teacher", view.teacher), ("chosen", view.chosen))
    return "; ".join(
        f"{name} {one.operation}: {format_duration(one.latency_s, digits=3)}, score {number_text(one.score)}"
        for name, one in named
        if one is not None and one.latency_s is not None
    )


def curves_chart(view: LayerView) -> Drawing | None:
    """Return how the errors of a layer's candidates fell; None without curves.

    Where there are many, the chosen one, the best, the worst and others evenly between them are drawn.
    """
    curved = [one for one in view.candidates if any(error > 0 for _, error in one.curve)]
    if not curved:
        return None
    ranked = sorted(curved, key=lambda one: one.curve[-1][1])
    if len(ranked) > _MOST_CURVES:
        step = (len(ranked) - 1) / (_MOST_CURVES - 1)
        kept = {round(number * step) for number in range(_MOST_CURVES)}
        ranked = [one for number, one in enumerate(ranked) if number in kept or one is view.chosen]
    steps = [float(step) for one in ranked for step, _ in one.curve]
    errors = [error for one in ranked for _, error in one.curve if error > 0]
    frame = _small_frame(axis_for([0.0, *steps], ticks=4), log_axis_for(errors))
    shapes = [*frame.shapes("", ""), *_small_titles(frame, "steps", "error of distilling")]
    for one in sorted(ranked, key=lambda each: each is view.chosen):  # the chosen one on top
        points = tuple(frame.at(step, error) for step, error in one.curve if error > 0)
        is_chosen = one is view.chosen
        shapes.append(
            Path(
                points=points,
                colour="mark" if is_chosen else "muted" if one.note else "accent",
                width=2.5 if is_chosen else 0.75,
                dash=bool(one.note),
            )
        )
    label = f"Errors of {len(ranked)} of {len(curved)} candidates of {view.layer.name} as they were distilled"
    best = ranked[0]
    text = f"The lowest ends at {best.curve[-1][1]:.3g}: {best.operation}."
    return Drawing(
        width=_SMALL_WIDTH, height=_SMALL_HEIGHT, label=label, shapes=tuple(shapes), description=text
    )


def history_chart(history: Sequence[Mapping[str, float | None]], *, name: str) -> Drawing | None:
    """Return how a fine-tuning went: the held-out divergence and the training loss; None with fewer than two looks."""
    lines = {"kl": _line(history, "kl"), "train_loss": _line(history, "train_loss")}
    if len(lines["kl"]) < 2:
        return None
    points = [point for line in lines.values() for point in line]
    frame = _small_frame(
        axis_for([0.0, *(step for step, _ in points)], ticks=4), log_axis_for([loss for _, loss in points])
    )
    shapes = [*frame.shapes("", ""), *_small_titles(frame, "steps", "nats")]
    for key, line in lines.items():
        held_out = key == "kl"
        places = tuple(frame.at(step, loss) for step, loss in line)
        colour = "mark" if held_out else "muted"
        if len(places) > 1:
            shapes.append(Path(points=places, colour=colour, width=2 if held_out else 1, dash=not held_out))
        if held_out:
            shapes.append(Dots(points=places, radius=2.25, colour=colour))
    first, last = lines["kl"][0][1], lines["kl"][-1][1]
    text = f"On held-out data the divergence from the teacher goes from {first:.3g} to {last:.3g} nats."
    label = f"Fine-tuning of {name}"
    return Drawing(
        width=_SMALL_WIDTH, height=_SMALL_HEIGHT, label=label, shapes=tuple(shapes), description=text
    )


def _line(history: Sequence[Mapping[str, float | None]], key: str) -> list[tuple[float, float]]:
    """Return (step, value) where there is a positive one: the axis is logarithmic."""
    pairs = ((point.get("step"), point.get(key)) for point in history)
    return [(float(step), float(value)) for step, value in pairs if step is not None and value and value > 0]
