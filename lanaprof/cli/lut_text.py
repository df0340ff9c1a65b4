"""Lines of text that the lut commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["counted", "say"]


def say(console: Console, text: str) -> None:
    """Print a text as it is: what teams, hosts and files are called is no markup."""
    console.print(text, markup=False, highlight=False)


def counted(count: int, noun: str) -> str:
    """Return a number of things.

    >>> counted(1, "record"), counted(0, "record")
    ('1 record', '0 records')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
