"""Do two campaigns that know nothing of each other find the same latencies?

    python benchmarks/repeatability.py [--spaces NAME …] [--hogs 3] [--protocols relay hot]

Two campaigns of the same operators, each with a fresh database and fresh processes: the space's own protocol (relay),
and hot (back to back, without a space, as for operators that came in a database). Reports how much each operator's
second value differs from its first, before and after taking out the factor that all share, and how often the
difference lies within its 95 % interval. ``--hogs N``: during the second campaign N processes keep the machine busy,
on whatever cores they get.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import Harness, command, ended, harness_from, parser_for, say
from spaces import QUICK, check_spaces, make_project

from lanaprof import open_project, open_table
from lanaprof.lut import Table

NAME = "repeatability"
GOAL_MEDIAN, GOAL_P95 = 0.02, 0.06  # with hogs
# Ends by itself when the benchmark is gone, however that ended.
_HOG = "import os, sys\nparent = int(sys.argv[1])\nwhile os.getppid() == parent:\n    sum(range(100_000))\n"

Floats = npt.NDArray[np.float64]


@contextlib.contextmanager
def hogs(count: int) -> Iterator[None]:
    """Keep so many processes busy meanwhile."""
    running = [subprocess.Popen([sys.executable, "-c", _HOG, str(os.getpid())]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def differences(first: Floats, second: Floats) -> dict[str, float]:
    """Return how two campaigns differ.

    Args:
        first: per operator (latency, low, high) in seconds, of shape (operators, 3).
        second: likewise, the same operators; the factor that all share is taken out of these.

    Returns:
        The median and 95 % point of abs(second / first − 1), and the share of operators whose difference lies
        within its 95 % interval: the half-widths that face each other, added in quadrature.
    """
    a, b = first[:, 0], second[:, 0]
    above = b > a
    facing_a = np.where(above, first[:, 2] - a, a - first[:, 1])
    facing_b = np.where(above, b - second[:, 1], second[:, 2] - b)
    apart = np.abs(b / a - 1)
    return {
        "median": float(np.median(apart)),
        "p95": float(np.quantile(apart, 0.95)),
        "within": float(np.mean(np.abs(b - a) <= np.hypot(facing_a, facing_b))),
    }


def compare(first: Table, second: Table) -> dict[str, Any]:
    """Return what two tables of the same operators have in common."""
    rows = []
    for a in first:
        b = second.find(a.operator)
        if a.latency_s is None or b is None or b.latency_s is None:
            continue
        rows.append([[a.latency_s, a.ci_low_s, a.ci_high_s], [b.latency_s, b.ci_low_s, b.ci_high_s]])
    values = np.array(rows, dtype=np.float64)
    factor = float(np.median(values[:, 1, 0] / values[:, 0, 0]))
    noisy = [sum(estimate.status == "noisy" for estimate in table) for table in (first, second)]
    return {
        "operators": len(rows),
        "noisy": noisy,
        "common_factor": factor,
        "raw": differences(values[:, 0], values[:, 1]),
        "corrected": differences(values[:, 0], values[:, 1] / factor),
        "columns": ["first_s", "second_s"],
        "rows": [[a[0], b[0]] for a, b in rows],
    }


def plan(harness: Harness, folder: Path, name: str, space: str) -> Path:
    """Make a project with its operators exported and nothing measured; keep a copy of its database."""
    project = folder / name
    make_project(project, space)
    harness.stage(folder, f"{name}-plan", partial(command, project, "measure", "--plan"))
    copy = folder / f"{name}.db"
    if not copy.exists():
        shutil.copyfile(project / "lanaprof.db", folder / "copying.db")
        (folder / "copying.db").rename(copy)
    return project


def relay_table(harness: Harness, folder: Path, name: str, space: str) -> tuple[Table, float]:
    """Measure the space in a project of its own; return the table and the seconds of the campaign."""
    project = plan(harness, folder, name, space)
    with hogs(harness.options["hogs"] if name == "second" else 0):
        found = harness.stage(folder, f"{name}-relay", partial(command, project, "measure"))
    return open_project(project).table(), found["wall_s"]


def hot_table(harness: Harness, folder: Path, name: str, space: str) -> tuple[Table, float]:
    """Measure the operators of a database outside of a project."""
    plan(harness, folder, "first", space)
    own = folder / f"{name}-hot"
    own.mkdir(exist_ok=True)
    if not (own / "lanaprof.db").exists():
        shutil.copyfile(folder / "first.db", own / "copying.db")
        (own / "copying.db").rename(own / "lanaprof.db")
    words = ("measure", "--database", "lanaprof.db", "--device", "cpu")
    with hogs(harness.options["hogs"] if name == "second" else 0):
        found = harness.stage(folder, f"{name}-hot", partial(command, own, *words))
    return open_table(own / "lanaprof.db", device="cpu"), found["wall_s"]


def run_space(harness: Harness, space: str) -> list[dict[str, Any]]:
    """Return the results of one space, one per protocol."""
    folder, results = harness.folder(space), []
    for protocol in harness.options["protocols"]:
        measured = relay_table if protocol == "relay" else hot_table
        first, first_s = measured(harness, folder, "first", space)
        second, second_s = measured(harness, folder, "second", space)
        found = compare(first, second)
        per_operator_s = (first_s + second_s) / 2 / found["operators"]
        results.append(
            {"space": space, "protocol": protocol, "seconds_per_operator": per_operator_s, **found}
        )
    return results


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"{'space':22} {'protocol':9} {'hogs':>4} {'operators':>9} {'factor':>7}   "
        f"{'median':>7} {'95 %':>7} {'within':>7}   after the factor: {'median':>7} {'95 %':>7} {'within':>7}"
    )
    for run in runs:
        result = run["result"]
        raw, corrected = result["raw"], result["corrected"]
        print(
            f"{result['space']:22} {result['protocol']:9} {run['options']['hogs']:4} {result['operators']:9} "
            f"{result['common_factor']:7.4f}   {raw['median']:7.2%} {raw['p95']:7.2%} {raw['within']:7.1%}   "
            f"{'':17} {corrected['median']:7.2%} {corrected['p95']:7.2%} {corrected['within']:7.1%}"
        )
    print(f"goals under hogs: median ≤ {GOAL_MEDIAN:.0%}, 95 % ≤ {GOAL_P95:.0%}; stated: 95 % within")


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--spaces", nargs="+", default=["efficientnet_lite0", "mobilenetv3_large_100"], metavar="NAME"
    )
    parser.add_argument("--protocols", nargs="+", default=["relay", "hot"], choices=["relay", "hot"])
    parser.add_argument("--hogs", type=int, default=0, help="busy processes during the second campaign")
    given = parser.parse_args()
    if given.quick:
        given.spaces = [QUICK]
    check_spaces(given.spaces)
    harness = harness_from(NAME, given, {"hogs": given.hogs, "protocols": given.protocols})
    harness.parts(given.spaces, lambda space: run_space(harness, space))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
