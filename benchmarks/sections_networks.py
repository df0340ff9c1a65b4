"""The sections on predictions of whole networks, and on what else one could predict them with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import latency_accuracy as judging
from charts import Plane, Series, log_axis, plot, strips, svg_file
from rivals import BY_RUNTIME, RUNS, WARM_UPS
from sections import Run, Section, commands_of, nothing_yet, percent, picture, wilson

from lanaprof.flows.plotting import axis_for
from lanaprof.units import format_duration

_MS_TICKS = {value / 1e3: f"{value:g}" for value in (0.5, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 200)}
_PERCENT_TICKS = {
    value / 100: f"{value:g}" for value in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
}
_SECOND_TICKS = {float(value): f"{value:g}" for value in (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)}


def _anchors(runs: Sequence[Run]) -> str:
    """Return how many networks were calibrated on."""
    return " or ".join(str(count) for count in sorted({run["options"]["anchors"] for run in runs}))


def accuracy(runs: Sequence[Run], *, noisy: int) -> Section:
    """Return how well whole networks are predicted; ``noisy`` runs were not counted."""
    title = "Predicted and measured latency of whole networks"
    what = "How far predictions of random networks are off, and whether the stated interval holds."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/latency_accuracy.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        f"Per space: measure the operators, calibrate on {_anchors(runs)} networks, then time networks nobody saw, "
        "those of the calibration again beside them, to which it is fitted anew. Common factor: how much faster "
        "or slower the machine is as a whole than when it was calibrated. r50 and r95: how far two builds of one "
        "network differ in "
        "the same run, in the median and at 95 %; no prediction can be better than that. Inside: networks within their "
        "90 % interval, whose width is given as a share of the latency.",
    ]
    images: dict[str, str] = {}
    for threads in sorted({run["options"]["threads"] for run in runs}):
        own = [run for run in runs if run["options"]["threads"] == threads]
        lines += _accuracy_table(own, threads)
        for name, label, drawing in _accuracy_charts(own, threads):
            images[name] = drawing
            lines += picture(name, label)
    if noisy:
        lines += [
            "",
            f"{noisy} more runs were too noisy to judge (r50 above {percent(judging.TOO_NOISY_R50, 1)} or r95 above "
            f"{percent(judging.TOO_NOISY_R95, 1)}); they are not counted.",
        ]
    return Section(title=title, lines=lines, images=images, runs=runs)


def _accuracy_table(runs: Sequence[Run], threads: int) -> list[str]:
    bounds = judging.bounds_for(threads)
    lines = [
        "",
        f"### {threads} thread{'s' if threads > 1 else ''}",
        "",
        "| space | operators | bias | median | 95 % | r50 | r95 | common factor | inside | interval width "
        "| export, measure, calibrate | judged |",
        "| --- " + "| ---: " * 10 + "| --- |",
    ]
    for run in runs:
        result = run["result"]
        failed = judging.gates_failed(result, threads)
        judged = "; ".join(failed) or ("goals met" if judging.goals_met(result, threads) else "gates passed")
        inside, total = judging.coverage_of([result])
        spent = ", ".join(
            format_duration(result["stages_s"][s], digits=3) for s in ("export", "measure", "calibrate")
        )
        lines.append(
            f"| {result['space']} | {result['operators']} | {percent(result['bias'], signed=True)} "
            f"| {percent(result['median'])} | {percent(result['p95'])} | {percent(result['r50'])} "
            f"| {percent(result['r95'])} | {result['common_factor']:.4f} | {inside} of {total} "
            f"| {percent(result['interval_width'])} | {spent} | {judged} |"
        )
    results = [run["result"] for run in runs]
    inside, total = judging.coverage_of(results)
    low, high = wilson(inside, total)
    before = sum(result["alone"]["inside"] for result in results)
    width = median(result["alone"]["width"] for result in results)
    return [
        *lines,
        "",
        f"All together {inside} of {total} networks lie inside ({percent(inside / total, 1)}; as a share of "
        f"independent networks {percent(low, 0)} to {percent(high, 0)} would be compatible). `lanaprof predict` alone, "
        f"with nothing timed beside the networks, gives wider intervals ({percent(width)} in the median); {before} of "
        f"{total} lie inside those ({percent(before / total, 1)}). Gates: bias within "
        f"{percent(bounds.bias, 1)}, median at most {percent(bounds.median, 1)} or 1.5 r50, 95 % at most "
        f"{percent(bounds.p95, 1)} or 2 r95. Goals: {percent(bounds.goal_bias, 1)}, {percent(bounds.goal_median, 1)}, "
        f"{percent(bounds.goal_p95, 1)}.",
    ]


def _accuracy_charts(runs: Sequence[Run], threads: int) -> list[tuple[str, str, str]]:
    """Return (file name, label, SVG) of predicted against measured, the errors, and the intervals at all levels."""
    rows = {run["result"]["space"]: run["result"]["rows"] for run in runs}
    times = [value for own in rows.values() for row in own for value in (row[0], row[3])]
    scale = log_axis(times, _MS_TICKS)
    ends = ((scale.low, scale.low), (scale.high, scale.high))
    plane = Plane(
        x=scale, y=scale, x_title="measured (ms)", y_title="predicted (ms)", references=((ends, "equal"),)
    )
    clouds = [
        Series(
            name=name,
            points=tuple((math.log10(row[3]), math.log10(row[0])) for row in own),
            titles=tuple(
                f"{name}: {format_duration(row[3])}, predicted {format_duration(row[0])}" for row in own
            ),
        )
        for name, own in rows.items()
    ]
    where = f"{threads} thread{'s' if threads > 1 else ''}"
    seen = f"Predicted against measured latency of {sum(map(len, rows.values()))} networks, {where}"
    errors = [(name, [100 * (row[0] / row[3] - 1) for row in own]) for name, own in rows.items()]
    label = f"Errors of the predictions per space, {where}: each dot a network, the bar the middle half"
    return [
        (f"benchmark-predicted-{threads}.svg", seen, svg_file(plot(plane, clouds, label=seen))),
        (
            f"benchmark-errors-{threads}.svg",
            label,
            svg_file(strips(errors, x_title="predicted / measured − 1 (%)", label=label)),
        ),
        _levels_chart(runs, threads),
    ]


def _levels_chart(runs: Sequence[Run], threads: int) -> tuple[str, str, str]:
    """Return the calibration curve of the intervals: the stated level against the share that is inside."""
    levels = sorted({level for run in runs for level in run["result"]["stretch"]}, key=float)
    stretches = {
        level: [(run["result"]["rows"], run["result"]["stretch"][level]) for run in runs] for level in levels
    }
    points = [(float(level), share_inside(own)) for level, own in stretches.items()]
    axis = axis_for([0.0, 1.0], ticks=5, unit=0.01)
    plane = Plane(
        x=axis,
        y=axis,
        x_title="stated level of the interval (%)",
        y_title="networks inside (%)",
        references=((((0.0, 0.0), (1.0, 1.0)), "as stated"),),
    )
    label = "Share of networks inside their interval against its stated level"
    pooled = Series(name="all spaces", points=tuple(points), line=True)
    return f"benchmark-levels-{threads}.svg", label, svg_file(plot(plane, [pooled], label=label))


def share_inside(parts: Sequence[tuple[Sequence[Sequence[float]], float]]) -> float:
    """Return the share of networks inside their 90 % interval stretched by a factor.

    Args:
        parts: (rows of predicted, low, high, measured …; factor).

    >>> share_inside([([[1.0, 0.9, 1.1, 1.15, 1.0], [1.0, 0.9, 1.1, 1.05, 1.0]], 1.0)])
    0.5
    """
    inside = [
        predicted - factor * (predicted - low) <= measured <= predicted + factor * (high - predicted)
        for rows, factor in parts
        for predicted, low, high, measured, *_ in rows
    ]
    return sum(inside) / len(inside)


_CHARTED = ("lanaprof", f"{BY_RUNTIME}, summed", f"{BY_RUNTIME}, a + b·x",
            "torch.utils.benchmark, a + b·x", "MACs × constant", "MACs, a + b·x")  # fmt: skip


def rivals(runs: Sequence[Run]) -> Section:
    """Return what other ways to predict the same networks give."""
    title = "What else one could do"
    what = "The same networks predicted by other means, in the same run, on the same core."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/latency_accuracy.py --rivals")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Summed: operators timed one by one by `torch.utils.benchmark` (the PyTorch modules) or as the mean of "
        f"{RUNS} runs of ONNX Runtime after {WARM_UPS} to warm up, added up; a + b·x: such a sum, or the "
        f"multiply-accumulates (MACs), with a line fitted to the {_anchors(runs)} networks that lanaprof is calibrated "
        "on, as timed beside the networks that are predicted. Per space and then averaged over the spaces. Time: of "
        "timing or counting, and of those networks where they are needed; exporting is left out for all.",
        "",
        "| | abs. bias | median error | 95 % of errors | time |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        for predictor in judging.predictors_of(run["result"]):
            by_name.setdefault(predictor["name"], []).append(predictor)
    for name, found in by_name.items():
        bias, middle, p95 = (mean(abs(one[key]) for one in found) for key in ("bias", "median", "p95"))
        spent = format_duration(mean(one["seconds"] for one in found), digits=3)
        lines.append(f"| {name} | {percent(bias)} | {percent(middle)} | {percent(p95)} | {spent} |")
    spaces = ", ".join(f"{run['part']} ({run['result']['networks']} networks)" for run in runs)
    lines += ["", f"Spaces: {spaces}."]
    label = "Median error of a prediction against the time it takes, a dot per space"
    shown = {name: found for name, found in by_name.items() if name in _CHARTED}
    seconds = [max(0.1, one["seconds"]) for found in shown.values() for one in found]
    errors = [max(1e-4, one["median"]) for found in shown.values() for one in found]
    plane = Plane(
        x=log_axis(seconds, _SECOND_TICKS),
        y=log_axis(errors, _PERCENT_TICKS),
        x_title="time per space (s; 0.1 and less in one place)",
        y_title="median error (%)",
    )
    series = [
        Series(
            name=name,
            points=tuple(
                (math.log10(max(0.1, x["seconds"])), math.log10(max(1e-4, x["median"]))) for x in found
            ),
        )
        for name, found in shown.items()
    ]
    name = "benchmark-rivals.svg"
    images = {name: svg_file(plot(plane, series, label=label))}
    return Section(title=title, lines=[*lines, *picture(name, label)], images=images, runs=runs)
