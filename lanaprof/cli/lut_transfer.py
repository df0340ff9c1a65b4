"""lanaprof lut push, lanaprof lut pull."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from lanaprof.cli.base import Meter, Outcome, command, database_option, meter
from lanaprof.cli.lut_exchange import added_outcome


@command("push")
@click.argument("server", metavar="SERVER")
@click.argument("source", required=False)
@click.option("--create", is_flag=True, help="Make the tables when the server's database has none.")
@database_option
def push(server: str, source: str | None, *, create: bool, database: str | None) -> Outcome:
    """Send the database SERVER what it lacks of SOURCE, or of what its #… takes of it.

    SERVER is a URL such as postgresql://USER@HOST/NAME; a file will do too. Stopped, it goes on where it was.
    """
    from lanaprof.flows.sources import record_filter, source_from, whole_database
    from lanaprof.lut import open_store, transfer

    folder = Path.cwd()
    chosen = source_from(source, database, folder)
    target = whole_database(server, None, folder, what="a push")
    with (
        open_store(chosen.database, readonly=True) as origin,
        open_store(target, create=create) as shared,
        meter("pushing") as bar,
    ):
        records = record_filter(origin, chosen, folder)
        report = transfer(origin, shared, records=records, follow=following(bar))
        return added_outcome(report, shared.name)


@command("pull")
@click.argument("server", metavar="SOURCE")
@database_option
def pull(server: str, database: str | None) -> Outcome:
    """Fetch what this database lacks of the server SOURCE, or of what its #… takes of it.

    A missing database is made. Stopped, it goes on where it was.
    """
    from lanaprof.flows.sources import record_filter, source_from
    from lanaprof.lut import open_store, transfer

    folder = Path.cwd()
    chosen = source_from(server, None, folder)
    target = source_from(None, database, folder).database
    with open_store(chosen.database, readonly=True) as shared:
        records = record_filter(shared, chosen, folder)  # a part that is not there makes no database
        with open_store(target, create=True) as own, meter("pulling") as bar:
            report = transfer(shared, own, records=records, follow=following(bar))
            return added_outcome(report, own.name)


def following(bar: Meter) -> Callable[[int, int, str], None]:
    """Return what shows how far a transfer is."""
    return lambda done, total, kind: bar(done, total, text=f"{kind}s")
