"""The sections on campaigns and budgets."""

from __future__ import annotations

from collections.abc import Sequence

from charts import Plane, Series, plot, svg_file
from proving import HIGHEST, LOWEST, NEARLY, summary
from repeatability import GOAL_MEDIAN, GOAL_P95
from sections import Run, Section, commands_of, nothing_yet, percent, picture

from lanaprof.flows.plotting import axis_for
from lanaprof.units import format_duration, format_size


def repeatability(runs: Sequence[Run]) -> Section:
    """Return whether two campaigns agree."""
    title = "Two campaigns that know nothing of each other"
    what = "The same operators measured twice, with fresh databases and processes."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/repeatability.py [--hogs 3]")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Busy: processes that kept the machine busy during the second campaign, on any core. Differences per operator "
        "(median, and 95 % of them below), and the share that lies within the 95 % interval of a difference; then "
        "the same after the factor that all operators share is taken out.",
        "",
        "| space | protocol | busy | operators | median | 95 % | within | factor | median | 95 % | within |",
        "| --- | --- " + "| ---: " * 9 + "|",
    ]
    for run in sorted(runs, key=lambda run: run["options"]["hogs"]):
        result = run["result"]
        raw, corrected = (
            " | ".join((percent(part["median"]), percent(part["p95"]), percent(part["within"], 1)))
            for part in (result["raw"], result["corrected"])
        )
        lines.append(
            f"| {result['space']} | {result['protocol']} | {run['options']['hogs']} | {result['operators']} | {raw} "
            f"| {result['common_factor']:.4f} | {corrected} |"
        )
    goals = f"Goals beside busy processes: {percent(GOAL_MEDIAN, 0)} in the median, {percent(GOAL_P95, 0)} at 95 %."
    return Section(title=title, lines=[*lines, "", goals], runs=runs)


def proving(runs: Sequence[Run]) -> Section:
    """Return whether selected networks keep their budgets."""
    title = "Budgets that are kept"
    what = "Networks that `lanaprof select` chose for a budget, timed again by another process beside the teacher."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/proving.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        f"Budgets evenly from {LOWEST} × the least latency to {HIGHEST} × the teacher's; scores are made up (dearer is "
        "mostly better), for latency does not depend on weights. Use: the second timing over the budget. Level: as if "
        "the machine were as fast as when the network was proved, which the teacher timed beside it both times says.",
        "",
        f"| space | budgets | verified | within | within {NEARLY} × | mean use | worst | within, level "
        f"| within {NEARLY} ×, level | rounds | time of `select` |",
        "| --- " + "| ---: " * 10 + "|",
    ]
    tables = [(run["part"], run["result"]["budgets"]) for run in runs]
    for name, rows in [*tables, ("all", [row for _, own in tables for row in own])]:
        found = summary(rows)
        lines.append(
            f"| {name} | {found['budgets']} | {found['verified']} | {found['within']} | {found['nearly']} "
            f"| {percent(found['use'], 1)} | {percent(found['worst'], 1)} | {found['within_level']} "
            f"| {found['nearly_level']} | {found['rounds']:g} "
            f"| {format_duration(found['select_s'], digits=3)} |"
        )
    lines += ["", "Rounds and time are medians over the budgets."]
    series = [
        Series(
            name=name,
            points=tuple((row["budget_share"], row["again_s"] / row["budget_s"]) for row in rows),
            titles=tuple(
                f"{name}: {format_duration(row['again_s'])} of {format_duration(row['budget_s'])}"
                for row in rows
            ),
            line=True,
        )
        for name, rows in tables
    ]
    x = axis_for([point[0] for one in series for point in one.points], ticks=8, unit=0.01)
    y = axis_for([1.0, NEARLY, *(point[1] for one in series for point in one.points)], ticks=6, unit=0.01)
    plane = Plane(
        x=x,
        y=y,
        x_title="budget (% of the teacher's latency)",
        y_title="second timing (% of the budget)",
        references=((((x.low, 1.0), (x.high, 1.0)), "budget"),),
    )
    label = "How much of its budget a selected network uses when timed again"
    images = {"benchmark-budgets.svg": svg_file(plot(plane, series, label=label))}
    return Section(
        title=title, lines=[*lines, *picture("benchmark-budgets.svg", label)], images=images, runs=runs
    )


def throughput(runs: Sequence[Run]) -> Section:
    """Return how fast a space is measured, and in how much memory."""
    title = "Operators a second"
    what = "From a space to stored estimates, start of the commands included."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/throughput.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Memory: the peak of the command and of its measuring process while measuring; growth is the peak of the last "
        "third of the time over that of the middle third.",
        "",
        "| size | layers | candidates | operators | stored | failed | export | measure | operators a second "
        "| command | worker | growth |",
        "| --- " + "| ---: " * 11 + "|",
    ]
    for run in runs:
        result = run["result"]
        memory = result["measure_memory"]
        peaks = " | ".join(
            format_size(memory[name]) if memory[name] else "–"
            for name in ("parent_peak_bytes", "worker_peak_bytes")
        )
        grew = " and ".join(
            f"{memory[name]:.2f}" if memory[name] else "–" for name in ("parent_growth", "worker_growth")
        )
        rate = "resumed" if result["resumed"] else f"{result['operators_per_second']:.2f}"
        lines.append(
            f"| {result['size']} | {result['layers']} | {result['candidates']} | {result['operators']} "
            f"| {result['stored']} | {result['failed']} | {format_duration(result['export_s'], digits=3)} "
            f"| {format_duration(result['measure_s'], digits=3)} | {rate} | {peaks} | {grew} |"
        )
    longest = max(runs, key=lambda run: float(run["result"]["measure_s"]))["result"]
    samples = longest["measure_memory"]["samples"]
    if not samples:
        return Section(title=title, lines=lines, runs=runs)
    series = [
        Series(name=name, points=tuple((row[0], row[column] / 1e6) for row in samples), line=True)
        for name, column in (("command", 1), ("measuring process", 2))
    ]
    plane = Plane(
        x=axis_for([0.0, *(row[0] for row in samples)], ticks=8),
        y=axis_for([0.0, *(point[1] for one in series for point in one.points)], ticks=6),
        x_title="time (s)",
        y_title="resident memory (MB)",
    )
    label = f"Memory while {longest['operators']} operators are measured"
    images = {"benchmark-memory.svg": svg_file(plot(plane, series, label=label))}
    return Section(
        title=title, lines=[*lines, *picture("benchmark-memory.svg", label)], images=images, runs=runs
    )
