"""Does a selected network keep its budget when somebody else times it?

    python benchmarks/proving.py [--spaces NAME …] [--budgets 10] [--scores FILE]

For each space: init → measure → calibrate, then ``lanaprof select`` for budgets evenly spread from 1.1 × the least
latency to 0.9 × the teacher's. Each selected network is exported and timed again by ``lanaprof measure`` on the ONNX
files, interleaved with the teacher: another process, another database, nothing of the proving loop in it. Reports how
many are within their budget, and within 1.02 × it, how much of it they use, and rounds and time of the loop.

Training 30 spaces would take days, and latency does not depend on weights. So the scores are made up, seeded, such
that dearer is mostly better: −(1 − latency / the teacher's layer's)² · its layer's weight (log-normal, σ 1) · noise
(log-normal, σ 0.5); −0.01 · noise where a candidate is not faster than the teacher. ``--scores`` takes your own (layer,
operation, score), for one space.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import Harness, command, ended, harness_from, parser_for, say
from spaces import QUICK, check_spaces, make_project

from lanaprof import open_project
from lanaprof.errors import BadInput
from lanaprof.flows.demo import export_teacher
from lanaprof.ops import SKIP, TEACHER
from lanaprof.space import Architecture

NAME = "proving"
SPACES = ["efficientnet_lite0", "mobilenetv3_large_100", "resnet26"]
LOWEST, HIGHEST = 1.1, 0.9  # times the least latency, and times the teacher's
NEARLY = 1.02
_LAYER_SD, _NOISE_SD = 1.0, 0.5  # of the logarithms
_NOT_FASTER = -0.01


def made_up_scores(latency_s: Mapping[str, Mapping[str, float]], *, seed: int) -> list[dict[str, Any]]:
    """Return scores for every candidate.

    Args:
        latency_s: per layer, of each candidate, the teacher's own among them.
        seed: of weights and noise.
    """
    generator = np.random.default_rng(seed)
    rows = []
    for layer, candidates in latency_s.items():
        weight = generator.lognormal(0, _LAYER_SD)
        for operation, seconds in candidates.items():
            noise = generator.lognormal(0, _NOISE_SD)
            saved = 1 - seconds / candidates[TEACHER]
            loss = weight * saved**2 * noise if saved > 0 else -_NOT_FASTER * noise
            rows.append(
                {"layer": layer, "operation": operation, "score": 0.0 if operation == TEACHER else -loss}
            )
    return rows


def candidate_latencies(project: Path) -> dict[str, dict[str, float]]:
    """Return per layer the measured latency of each candidate in seconds; what failed is left out."""
    table = open_project(project).table()
    found: dict[str, dict[str, float]] = {}
    for layer in command(project, "space")["layers"]:
        latencies = found[layer["name"]] = {}
        for candidate in layer["candidates"]:
            estimate = table.find(candidate["operator"]) if candidate["operator"] else None
            if candidate["name"] == SKIP:
                latencies[SKIP] = 0.0
            elif estimate is not None and estimate.latency_s is not None:
                latencies[candidate["name"]] = estimate.latency_s
    return found


def budgets_between(least_s: float, teacher_s: float, count: int) -> list[float]:
    """Return evenly spread budgets from 1.1 × the least latency to 0.9 × the teacher's.

    Raises:
        BadInput: there is no room between them.
    """
    low_s, high_s = LOWEST * least_s, HIGHEST * teacher_s
    if low_s >= high_s:
        raise BadInput(
            f"{LOWEST} × the least latency is more than {HIGHEST} × the teacher's", hint="choose a space"
        )
    return [float(value) for value in np.linspace(low_s, high_s, count)]


def prepare(harness: Harness, folder: Path, space: str) -> dict[str, Any]:
    """Measure and calibrate the space and give it scores; return its teacher's and its least latency."""
    project = folder / "project"
    make_project(project, space)
    measured = harness.stage(folder, "measure", partial(command, project, "measure"))
    harness.stage(
        folder, "calibrate", partial(command, project, "calibrate", "-n", str(harness.options["anchors"]))
    )
    scores = project / "scores.json"

    def scored() -> dict[str, Any]:
        own: str = harness.options["scores"]
        rows = made_up_scores(candidate_latencies(project), seed=harness.options["seed"])
        text = Path(own).read_text(encoding="utf-8") if own else json.dumps(rows)
        scores.write_text(text, encoding="utf-8")
        points = command(project, "frontier", "--scores", scores.name)["points"]
        export_teacher(project, folder / "teacher.onnx")
        # The fitted line may run below what lanaprof believes of networks much faster than those it was fitted to.
        cheapest = Architecture("", tuple(points[0]["choices"].items()))
        believed = open_project(project).predict(cheapest)
        return {"least_s": max(points[0]["latency_s"], believed.latency_s), "points": len(points)}

    return {"teacher_s": measured["teacher_latency_s"], **harness.stage(folder, "scores", scored)}


def timed_again(folder: Path, place: Path) -> dict[str, Any]:
    """Return the latency of the network in a folder and of the teacher, interleaved, with a fresh database."""
    files = [str(folder / "teacher.onnx"), str(place / "selected.onnx")]
    found = command(place, "measure", *files, "--database", "again.db", "--device", "cpu", "--force")["files"]
    return {"teacher": found[0], "selected": found[1]}


def prove_budget(
    harness: Harness, folder: Path, number: int, budget_s: float, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Select for one budget and time what came out; return what became of it."""
    project, place = folder / "project", folder / f"budget-{number}"
    place.mkdir(exist_ok=True)
    architecture = place / "architecture.json"
    asked = ("--budget", f"{budget_s!r}s", "--scores", "scores.json", "--out", str(architecture))
    selected = harness.stage(folder, f"select-{number}", partial(command, project, "select", *asked))
    network = ("--architecture", str(architecture), "--out", str(place / "selected.onnx"))
    harness.stage(folder, f"export-{number}", partial(command, project, "export", *network))
    again = harness.stage(folder, f"again-{number}", partial(timed_again, folder, place))
    return {
        "budget_s": budget_s,
        "budget_share": budget_s / known["teacher_s"],
        "status": selected["status"],
        "score": selected["score"],
        "rounds": selected["rounds"],
        "select_s": selected["wall_s"],
        "predicted_s": selected["predicted_s"],
        "measured_s": selected["measured_s"],
        "again_s": again["selected"]["latency_s"],
        "again_low_s": again["selected"]["ci_low_s"],
        "again_high_s": again["selected"]["ci_high_s"],
        "teacher_then_s": selected["teacher_s"],
        "teacher_again_s": again["teacher"]["latency_s"],
    }


def run_space(harness: Harness, space: str) -> list[dict[str, Any]]:
    """Return the result of one space, a row per budget."""
    folder = harness.folder(space)
    known = prepare(harness, folder, space)
    budgets = budgets_between(known["least_s"], known["teacher_s"], harness.options["budgets"])
    rows = []
    for number, budget_s in enumerate(budgets):
        say(f"  budget {number + 1} of {len(budgets)}")
        rows.append(prove_budget(harness, folder, number, budget_s, known))
    return [{"space": space, "teacher_s": known["teacher_s"], "least_s": known["least_s"], "budgets": rows}]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what a table says of budgets: how many held, how much they use, how long it took.

    ``level``: as if the machine were as fast as when it was proved, which the teacher timed beside it both times says.
    """
    uses = [row["again_s"] / row["budget_s"] for row in rows]
    level = [
        use * row["teacher_then_s"] / row["teacher_again_s"] for use, row in zip(uses, rows, strict=True)
    ]
    held = [use for use, row in zip(uses, rows, strict=True) if row["status"] == "verified"]
    return {
        "budgets": len(rows),
        "verified": len(held),
        "within": sum(use <= 1 for use in uses),
        "nearly": sum(use <= NEARLY for use in uses),
        "use": statistics.mean(uses),
        "worst": max(uses),
        "within_level": sum(use <= 1 for use in level),
        "nearly_level": sum(use <= NEARLY for use in level),
        "worst_level": max(level),
        "rounds": statistics.median(row["rounds"] for row in rows),
        "select_s": statistics.median(row["select_s"] for row in rows),
    }


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"{'space':22} {'budgets':>7} {'verified':>8} {'within':>6} {'≤ 1.02':>6} {'mean use':>8} {'worst':>7} "
        f"{'within, level':>13} {'≤ 1.02':>6} {'worst':>7} "
        f"{'rounds':>6} {'seconds':>7}"
    )
    rows: list[dict[str, Any]] = []
    tables = [(run["result"]["space"], run["result"]["budgets"]) for run in runs]
    for _, own in tables:
        rows += own
    for name, own in [*tables, ("all", rows)]:
        found = summary(own)
        print(
            f"{name:22} {found['budgets']:7} {found['verified']:8} {found['within']:6} {found['nearly']:6} "
            f"{found['use']:8.1%} {found['worst']:7.1%} "
            f"{found['within_level']:13} {found['nearly_level']:6} {found['worst_level']:7.1%} "
            f"{found['rounds']:6.1f} {found['select_s']:7.1f}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument("--spaces", nargs="+", default=SPACES, metavar="NAME")
    parser.add_argument("--budgets", type=int, default=10, help="per space")
    parser.add_argument("--anchors", type=int, default=16, help="networks to calibrate on")
    parser.add_argument("--seed", type=int, default=0, help="of the made-up scores")
    parser.add_argument("--scores", type=Path, help="CSV or JSON: layer, operation, score")
    given = parser.parse_args()
    if given.quick:
        given.spaces, given.budgets, given.anchors = [QUICK], 1, 6
    check_spaces(given.spaces)
    if given.scores and len(given.spaces) > 1:
        raise BadInput("--scores are of one space", hint="add --spaces NAME")
    options = {"budgets": given.budgets, "anchors": given.anchors, "seed": given.seed}
    harness = harness_from(
        NAME, given, {**options, "scores": str(given.scores.resolve()) if given.scores else ""}
    )
    harness.parts(given.spaces, lambda space: run_space(harness, space))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
