"""The hub's own file: who may do what (tokens), which browsers are signed in, and who pushed what when.

It is a SQLite file of its own, beside no matter which database: what is shared can then be exported, dumped and given
away without a token's digest in it. Tokens are 256 random bits, so their plain SHA-256 is enough: there is nothing to
guess, and a stolen file opens no door.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lanaprof.errors import BadInput, StoreError

__all__ = ["SCOPES", "TOKEN_PREFIX", "Event", "Ledger", "Token", "open_ledger"]

SCOPES = ("read", "write", "admin")
TOKEN_PREFIX = "lanaprof_"  # noqa: S105 (says what a found string is, to people and to secret scanners)
SESSION_S = 12 * 3600.0  # a signed-in browser, at most
_VERSION = 1
_BUSY_S = 30.0
_LONGEST_NAME = 100
_TABLES = """
CREATE TABLE tokens (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, scope TEXT NOT NULL, team TEXT NOT NULL,
    created_s REAL NOT NULL, expires_s REAL, revoked_s REAL
) STRICT;
CREATE TABLE sessions (
    digest TEXT PRIMARY KEY, token TEXT NOT NULL REFERENCES tokens (id), expires_s REAL NOT NULL
) STRICT;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, time_s REAL NOT NULL, action TEXT NOT NULL, token TEXT NOT NULL, name TEXT NOT NULL,
    team TEXT NOT NULL, address TEXT NOT NULL, added INTEGER NOT NULL, known INTEGER NOT NULL,
    refused INTEGER NOT NULL, detail TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """Who may do what; the secret itself is nowhere.

    Attributes:
        id: its public name, for the list, the log and revoking.
        scope: read; write (and read) for one team; admin, which writes for every team.
        team: whose records it may submit; empty unless the scope is write.
        created_s, expires_s, revoked_s: seconds since 1970; None: never.
    """

    id: str
    name: str
    scope: str
    team: str
    created_s: float
    expires_s: float | None
    revoked_s: float | None

    @property
    def may_write(self) -> bool:
        """Return whether it may submit records."""
        return self.scope in ("write", "admin")

    @property
    def is_admin(self) -> bool:
        """Return whether it may submit any team's records and read the log."""
        return self.scope == "admin"

    def is_valid(self, now_s: float) -> bool:
        """Return whether it counts: neither revoked nor expired."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the audit log: ``added``, ``known`` and ``refused`` count records."""

    action: str
    token: str = ""
    name: str = ""
    team: str = ""
    address: str = ""
    added: int = 0
    known: int = 0
    refused: int = 0
    detail: str = ""
    time_s: float = 0.0
    id: int = 0


def open_ledger(path: str | Path, *, create: bool = False, clock: Callable[[], float] = time.time) -> Ledger:
    """Return an open ledger; use it in a ``with`` statement, or close it.

    Raises:
        StoreError: absent, not a ledger, not to be read, or of a newer lanaprof.
    """
    file = Path(path)
    if not file.exists():
        if not create:
            raise StoreError(
                f"there is no ledger {file}",
                hint="--ledger FILE names the hub's; the first `lanaprof hub token new NAME` makes one",
            )
        try:
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            pass  # another process was quicker
        except OSError as error:
            raise StoreError(
                f"the ledger {file} cannot be made: {error.strerror}", hint="check the folder"
            ) from error
    ledger = Ledger(file, clock)
    try:
        ledger.prepare()
    except BaseException:
        ledger.close()
        raise
    return ledger


class Ledger:
    """Tokens, sessions and the audit log. All methods may be called from several threads and processes at once."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            path, timeout=_BUSY_S, check_same_thread=False, isolation_level=None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def prepare(self) -> None:
        """Make the tables of a new file, and refuse a file that is none of ours."""
        with self._writing() as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if version == 0 and tables == 0:
                for statement in filter(str.strip, _TABLES.split(";")):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            elif (
                version != _VERSION
                or not connection.execute(
                    "SELECT count(*) FROM sqlite_master WHERE name = 'tokens'"
                ).fetchone()[0]
            ):
                raise StoreError(
                    f"{self.path} is no ledger this lanaprof can read",
                    hint="name another file: --ledger hub.db",
                )

    # Tokens

    def new_token(
        self, name: str, *, scope: str, team: str = "", lifetime_s: float | None = None
    ) -> tuple[Token, str]:
        """Return a new token with its secret, which is shown this once.

        Args:
            name: whose it is, for people.
            scope: read, write or admin.
            team: for write: whose records.
            lifetime_s: seconds until it expires; None: never.

        Raises:
            BadInput: a name or team that is empty or too long, or a scope that needs another team.
        """
        for what, text in (("name", name), ("team", team or "-")):
            if not text.strip() or len(text) > _LONGEST_NAME or not text.isprintable():
                raise BadInput(f"{what} {text!r} of a token: 1 to {_LONGEST_NAME} printable characters")
        if scope not in SCOPES:
            raise BadInput(f"scope {scope!r} is unknown", hint=f"one of {', '.join(SCOPES)}")
        if bool(team) != (scope == "write"):
            raise BadInput("a token that writes names its team, and no other does", hint="--team TEAM")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        now_s = self._clock()
        expires_s = None if lifetime_s is None else now_s + lifetime_s
        token = Token(
            id=secrets.token_hex(4), name=name, scope=scope, team=team, created_s=now_s, expires_s=expires_s,
            revoked_s=None,
        )  # fmt: skip
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?, NULL)",
                (token.id, _digest(secret), name, scope, team, now_s, expires_s),
            )
            _add_event(connection, _of(token, "token new", now_s, detail=scope))
        return token, secret

    def tokens(self) -> tuple[Token, ...]:
        """Return all tokens, oldest first, those that count no more too."""
        with self._reading() as connection:
            rows = connection.execute(f"{_SELECT_TOKEN} ORDER BY created_s, id").fetchall()
        return tuple(_token(row) for row in rows)

    def find_token(self, secret: str) -> Token | None:
        """Return the token of a secret, whether it still counts or not; None when there is none."""
        wanted = _digest(secret)
        with self._reading() as connection:
            row = connection.execute(f"{_SELECT_TOKEN} WHERE digest = ?", (wanted,)).fetchone()
        # Looked up by digest: how long that takes says nothing about secrets. Compared once more in constant time.
        return _token(row) if row is not None and hmac.compare_digest(row[7], wanted) else None

    def revoke(self, identity: str) -> Token:
        """Revoke a token at once, its browsers included, and return it; again changes nothing.

        Raises:
            BadInput: no token has this id.
        """
        now_s = self._clock()
        with self._writing() as connection:
            row = connection.execute(f"{_SELECT_TOKEN} WHERE id = ?", (identity,)).fetchone()
            if row is None:
                raise BadInput(f"no token has the id {identity!r}", hint="lanaprof hub token ls")
            token = _token(row)
            if token.revoked_s is None:
                connection.execute("UPDATE tokens SET revoked_s = ? WHERE id = ?", (now_s, identity))
                connection.execute("DELETE FROM sessions WHERE token = ?", (identity,))
                _add_event(connection, _of(token, "token revoke", now_s))
        return token

    # Browsers

    def sign_in(self, token: Token) -> str:
        """Return the secret of a new session, which ends with the token, by signing out, or after 12 hours."""
        secret, now_s = secrets.token_urlsafe(32), self._clock()
        with self._writing() as connection:
            connection.execute("DELETE FROM sessions WHERE expires_s <= ?", (now_s,))
            row = (_digest(secret), token.id, now_s + SESSION_S)
            connection.execute("INSERT INTO sessions VALUES (?, ?, ?)", row)
        return secret

    def find_session(self, secret: str) -> Token | None:
        """Return the token a session was signed in with, if both still count."""
        now_s = self._clock()
        session = "SELECT token FROM sessions WHERE digest = ? AND expires_s > ?"
        query = f"{_SELECT_TOKEN} WHERE id = ({session})"
        with self._reading() as connection:
            row = connection.execute(query, (_digest(secret), now_s)).fetchone()
        token = _token(row) if row is not None else None
        return token if token is not None and token.is_valid(now_s) else None

    def sign_out(self, secret: str) -> None:
        """End a session."""
        with self._writing() as connection:
            connection.execute("DELETE FROM sessions WHERE digest = ?", (_digest(secret),))

    # The log

    def now_s(self) -> float:
        """Return the time, in seconds since 1970."""
        return self._clock()

    def log(self, action: str, token: Token, **fields: Any) -> None:
        """Add a line about what a token did; the fields are those of `Event`."""
        with self._writing() as connection:
            _add_event(connection, _of(token, action, self._clock(), **fields))

    def events(self, *, before: int | None = None, limit: int = 100) -> tuple[Event, ...]:
        """Return lines of the log, the newest first.

        Args:
            before: only lines with a smaller id.
            limit: how many at most.
        """
        names = [name for name in Event.__slots__ if name != "id"]
        query = f"SELECT {', '.join(names)}, id FROM events WHERE id < ? ORDER BY id DESC LIMIT ?"  # noqa: S608
        with self._reading() as connection:
            rows = connection.execute(query, (2**62 if before is None else before, limit)).fetchall()
        return tuple(Event(**dict(zip([*names, "id"], row, strict=True))) for row in rows)

    # Inside

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"the ledger {self.path} failed: {error}", hint="is it a ledger?") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


_SELECT_TOKEN = "SELECT id, name, scope, team, created_s, expires_s, revoked_s, digest FROM tokens"  # noqa: S105


def _token(row: tuple[Any, ...]) -> Token:
    return Token(
        id=row[0],
        name=row[1],
        scope=row[2],
        team=row[3],
        created_s=row[4],
        expires_s=row[5],
        revoked_s=row[6],
    )


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _of(token: Token, action: str, now_s: float, **fields: Any) -> Event:
    return Event(action=action, token=token.id, name=token.name, team=token.team, time_s=now_s, **fields)


def _add_event(connection: sqlite3.Connection, event: Event) -> None:
    names = [name for name in Event.__slots__ if name != "id"]
    places = ", ".join("?" for _ in names)
    connection.execute(
        f"INSERT INTO events ({', '.join(names)}) VALUES ({places})",  # noqa: S608 (our own column names)
        [getattr(event, name) for name in names],
    )
