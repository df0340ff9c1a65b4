"""One worker at a time for a part of a host: a lock on the server, which ends with the connection that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import Engine, text

from lanaprof.errors import StoreError
from lanaprof.lut.engine import Location, translated_errors

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["PlaceLock"]

_SEED = 5_018_419  # of the lock's number, so that no other use of advisory locks meets ours


class PlaceLock:
    """A lock on the server that one worker holds for a part of a host, as long as its connection lives."""

    def __init__(self, engine: Engine, location: Location, place: str) -> None:
        self._engine, self._location, self._place = engine, location, place
        self._connection: Connection | None = None

    def take(self) -> bool:
        """Take it, and say whether that was possible.

        Raises:
            StoreError: the server cannot be asked.
        """
        if self.is_held():
            return True
        with translated_errors(self._location):
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                # A host that vanished without a word must not hold it for hours, as the server's defaults would.
                for name, seconds in (("idle", 20), ("interval", 10), ("count", 3)):
                    connection.execute(text(f"SET tcp_keepalives_{name} = {seconds}"))
                query = text("SELECT pg_try_advisory_lock(hashtextextended(:place, :seed))")
                taken = bool(connection.scalar(query, {"place": self._place, "seed": _SEED}))
            except BaseException:
                connection.invalidate()
                connection.close()
                raise
        if not taken:
            connection.close()
            return False
        self._connection = connection
        return True

    def is_held(self) -> bool:
        """Say whether the server still knows of it: a lock does not outlive its connection."""
        if self._connection is None:
            return False
        try:
            with translated_errors(self._location):
                self._connection.execute(text("SELECT 1"))
        except StoreError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Give it back: the connection is closed, not kept for others."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.invalidate()
            connection.close()
