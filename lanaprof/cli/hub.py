"""lanaprof hub: serve, token new|ls|revoke, log."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option, notice

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from lanaprof.hub.ledger import Event, Token

_LEDGER = "lanaprof-hub.db"


def _ledger_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--ledger", default=_LEDGER, show_default=True, metavar="FILE", help="The hub's tokens and audit log.",
        type=click.Path(path_type=Path), envvar="LANAPROF_HUB_LEDGER",
    )(function)  # fmt: skip


@click.group("hub")
def hub() -> None:
    """One server that gives every team its tables by token, and everyone the pictures."""


@command("serve")
@database_option
@_ledger_option
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where it listens.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="0: any free one."
)
@click.option("--public", is_flag=True, help="Let everybody read the pages, without a token.")
@click.option(
    "--behind-proxy",
    "proxy",
    metavar="ADDRESS",
    default="",
    help="A proxy that speaks https, and its word on addresses is taken.",
)
def serve(database: str | None, ledger: Path, host: str, port: int, *, public: bool, proxy: str) -> Outcome:
    """Serve a database, until Ctrl-C. A missing database is made; one that is behind is not upgraded."""
    from lanaprof.errors import StoreError
    from lanaprof.flows.sources import whole_database
    from lanaprof.hub.ledger import open_ledger
    from lanaprof.hub.serving import bound, make_server, needs_extra
    from lanaprof.lut import open_store

    try:
        from lanaprof.hub.state import Hub
    except ImportError as error:
        raise needs_extra(error) from None
    folder = Path.cwd()
    chosen = whole_database(None, database, folder, what="a hub")
    with open_store(chosen, create=True) as store, open_ledger(ledger, create=True) as kept:
        if not kept.tokens():
            notice("there are no tokens yet: lanaprof hub token new NAME --team TEAM")
        made = Hub(store=store, ledger=kept, folder=folder, public=public, secure=bool(proxy))
        server = make_server(made, host=host, port=port, proxy=proxy)
        try:
            listening = bound(host, port)
        except OSError as error:
            raise StoreError(
                f"nothing can listen on {host}:{port}: {error.strerror}",
                hint="choose another --port or --host",
            ) from error
        with listening:
            address = f"http://{host}:{listening.getsockname()[1]}"
            notice(f"serving {store.name} at {address}; Ctrl-C stops it")
            if not proxy and host not in ("127.0.0.1", "localhost", "::1"):
                notice(
                    "tokens travel readably here: put a proxy with https in front, and name it by --behind-proxy"
                )
            with suppress(KeyboardInterrupt):  # how one ends serving
                made.prepare()
                server.run(sockets=[listening])
    return Outcome({"served": address}, lambda _console: None)


@hub.group("token")
def token() -> None:
    """Tokens: who may read, and who may write for which team."""


@command("new")
@click.argument("name")
@click.option(
    "--team", metavar="TEAM", default="", help="May submit this team's records; without, it reads only."
)
@click.option("--admin", is_flag=True, help="May submit every team's records, and read the log.")
@click.option("--expires", metavar="TIME", help="Such as 90d or 12h; without, never.")
@_ledger_option
def new(name: str, team: str, expires: str | None, ledger: Path, *, admin: bool) -> Outcome:
    """Make a token for NAME and print it: this once, since only its digest is kept."""
    from lanaprof.errors import BadInput
    from lanaprof.hub.ledger import open_ledger

    if admin and team:
        raise BadInput("an admin's token is of no team", hint="leave out --team or --admin")
    scope = "admin" if admin else "write" if team else "read"
    lifetime_s = _lifetime_s(expires) if expires else None
    with open_ledger(ledger, create=True) as kept:
        made, secret = kept.new_token(name, scope=scope, team=team, lifetime_s=lifetime_s)
    document = {**_document(made), "token": secret}

    def show(console: Console) -> None:
        notice(f"token {made.id} of {made.name}: {_may(made)}; it is shown this once:")
        console.print(secret, markup=False, highlight=False)

    return Outcome(document, show)


def _lifetime_s(text: str) -> float:
    """Return seconds for a text such as 90d or 12h."""
    from lanaprof.errors import BadInput
    from lanaprof.units import parse_duration

    days = text.strip().removesuffix("d")
    if days != text.strip():
        if not days.isascii() or not days.isdigit() or not 0 < int(days[:6]) < 100_000:
            raise BadInput(f"expires {text!r} is not a number of days", hint="--expires 90d")
        return int(days) * 86_400.0
    try:
        return parse_duration(text, what="expires")
    except BadInput as error:  # its units are those of latencies, and know no days
        raise BadInput(
            f"expires {text!r} is no time from now on: days or hours, as 90d or 12h", hint="--expires 90d"
        ) from error


@command("ls")
@_ledger_option
def ls(ledger: Path) -> Outcome:
    """List the tokens, those that count no more too."""
    from lanaprof.hub.ledger import open_ledger

    with open_ledger(ledger) as kept:
        found, now_s = kept.tokens(), kept.now_s()

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table

        table = plain_table("id", "name", "may", "made", "expires", "")
        for each in found:
            state = "revoked" if each.revoked_s is not None else "" if each.is_valid(now_s) else "expired"
            table.add_row(each.id, each.name, _may(each), _day(each.created_s), _day(each.expires_s), state)
        console.print(table if found else "no tokens: lanaprof hub token new NAME --team TEAM")

    return Outcome({"tokens": [_document(each) for each in found]}, show)


@command("revoke")
@click.argument("identity", metavar="ID")
@_ledger_option
def revoke(identity: str, ledger: Path) -> Outcome:
    """Revoke a token; it counts no more from this moment on, also where the hub runs."""
    from lanaprof.hub.ledger import open_ledger

    with open_ledger(ledger) as kept:
        found = kept.revoke(identity)
    return Outcome(
        {"revoked": found.id}, lambda console: console.print(f"{found.id} of {found.name} is revoked")
    )


@command("log")
@click.option(
    "--last", default=50, show_default=True, type=click.IntRange(1, 100_000), help="How many lines."
)
@_ledger_option
def log(last: int, ledger: Path) -> Outcome:
    """Show who pushed what when, the newest first, and which tokens were made and revoked."""
    from lanaprof.hub.ledger import open_ledger

    with open_ledger(ledger) as kept:
        found = kept.events(limit=last)
    document = {"events": [{name: getattr(each, name) for name in type(each).__slots__} for each in found]}

    def show(console: Console) -> None:
        from lanaprof.cli.tables import plain_table

        several = len({each.address for each in found if each.address}) > 1  # one proxy's own says nothing
        table = plain_table("when", "what", "who", "team", *(["from"] if several else []), "")
        table.columns[0].no_wrap = True
        for each in found:
            when, what, who, team, address, detail = _cells(each)
            table.add_row(when, what, who, team, *([address] if several else []), detail)
        console.print(table if found else "nothing happened yet")

    return Outcome(document, show)


def _cells(event: Event) -> tuple[str, ...]:
    from rich.markup import escape

    detail = event.detail
    if event.action == "push":
        counts = {"known": event.known, "refused": event.refused}
        parts = [f"{event.added} new", *(f"{count} {name}" for name, count in counts.items() if count)]
        detail = ", ".join([*parts, *filter(None, [detail])])
    who = escape(f"{event.name} ({event.token})")
    return (_day(event.time_s), event.action, who, escape(event.team), event.address, escape(detail))


def _may(token: Token) -> str:
    return {"read": "read", "write": f"write for {token.team}", "admin": "everything"}[token.scope]


def _day(time_s: float | None) -> str:
    return "never" if time_s is None else time.strftime("%Y-%m-%d %H:%MZ", time.gmtime(time_s))


def _document(token: Token) -> dict[str, Any]:
    return {name: getattr(token, name) for name in type(token).__slots__}


for each in (serve, log):
    hub.add_command(each)
for each in (new, ls, revoke):
    token.add_command(each)
