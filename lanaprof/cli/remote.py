"""lanaprof remote add|ls|remove, lanaprof push, lanaprof pull."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lanaprof.cli.base import Outcome, command, database_option, meter, notice
from lanaprof.cli.lut_exchange import added_outcome
from lanaprof.cli.lut_transfer import following
from lanaprof.errors import BadInput

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.hub.client import RemoteStore
    from lanaprof.hub.remotes import Remote
    from lanaprof.lut import Source


@click.group("remote")
def remote() -> None:
    """The hubs to push to and pull from. They are yours, not a project's."""


@command("add")
@click.argument("name")
@click.argument("url")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Where the token stands; without, it is asked for.",
)
@click.option(
    "--insecure", is_flag=True, help="Allow http to another machine: everybody on the way can read the token."
)
def add(name: str, url: str, token_file: Path | None, *, insecure: bool) -> Outcome:
    """Keep the hub at URL under a NAME, with its token, in a file that only you can read.

    The hub is asked what the token may do. One that it does not take is not kept.
    """
    from lanaprof.hub.remotes import add_remote, check_url, make_remote, remotes_path

    check_url(url, insecure=insecure)  # before a token is typed in vain
    if token_file is not None:
        secret = token_file.read_text(encoding="utf-8").strip()
    elif os.environ.get("LANAPROF_TOKEN"):
        secret = ""  # it comes from there each time
    elif sys.stdin.isatty():
        secret = click.prompt("token", hide_input=True, err=True).strip()
    else:
        secret = sys.stdin.readline().strip()
    may = _asked(make_remote(name, url, secret or os.environ.get("LANAPROF_TOKEN", ""), insecure=insecure))
    made = add_remote(name, url, secret, insecure=insecure)
    path = str(remotes_path())
    told = f"{made.name}: {made.url}, {f'{may}, ' if may else ''}in {path}"
    return Outcome(
        {"name": made.name, "url": made.url, "path": path},
        lambda console: console.print(told, markup=False, highlight=False),
    )


def _asked(remote: Remote) -> str:
    """Return what a hub says its token may do; empty when that cannot be asked now.

    Raises:
        StoreError: the hub answers, and does not take the token.
    """
    if not remote.token:
        return ""
    try:
        from lanaprof.hub.client import HubAway, open_remote

        with open_remote(remote) as hub:
            return {"read": "reads only", "admin": "writes for every team"}.get(
                hub.scope, f"writes for team {hub.team}"
            )
    except HubAway as error:  # added on a train, it serves later
        notice(f"{error.message}; it is kept, and its token was not tried")
    except ImportError:  # the extra is not there yet: push and pull say so
        pass
    return ""


@command("ls")
def ls() -> Outcome:
    """List the hubs; tokens are not shown."""
    from lanaprof.hub.remotes import read_remotes

    known = read_remotes()
    document = {
        "remotes": [
            {"name": each.name, "url": each.url, "token": bool(each.token)} for each in known.values()
        ]
    }

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table

        table = plain_table("remote", "address", "")
        for each in known.values():
            table.add_row(each.name, each.url, "" if each.token else "no token kept: LANAPROF_TOKEN")
        console.print(table if known else "no remotes: lanaprof remote add NAME URL --token-file FILE")

    return Outcome(document, show)


@command("remove")
@click.argument("name")
def remove(name: str) -> Outcome:
    """Forget a hub and its token."""
    from lanaprof.hub.remotes import remove_remote

    remove_remote(name)
    return Outcome({"removed": name}, lambda console: console.print(f"{name} is forgotten", markup=False))


for each in (add, ls, remove):
    remote.add_command(each)


@command("push")
@click.argument("name", metavar="[REMOTE]", required=False)
@click.argument("source", required=False)
@database_option
def push(name: str | None, source: str | None, database: str | None) -> Outcome:
    """Send the hub REMOTE what it lacks of your team's records in SOURCE. Stopped, it goes on where it was.

    REMOTE may be left out where there is only one.
    """
    from lanaprof.flows.project import NO_TEAM
    from lanaprof.flows.sources import record_filter, source_from
    from lanaprof.lut import open_store, transfer

    folder = Path.cwd()
    chosen = source_from(source, database, folder)
    if name and "#" in name:  # as a pull takes it
        raise BadInput(
            f"{name!r} is no remote's name: what to push is chosen of the database, not of the hub",
            hint=f"lanaprof push {name.partition('#')[0]} 'lanaprof.db#{name.partition('#')[2]}'",
        )
    with (
        open_store(chosen.database, readonly=True) as origin,
        _opened(name) as hub,
        meter("pushing") as bar,
    ):
        if hub.scope == "read":
            raise BadInput(
                f"the token for {hub.name} may read only",
                hint=f"ask the hub's owner for your team's; then lanaprof remote add {hub.remote.name} "
                f"{hub.remote.url} --token-file FILE",
            )
        if hub.team and not chosen.team:  # of others' records it would take none
            chosen = replace(chosen, team=hub.team)
        report = transfer(origin, hub, records=record_filter(origin, chosen, folder), follow=following(bar))
        if chosen.team and not (report.added or report.known or report.refused):
            teams = sorted({each for holding in origin.holdings() for each in holding.teams})
            again = ": what was measured before a team was named keeps that, lanaprof measure --force times it anew"
            notice(
                f"nothing to send: {origin.name} has nothing of team {chosen.team!r}; {_measured_by(teams)}"
                f"{again if NO_TEAM in teams else ''}"
            )
        if hub.team:
            _warn_of_other_team(hub.team, folder)
        return added_outcome(report, hub.name)


def _measured_by(teams: Sequence[str]) -> str:
    return f"it has measurements of {', '.join(teams)}" if teams else "it has no measurements"


def _warn_of_other_team(team: str, folder: Path) -> None:
    """Tell the user when the folder's project works under another name than the token's team: none of that is sent."""
    from lanaprof.flows.project import default_team
    from lanaprof.flows.sources import find_config

    config = find_config(folder)
    if config is not None and (own := default_team(None, config)) != team:
        notice(
            f"this project measures and selects as team {own!r}, and the token submits for {team!r}: what bears "
            f'the other name stays here; write team = "{team}" in lanaprof.toml, or take the token of that team'
        )


@command("pull")
@click.argument("name", metavar="[REMOTE]", required=False)
@database_option
def pull(name: str | None, database: str | None) -> Outcome:
    """Fetch what this database lacks of the hub REMOTE, or of what its #… takes of it: lab#device=cpu,team=vision.

    A missing database is made. Every record is verified. Stopped, it goes on where it was.
    """
    from lanaprof.flows.sources import source_from
    from lanaprof.lut import ImportReport, open_store, parse_source, transfer

    part = parse_source(name) if name else None
    target = source_from(None, database, Path.cwd()).database
    with (
        _opened(part.database if part is not None else None, part) as hub,
        open_store(target, create=True) as own,
        meter("pulling") as bar,
    ):
        report = transfer(hub, own, follow=following(bar)) + ImportReport(refused=tuple(hub.damaged))
        if part is not None and part.team and not (report.added or report.known or report.refused):
            notice(f"nothing to fetch: {hub.name} has nothing of this part; {_measured_by(hub.teams())}")
        return added_outcome(report, own.name)


def _opened(name: str | None, part: Source | None = None) -> RemoteStore:
    from lanaprof.hub.client import open_remote
    from lanaprof.hub.remotes import find_remote
    from lanaprof.hub.serving import needs_extra

    try:
        return open_remote(find_remote(name), part, tell=notice)
    except ImportError as error:
        raise needs_extra(error) from None
