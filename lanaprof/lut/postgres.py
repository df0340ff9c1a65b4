"""PostgreSQL: connections that time out rather than hang, and the server's errors in plain words.

Reads run in REPEATABLE READ, so that several queries of one read see one state. Writes run in READ COMMITTED and
insert with ``ON CONFLICT DO NOTHING``: ids are digests of content, so two writers of one record do not disturb each
other, and a write whose answer was lost may be sent again.
"""

from __future__ import annotations

import logging
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from lanaprof.errors import StoreError

__all__ = [
    "DRIVERS",
    "explained",
    "may_be_repeated",
    "postgres_arguments",
    "postgres_engine",
    "without_passwords",
]

DRIVERS = ("postgresql", "postgresql+psycopg")
"""What a URL may start with; psycopg 3 is the driver in any case."""

CONNECT_TIMEOUT_S = 10  # of each address of the host
STATEMENT_TIMEOUT_S = 600  # one statement; while streaming, one batch of rows
LOCK_TIMEOUT_S = 30  # as long as a writer queues at a SQLite file
_SECRETS = ("password", "sslpassword", "passfile")
_POOL = 2  # connections kept: one that streams and one that writes
_OVERFLOW = 8  # more while several threads ask at once
_KEEPALIVE = {  # a server that vanished without a word is noticed within a minute
    "keepalives_idle": "20",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",  # milliseconds
}


def without_passwords(url: URL) -> str:
    """Return a URL's text without any password, also of those among its options."""
    hidden = {name: "***" for name in _SECRETS if name in url.query}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def postgres_arguments(url: URL) -> dict[str, Any]:
    """Return what psycopg's own connect takes for a URL, for those who connect without an engine."""
    dialect: Any = url.set(drivername="postgresql+psycopg").get_dialect()()
    _, arguments = dialect.create_connect_args(url)
    return {**_defaults(url), **arguments}


def _defaults(url: URL) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "connect_timeout": str(CONNECT_TIMEOUT_S),
        "application_name": "lanaprof",
        "client_encoding": "utf8",
        **_KEEPALIVE,
    }
    return {name: value for name, value in defaults.items() if name not in url.query}


def postgres_engine(url: URL, *, readonly: bool = False) -> Engine:
    """Return an engine for a server's database; the caller disposes of it. Connects on first use.

    Args:
        url: with one of `DRIVERS`; options of libpq in its query come before the ones set here.
        readonly: the server refuses to write.

    Raises:
        StoreError: the driver is not installed.
    """
    given = _defaults(url)
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args=given,
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,  # a connection that broke while idle is replaced unnoticed
            pool_size=_POOL,
            max_overflow=_OVERFLOW,
            pool_timeout=LOCK_TIMEOUT_S,
        )
    except ImportError as error:
        raise StoreError(
            f"the PostgreSQL driver is not installed ({error})", hint='pip install "lanaprof[postgres]"'
        ) from None

    # The driver warns of every lost connection; we take it up again, or say so in words of our own.
    log = logging.getLogger("psycopg")
    if log.level in (logging.NOTSET, logging.WARNING):  # WARNING is what the driver itself sets
        log.setLevel(logging.ERROR)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _: Any) -> None:
        # Not by the startup option `options`, which connection poolers refuse; in one statement, hence one journey.
        wanted = [
            f"set_config('statement_timeout', '{STATEMENT_TIMEOUT_S}s', false)",
            f"set_config('lock_timeout', '{LOCK_TIMEOUT_S}s', false)",
            # Where it is off, a crash of the server loses what it acknowledged. A stricter setting stays.
            "CASE current_setting('synchronous_commit') WHEN 'off' "
            "THEN set_config('synchronous_commit', 'local', false) END",
        ]
        if readonly:
            wanted.append("set_config('default_transaction_read_only', 'on', false)")
        cursor = connection.cursor()
        cursor.execute(f"SELECT {', '.join(wanted)}")
        cursor.close()
        connection.commit()

    return engine


def may_be_repeated(error: SQLAlchemyError) -> bool:
    """Return whether a transaction failed for a reason that passes: the connection, a deadlock, a restart."""
    if not isinstance(error, DBAPIError):
        return False
    state = _state(error)
    if error.connection_invalidated or state.startswith(("08", "40")):
        return True
    if state in ("57P01", "57P02", "57P03"):  # shut down, crashed, cannot connect now
        return True
    text = str(error.orig).lower()
    return not state and any(part in text for part in _PASSING)


_PASSING = (
    "connection refused",
    "no such file or directory",  # the socket of a server that is restarting
    "the database system is",  # starting up, shutting down, in recovery mode
    "server closed the connection",
    "terminating connection",
    "connection reset",
    "connection is lost",
    "the connection is closed",
    "connection timeout expired",
    "could not receive data",
    "could not send data",
    "ssl connection has been closed",
)

_GRANTS = "ask its owner for the rights; docs/sharing.md has the GRANT statements"
_ALONE = "give lanaprof a database of its own: createdb NAME"
_BY_STATE = {  # SQLSTATE or its class → problem, hint; server messages may be in any language
    "28": (
        "refuses the user or the password",
        "check both; a password may stand in ~/.pgpass or PGPASSWORD",
    ),
    "3D000": ("does not exist on its server", "createdb NAME, or check the URL's last part"),
    "42501": ("does not grant this user the rights that are needed", _GRANTS),
    "25006": ("is read-only", "connect as a user who may write, and to the primary server, not to a standby"),
    "42P07": ("has tables of another program with the same names", _ALONE),
    "42P01": (
        "is damaged: its tables are not those of its schema",
        "`lanaprof lut check` says more; restore a backup",
    ),
    "42703": (
        "is damaged: its tables are not those of its schema",
        "`lanaprof lut check` says more; restore a backup",
    ),
    "53100": ("does not fit on its server's disk any more", "make room there; nothing stored was harmed"),
    "53300": (
        "has no connection left",
        "raise max_connections on the server, or let fewer programs use it at once",
    ),
    "55P03": (
        f"has been locked by others for {LOCK_TIMEOUT_S} seconds",
        "wait for them (an upgrade, a backup), then try again",
    ),
    "57014": (
        f"did not answer within {STATEMENT_TIMEOUT_S} seconds",
        "look for what keeps the server busy, then try again",
    ),
    "22P05": ("cannot hold all characters", "make it with ENCODING 'UTF8' TEMPLATE template0"),
    "40": ("was changed by others at the same moment, again and again", "try again"),
}
_BY_TEXT = (  # what fails before there is a connection has no SQLSTATE: PostgreSQL's and libpq's own words
    ("password authentication failed", "28"),
    ("no password supplied", "28"),
    ("authentication failed", "28"),
    ("is not permitted to log in", "28"),
    ("permission denied for database", "42501"),
    ("too many clients", "53300"),
    ("too many connections", "53300"),
    ("connection slots are reserved", "53300"),
)


def explained(error: BaseException, shown: str) -> StoreError | None:
    """Return a server's error in plain words; None for errors of other kinds.

    Args:
        error: what was raised.
        shown: the database's URL without a password.
    """
    if not isinstance(error, DBAPIError):
        return None
    cause = str(error.orig).strip()
    lowered = cause.lower()
    state = _state(error)
    if not state:
        state = next((state for part, state in _BY_TEXT if part in lowered), "")
        if not state and 'database "' in lowered and "does not exist" in lowered:
            state = "3D000"
        elif not state and 'role "' in lowered and "does not exist" in lowered:
            state = "28"
    for known in (state, state[:2]):
        if known in _BY_STATE:
            problem, hint = _BY_STATE[known]
            return StoreError(f"the database {shown} {problem}: {_first_line(cause)}", hint=hint)
    if not state or state.startswith(("08", "57", "53")):
        problem, hint = (
            "cannot be used",
            "check that the PostgreSQL server is running and that the URL is right",
        )
        if "resolve host" in lowered or "could not translate host" in lowered:
            problem, hint = "cannot be reached: its host is unknown", "check the host in the URL"
        elif "pg_hba.conf" in lowered:
            problem, hint = "is not open to this machine or user", "ask its owner for a line in pg_hba.conf"
        return StoreError(f"the database {shown} {problem}: {_first_line(cause)}", hint=hint)
    return None


def _state(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _first_line(cause: str) -> str:
    """Return what a server said, without the lines about where in the statement."""
    lines = [line.strip() for line in cause.splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"
