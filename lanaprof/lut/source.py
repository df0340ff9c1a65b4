"""SOURCE texts: a database's URL or path, optionally with ``#device=…,environment=…,team=…,since=…`` and the like."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lanaprof.errors import BadInput
from lanaprof.lut.policy import check_policy
from lanaprof.lut.queries import comparable_since

__all__ = ["Source", "parse_source"]

_KEYS = ("device", "environment", "team", "since", "protocol", "policy")
_OF_DEVICE = ("threads", "batch", "precision")  # a device is written name,threads=2,batch=8


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A database and what to take from it; empty texts take everything.

    Attributes:
        device: a device's name with its settings, e.g. ``cpu,threads=2``.
        environment: an environment key or how it starts.
        policy: which of several measurements of one thing counts; it chooses no records.
    """

    database: str
    device: str = ""
    environment: str = ""
    team: str = ""
    since: str = ""
    protocol: str = ""
    policy: str = ""


def parse_source(text: str | Path) -> Source:
    """Return the parts of a SOURCE.

    A ``#`` without ``=`` behind it belongs to the file's name, and so does any in the name of a file that
    exists.

    Raises:
        BadInput: an unknown or repeated part, a time that is none, or an unknown policy.

    >>> parse_source("lab.db#device=cpu,threads=2,team=vision")
    Source(database='lab.db', device='cpu,threads=2', environment='', team='vision', since='', protocol='', policy='')
    """
    whole = str(text)
    database, mark, fragment = whole.rpartition("#")
    if not mark or "=" not in fragment or ("://" not in whole and Path(whole).exists()):
        return Source(database=whole)
    parts: dict[str, str] = {}
    for part in fragment.split(","):
        name, equals, value = part.partition("=")
        name = name.strip()
        if equals and name in _OF_DEVICE and "device" in parts:
            parts["device"] += f",{name}={value.strip()}"
            continue
        if not equals or name not in _KEYS:
            raise BadInput(
                f"{part!r} in the source {whole!r} is none of {', '.join(f'{key}=…' for key in _KEYS)}",
                hint="write it like lab.db#device=cpu,team=vision,since=2026-01-31",
            )
        if name in parts:
            raise BadInput(f"the source {whole!r} names {name} twice", hint=f"keep one {name}=…")
        parts[name] = value.strip()
    if parts.get("since"):
        comparable_since(parts["since"])
    if "policy" in parts:
        check_policy(parts["policy"])
    return Source(database=database, **parts)
