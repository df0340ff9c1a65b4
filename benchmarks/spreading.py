"""Distilling over a cluster that loses a machine, beside one machine alone: ``python benchmarks/spreading.py``.

Three nodes of a Ray cluster, all on this machine with a core each, distil and score the Fashion-MNIST teacher's layers.
One node is killed while it trains. Told: whether weights and scores are those of one machine, bit for bit, how many
steps were trained of those needed, and from where the lost group went on. Times say little: the nodes share cores.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import torch
from harness import HERE, Harness, command, ended, harness_from, parser_for

from lanaprof.distill import Limits, Progress, Recipe, ScoreRecipe
from lanaprof.distill.cluster import QUIET
from lanaprof.distill.groups import Attempt
from lanaprof.flows.learning import distill_project, wanted_candidates
from lanaprof.flows.project import Project, load_project
from lanaprof.flows.scoring import score_project
from lanaprof.flows.spreading import distill_over, opened_cluster, score_over
from lanaprof.lut import open_store

EXAMPLE = HERE.parent / "examples" / "fashion_mnist"
NODES = 3
MEMORY_BYTES = 80 * 2**20  # of a node's object store: nothing large passes through it


def make_project(folder: Path, layers: int) -> Project:
    """Make a project of the teacher's first layers."""
    folder.mkdir()
    for name in ("teacher.py", "teacher.safetensors"):
        shutil.copyfile(EXAMPLE / name, folder / name)
    words = [word for number in range(layers) for word in ("--layers", f"blocks.{number}")]
    given = ["--input", "1x28x28", "--data", "fashion-mnist", "--device", "cpu"]
    command(folder, "init", "--teacher", "teacher:teacher", *given, *words)
    return load_project(folder)


def weights(project: Project) -> dict[str, bytes]:
    """Return the content of all weight files."""
    root = project.state / "weights"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.safetensors"))}


def quiet(_progress: Progress) -> None:
    """Tell nobody."""


def alone(project: Project, recipe: Recipe, scoring: ScoreRecipe) -> dict[str, Any]:
    """Distil and score in this process."""
    began_s = time.monotonic()
    distill_project(project, wanted_candidates(project, []), recipe, progress=quiet)
    with open_store(project.database(None), create=True) as store:
        report = score_project(project, store, recipe=scoring, team="local", progress=quiet)
    return {"seconds": time.monotonic() - began_s, "scores": report.scores}


def kill_when_half_done(cluster: Any, node: Any, project: Project, expected: int) -> threading.Thread:
    """Kill a node once half of the candidates have their weights and there is a checkpoint."""

    def kill() -> None:
        state = project.state / "weights"
        while len(list(state.rglob("*.safetensors"))) < expected // 2 or not list(
            state.rglob("checkpoint@*.pt")
        ):
            time.sleep(0.02)
        cluster.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    return killer


def together(project: Project, recipe: Recipe, scoring: ScoreRecipe, expected: int) -> dict[str, Any]:
    """Distil and score on three nodes, of which one is killed."""
    os.environ.update(QUIET)
    from ray.cluster_utils import Cluster  # an extra

    small = {"num_cpus": 1, "object_store_memory": MEMORY_BYTES}
    nodes = Cluster(initialize_head=True, head_node_args={**small, "include_dashboard": False})
    doomed = [nodes.add_node(**small) for _ in range(NODES - 1)][-1]
    told: list[str] = []
    began_s = time.monotonic()
    try:
        with opened_cluster(project, nodes.address, tell=told.append) as cluster:
            killer = kill_when_half_done(nodes, doomed, project, expected)
            result, spread = distill_over(
                cluster,
                project,
                wanted_candidates(project, []),
                recipe,
                limits=Limits(checkpoint_s=0.0),
                progress=quiet,
            )
            killer.join()
            with open_store(project.database(None), create=True) as store:
                report, _ = score_over(cluster, project, store, recipe=scoring, team="local", progress=quiet)
    finally:
        nodes.shutdown()
    steps = [one for one in map(told_steps, spread.attempts) if one is not None]
    return {
        "seconds": time.monotonic() - began_s,
        "scores": report.scores,
        "summary": spread.summary,
        "told": told,
        "trained": result.trained,
        "candidate_steps": sum(steps),
        "needed": expected * recipe.steps,
        "went_on_at": went_on_at(spread.attempts),
    }


def told_steps(attempt: Attempt) -> int | None:
    """Return how many steps an attempt trained, its first one left out; None: nothing was heard of it."""
    if attempt.first is None or attempt.last is None:
        return None
    return attempt.last.done - attempt.first.done


def went_on_at(attempts: tuple[Attempt, ...]) -> list[float]:
    """Return for each lost group the share of its steps that were done when it was heard of again."""
    lost = {attempt.part for attempt in attempts if not attempt.finished}
    return [
        attempt.first.done / attempt.first.total
        for attempt in attempts
        if attempt.part in lost and attempt.finished and attempt.first is not None
    ]


def compared(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return what came out."""
    options = harness.options
    folder = harness.folder(part)
    shutil.rmtree(folder)
    folder.mkdir()
    torch.set_num_threads(1)  # as a node has: bits depend on it
    recipe = Recipe(steps=options["steps"], batch_size=options["batch"])
    scoring = ScoreRecipe(images=options["images"])
    one = make_project(folder / "alone", options["layers"])
    single = alone(one, recipe, scoring)
    shutil.copytree(one.folder, folder / "together", ignore=shutil.ignore_patterns("weights", "*.db"))
    many = load_project(folder / "together")
    spread = together(many, recipe, scoring, len(weights(one)))
    return [
        {
            "candidates": len(weights(one)),
            "same_weights": weights(one) == weights(many),
            "same_scores": single["scores"] == spread.pop("scores"),
            "seconds_alone": single["seconds"],
            **spread,
        }
    ]


def show(result: dict[str, Any]) -> None:
    """Print a few lines."""
    summary = result["summary"]
    shares = ", ".join(f"{share:.0%}" for share in result["went_on_at"])
    print(
        f"{result['candidates']} candidates in {summary['groups']} groups on {NODES} nodes, {summary['lost']} lost: "
        f"weights {'the same' if result['same_weights'] else 'DIFFERENT'}, "
        f"scores {'the same' if result['same_scores'] else 'DIFFERENT'}\n"
        f"{result['candidate_steps']} steps of candidates were heard of, {result['needed']} needed; "
        f"the lost group went on at {shares or 'its end'}\n"
        f"{result['seconds']:.0f} s; one process alone {result['seconds_alone']:.0f} s",
        *result["told"],
        sep="\n",
        flush=True,
    )


def main() -> None:
    """Run it."""
    parser = parser_for(__doc__)
    parser.add_argument("--layers", type=int, default=6, help="of the teacher's nine")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=128, help="held-out images a score is taken on")
    given = parser.parse_args()
    given.out = given.out or Path("build/benchmarks/spreading.json")  # whether, not how much: not on the page
    if given.quick:
        given.layers, given.steps, given.batch, given.images = 4, 12, 4, 16
    names = ("layers", "steps", "batch", "images")
    harness = harness_from("spreading", given, {name: getattr(given, name) for name in names})
    harness.parts(["fashion_mnist"], lambda part: compared(harness, part))
    for run in harness.finish():
        show(run["result"])


if __name__ == "__main__":
    ended(main)
