"""The section on the solver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sections import Run, Section, commands_of, nothing_yet

from lanaprof.units import format_duration

_COMMAND = "python benchmarks/solver.py --python PYTHON_WITH_RIVALS"


def solver(runs: Sequence[Run]) -> Section:
    """Return how fast choices are proved beside integer programs."""
    title = "The solver"
    what = "From loaded arrays to the checked, proved answer, beside integer programs on the same arrays, on one core."
    if not runs:
        return nothing_yet(title, what, _COMMAND)
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_kind.setdefault(run["result"]["kind"], []).append(run["result"])
    lines = [f"{what} {commands_of(runs)}"]
    for kind, table in (
        ("rivals", _rivals),
        ("large", _large),
        ("every budget", _single),
        ("two budgets", _single),
        ("diverse", _single),
        ("chain", _chains),
        ("adversarial", _adversarial),
    ):
        if kind in by_kind:
            lines += ["", *table(by_kind[kind])]
    return Section(title=title, lines=lines, runs=runs)


def _time(seconds: float) -> str:
    return format_duration(seconds, digits=3)


def _rivals(results: Sequence[Mapping[str, Any]]) -> list[str]:
    names = [name for name in results[0]["instances"][0] if name not in ("ours_s", "proved")]
    versions = {name: results[0]["instances"][0][name].get("version") for name in names}
    told = "; ".join(f"{name}: {version}" for name, version in versions.items() if version)
    lines = [
        "One budget, the best of several runs (others kept the machine busy); medians over the instances; building the "
        f"model included, imports not. In brackets: how many times ours. {told}.",
        "",
        f"| layers × candidates | instances | ours | {' | '.join(names)} |",
        "| --- | ---: | ---: " + "| ---: " * len(names) + "|",
    ]
    for result in results:
        rows = result["instances"]
        ours_s = median(row["ours_s"] for row in rows)
        cells = []
        for name in names:
            answers = [row[name] for row in rows]
            if any("missing" in answer for answer in answers):
                cells.append("not installed")
                continue
            theirs_s = median(answer["build_s"] + answer["solve_s"] for answer in answers)
            unproved = sum(not answer["optimal"] for answer in answers)
            note = f", {unproved} not proved" if unproved else ""
            cells.append(f"{_time(theirs_s)} ({theirs_s / ours_s:.0f}{note})")
        size = f"{result['layers']} × {result['candidates']}"
        lines.append(f"| {size} | {len(rows)} | {_time(ours_s)} | {' | '.join(cells)} |")
    return lines


def _large(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "Large tables beside one `numpy.argsort` of the latencies, row by row and of all at once, in turns: the least "
        "processor time of fifteen, and the median of each turn's ratio.",
        "",
        "| layers × candidates | ours | proved | argsort of rows | ours in these | argsort of all | ours in these |",
        "| --- " + "| ---: " * 6 + "|",
    ]
    rows = (
        f"| {result['layers']} × {result['candidates']} | {_time(result['ours_s'])} "
        f"| {'yes' if result['proved'] else 'no'} "
        f"| {_time(result['argsort_rows_s'])} | {result['in_argsort_rows_s']:.1f} "
        f"| {_time(result['argsort_all_s'])} | {result['in_argsort_all_s']:.1f} |"
        for result in results
    )
    return [*lines, *rows]


def _single(results: Sequence[Mapping[str, Any]]) -> list[str]:
    (result,) = results
    if result["kind"] == "every budget":
        share, rival = result["rival_s"] / result["ours_s"], _time(result["rival_s"])
        return [
            f"Every budget of 46 × 197 in whole microseconds, {result['budgets']} of them, in "
            f"{_time(result['ours_s'])}; one budget by PuLP and HiGHS took {rival}, {share:.0f} times as "
            f"long. `frontier`, {result['points']} points each solved in floats: {_time(result['front_s'])}."
        ]
    proved = "proved" if result["proved"] else "not all proved"
    if result["kind"] == "two budgets":
        return [
            f"Two budgets at 1000 × 500: {proved} in {_time(result['ours_s'])} (slowest of three runs "
            f"{_time(result['slowest_s'])})."
        ]
    rival = ""
    if result.get("rival_s"):
        unproved = result["rival_solutions"] - result["rival_proved"]
        note = f", {unproved} not proved within {_time(result['limit_s'])} each" if unproved else ""
        rival = (
            f" The same {result['rival_solutions']} by plain PuLP and HiGHS: {_time(result['rival_s'])}{note}, "
            f"{result['rival_s'] / result['ours_s']:.1f} times as long."
        )
    return [
        f"{result['solutions']} diverse solutions of 46 × 197, at most 70 % of layers as in any earlier one, {proved}: "
        f"{_time(result['ours_s'])}.{rival}"
    ]


def _chains(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "Spans and pairs of neighbours under one budget, beside our own integer program (PuLP and HiGHS on reduced "
        "columns); front: 50 budgets, each exact.",
        "",
        "| layers × candidates | ours | proved | integer program | ratio | front |",
        "| --- " + "| ---: " * 5 + "|",
    ]
    for result in results:
        program, ratio = "–", "–"
        if "program_s" in result and result["program_s"] is None:
            program = f"nothing in {_time(result['limit_s'])}"
        elif "program_s" in result:
            note = "" if result["program_proved"] else ", not proved"
            program = f"{_time(result['program_s'])}{note}"
            ratio = f"{result['program_s'] / result['ours_s']:.0f}"
        lines.append(
            f"| {result['name']} | {_time(result['ours_s'])} | {'yes' if result['proved'] else 'no'} | {program} "
            f"| {ratio} | {_time(result['front_s'])} |"
        )
    return lines


def _adversarial(results: Sequence[Mapping[str, Any]]) -> list[str]:
    (result,) = results
    alike = result["instances"] - len(result["wrong"])
    return [
        f"Exact = integer program at gap 0, both proved, in {alike} of {result['instances']} small problems of "
        f"{result['kinds']} kinds (ties, equal ratios, convex curves, subset-sums, huge, tiny and mixed scales; plain, "
        "with spans, with pairs, with both). On each, too: the bound is not below the answer, a larger budget scores "
        "no less, and layers and candidates in the opposite order score the same."
    ]
