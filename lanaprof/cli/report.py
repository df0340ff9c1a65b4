"""lanaprof report."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import Outcome, command, database_option, device_option, team_option

if TYPE_CHECKING:
    from rich.console import Console


@command("report")
@click.option(
    "--out",
    default="report.html",
    show_default=True,
    metavar="FILE.html",
    type=click.Path(path_type=Path),
    help="The page to write.",
)
@click.option(
    "--baselines",
    metavar="FILE.json",
    type=click.Path(path_type=Path),
    help="Networks from elsewhere to compare with: a list of {name, latency_s, quality, metric, standard_error}. "
    "[default: .lanaprof/baselines.json, where it is there]",
)
@click.option(
    "--csv",
    metavar="FILE.csv",
    type=click.Path(path_type=Path),
    help="Write all candidates with their latencies, scores and errors as a table, too.",
)
@device_option
@database_option
@team_option
def report(
    out: Path,
    baselines: Path | None,
    csv: Path | None,
    device: str | None,
    database: str | None,
    team: str | None,
) -> Outcome:
    """Write one self-contained HTML page on where the project stands."""
    from lanaprof.flows.prechecks import check_out
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.flows.reporting import write_report
    from lanaprof.flows.stating import open_if_there

    check_out(out)
    check_out(csv, option="--csv")
    project = load_project()
    with open_if_there(project, database) or nullcontext() as store:
        written = write_report(
            project,
            store,
            out,
            team=default_team(team, project.config),
            device=device,
            baselines=baselines,
            csv=csv,
        )
    document = {
        "out": str(out),
        "csv": str(csv) if csv is not None else None,
        "sections": list(written.sections),
        "missing": [{"section": name, "command": filled_by} for name, filled_by in written.missing],
    }

    def show(console: Console) -> None:
        console.print(f"wrote {out}", highlight=False)
        for name, filled_by in written.missing:
            console.print(f"  {name} is empty: {filled_by}", highlight=False)

    return Outcome(document, show)
