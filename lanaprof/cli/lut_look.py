"""lanaprof lut ls, lanaprof lut show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, policy_option, team_option
from lanaprof.cli.lut_text import counted, say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console

    from lanaprof.flows.inspecting import EnvironmentView, MeasurementView, OperatorView
    from lanaprof.lut import Estimate, Holding, Measurement, Retraction


@command("ls")
@click.argument("source", required=False)
@database_option
def ls(source: str | None, database: str | None) -> Outcome:
    """List what a database (or what SOURCE takes of it) holds, per environment, cache state and space."""
    from lanaprof.flows.inspecting import holding_json, holdings_of
    from lanaprof.flows.sources import devices_of_environment, environment_text, known_here, source_from
    from lanaprof.lut import open_store

    folder = Path.cwd()
    chosen = source_from(source, database, folder)
    with open_store(chosen.database, readonly=True) as store:
        holdings = holdings_of(store, chosen, folder)
        environments = {each.id: each for each in store.environments()}
        records = store.counts()
        name = store.name
    known = known_here(folder)
    used = [environments[key] for key in dict.fromkeys(each.environment for each in holdings)]
    document = {
        "database": name,
        "records": records,
        "environments": [
            {
                **environment.to_json(),
                "devices": list(devices_of_environment(environment, known)),
                "holdings": [holding_json(each) for each in holdings if each.environment == environment.id],
            }
            for environment in used
        ],
    }

    def show_list(console: Console) -> None:
        for environment in used:
            devices = ", ".join(devices_of_environment(environment, known)) or "no known device"
            say(console, f"{devices}: {environment_text(environment)}")
            _holdings(console, [each for each in holdings if each.environment == environment.id])
        if not used:
            say(console, "no measurements")
        counts = ", ".join(counted(count, kind) for kind, count in records.items() if count)
        say(console, f"{name}: {counts or 'no records'}")

    return Outcome(document, show_list)


@command("show")
@click.argument("key", metavar="OPERATOR|MEASUREMENT|ENVIRONMENT")
@database_option
@team_option
@policy_option
def show(key: str, database: str | None, team: str | None, policy: str | None) -> Outcome:
    """Show everything known of what a key, or its beginning, stands for."""
    from lanaprof.flows.inspecting import EnvironmentView, MeasurementView, find_thing
    from lanaprof.flows.project import default_team
    from lanaprof.flows.sources import find_config, source_from, viewpoint_of
    from lanaprof.lut import open_store

    folder = Path.cwd()
    config = find_config(folder)
    chosen = policy or (config.policy if config is not None else "")
    viewpoint = viewpoint_of(None, team=default_team(team, config), policy=chosen)
    with open_store(source_from(None, database, folder).database, readonly=True) as store:
        found = find_thing(store, key, viewpoint=viewpoint)

    def show_thing(console: Console) -> None:
        if isinstance(found, EnvironmentView):
            _show_environment(console, found)
        elif isinstance(found, MeasurementView):
            _show_measurement(console, found)
        else:
            _show_operator(console, found)

    return Outcome(found.to_json(), show_thing)


def _holdings(console: Console, holdings: list[Holding]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    table = plain_table("cache", "space", "#operators", "measurements", "teams", "newest")
    for holding in holdings:
        statuses = ", ".join(f"{count} {status}" for status, count in holding.statuses)
        teams = escape(", ".join(holding.teams))
        newest = f"{holding.newest[:16].replace('T', ' ')}Z"  # to the minute, as in the hub's lists
        table.add_row(
            holding.cache, holding.space[:12] or "–", str(holding.operators), statuses, teams, newest
        )
    console.print(table)


def _fields(console: Console, values: Mapping[str, Any]) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table

    table = plain_table("", "")
    table.show_header = False
    for name, value in values.items():
        text = ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(name, escape(text or "–"))
    console.print(table)


def _show_environment(console: Console, view: EnvironmentView) -> None:
    value = view.environment.to_json()
    say(console, f"environment {value.pop('id')}")
    del value["record"]
    _fields(console, {**value, "calibrations": view.calibrations})
    _holdings(console, list(view.holdings))


def _latency(row: Measurement) -> tuple[str, str]:
    """Return a measurement's latency and interval for people."""
    from lanaprof.units import format_duration

    if row.latency_s is None or row.ci_low_s is None or row.ci_high_s is None:
        return row.status, row.message or "–"
    return format_duration(
        row.latency_s
    ), f"{format_duration(row.ci_low_s)} … {format_duration(row.ci_high_s)}"


def _show_operator(console: Console, view: OperatorView) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table
    from lanaprof.flows.sources import environment_text

    say(console, f"operator {view.operator.id}: {view.description}")
    _fields(console, dict(view.statistics))
    for entry in view.entries:
        space = f" of space {entry.space[:12]}" if entry.space else ""
        say(console, f"{entry.estimate.cache}{space} in {environment_text(entry.environment)}")
        table = plain_table("", "#latency", "95 % interval", "status", "team", "host", "time", "id")
        for row in entry.measurements:
            counts = "counts" if row.id in entry.estimate.measurements else ""
            latency, interval = _latency(row)
            where = (escape(row.team), escape(row.host), row.time, row.id[:12])
            table.add_row(counts, latency, escape(interval), row.status, *where)
        console.print(table)
        say(console, f"policy {entry.policy}: {entry.why}")
        _pooled(console, entry.estimate)
        if entry.estimate.disagreement is not None:
            verdict = (
                "more than their intervals allow" if entry.estimate.disagree else "within their intervals"
            )
            say(console, f"teams and hosts differ by {entry.estimate.disagreement:.1%}, {verdict}")
    if not view.entries:
        say(console, "not measured")
    for row, retraction in view.retracted:
        _retracted(console, row.id, retraction)


def _pooled(console: Console, estimate: Estimate) -> None:
    from lanaprof.units import format_duration

    if (
        estimate.latency_s is None
        or estimate.ci_low_s is None
        or estimate.ci_high_s is None
        or not estimate.pooled
    ):
        return
    say(
        console,
        f"pooled: {format_duration(estimate.latency_s)}, 95 % interval {format_duration(estimate.ci_low_s)} … "
        f"{format_duration(estimate.ci_high_s)}, {estimate.status}; between them varies {estimate.spread or 0.0:.2%} "
        "(1 standard deviation) beyond the intervals",
    )


def _show_measurement(console: Console, view: MeasurementView) -> None:
    row = view.measurement
    latency, interval = _latency(row)
    say(console, f"measurement {row.id}: {latency} ({interval})")
    value = row.to_json()
    for name in ("record", "id", "samples", "rounds", "latency_s", "ci_low_s", "ci_high_s"):
        del value[name]
    value["operator"] = f"{row.operator} ({view.description})"
    value["samples"] = f"{len(row.samples)} in {len(set(row.rounds))} rounds"
    _fields(console, value)
    if view.retractions:
        for retraction in view.retractions:
            _retracted(console, row.id, retraction)
    else:
        say(console, "this one counts" if view.counts else "another measurement of the same counts")


def _retracted(console: Console, key: str, retraction: Retraction) -> None:
    say(console, f"{key[:12]} was retracted by {retraction.team}, {retraction.time}: {retraction.reason}")
