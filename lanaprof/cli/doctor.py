"""lanaprof doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import Outcome, command, database_from, database_option, device_option

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.doctoring import Check

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@command("doctor")
@click.option("--quick", is_flag=True, help="Leave out the self-test, which times operators for two seconds.")
@device_option
@database_option
def doctor(quick: bool, device: str | None, database: str | None) -> Outcome:
    """Check this machine before measuring: runtime, cores, clocks, memory, how well numbers repeat, database."""
    from lanaprof.config import PROJECT_FILE, read_config
    from lanaprof.flows.doctoring import TEST_S, checks_of
    from lanaprof.flows.project import load_project

    here = Path.cwd()
    if (here / PROJECT_FILE).exists():
        config = read_config(here)
        device = device or next(iter(config.devices), None)
        database = load_project(here).database(database)
    test_s = 0.0 if quick else TEST_S
    checks = tuple(checks_of(device or "cpu", here, database_from(database), test_s=test_s))
    failed = sum(1 for check in checks if check.state == "fail")
    document = {
        "device": device or "cpu",
        "checks": [
            {"name": check.name, "state": check.state, "message": check.message, "hint": check.hint}
            for check in checks
        ],
    }
    return Outcome(document, lambda console: _show(console, checks), 2 if failed else 0)


def _show(console: Console, checks: tuple[Check, ...]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    table = plain_table("", "check", "what was found")
    for check in checks:
        advice = f"\n[dim]→ {escape(check.hint)}[/dim]" if check.hint and check.state != "ok" else ""
        state = f"[{_COLOURS[check.state]}]{check.state}[/{_COLOURS[check.state]}]"
        table.add_row(state, check.name, escape(check.message) + advice)
    console.print(table)
    counts = {state: sum(1 for check in checks if check.state == state) for state in _COLOURS}
    if counts["fail"]:
        console.print(
            f"{counts['fail']} of {len(checks)} checks failed: this device cannot be measured here yet."
        )
    elif counts["warn"]:
        console.print("Measuring works; the warnings say what would make it faster or quieter.")
    else:
        console.print("All is well.")
