"""One worker at a time for a part of a host: a lock on the server, and beside it a note of who holds it.

The lock ends with the connection that holds it, so it ends when the server restarts, while its holder still measures.
The note outlives that: whoever finds the lock free waits until its last holder has been silent, with the server up,
for as long as a dead worker is. A holder that comes back meanwhile takes its lock again.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Literal

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from lanaprof.errors import StoreError
from lanaprof.lut.engine import Location, translated_errors

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["PLACES_TABLE", "PlaceLock"]

PLACES_TABLE = """
CREATE TABLE lanaprof_places (
    place text PRIMARY KEY, holder text NOT NULL, seen timestamptz NOT NULL DEFAULT clock_timestamp());
"""
_SEED = 5_018_419  # of the lock's number, so that no other use of advisory locks meets ours
_TRY = "SELECT pg_try_advisory_lock(hashtextextended(:place, :seed))"
_SILENT_S = """
SELECT extract(epoch FROM clock_timestamp() - greatest(seen, pg_postmaster_start_time()))::float
FROM lanaprof_places WHERE place = :place AND holder <> :holder
"""
_NOTE = """
INSERT INTO lanaprof_places (place, holder) VALUES (:place, :holder)
ON CONFLICT (place) DO UPDATE SET holder = excluded.holder, seen = clock_timestamp()
"""
_ERASE = "DELETE FROM lanaprof_places WHERE place = :place AND holder = :holder"


class PlaceLock:
    """The lock of one place, for one holder. Its methods block; threads take turns.

    Args:
        engine: of the queue.
        location: of the server, for messages.
        place: a part of a host.
        holder: unlike all others' texts.
        silent_s: a holder not heard of for so long is dead.
    """

    def __init__(
        self, engine: Engine, location: Location, *, place: str, holder: str, silent_s: float
    ) -> None:
        self._engine, self._location, self._silent_s = engine, location, silent_s
        self._names = {"place": place, "holder": holder}
        self._connection: Connection | None = None
        self._turn = threading.RLock()

    def take(self) -> Literal["taken", "locked", "waiting"]:
        """Take it, or say that it is locked, or that its last holder may still be alive.

        Raises:
            StoreError: the server cannot be asked.
        """
        with self._turn:
            return "taken" if self.keep() else self._take()

    def _take(self) -> Literal["taken", "locked", "waiting"]:
        with translated_errors(self._location):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                # A host that vanished without a word must not hold it for hours, as the server's defaults would.
                for name, seconds in (("idle", 20), ("interval", 10), ("count", 3)):
                    connection.execute(text(f"SET tcp_keepalives_{name} = {seconds}"))
                if not connection.scalar(text(_TRY), {**self._names, "seed": _SEED}):
                    connection.close()
                    return "locked"
                silent_s = connection.scalar(text(_SILENT_S), self._names)
                if silent_s is not None and silent_s < self._silent_s:
                    _end(connection)
                    return "waiting"
                connection.execute(text(_NOTE), self._names)
            except BaseException:
                _end(connection)
                raise
        self._connection = connection
        return "taken"

    def keep(self) -> bool:
        """Note that its holder lives; say whether the server still knows of the lock."""
        with self._turn:
            if self._connection is None:
                return False
            try:
                with translated_errors(self._location):
                    self._connection.execute(text(_NOTE), self._names)
            except StoreError:
                self.drop()
                return False
            return True

    def give_back(self) -> None:
        """End it in order: others need not wait."""
        with self._turn:
            if self.keep():
                assert self._connection is not None
                with translated_errors(self._location):
                    self._connection.execute(text(_ERASE), self._names)
            self.drop()

    def drop(self) -> None:
        """End its connection, if there is one."""
        with self._turn:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                _end(connection)


def _end(connection: Connection) -> None:
    """Close a connection for good: in the pool it would keep the lock."""
    with contextlib.suppress(SQLAlchemyError):  # lost already: then the lock is, too
        # Not left to the server, which notices a closed connection a moment later.
        connection.execute(text("SELECT pg_advisory_unlock_all()"))
    connection.invalidate()
    connection.close()
