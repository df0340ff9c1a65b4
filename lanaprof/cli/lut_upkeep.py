"""lanaprof lut retract, lanaprof lut upgrade, lanaprof lut check."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, notice, team_option
from lanaprof.cli.lut_text import counted, say

if TYPE_CHECKING:
    from rich.console import Console


@command("retract")
@click.argument("ids", nargs=-1, required=True, metavar="ID…")
@click.option("--reason", required=True, metavar="TEXT", help="Why they are not to be used; kept with them.")
@database_option
@team_option
def retract(ids: tuple[str, ...], reason: str, database: str | None, team: str | None) -> Outcome:
    """Say that measurements of your team are not to be used any more, for good. An ID may be its beginning."""
    from lanaprof.flows.project import default_team
    from lanaprof.flows.retracting import retract_measurements
    from lanaprof.flows.sources import find_config, source_from
    from lanaprof.lut import open_store

    folder = Path.cwd()
    own = default_team(team, find_config(folder))
    with open_store(source_from(None, database, folder).database) as store:
        report = retract_measurements(store, ids, team=own, reason=reason)
    for absent in report.absent:
        notice(f"measurement {absent} is not here (yet): the retraction waits for it")
    document: dict[str, Any] = {
        "retracted": report.added,
        "known": report.known,
        "refused": len(report.refused),
        "ids": list(report.targets),
        "absent": list(report.absent),
        "refusals": [{"id": key, "reason": why} for key, why in report.refused],
        "team": own,
    }

    def show(console: Console) -> None:
        for key, why in report.refused:
            say(console, f"refused: {key}: {why}")
        known = f", {report.known} retracted before" if report.known else ""
        say(console, f"{report.added} retracted{known}")

    return Outcome(document, show, 3 if report.refused else 0)


@command("upgrade")
@click.argument("source", required=False)
@click.option("--backup/--no-backup", default=True, show_default=True, help="Copy a SQLite file first.")
@click.option("--dry-run", is_flag=True, help="Print the SQL and change nothing.")
@database_option
def upgrade(source: str | None, *, backup: bool, dry_run: bool, database: str | None) -> Outcome:
    """Bring a database to this program's schema; one that has it stays as it is."""
    from lanaprof.flows.sources import database_text, whole_database
    from lanaprof.lut import plan_upgrade
    from lanaprof.lut import upgrade as run

    target = whole_database(source, database, Path.cwd(), what="an upgrade")
    report = plan_upgrade(target) if dry_run else run(target, backup=backup)
    name = database_text(target)
    document = {
        "database": name,
        "before": report.before,
        "after": report.after,
        "backup": str(report.backup) if report.backup is not None else None,
        "sql": report.sql,
    }

    def show(console: Console) -> None:
        if report.sql:
            notice(f"{name}: schema {report.before or 'none'} → {report.after}; nothing was changed")
            console.out(report.sql.strip(), highlight=False)
            return
        kept = f"; the old one is {report.backup}" if report.backup is not None else ""
        text = (
            f"{name} has schema {report.after} already"
            if report.before == report.after
            else f"{name}: schema {report.before or 'none'} → {report.after}{kept}"
        )
        say(console, text)

    return Outcome(document, show)


@command("check")
@click.argument("source", required=False)
@database_option
def check(source: str | None, database: str | None) -> Outcome:
    """Verify a database: the file, the schema, every id and every derived column. Changes nothing."""
    from lanaprof.flows.sources import database_text, whole_database
    from lanaprof.lut import check as run
    from lanaprof.lut.models import HEAD, REVISIONS

    target = whole_database(source, database, Path.cwd(), what="a check")
    report = run(target)
    name = database_text(target)
    hint = ""
    if report.schema != HEAD and report.schema in REVISIONS:
        hint = f"lanaprof lut upgrade --database {shlex.quote(name)}"
    document = {
        "database": name,
        "ok": report.ok,
        "schema": report.schema,
        "records": report.records,
        "problems": list(report.problems),
        "hint": hint,
    }

    def show(console: Console) -> None:
        for problem in report.problems:
            say(console, problem)
        verdict = "all is well" if report.ok else counted(len(report.problems), "problem")
        say(
            console,
            f"{name}: schema {report.schema or 'none'}, {counted(report.records, 'record')} verified: {verdict}",
        )
        if hint:
            say(console, f"  → {hint}")

    return Outcome(document, show, 0 if report.ok else 3)
