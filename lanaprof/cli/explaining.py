"""What an exchange in a choice would buy, for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.solver import Change, Exchange, Explanation, Neighbour

__all__ = ["show_explanation"]

_SHOWN = 5
_SHOWN_CHANGES = 6


def show_explanation(console: Console, explanation: Explanation) -> None:
    """Print the exchanges worth most, and what the neighbours on the front change."""
    _show_exchanges(console, explanation.upgrades, explanation.cost, "one exchange that gains", "gained")
    _show_exchanges(console, explanation.savings, explanation.cost, "one exchange that saves", "lost")
    for neighbour, words, none in (
        (explanation.cheaper, "the best that costs less", "nothing costs less"),
        (explanation.better, "the cheapest that scores more", "nothing scores more"),
    ):
        console.print(_told(neighbour, words, explanation.cost) if neighbour else none)


def _show_exchanges(
    console: Console, exchanges: Sequence[Exchange], cost: str, title: str, what: str
) -> None:
    from lanaprof.cli.tables import plain_table

    if not exchanges:
        return
    unit, scale = ("ms", 1e3) if cost.startswith("latency_s") else (cost, 1.0)
    table = plain_table(title, "from", "to", "#score", f"#{cost}", f"#score {what} per {unit}")
    for one in exchanges[:_SHOWN]:
        change = one.change
        table.add_row(
            change.layer,
            str(change.before),
            str(change.after),
            f"{one.score:+.4g}",
            _amount(one.cost, cost, signed=True),
            f"{one.rate / scale:.4g}",
        )
    console.print(table)


def _amount(value: float, cost: str, *, signed: bool = False) -> str:
    from lanaprof.units import format_duration

    text = format_duration(value) if cost.startswith("latency_s") else f"{value:.6g}"
    return f"+{text}" if signed and value >= 0 else text


def _told(neighbour: Neighbour, words: str, cost: str) -> str:
    shown = ", ".join(_change(one) for one in neighbour.changes[:_SHOWN_CHANGES])
    rest = len(neighbour.changes) - _SHOWN_CHANGES
    more = f" and {rest} more" if rest > 0 else ""
    proof = "" if neighbour.proved else " (not proved)"
    amount = _amount(neighbour.cost, cost)
    return f"{words}{proof}: score {neighbour.score:.6g}, {cost} {amount}; changes {shown}{more}"


def _change(change: Change) -> str:
    return f"{change.layer}: {change.before or '–'} → {change.after or '–'}"
