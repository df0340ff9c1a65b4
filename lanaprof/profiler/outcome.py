"""What goes into a campaign's records from outside, what it tells on the way, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lanaprof.errors import BackendError, OperatorTimeout, UnsupportedOperator
from lanaprof.lut.records import Measurement

__all__ = ["CampaignResult", "Progress", "Provenance", "said", "status_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who measures: goes into every record."""

    team: str
    host: str
    tool_version: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a campaign is.

    Attributes:
        done, total: operators ended, and asked for.
        left_s: estimated seconds to the end.
        text: what is going on.
    """

    done: int
    total: int
    left_s: float
    text: str


@dataclass(slots=True)
class CampaignResult:
    """What a campaign did.

    Attributes:
        counts: records by status.
        measurements: by operator.
        copies: the latency of further builds, in seconds, by operator; they are no records.
        clean, rejected: samples that count, and that were disturbed.
        drift: low and high drift factor (5 % and 95 % points of the visits) over the batches.
        incomplete: whether a limit cut it short.
        workers: how many processes measured at once.
        slowdown: by how much they slow each other, as a share, where that was looked at.
    """

    counts: dict[str, int] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    copies: dict[str, float] = field(default_factory=dict)
    clean: int = 0
    rejected: int = 0
    drift: tuple[float, float] = (1.0, 1.0)
    incomplete: bool = False
    workers: int = 1
    slowdown: float | None = None

    def take(self, record: Measurement) -> None:
        """Count a record."""
        self.counts[record.status] = self.counts.get(record.status, 0) + 1
        self.measurements[record.operator] = record


def said(conditions: Mapping[str, str]) -> list[str]:
    """Return what a record says of the conditions that have no field of their own."""
    return [f"{name}: {text}" for name, text in conditions.items() if name != "priority"]


def status_of(error: BackendError) -> str:
    """Return the status of a measurement that came to nothing.

    >>> status_of(UnsupportedOperator("no kernel")), status_of(BackendError("it broke"))
    ('unsupported', 'failed')
    """
    if isinstance(error, UnsupportedOperator):
        return "unsupported"
    return "timeout" if isinstance(error, OperatorTimeout) else "failed"
