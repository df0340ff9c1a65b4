"""How many candidates are not trained to the end, with the same selections: ``python benchmarks/shrinking.py``.

Two projects on the Fashion-MNIST teacher with the same table: one trains all candidates that the table leaves
(``distill --no-stop``), one gives candidates up early. Both are scored, and the solver selects for budgets evenly
between the least latency and the teacher's. Told: the share of candidates that were not trained to the end, what the
steps took, for how many budgets the same network is selected, and what the others lose.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from candidate_pool import OPERATIONS, write_pool
from harness import HERE, Harness, command, ended, harness_from, parser_for

from lanaprof import InfeasibleBudget, open_project, solve
from lanaprof.distill import find_dropped
from lanaprof.flows.artifacts import trained_candidates
from lanaprof.flows.project import load_project
from lanaprof.solver import Problem

LOWEST, HIGHEST = 0.1, 0.95  # of the way from the least latency to the teacher's
COST = "latency_s@cpu"
EXAMPLE = HERE.parent / "examples" / "fashion_mnist"


def make_projects(folder: Path, *, candidates: int) -> dict[str, Any]:
    """Make and measure the project ``whole``, copy it as ``stopped``; return what measuring said."""
    whole = folder / "whole"
    whole.mkdir(exist_ok=True)
    for name in ("teacher.py", "teacher.safetensors"):
        shutil.copyfile(EXAMPLE / name, whole / name)
    write_pool(whole / "ops.txt", count=candidates)
    words = [
        "--input",
        "1x28x28",
        "--data",
        "fashion-mnist",
        "--device",
        "cpu",
        "--ops",
        "ops.txt",
        "--force",
    ]
    made = command(whole, "init", "--teacher", "teacher:teacher", *words)
    measured = command(whole, "measure", "--device", "cpu")
    shutil.copytree(whole, folder / "stopped", dirs_exist_ok=True)
    return {"candidates": made["candidates"], "teacher_s": measured["teacher_latency_s"]}


def learnt(folder: Path, *words: str, scoring: Sequence[str]) -> dict[str, Any]:
    """Distil and score a project; return what distilling said."""
    told = command(folder, "distill", *words)
    command(folder, "score", *scoring)
    return {name: told[name] for name in ("wanted", "hopeless", "failed", "trained", "stopped", "seconds")}


def selected(problem: Problem, budget_s: float) -> dict[str, str] | None:
    """Return the choices within a budget; None where nothing fits."""
    try:
        return dict(solve(problem, {COST: budget_s}).choices)
    except InfeasibleBudget:
        return None


def least(problem: Problem) -> float:
    """Return the least latency."""
    try:
        return solve(problem, {COST: 0.0}).costs[COST]
    except InfeasibleBudget as error:
        return error.least[COST]


def compare(folder: Path, *, teacher_s: float, budgets: int) -> dict[str, Any]:
    """Return how the selections of both projects differ, judged by the scores of the one that trained all."""
    problems = {name: open_project(folder / name).problem("cpu") for name in ("whole", "stopped")}
    whole = problems["whole"]
    scores = {
        layer.name: {candidate.name: candidate.score for candidate in layer.candidates}
        for layer in whole.layers
    }
    low_s = least(whole)
    rows = []
    for place in range(budgets):
        share = LOWEST + (HIGHEST - LOWEST) * place / max(1, budgets - 1)
        budget_s = low_s + share * (teacher_s - low_s)
        chosen = {name: selected(problem, budget_s) for name, problem in problems.items()}
        first, second = chosen["whole"], chosen["stopped"]
        assert first is not None
        assert second is not None, "giving up must not make a budget infeasible"
        rows.append(
            {
                "budget_s": budget_s,
                "same": first == second,
                "other_layers": sum(1 for layer in first if first[layer] != second[layer]),
                "score": sum(scores[layer][operation] for layer, operation in first.items()),
                "score_stopped": sum(scores[layer][operation] for layer, operation in second.items()),
            }
        )
    return {"budgets": rows, "same": sum(1 for row in rows if row["same"])}


def spared(folder: Path, steps: int) -> dict[str, Any]:
    """Return what early stops left out, and that the others have the same weights as without."""
    project = load_project(folder / "stopped")
    key = json.loads((project.state / "distill.json").read_text(encoding="utf-8"))["key"]
    dropped = find_dropped(project.state / "weights", key)
    whole = trained_candidates(load_project(folder / "whole"))
    kept = trained_candidates(project)
    return {
        "dropped_at": sorted(one.step for one in dropped.values()),
        "candidate_steps": steps * len(kept) + sum(one.step for one in dropped.values()),
        "candidate_steps_whole": steps * len(whole),
        "same_weights": all(whole[name].digest == entry.digest for name, entry in kept.items()),
    }


def judged(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return the result of the only part; what was done before a stop is not done again."""
    folder, options = harness.folder(part), harness.options
    made = harness.stage(folder, "measure", lambda: make_projects(folder, candidates=options["candidates"]))
    words = ["--steps", str(options["steps"]), "--batch-size", str(options["batch"])]
    scoring = ["--images", str(options["images"]), "--batch-norm", options["batch_norm"]]
    whole = harness.stage(
        folder, "whole", lambda: learnt(folder / "whole", *words, "--no-stop", scoring=scoring)
    )
    stopped = harness.stage(folder, "stopped", lambda: learnt(folder / "stopped", *words, scoring=scoring))
    compared = compare(folder, teacher_s=made["teacher_s"], budgets=options["budgets"])
    trainable = whole["wanted"] + whole["hopeless"]
    return [
        {
            "trainable": trainable,
            "hopeless": whole["hopeless"],
            "stopped": stopped["stopped"],
            "not_trained": (whole["hopeless"] + stopped["stopped"]) / trainable,
            "seconds": stopped["seconds"],
            "seconds_whole": whole["seconds"],
            **spared(folder, options["steps"]),
            **compared,
        }
    ]


def show(result: dict[str, Any]) -> None:
    """Print a few lines."""
    lost = [row["score"] - row["score_stopped"] for row in result["budgets"]]
    print(
        f"{result['trainable']} candidates: {result['hopeless']} hopeless by the table, {result['stopped']} given up: "
        f"{result['not_trained']:.1%} not trained to the end, "
        f"{result['candidate_steps'] / result['candidate_steps_whole']:.1%} of the steps; weights of the others are "
        f"{'the same' if result['same_weights'] else 'DIFFERENT'}\n"
        f"{result['same']} of {len(result['budgets'])} budgets select the same network; the others lose at most "
        f"{max(lost):.2g} of score",
        flush=True,
    )


def main() -> None:
    """Run it."""
    parser = parser_for(__doc__)
    parser.add_argument("--candidates", type=int, default=len(OPERATIONS), help="per layer")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--images", type=int, default=1024, help="held-out images a score is taken on")
    parser.add_argument(
        "--batch-norm", default="reestimate", choices=["reestimate", "keep"], help="of scores"
    )
    parser.add_argument("--budgets", type=int, default=10)
    given = parser.parse_args()
    if given.quick:
        given.candidates, given.steps, given.batch, given.images, given.budgets = 3, 24, 4, 32, 2
    names = ("candidates", "steps", "batch", "images", "batch_norm", "budgets")
    harness = harness_from("shrinking", given, {name: getattr(given, name) for name in names})
    harness.parts(["fashion_mnist"], lambda part: judged(harness, part))
    for run in harness.finish():
        show(run["result"])


if __name__ == "__main__":
    ended(main)
