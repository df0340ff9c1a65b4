"""lanaprof lut coverage."""

from __future__ import annotations

import shlex
from dataclasses import replace
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
    team_option,
)
from lanaprof.cli.lut_text import say

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from lanaprof.flows.covering import Covered

_LISTED = 20  # missing operators a person is shown; --json has all


@command("coverage")
@click.argument("source", required=False)
@device_option
@click.option("--cache", type=click.Choice(["relay", "hot", "cold"]), help="Only this cache state.")
@database_option
@team_option
@environment_option
def coverage(source: str | None, **options: Any) -> Outcome:
    """Say how much of the project's operators (outside a project: of the database's) is measured."""
    from lanaprof.config import PROJECT_FILE, parse_device
    from lanaprof.flows.covering import covered, covered_devices
    from lanaprof.flows.project import default_team, load_project
    from lanaprof.flows.sources import devices_of_environment, known_here, source_from
    from lanaprof.lut import open_store

    folder = Path.cwd()
    project = load_project(folder) if (folder / PROJECT_FILE).exists() else None
    chosen = source_from(
        source,
        options["database"],
        folder,
        device=options["device"],
        environment=options["environment"],
    )
    if chosen.environment and project is not None and not chosen.device:
        chosen = replace(chosen, device=project.device(None).text)
    team = default_team(options["team"], project.config if project is not None else None)
    given: dict[str, Any] = {"project": project, "team": team, "cache": options["cache"]}
    with open_store(chosen.database, readonly=True) as store:
        if not chosen.device and not chosen.environment:
            database = f" --database {shlex.quote(store.name)}" if source or options["database"] else ""
            return _all(covered_devices(store, chosen, folder, **given), store.name, database)
        device = parse_device(chosen.device, folder) if chosen.device else None
        found = covered(store, device, chosen, folder, **given)
        keys = [*found.missing, *found.failed]
        descriptions = store.operator_descriptions(keys) if keys else {}
        name = store.name
    if found.warning:
        notice(found.warning)
    label = device.text if device is not None else f"environment {chosen.environment}"
    names = [device.text] if device is not None else []
    if found.environment is not None:
        names += devices_of_environment(found.environment, known_here(folder))
    typed = f" --device {shlex.quote(names[0]) if names else 'DEVICE'}"
    if source or options["database"]:
        typed += f" --database {shlex.quote(name)}"
    return _one(found, label, f"lanaprof measure{typed}", descriptions)


def _hints(found: Covered, measure: str) -> list[str]:
    """Return what to type so that nothing is missing any more."""
    hints = [f"measure them: {measure}"] if found.missing_count else []
    states = sorted(set(found.failed.values()))
    if states:
        retry = " ".join(f"--retry {state}" for state in states)
        hints.append(f"try those that failed again: {measure} {retry}")
    return hints


def _one(found: Covered, label: str, measure: str, descriptions: Mapping[str, str]) -> Outcome:
    hints = _hints(found, measure)
    document = {
        **found.counts(),
        "device": label,
        "environment": found.environment.id if found.environment else None,
        "missing_operators": [
            {
                "operator": key,
                "description": descriptions.get(key, ""),
                "candidates": _names(found.candidates.get(key, ())),
            }
            for key in found.missing
        ],
        "not_exported": [
            {"recipe": made, "candidates": _names(who)} for made, who in found.unexported.items()
        ],
        "failed_operators": [
            {"operator": key, "status": status, "candidates": _names(found.candidates.get(key, ()))}
            for key, status in found.failed.items()
        ],
        "unexportable": [{"recipe": made, "message": why} for made, why in found.unexportable.items()],
        "hints": hints,
    }

    def show(console: Console) -> None:
        _numbers(console, {label: found})
        _lacking(console, found, descriptions)
        for hint in hints:
            say(console, hint)

    return Outcome(document, show)


def _names(candidates: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"layer": layer, "operation": operation} for layer, operation in candidates]


def _lacking(console: Console, found: Covered, descriptions: Mapping[str, str]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    rows = [
        (key[:12], "missing", descriptions.get(key, ""), found.candidates.get(key, ()))
        for key in found.missing
    ]
    rows += [("–", "not exported", "", who) for who in found.unexported.values()]
    rows += [
        (key[:12], status, descriptions.get(key, ""), found.candidates.get(key, ()))
        for key, status in found.failed.items()
    ]
    rows += [("–", "cannot be exported", why, ()) for why in found.unexportable.values()]
    if not rows:
        return
    table = plain_table("operator", "state", "what it is", "candidate")
    for key, state, what, who in rows[:_LISTED]:
        candidate = " ".join(who[0]) if who else "–"
        more = f" and {len(who) - 1} more" if len(who) > 1 else ""
        table.add_row(key, state, escape(what) or "–", escape(candidate + more))
    console.print(table)
    if len(rows) > _LISTED:
        say(console, f"and {len(rows) - _LISTED} more; --json lists all")


def _numbers(console: Console, devices: Mapping[str, Covered]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    names = ("wanted", "present", "noisy", "failed", "missing")
    table = plain_table("device", *(f"#{name}" for name in names), "environment")
    for device, found in devices.items():
        counts = found.counts()
        where = found.environment.id[:12] if found.environment else "–"
        table.add_row(escape(device), *(str(counts[name]) for name in names), where)
    console.print(table)


def _all(devices: Mapping[str, Covered], database: str, typed: str) -> Outcome:
    document = {
        "devices": {
            device: {**found.counts(), "environment": found.environment.id if found.environment else None}
            for device, found in devices.items()
        }
    }

    def show(console: Console) -> None:
        if not devices:
            say(console, f"{database} has no measurements")
            return
        _numbers(console, devices)
        incomplete = [device for device, found in devices.items() if found.missing_count]
        if incomplete:
            name, _, key = incomplete[0].partition("environment ")
            which = f"--environment {key}" if key else f"--device {shlex.quote(name)}"
            say(console, f"what is missing: lanaprof lut coverage {which}{typed}")

    return Outcome(document, show)
