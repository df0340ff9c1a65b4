"""The hubs a person knows, by name, with their tokens: one file, readable by its owner alone.

They belong to the person and not to a project: a project's folder is shared, and kept under version control.
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from lanaprof.errors import BadInput

__all__ = [
    "Remote",
    "add_remote",
    "check_url",
    "find_remote",
    "make_remote",
    "read_remotes",
    "remotes_path",
    "remove_remote",
]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ADD = "lanaprof remote add NAME URL --token-file FILE"


@dataclass(frozen=True, slots=True)
class Remote:
    """A hub's name and address; the token is not shown where the remote is."""

    name: str
    url: str
    token: str = field(repr=False)


def remotes_path(environment: Mapping[str, str] | None = None) -> Path:
    """Return where the remotes are kept: ``lanaprof/remotes.json`` in the folder for a person's settings."""
    given = os.environ if environment is None else environment
    if given.get("XDG_CONFIG_HOME"):
        base = Path(given["XDG_CONFIG_HOME"])
    elif sys.platform == "win32":
        base = Path(given.get("APPDATA", Path.home() / "AppData" / "Roaming"))
    else:
        base = Path.home() / ".config"
    return base / "lanaprof" / "remotes.json"


def check_url(url: str, *, insecure: bool = False) -> str:
    """Return a hub's URL as it is kept.

    Args:
        url: https, or http to this very machine.
        insecure: http to other machines too: whoever is between can read the token.

    Raises:
        BadInput: another scheme, no host, or anything that is not the address alone.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadInput(f"{url!r} is no URL: {error}", hint=_ADD) from None
    if parts.username is not None or parts.password is not None:
        raise BadInput("a hub's URL bears no user and no password", hint=_ADD)
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise BadInput(f"{url!r} is not the address of a hub", hint="write it like https://hub.lab")
    local = host in ("localhost", "127.0.0.1", "::1")
    if parts.scheme == "http" and not local and not insecure:
        raise BadInput(
            f"over {url} everybody on the way can read the token",
            hint="use https; or, in a network you trust, lanaprof remote add --insecure",
        )
    return url.rstrip("/")


def read_remotes() -> dict[str, Remote]:
    """Return the known hubs by name, sorted.

    Raises:
        BadInput: the file cannot be read, or others could read it.
    """
    path = remotes_path()
    try:
        if os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise BadInput(f"{path} holds tokens, and others may read it", hint=f"chmod 600 {path}")
        document = json.loads(path.read_text(encoding="utf-8"))
        return {name: Remote(name, each["url"], each["token"]) for name, each in sorted(document.items())}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path} cannot be read: {error}", hint="correct it, or delete it and add again"
        ) from error


def find_remote(name: str | None) -> Remote:
    """Return a hub by name, or the only one there is; LANAPROF_TOKEN comes before the token that is kept.

    Raises:
        BadInput: no such hub, or several and no name; lists them.
    """
    known = read_remotes()
    if name is None and len(known) == 1:
        found = next(iter(known.values()))
    elif name is None or name not in known:
        listed = ", ".join(known) or "none"
        problem = f"there is no remote {name!r}" if name else "which remote is not said"
        raise BadInput(f"{problem}; known: {listed}", hint=_ADD)
    else:
        found = known[name]
    token = os.environ.get("LANAPROF_TOKEN", "").strip() or found.token
    if not token:
        raise BadInput(f"there is no token for the remote {found.name!r}", hint=f"LANAPROF_TOKEN, or {_ADD}")
    return Remote(found.name, found.url, token)


def make_remote(name: str, url: str, token: str, *, insecure: bool = False) -> Remote:
    """Return a hub under a name, which is not kept yet.

    Raises:
        BadInput: a name, URL or token that cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise BadInput(f"{name!r} is not a name for a remote", hint="letters, digits, dots and dashes")
    if any(not each.isprintable() or each.isspace() or not each.isascii() for each in token):
        raise BadInput("this is no token: it holds more than letters, digits and dashes", hint=_ADD)
    return Remote(name, check_url(url, insecure=insecure), token)


def add_remote(name: str, url: str, token: str, *, insecure: bool = False) -> Remote:
    """Keep a hub under a name, in place of the one that had it, and return it.

    Raises:
        BadInput: a name, URL or token that cannot be one; or the file cannot be written.
    """
    remote = make_remote(name, url, token, insecure=insecure)
    _write({**read_remotes(), name: remote})
    return remote


def remove_remote(name: str) -> None:
    """Forget a hub and its token.

    Raises:
        BadInput: there is none of this name.
    """
    known = read_remotes()
    if name not in known:
        raise BadInput(
            f"there is no remote {name!r}; known: {', '.join(known) or 'none'}", hint="lanaprof remote ls"
        )
    _write({other: remote for other, remote in known.items() if other != name})


def _write(remotes: Mapping[str, Remote]) -> None:
    path = remotes_path()
    document = {name: {"url": each.url, "token": each.token} for name, each in sorted(remotes.items())}
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, temporary = tempfile.mkstemp(dir=path.parent)  # made with mode 600
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
        Path(temporary).replace(path)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror}", hint="check the folder") from error
