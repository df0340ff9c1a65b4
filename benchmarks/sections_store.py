"""The section on large databases: a million measurements in, out, and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sections import Run, Section, commands_of, nothing_yet

from lanaprof.units import format_duration, format_size

IMPORT_GOAL_S = 180.0
QUERY_GOAL_S = 0.150
_KINDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def million(runs: Sequence[Run]) -> Section:
    """Return what a database of many measurements takes."""
    title = "A million measurements in one database"
    what = "Environments × 4,000 operators × five rows of 64 samples each."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/million.py")
    lines = [f"{what} {commands_of(runs)}"]
    for rows in sorted({run["options"]["rows"] for run in runs}):
        own = [run for run in runs if run["options"]["rows"] == rows]
        lines += ["", f"### {rows:,} rows", "", *_steps(own, rows), *_queries([run["result"] for run in own])]
    return Section(title=title, lines=lines, runs=runs)


def _steps(runs: Sequence[Run], rows: int) -> list[str]:
    steps = [(run["result"], run["load"]) for run in runs if run["result"]["what"] != "query"]
    if not steps:
        return []
    lines = [
        "Processor: of the command alone, on one core; a server's own work is in the wall time. Memory: the most the "
        "command took. Load: of the system before and after; beyond the number of cores, others made the wall time "
        f"longer. Goal of a million rows' import: {format_duration(IMPORT_GOAL_S)}.",
        "",
        "| step | wall | processor | rows a second of processor | on disk | memory | load |",
        "| --- " + "| ---: " * 6 + "|",
    ]
    for step, load in steps:
        where = _KINDS.get(step.get("kind", ""), "")
        name = " ".join(
            filter(None, (step["what"], step.get("format", ""), f"into {where}" if where else ""))
        )
        worked = step.get("cpu_s")
        processor = f"{format_duration(worked)} | {rows / worked:,.0f}" if worked else "– | –"
        size = format_size(step["size_bytes"]) if "size_bytes" in step else "–"
        memory = format_size(step["peak_bytes"]) if "peak_bytes" in step else "–"
        around = ", ".join("–" if load[when] is None else f"{load[when]:.1f}" for when in ("before", "after"))
        lines.append(
            f"| {name} | {format_duration(step['wall_s'])} | {processor} | {size} | {memory} | {around} |"
        )
    return lines


def _queries(results: Sequence[Mapping[str, Any]]) -> list[str]:
    queries = [result for result in results if result["what"] == "query"]
    if not queries:
        return []
    lines = [
        "",
        "The table of one environment, as `select` reads it, another environment each time; beside it, in turns, a "
        "bare SELECT of the same rows by the driver alone. Ratio: the median of each pair's. Processor: of who asks. "
        f"Goal: {format_duration(QUERY_GOAL_S)}.",
        "",
        "| database | policy | median | least | processor | bare SELECT, median | processor | ratio |",
        "| --- | --- " + "| ---: " * 6 + "|",
    ]
    for one in queries:
        times = [one["median_s"], one["least_s"], one["cpu_s"], one["bare_s"], one["bare_cpu_s"]]
        shown = " | ".join(format_duration(each) for each in times)
        lines.append(f"| {_KINDS[one['kind']]} | {one['policy']} | {shown} | {one['ratio']:.2f} |")
    return lines
