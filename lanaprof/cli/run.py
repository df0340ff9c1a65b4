"""lanaprof run."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, outcome_of, split_named, team_option

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.project import Project

_RUN_FILE = "run.json"


@command("run")
@click.option(
    "--budget", "budgets", multiple=True, required=True, metavar="[DEVICE=]5ms|50%|2x", help="Repeatable."
)
@click.option("--device", metavar="DEVICE", help="The device to fit [default: lanaprof.toml's].")
@click.option("--steps", default=200, show_default=True, type=click.IntRange(1), help="Of distilling.")
@click.option("--batch-size", type=click.IntRange(2), metavar="N", help="Of distilling and fine-tuning.")
@click.option("--images", default=1024, show_default=True, type=click.IntRange(1), help="For the scores.")
@click.option("--finalists", type=click.IntRange(1), metavar="K", help="As for select.")
@click.option("--finetune-steps", type=click.IntRange(1), metavar="N", help="Batches [default: two epochs].")
@click.option(
    "--out", default="student.onnx", show_default=True, metavar="FILE", type=click.Path(path_type=Path)
)
@click.option(
    "--report", "report_file", default="report.html", show_default=True, type=click.Path(path_type=Path)
)
@database_option
@team_option
def run(
    budgets: tuple[str, ...], device: str | None, database: str | None, team: str | None, **options: Any
) -> Outcome:
    """Measure, calibrate, distil, score, select with proof, fine-tune and export; goes on where it was stopped."""
    from lanaprof.flows.pipeline import find_proved_selection, is_calibrated, is_scored
    from lanaprof.flows.project import default_team, write_json
    from lanaprof.lut import open_store

    project = _checked_project(budgets, options["out"], options["report_file"])
    chosen = project.device(device)
    who = default_team(team, project.config)
    began_s = time.monotonic()
    base = ["--database", database] if database else []
    mine = [*base, *(["--team", team] if team else [])]
    on = ["--device", chosen.text]
    documents: dict[str, Any] = {}
    codes = [0]
    path = project.database(database)

    def step(name: str, words: list[str]) -> dict[str, Any]:
        outcome = _step(name, words)
        codes.append(outcome.exit_code)
        documents[name] = found = dict(outcome.document)
        return found

    step("measure", [*on, *mine])
    with open_store(path) as store:
        calibrated = is_calibrated(project, chosen, store, team=who)
    if not calibrated:
        step("calibrate", [*on, *mine])
    batch = ["--batch-size", str(options["batch_size"])] if options["batch_size"] else []
    step("distill", ["--steps", str(options["steps"]), *batch, *mine])
    with open_store(path) as store:
        scored = is_scored(project, store, metric="kl")
    if not scored:
        step("score", ["--images", str(options["images"]), *mine])
    asked: dict[str, Any] = {"budgets": list(budgets), "device": chosen.text}
    finalists: list[str] = []
    if options["finalists"]:
        asked["finalists"] = options["finalists"]
        finalists = ["--finalists", str(options["finalists"])]
        finalists += ["--tune-batch-size", str(options["batch_size"])] if options["batch_size"] else []
    with open_store(path) as store:
        done = (
            find_proved_selection(project, store, chosen) if _asked_before(project.state) == asked else None
        )
    if done is None:
        words = [word for budget in budgets for word in ("--budget", budget)]
        selection = step("select", [*words, *finalists, *on, *mine])["id"]
        write_json(project.state / _RUN_FILE, asked)
    else:
        selection = done.id
    steps = ["--steps", str(options["finetune_steps"])] if options["finetune_steps"] else []
    step("finetune", ["--selection", selection, *steps, *batch, *base])
    step("export", ["--selection", selection, "--out", str(options["out"]), *base])
    step("report", ["--out", str(options["report_file"]), *on, *base])
    document = {
        "selection": selection,
        "out": str(options["out"]),
        "report": str(options["report_file"]),
        "seconds": round(time.monotonic() - began_s, 3),
        "steps": documents,
    }

    def show(console: Console) -> None:
        console.print(f"student: {options['out']}; report: {options['report_file']}")

    return Outcome(document, show, max(codes))  # 3: a step was incomplete, or the budget is not met


def _checked_project(budgets: tuple[str, ...], out: Path, page: Path) -> Project:
    """Return the project here; what the last step would refuse is refused before the first."""
    from lanaprof.flows.prechecks import check_learnable, check_out, student_kind
    from lanaprof.flows.project import load_project
    from lanaprof.units import parse_latency_budget

    for _, budget in split_named(budgets, "budget"):
        parse_latency_budget(budget)
    check_out(out, is_folder=student_kind(out) == "folder")
    check_out(page, option="--report")
    project = load_project()
    check_learnable(project)
    return project


def _asked_before(state: Path) -> dict[str, Any]:
    import json

    try:
        found: dict[str, Any] = json.loads((state / _RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _step(name: str, words: list[str]) -> Outcome:
    """Run one command, showing what is run and what came of it on stderr."""
    from rich.console import Console

    from lanaprof.cli import main

    console = Console(file=sys.stderr, soft_wrap=not sys.stderr.isatty())
    console.print(f"\n[bold]lanaprof {' '.join([name, *words])}[/bold]", highlight=False)
    made = main.get_command(click.Context(main), name)
    assert made is not None
    outcome = outcome_of(made, words)
    outcome.show(console)
    return outcome
