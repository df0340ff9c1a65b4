"""How well does the table predict whole networks here, and how honest is the interval?

    python benchmarks/latency_accuracy.py [--spaces NAME …] [--networks 60] [--threads 1] [--rivals]

For each space, by the commands a user types: init → measure → calibrate → verify on random networks, the calibration's
networks timed again beside them. Errors are predicted / measured − 1. ``r50`` and ``r95`` say
how far two builds of one network differ in the same run (median and 95 % point): where the machine does not repeat
itself, the errors say nothing; such a run is kept in the results, not counted, and repeated. ``--rivals`` predicts the
same networks from what one would do without a table: see rivals.py.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Harness, command, ended, harness_from, parser_for, say
from rivals import rivals_afresh
from spaces import QUICK, SPACES, check_spaces, make_project

from lanaprof import open_project
from lanaprof.space import Architecture

NAME = "latency_accuracy"
LEVELS = (0.5, 0.8, 0.95, 0.99)  # beside 0.9: how the interval is stretched for them


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is judged: hard gates (at least these, or what the machine repeats to) and goals, all as shares."""

    bias: float
    median: float
    p95: float
    goal_bias: float
    goal_median: float
    goal_p95: float


# Several threads wait for each other: everything is noisier.
ONE_THREAD = Bounds(bias=0.010, median=0.010, p95=0.030, goal_bias=0.005, goal_median=0.008, goal_p95=0.022)
MORE_THREADS = Bounds(bias=0.015, median=0.020, p95=0.050, goal_bias=0.007, goal_median=0.012, goal_p95=0.030)
TOO_NOISY_R50, TOO_NOISY_R95 = 0.010, 0.025


def bounds_for(threads: int) -> Bounds:
    """Return what is judged with so many threads."""
    return ONE_THREAD if threads == 1 else MORE_THREADS


def is_too_noisy(result: dict[str, Any]) -> bool:
    """Say whether the machine repeated itself too badly for the errors to say anything."""
    noisy = result["r50"] > TOO_NOISY_R50 or result["r95"] > TOO_NOISY_R95
    return bool(noisy or result["too_noisy_by_verify"])


def gates_failed(result: dict[str, Any], threads: int) -> list[str]:
    """Return the hard gates that a result does not meet, with what it has and what it may have."""
    bounds = bounds_for(threads)
    allowed = {
        "bias": bounds.bias,
        "median": max(bounds.median, 1.5 * result["r50"]),
        "p95": max(bounds.p95, 2 * result["r95"]),
    }
    return [
        f"{name} {result[name]:.2%} > {limit:.2%}"
        for name, limit in allowed.items()
        if abs(result[name]) > limit
    ]


def goals_met(result: dict[str, Any], threads: int) -> bool:
    """Say whether bias, median and 95 % point all reach the goal."""
    bounds = bounds_for(threads)
    wanted = {"bias": bounds.goal_bias, "median": bounds.goal_median, "p95": bounds.goal_p95}
    return all(abs(result[name]) <= goal for name, goal in wanted.items())


def stretches(folder: Path) -> dict[str, float]:
    """Return, per level, how wide the interval of a network is in units of its 90 % interval.

    The predictive distribution is the same for all networks but for its width, so the teacher's will do.
    """
    project = open_project(folder)

    def width(level: float) -> float:
        found = project.predict(Architecture("", ()), level=level)
        return found.high_s - found.low_s

    whole = width(0.9)
    return {"0.9": 1.0} | {str(level): width(level) / whole for level in LEVELS}


def alone(folder: Path, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return how many networks lie inside the interval that ``lanaprof predict`` gives, and its median width.

    It knows only the table and the calibration, nothing that was timed beside the networks.
    """
    project = open_project(folder)
    found = [project.predict(Architecture("", tuple(row["choices"].items()))) for row in rows]
    pairs = list(zip(found, [row["measured_s"] for row in rows], strict=True))
    return {
        "inside": sum(one.low_s <= measured_s <= one.high_s for one, measured_s in pairs),
        "width": statistics.median((one.high_s - one.low_s) / measured_s for one, measured_s in pairs),
    }


def summary_of(found: dict[str, Any]) -> dict[str, Any]:
    """Return the figures and rows of what ``lanaprof verify --json`` printed."""
    rows = found["architectures"]
    return {
        "networks": len(rows),
        "bias": found["bias"],
        "median": found["median_error"],
        "p95": found["p95_error"],
        "r50": found["repeatability"],
        "r95": found["repeatability_p95"],
        "too_noisy_by_verify": found["too_noisy"],
        "common_factor": found["common_factor"],
        "coverage": found["coverage"],
        "interval_width": found["interval_width"],
        "columns": ["predicted_s", "low_s", "high_s", "measured_s", "table_s"],
        "rows": [
            [row["predicted_s"], row["low_s"], row["high_s"], row["measured_s"], row["table_s"]]
            for row in rows
        ],
    }


def run_space(harness: Harness, name: str) -> list[dict[str, Any]]:
    """Return the results of one space: the attempts that were too noisy, and the one that counts, if any."""
    folder, options = harness.folder(name), harness.options
    project = folder / "project"

    def made() -> dict[str, Any]:
        make_project(project, name, threads=options["threads"])
        return {}

    stages = {
        "init": harness.stage(folder, "init", made),
        "export": harness.stage(folder, "export", lambda: command(project, "measure", "--plan")),
        "measure": harness.stage(folder, "measure", lambda: command(project, "measure")),
        "calibrate": harness.stage(
            folder, "calibrate", lambda: command(project, "calibrate", "-n", str(options["anchors"]))
        ),
    }
    stretch = harness.stage(folder, "levels", lambda: stretches(project))
    stretch.pop("wall_s")
    words = ["verify", "--random", str(options["networks"]), "--seed", str(options["seed"])]
    attempts: list[dict[str, Any]] = []
    for attempt in range(1, options["repeats"] + 1):
        found = harness.stage(folder, f"verify-{attempt}", lambda: command(project, *words))
        result = summary_of(found) | {
            "space": name,
            "attempt": attempt,
            "operators": stages["export"]["operators"],
            "noisy_operators": stages["measure"]["noisy"],
            "stages_s": {stage: got["wall_s"] for stage, got in stages.items()} | {"verify": found["wall_s"]},
            "stretch": stretch,
            "alone": alone(project, found["architectures"]),
        }
        result["counted"] = harness.quick or not is_too_noisy(result)
        attempts.append(result)
        if result["counted"]:
            break
        say(f"  too noisy to judge: r50 {result['r50']:.2%}, r95 {result['r95']:.2%}; not counted")
    if options["rivals"] and attempts[-1]["counted"]:
        networks = folder / "networks.json"
        rivals = harness.stage(
            folder, "rivals", lambda: rivals_afresh(project, found["architectures"], networks, options)
        )
        for rival in rivals["predictors"]:
            if rival["fitted"]:  # the networks that it is fitted to must be timed first
                rival["seconds"] += stages["calibrate"]["wall_s"]
        attempts[-1]["rivals"] = rivals
    return attempts


def coverage_of(results: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """Return how many networks of all results lie inside their interval, and how many there are."""
    rows = [row for result in results for row in result["rows"]]
    return sum(low <= measured <= high for _, low, high, measured, _ in rows), len(rows)


_HEAD = (
    f"{'space':22} {'bias':>7} {'median':>7} {'95 %':>7} {'r50':>6} {'r95':>6} {'factor':>7} {'inside':>6} "
    f"{'width':>6} {'export':>7} {'measure':>8} {'calibr.':>8} {'verify':>7}  judged"
)


def line_of(result: dict[str, Any], threads: int) -> str:
    """Return the table's line of a result."""
    stages = result["stages_s"]
    if not result["counted"]:
        judged = "too noisy, not counted"
    else:
        failed = gates_failed(result, threads)
        judged = (
            ", ".join(failed) if failed else "goals met" if goals_met(result, threads) else "gates passed"
        )
    return (
        f"{result['space']:22} {result['bias']:+7.2%} {result['median']:7.2%} {result['p95']:7.2%} "
        f"{result['r50']:6.2%} {result['r95']:6.2%} {result['common_factor']:7.4f} {result['coverage']:6.0%} "
        f"{result['interval_width']:6.2%} {stages['export']:6.0f}s {stages['measure']:7.0f}s "
        f"{stages['calibrate']:7.0f}s {stages['verify']:6.0f}s  {judged}"
    )


def predictors_of(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rivals' errors and times with our own in front; none when there were no rivals.

    Exporting is left out for all: everyone times the same operators.
    """
    rivals = result.get("rivals", {}).get("predictors", [])
    spent = result["stages_s"]["measure"] + result["stages_s"]["calibrate"]
    own = {"name": "lanaprof", "seconds": spent} | {key: result[key] for key in ("bias", "median", "p95")}
    return [own, *rivals] if rivals else []


def show(runs: Sequence[dict[str, Any]], threads: int) -> None:
    """Print the table."""
    bounds = bounds_for(threads)
    print(_HEAD)
    results = [run["result"] for run in runs]
    for result in results:
        print(line_of(result, threads))
    counted = [result for result in results if result["counted"]]
    inside, total = coverage_of(counted)
    if total:
        print(
            f"pooled over {len(counted)} spaces: {inside} of {total} inside ({inside / total:.1%}; stated 90 %)"
        )
        before = sum(result["alone"]["inside"] for result in counted)
        print(
            f"by `predict`, with nothing timed beside them: {before} of {total} inside ({before / total:.1%})"
        )
    print(
        f"gates: |bias| ≤ {bounds.bias:.1%}, median ≤ max({bounds.median:.1%}, 1.5 r50), "
        f"95 % ≤ max({bounds.p95:.1%}, 2 r95); goals: {bounds.goal_bias:.1%}, {bounds.goal_median:.1%}, "
        f"{bounds.goal_p95:.1%}"
    )
    for result in counted:
        for rival in predictors_of(result):
            print(
                f"{result['space']:22} {rival['name']:34} bias {rival['bias']:+8.2%}, median {rival['median']:7.2%}, "
                f"95 % {rival['p95']:7.2%}, {rival['seconds']:6.1f} s"
            )


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), metavar="NAME", help=", ".join(SPACES))
    parser.add_argument("--networks", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--anchors", type=int, default=16, help="networks to calibrate on")
    parser.add_argument("--seed", type=int, default=1, help="of the random networks")
    parser.add_argument("--repeats", type=int, default=3, help="attempts at a space that is too noisy")
    parser.add_argument("--rivals", action="store_true", help="predict by other means, too")
    given = parser.parse_args()
    if given.quick:
        given.spaces, given.networks, given.anchors, given.repeats = [QUICK], 6, 6, 1
    check_spaces(given.spaces)
    names = ("networks", "threads", "anchors", "seed", "repeats", "rivals")
    harness = harness_from(NAME, given, {name: getattr(given, name) for name in names})
    harness.parts(given.spaces, lambda name: run_space(harness, name))
    runs = harness.finish()
    show(runs, given.threads)
    say(f"results: {harness.out}")
    if not all(any(r["result"]["counted"] for r in runs if r["part"] == name) for name in given.spaces):
        sys.exit(3)  # done but incomplete


if __name__ == "__main__":
    ended(main)
