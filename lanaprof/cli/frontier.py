"""lanaprof frontier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    device_option,
    environment_option,
    notice,
    policy_option,
    team_option,
)
from lanaprof.cli.benches import project_store

if TYPE_CHECKING:
    from rich.console import Console

_SHOWN = 20


@command("frontier")
@device_option
@click.option(
    "--plot",
    metavar="F.html|F.png",
    type=click.Path(path_type=Path),
    help="Draw it, with the teacher and what was selected.",
)
@click.option(
    "--store",
    "keep",
    is_flag=True,
    help="Keep its points in the database: `push` brings them to a hub's explorer.",
)
@click.option(
    "--scores", metavar="FILE", type=click.Path(path_type=Path), help="CSV or JSON: layer, operation, score."
)
@click.option("--metric", metavar="NAME", help="Which scores [default: the newest].")
@database_option
@team_option
@environment_option
@policy_option
def frontier(device: str | None, database: str | None, team: str | None, **options: Any) -> Outcome:
    """Show the best score for every latency budget."""
    from lanaprof.flows.chosen import own_selections
    from lanaprof.flows.frontiers import project_frontier, store_frontier
    from lanaprof.flows.predicting import open_predictor
    from lanaprof.flows.project import default_team
    from lanaprof.flows.selecting import find_scores, scores_from_file

    with project_store(device, database, policy=options["policy"]) as (project, chosen, store):
        scores = (
            scores_from_file(options["scores"])
            if options["scores"]
            else find_scores(project, store, options["metric"])
        )
        name = default_team(team, project.config)
        predictor = open_predictor(project, chosen, store, team=name, environment=options["environment"])
        points = project_frontier(project, predictor, scores)
        selections = own_selections(project, store)
        kept = store_frontier(project, predictor, points, store, team=name) if options["keep"] else None
    for warning in predictor.warnings:
        notice(warning)
    document: dict[str, Any] = {
        "device": chosen.text,
        "teacher_s": predictor.teacher_s,
        "points": [{"latency_s": p.latency_s, "score": p.score, "choices": dict(p.choices)} for p in points],
    }
    if kept is not None:
        document["stored"] = {"points": kept.added, "time": kept.time}
    if options["plot"]:
        from lanaprof.flows.marks import selection_marks
        from lanaprof.flows.plotting import write_frontier

        marks = selection_marks(selections, chosen.text)
        write_frontier(
            options["plot"], points, device=chosen.text, teacher_s=predictor.teacher_s, marks=marks
        )

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table
        from lanaprof.flows.frontiers import POINT_COLUMNS, point_cells

        table = plain_table(*POINT_COLUMNS)
        step = max(1, len(points) // _SHOWN)
        shown = [*points[:-1:step], *points[-1:]]
        for point in shown:
            table.add_row(*(text for text, _ in point_cells(point, predictor.teacher_s)))
        console.print(table)
        rest = f"; {len(shown)} are shown, --json and --plot have all" if len(shown) < len(points) else ""
        console.print(f"{len(points)} architectures on the frontier{rest}")
        if kept is not None:
            said = "stored" if kept.added else f"stored already at {kept.time}"
            console.print(f"{said} in {store.name}: lanaprof push brings them to a hub")

    return Outcome(document, show)
