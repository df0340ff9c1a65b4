"""lanaprof score."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, meter, notice, ray_option, team_option

if TYPE_CHECKING:
    from rich.console import Console

_WEAK = 2.0  # a score closer to zero than so many standard errors says little


@command("score")
@click.option("--metric", default="kl", show_default=True, metavar="kl|loss|accuracy|pkg.module:function")
@click.option("--images", default=1024, show_default=True, type=click.IntRange(1), help="Held-out images.")
@click.option(
    "--batch-norm",
    default="reestimate",
    show_default=True,
    type=click.Choice(["reestimate", "keep"]),
    help="Behind the candidate.",
)
@click.option(
    "--host",
    default="teacher",
    show_default=True,
    type=click.Choice(["teacher", "average"]),
    help="What a candidate stands in.",
)
@click.option("--report", is_flag=True, help="List every candidate.")
@ray_option
@database_option
@team_option
def score(report: bool, ray: str | None, database: str | None, team: str | None, **options: Any) -> Outcome:
    """Score the trained candidates on held-out data, each alone in the teacher's network."""
    from lanaprof.distill import ScoreRecipe
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.flows.scoring import score_project
    from lanaprof.lut import open_store

    project = load_project()
    recipe, team = ScoreRecipe(**options), default_team(team, project.config)
    where: dict[str, Any] = {}
    with open_store(project.database(database), create=True) as store, meter("scoring") as bar:
        if ray:
            from lanaprof.flows.spreading import opened_cluster, score_over

            with opened_cluster(project, ray, tell=notice) as cluster:
                result, spread = score_over(
                    cluster, project, store, recipe=recipe, team=team, progress=bar.follow
                )
            where["cluster"] = spread.summary
        else:
            result = score_project(project, store, recipe=recipe, team=team, progress=bar.follow)
    measured = [s for s in result.scores if s.operation != "teacher"]
    weak = sum(
        1 for s in measured if s.standard_error is not None and abs(s.score) < _WEAK * s.standard_error
    )
    if weak > len(measured) / 4:
        notice(f"{weak} of {len(measured)} scores are within {_WEAK:g} standard errors of 0: more --images")
    document = {
        **where,
        "metric": result.metric,
        "images": measured[0].images if measured else 0,
        "stored": result.stored,
        "scores": [
            {"layer": s.layer, "operation": s.operation, "score": s.score, "standard_error": s.standard_error}
            for s in result.scores
        ],
    }

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table

        table = plain_table("layer", "operation", "#score", "#± standard error")
        for layer in project.space.layers:
            rows = sorted((s for s in measured if s.layer == layer.name), key=lambda s: -s.score)
            for s in rows if report else rows[:1]:
                error = f"{s.standard_error:.4f}" if s.standard_error is not None else "–"
                table.add_row(s.layer, s.operation, f"{s.score:.4f}", error)
        console.print(table)
        console.print(
            f"{len(measured)} candidates scored by {result.metric}"
            + ("" if report else "; shown: the best of each layer (--report lists all)")
        )

    return Outcome(document, show)
