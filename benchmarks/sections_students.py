"""The section on students: what distilling and selecting are worth beside what else one could do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from charts import Plane, Series, plot, svg_file
from lana_summary import OURS, summary
from sections import Run, Section, commands_of, nothing_yet, percent, picture

from lanaprof.flows.axes import axis_for
from lanaprof.units import format_duration

_METHODS = {
    OURS: "lanaprof",
    "random": "random from the library",
    "greedy": "greedy on the same scores",
    "evolution": "evolution on the same scores",
    "flops": "arithmetic instead of latency",
    "uniform": "the teacher scaled down",
    "scratch": "our architecture, fresh weights",
}


def students(runs: Sequence[Run]) -> Section:
    """Return how students compare with baselines at the same measured latency and training."""
    title = "Students beside baselines"
    what = "Networks within the same measured latency, trained by the same recipe for as many batches."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/lana.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Random, greedy, evolution and arithmetic choose from the same distilled candidates by the same table; each "
        "searches again until its network, timed beside the teacher, fills the budget. The scaled teacher and fresh "
        "weights start untrained and get as many more batches as every distilled candidate had seen. Behind: "
        "points that a method is behind lanaprof's student on the same test images, with the larger of the standard "
        "errors over images and over seeds.",
    ]
    images: dict[str, str] = {}
    for run in runs:
        text, drawn = _task(run["result"])
        lines += ["", *text]
        images |= drawn
        for name in drawn:
            lines += picture(name, "Quality of students over their measured speed-up")
    return Section(title=title, lines=lines, images=images, runs=runs)


def _task(result: Mapping[str, Any]) -> tuple[list[str], dict[str, str]]:
    teacher, rows = result["teacher"], summary(result)
    labelled = teacher["wrong_count"] is not None
    own = (
        f"{percent(1 - teacher['wrong_count'] / teacher['images'])} right"
        if labelled
        else "judged by agreement"
    )
    quality = "right" if labelled else "like the teacher"
    head = [
        f"**{result['task']}**: teacher {own} on {teacher['images']:,} test images; {result['trained']} of "
        f"{result['candidates']} candidates in {result['layers']} layers were distilled in "
        f"{format_duration(result['distill_s'], digits=2)}; {result['steps']['tune'][0]} batches of "
        f"{result['steps']['tune'][1]} for every network.",
        "",
        f"| speed-up | network | seeds | measured | {quality} | spread | agreement | KL, held out | behind |",
        "| --- | --- | " + "---: | " * 7,
    ]
    for row in rows:
        spread = "–" if row["quality_sd"] is None else f"± {100 * row['quality_sd']:.2f}"
        behind = (
            "–"
            if row["method"] == OURS
            else f"{100 * row['behind']:+.2f} ± {100 * row['standard_error']:.2f}".replace("-", "−")
        )
        head.append(
            f"| {row['speed']:g}× | {_METHODS[row['method']]} | {row['seeds']} | {row['speedup']:.2f}× "
            f"| {percent(row['quality'])} | {spread} | {percent(row['agreement'])} | {row['kl']:.4f} | {behind} |"
        )
    series = [
        Series(
            name=name,
            points=tuple((row["speedup"], 100 * row["quality"]) for row in own_rows),
            line=method == OURS,
            titles=tuple(f"{name}: {row['speedup']:.2f}×, {percent(row['quality'])}" for row in own_rows),
        )
        for method, name in _METHODS.items()
        if (own_rows := sorted((r for r in rows if r["method"] == method), key=lambda r: float(r["speedup"])))
    ]
    points = [point for one in series for point in one.points]
    plane = Plane(
        x=axis_for([x for x, _ in points], ticks=6),
        y=axis_for([y for _, y in points], ticks=6),
        x_title="times as fast as the teacher, measured",
        y_title=f"{quality} / %",
    )
    drawing = plot(plane, series, label=f"{result['task']}: quality of students over their measured speed-up")
    return head, {f"benchmark-students-{result['task'].replace('_', '-')}.svg": svg_file(drawing)}
