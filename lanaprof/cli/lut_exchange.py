"""lanaprof lut export, lanaprof lut import, lanaprof lut merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Meter,
    Outcome,
    command,
    database_option,
    device_option,
    environment_option,
    meter,
    notice,
)
from lanaprof.cli.lut_text import counted, say

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.lut import ImportReport

_LISTED = 20  # refused rows a person is shown; --json has all


@command("export")
@click.argument("source", required=False)
@click.option(
    "--out",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="F.parquet, F.jsonl.zst, F.jsonl or F.sqlite.",
)
@device_option
@environment_option
@click.option("--team", metavar="NAME", help="Only this team's records.")
@click.option("--since", metavar="DATE", help="Only records from this date or UTC time on.")
@click.option("--protocol", metavar="NAME", help="Only measurements of this way of timing, such as relay/2.")
@database_option
def export(source: str | None, out: Path, database: str | None, **parts: str | None) -> Outcome:
    """Write a database, or what SOURCE or the options take of it, to a file. All formats hold the same records."""
    from lanaprof.flows.sources import record_filter, source_from
    from lanaprof.lut import export_file, open_store

    folder = Path.cwd()
    chosen = source_from(source, database, folder, **parts)
    with open_store(chosen.database, readonly=True) as store, meter("exporting") as bar:
        records = record_filter(store, chosen, folder)
        report = export_file(store, out, records=records, follow=_following(bar))
        name = store.name
    if not report.records:
        notice(f"nothing in {name} fits: {report.path} holds no records")
    size_bytes = report.path.stat().st_size
    document = {"path": str(report.path), "records": report.records, "size_bytes": size_bytes}

    def show(console: Console) -> None:
        from lanaprof.units import format_size

        say(console, f"{report.path}: {counted(report.records, 'record')}, {format_size(size_bytes)}")

    return Outcome(document, show)


@command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@device_option
@environment_option
@click.option("--team", metavar="NAME", help="Only this team's records.")
@click.option("--since", metavar="DATE", help="Only records from this date or UTC time on.")
@click.option("--protocol", metavar="NAME", help="Only measurements of this way of timing, such as relay/2.")
@click.option(
    "--refused",
    metavar="F.jsonl",
    type=click.Path(path_type=Path),
    help="Write every row that is refused, with its reason.",
)
@database_option
def import_(
    files: tuple[Path, ...], database: str | None, refused: Path | None, **parts: str | None
) -> Outcome:
    """Add the records in exported FILES to a database; a missing database is made, what is known stays."""
    from lanaprof.errors import BadInput
    from lanaprof.flows.importing import import_part, refusals_file
    from lanaprof.flows.sources import source_from
    from lanaprof.lut import import_files, open_store

    for file in files:  # before a database is made for nothing
        if not file.is_file():
            problem = "is no file that can be imported" if file.exists() else "does not exist"
            raise BadInput(f"{file} {problem}", hint="name files that `lanaprof lut export` wrote")
    target = source_from(None, database, Path.cwd()).database
    with (
        refusals_file(refused) as note,
        open_store(target, create=True) as store,
        meter("importing") as bar,
    ):
        if any(parts.values()):
            chosen = source_from(None, target, Path.cwd(), **parts)
            report = import_part(store, files, chosen, Path.cwd(), follow=_following(bar), note=note)
        else:
            report = import_files(store, files, follow=_following(bar), note=note)
        name = store.name
    return added_outcome(report, name, refused)


@command("merge")
@click.argument("source", metavar="SRC")
@click.argument("destination", metavar="DST")
def merge(source: str, destination: str) -> Outcome:
    """Add what SRC holds, or what its #… takes of it, to the database DST; a missing DST is made."""
    from lanaprof.flows.sources import database_text, record_filter, source_from, whole_database
    from lanaprof.lut import merge as run
    from lanaprof.lut import open_store

    folder = Path.cwd()
    chosen = source_from(source, None, folder)
    target = whole_database(destination, None, folder, what="the destination of a merge")
    with open_store(chosen.database, readonly=True) as store, meter("merging") as bar:
        records = record_filter(store, chosen, folder)
        report = run(store, target, records=records, follow=_following(bar))
    return added_outcome(report, database_text(target))


def _following(bar: Meter) -> Callable[[float, float, str], None]:
    """Return what tells a progress line how far it is."""
    return lambda done, total, what: bar(done, total, text=what)


def added_outcome(report: ImportReport, database: str, listed: Path | None = None) -> Outcome:
    """Return the outcome of adding records to a database; ``listed`` is the file that has every refused row."""
    document: dict[str, Any] = {
        "database": database,
        "added": report.added,
        "known": report.known,
        "refused": report.refused_count,
        "refusals": [
            {"file": row.file, "row": row.row, "id": row.id, "reason": row.reason} for row in report.refused
        ],
    }

    def show(console: Console) -> None:
        for row in report.refused[:_LISTED]:
            place = f"{row.file}, row {row.row}" if row.row else f"{row.file}, {row.id}"
            say(console, f"refused: {place}: {row.reason}")
        if report.refused_count > _LISTED:
            where = (
                f"{listed} has all"
                if listed is not None
                else "--json lists them, import's --refused writes them"
            )
            say(console, f"and {report.refused_count - _LISTED} more refused; {where}")
        counts = f"{report.known} known already, {report.refused_count} refused"
        say(console, f"{database}: {counted(report.added, 'record')} added, {counts}")

    return Outcome(document, show, 3 if report.refused else 0)
