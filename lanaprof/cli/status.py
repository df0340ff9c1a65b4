"""lanaprof status."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from lanaprof.cli.base import Outcome, command, database_option, team_option

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.stating import Step


@command("status")
@database_option
@team_option
def status(database: str | None, team: str | None) -> Outcome:
    """Show what is done, what is stale, what comes next and about how long it takes."""
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.flows.stating import next_step, open_if_there, project_steps

    project = load_project()
    with open_if_there(project, database) or nullcontext() as store:
        steps = project_steps(project, store, team=default_team(team, project.config))
    following = next_step(steps)
    document = {
        "steps": [step.to_json() for step in steps],
        "next": following.command if following is not None else None,
        "seconds_left": following.seconds if following is not None else None,
    }
    return Outcome(document, lambda console: _show(console, steps, following))


def _show(console: Console, steps: tuple[Step, ...], following: Step | None) -> None:
    from lanaprof.cli.tables import plain_table
    from lanaprof.units import format_duration

    several = len({step.device for step in steps if step.device}) > 1
    table = plain_table("", "step", "how far")
    for step in steps:
        state = "[yellow]stale[/yellow]" if step.stale else "[green]done[/green]" if step.done else "open"
        table.add_row(
            state, f"{step.name} {step.device}" if several and step.device else step.name, step.detail
        )
    console.print(table)
    if following is None:
        console.print("Nothing is left to do here.")
        return
    time = f" (about {format_duration(following.seconds, digits=2)})" if following.seconds else ""
    console.print(f"Next: [bold]{following.command}[/bold]{time}", highlight=False)
