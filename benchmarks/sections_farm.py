"""The section on measuring farms."""

from __future__ import annotations

from collections.abc import Sequence

from sections import Run, Section, commands_of, nothing_yet

from lanaprof.units import format_duration


def farm(runs: Sequence[Run]) -> Section:
    """Return what became of a farm's jobs while its workers were killed and its server crashed."""
    title = "A farm under fire"
    what = (
        "Workers on scripted devices take jobs off one queue, while they are killed (`kill -9`) at random and the "
        "server crashes once."
    )
    if not runs:
        return nothing_yet(title, what, "python benchmarks/farm.py")
    lines = [
        f"{what} {commands_of(runs)}",
        "",
        "Nothing is measured: what is counted is the queue's own. Rivals want the devices of some workers, and only "
        "the server keeps them apart. Lost: jobs without a row. Twice: rows beyond one a job. Overlaps: batches begun "
        "on a device where another worker was at one.",
        "",
        "| workers | rivals | jobs | killed | crashes | done | failed | lost | twice | batches | overlaps | time |",
        "| ---: " * 12 + "|",
    ]
    for run in runs:
        found = run["result"]
        numbers = [
            found[name]
            for name in (
                "workers", "rivals", "jobs", "kills", "crashes", "done", "failed", "lost", "rows_twice", "batches",
                "overlaps",
            )
        ]  # fmt: skip
        listed = " | ".join(map(str, numbers))
        lines.append(f"| {listed} | {format_duration(found['wall_s'], digits=3)} |")
    return Section(title=title, lines=lines, runs=runs)
