"""lanaprof distill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    meter,
    notice,
    ray_option,
    team_option,
)
from lanaprof.cli.distillplan import plan_document, plan_line, plan_table

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.distill import DistillResult
    from lanaprof.flows.learning import Wanted
    from lanaprof.flows.project import Project


@command("distill")
@click.option(
    "--steps", default=200, show_default=True, type=click.IntRange(1), help="Batches per candidate."
)
@click.option("--batch-size", default=64, show_default=True, type=click.IntRange(2))
@click.option("--learning-rate", default=1e-2, show_default=True, type=click.FloatRange(0, min_open=True))
@click.option("--layers", multiple=True, metavar="NAME", help="Only these layers; repeatable.")
@click.option(
    "--stop/--no-stop",
    default=True,
    show_default=True,
    help="Give up candidates that cost no less than clearly better ones of their layer.",
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="What is computed in; auto: bf16 on a GPU that has it, else fp32.",
)
@click.option("--plan", is_flag=True, help="Say what would be trained and how long it takes.")
@ray_option
@database_option
@team_option
def distill(database: str | None, team: str | None, **options: Any) -> Outcome:
    """Train the candidates that can matter, layer by layer, on the teacher's feature maps."""
    from lanaprof.flows.learning import distill_project, plan_distilling
    from lanaprof.flows.prechecks import check_learnable
    from lanaprof.flows.project import load_project

    if options["plan"] and options["ray"]:
        raise click.UsageError("--plan estimates the time of this machine alone: leave --ray out")
    project = load_project()
    check_learnable(project)
    wanted = _wanted(project, database, team, options["layers"])
    from lanaprof.distill import Recipe  # imports torch: after what can be refused without

    recipe = Recipe(
        steps=options["steps"],
        batch_size=options["batch_size"],
        learning_rate=options["learning_rate"],
        seed=project.config.seed,
        precision=options["precision"],
    )
    asked: dict[str, Any] = {
        "candidates": project.space.candidate_count,
        "wanted": wanted.count,
        "hopeless": wanted.hopeless,
        "failed": wanted.failed,
        "unmeasured": wanted.unmeasured,
    }
    if options["plan"]:
        plan = plan_distilling(project, wanted, recipe, stop=options["stop"])
        document = {**asked, **plan_document(plan, wanted)}

        def show_plan(console: Console) -> None:
            console.print(plan_table(plan, wanted))
            console.print(_reasons(wanted))
            console.print(plan_line(plan, stop=options["stop"] and bool(wanted.costs)))

        return Outcome(document, show_plan)
    with meter("distilling") as bar:
        if options["ray"]:
            from lanaprof.flows.spreading import distill_over, opened_cluster

            with opened_cluster(project, options["ray"], tell=notice) as cluster:
                result, spread = distill_over(
                    cluster, project, wanted, recipe, stop=options["stop"], progress=bar.follow
                )
            asked["cluster"] = spread.summary
        else:
            result = distill_project(project, wanted, recipe, stop=options["stop"], progress=bar.follow)
    if result.diverged:
        notice(f"{len(result.diverged)} candidates diverged and have no weights: lower --learning-rate")
    return _outcome(asked, wanted, result)


def _outcome(asked: dict[str, Any], wanted: Wanted, result: DistillResult) -> Outcome:
    errors = sorted(candidate.error for candidate in result.candidates)
    document = {
        **asked,
        "trained": result.trained,
        "reused": result.reused,
        "stopped": len(result.stopped),
        "stopped_now": result.stopped_now,
        "diverged": [list(name) for name in result.diverged],
        "median_error": errors[len(errors) // 2] if errors else None,
        "seconds": round(result.seconds, 3),
    }

    def show(console: Console) -> None:
        from lanaprof.units import format_duration

        console.print(_reasons(wanted))
        console.print(
            f"{result.trained} trained, {result.reused} trained before, in {format_duration(result.seconds, digits=3)}"
            + (f"; {len(result.stopped)} given up early" if result.stopped else "")
            + (f"; median error {errors[len(errors) // 2]:.3f} of the output's power" if errors else "")
        )

    return Outcome(document, show, 3 if result.diverged else 0)


def _wanted(project: Project, database: str | None, team: str | None, layers: tuple[str, ...]) -> Wanted:
    from lanaprof.flows.learning import find_predictors, wanted_candidates
    from lanaprof.flows.project import default_team
    from lanaprof.lut import open_store

    with open_store(project.database(database), create=True) as store:
        predictors = find_predictors(project, store, team=default_team(team, project.config))
    if not predictors:
        notice("nothing is measured yet, so every candidate is trained; lanaprof measure first saves that")
    return wanted_candidates(project, predictors, layers)


def _reasons(wanted: Wanted) -> str:
    parts = [f"{wanted.count} candidates can matter"]
    if wanted.hopeless:
        parts.append(f"{wanted.hopeless} are nowhere cheaper than the teacher's layer")
    if wanted.failed:
        parts.append(f"{wanted.failed} failed on the device")
    if wanted.unmeasured:
        parts.append(f"{wanted.unmeasured} of those are not measured")
    return "; ".join(parts)
