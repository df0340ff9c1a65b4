"""Operators by what became of them, counted alike by ``measure`` and by the farm's workers."""

from __future__ import annotations

from dataclasses import dataclass

from lanaprof.lut import Measurement

__all__ = ["Tally"]

_STATES = ("noisy", "failed", "unsupported", "timeout")


@dataclass(slots=True)
class Tally:
    """Operators by what became of them; ``noisy`` ones have a latency, too, and count as measured."""

    measured: int = 0
    reused: int = 0
    noisy: int = 0
    failed: int = 0
    unsupported: int = 0
    timeout: int = 0

    def count(self, record: Measurement) -> None:
        """Count a record."""
        if record.status in ("ok", "noisy"):
            self.measured += 1
        if record.status != "ok":
            setattr(self, record.status, getattr(self, record.status) + 1)

    @property
    def words(self) -> str:
        """Return the counts for people: ``690 measured, 5 reused, 2 failed``."""
        parts = [f"{self.measured} measured", f"{self.reused} reused"]
        return ", ".join(
            parts + [f"{getattr(self, state)} {state}" for state in _STATES if getattr(self, state)]
        )
