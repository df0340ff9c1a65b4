"""lanaprof devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command

if TYPE_CHECKING:
    from rich.console import Console


@command("devices")
@click.option("--detect", is_flag=True, help="Print an entry for this machine, to paste into devices.yaml.")
def devices(detect: bool) -> Outcome:
    """List the known devices, which can be measured here and, if not, why."""
    from lanaprof.config import known_devices
    from lanaprof.flows.devicing import device_states
    from lanaprof.flows.doctoring import hardware_check

    known = known_devices(Path.cwd())
    rows = []
    for state in device_states(known.values()):
        device, problem, hint = state.device, state.problem, state.hint
        if not problem and (check := hardware_check(device)).state == "fail":
            problem, hint = check.message, check.hint
        rows.append(
            {
                "name": device.name,
                "backend": device.backend,
                "threads": device.threads,
                "batch": device.batch,
                "precision": device.precision,
                "cores": list(device.cores),
                "match": dict(device.match),
                "available": not problem,
                "problem": problem,
                "hint": hint,
            }
        )
    document: dict[str, Any] = {"devices": rows}
    if not detect:
        return Outcome(document, lambda console: _show(console, rows))
    from lanaprof.flows.detecting import backend_states, detected_entries, find_cpu_model, matching_devices
    from lanaprof.flows.doctoring import find_gpus

    cpu_model, gpus = find_cpu_model(), find_gpus()
    document["detected"] = detected_entries(cpu_model, gpus)
    document["matching"] = list(matching_devices(cpu_model, gpus, known.values()))
    document["backends"] = [
        {"name": each.name, "version": each.version or None, "hint": each.hint} for each in backend_states()
    ]
    return Outcome(document, lambda _console: click.echo(_detected(document), nl=False))


def _detected(document: dict[str, Any]) -> str:
    """Return the entries to paste, and what else was found as comments below: the whole is a devices.yaml."""
    lines = [_yaml(document["detected"]).rstrip("\n")]
    matching = document["matching"]
    lines.append(f"# Known devices that are this machine already: {', '.join(matching) or 'none'}")
    for each in document["backends"]:
        version = (
            f"installed, version {each['version']}" if each["version"] else f"not installed: {each['hint']}"
        )
        lines.append(f"# {each['name']}: {version}")
    return "\n".join(lines) + "\n"


def _yaml(entries: dict[str, Any]) -> str:
    """Return the entries as the shipped devices.yaml writes them; a JSON value is YAML too."""
    lines = []
    for name, entry in entries.items():
        lines.append(f"{name}:")
        lines += [f"  {field}: {_value(value)}" for field, value in entry.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _show(console: Console, rows: list[dict[str, Any]]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    table = plain_table("device", "backend", "defaults", "here")
    for row in rows:
        threads = f"{row['threads']} thread" + ("s" if row["threads"] > 1 else "")
        defaults = f"{threads}, batch {row['batch']}, {row['precision']}"
        why = row["problem"].rpartition("; here, ")[2]  # what it needs as a whole, doctor says at length
        here = "[green]yes[/green]" if row["available"] else f"no: {escape(why)}"
        table.add_row(row["name"], row["backend"], defaults, here)
    console.print(table)
    if not all(row["available"] for row in rows):
        console.print("What another one needs: lanaprof doctor --device NAME")
    console.print(
        "Add your own in ./devices.yaml: lanaprof devices --detect prints an entry for this machine."
    )
