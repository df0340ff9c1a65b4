"""The section on the hub over a large database: every page alone, and among many readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sections import Run, Section, commands_of, nothing_yet

from lanaprof.units import format_duration, format_size

PAGE_GOAL_S = 0.300


def hub_scale(runs: Sequence[Run]) -> Section:
    """Return what pages of a hub over many measurements take."""
    title = "The hub over a million measurements"
    what = "Every page and every route that is read, by the time at the server."
    if not runs:
        return nothing_yet(title, what, "python benchmarks/hub_scale.py")
    results = [run["result"] for run in runs]
    alone = [each for each in results if each["what"] == "alone"]
    crowd = [each for each in results if each["what"] == "readers"]
    made = next((each for each in results if each["what"] == "make"), None)
    counts = "; ".join(f"{made['counts'][kind]:,} {kind}s" for kind in _KINDS) if made is not None else ""
    lines = [f"{what} {counts}. {commands_of(runs)} Goal of a page: {format_duration(PAGE_GOAL_S)}."]
    return Section(title=title, lines=[*lines, *_alone(alone), *_crowd(crowd)], runs=runs)


_KINDS = ("measurement", "operator", "environment", "retraction", "selection")


def _alone(results: Sequence[Mapping[str, Any]]) -> list[str]:
    if not results:
        return []
    peak = format_size(max(each["hub_peak_bytes"] for each in results))
    lines = [
        "",
        f"One request at a time; the hub took {peak} of memory. After a push: the first request after 500 measurements "
        "came, median and worst; what was counted or compared a few seconds before may still be told then, and a "
        "comparison is remembered while nothing comes into its environments. Later: median and worst of those that "
        "follow. Processor: of the hub, for one of these. SQL: the statements that the page needs, by the driver "
        "alone, in turns with the page; ratio: the median of each pair's, below 1 where the hub keeps what it "
        "counted.",
        "",
        "| asked for | first | after a push | worst | later | worst | processor | SQL | ratio |",
        "| --- " + "| ---: " * 8 + "|",
    ]
    for one in results:
        times = [
            one[name] for name in ("first_s", "pushed_s", "pushed_most_s", "median_s", "most_s", "cpu_s")
        ]
        shown = " | ".join(_time(each) for each in times)
        bare = f"{_time(one['bare_s'])} | {one['ratio']:.2f}" if one["ratio"] is not None else "– | –"
        lines.append(f"| {_name(one)} | {shown} | {bare} |")
    return lines


def _crowd(results: Sequence[Mapping[str, Any]]) -> list[str]:
    whole = next((each for each in results if each["name"] == _WHOLE), None)
    if whole is None:
        return []
    pages = [each for each in results if each["page"] and each["name"] != "/healthz"]
    pushed = next(each for each in results if each["name"] == "push")
    lines = [
        "",
        f"{whole['readers']} readers at once, each with 1 to 3 s between two requests, for {whole['seconds']:.0f} s, "
        f"while two teams pushed without a pause ({pushed['requests']} bundles of 500 measurements, "
        f"{_time(pushed['median_s'])} each in the median, {pushed['failed']} failed): {whole['requests']:,} requests, "
        f"**{whole['failed']} failed**; "
        f"median {_time(whole['median_s'])}, 95 % within {_time(whole['p95_s'])}, worst {_time(whole['most_s'])}.",
        "",
        "| page, among readers | requests | failed | median | 95 % | worst |",
        "| --- " + "| ---: " * 5 + "|",
    ]
    for one in pages:
        times = " | ".join(_time(one[name]) for name in ("median_s", "p95_s", "most_s"))
        lines.append(f"| {_name(one)} | {one['requests']} | {one['failed']} | {times} |")
    return lines


_WHOLE = "all that was read"


def _name(one: Mapping[str, Any]) -> str:
    path, _, what = str(one["name"]).partition(" (")
    return f"`{path}`" + (f", {what.rstrip(')')}" if what else "")


def _time(seconds: float) -> str:
    return format_duration(seconds, digits=3) if seconds else "0 ms"
