"""Networks that the proving loop has timed, and what of their latency must lie inside a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lanaprof.flows.operators import Choices
from lanaprof.lut import Measurement

__all__ = ["RESERVE", "Attempt", "Held", "round_line"]

RESERVE = 0.010  # of the latency: what the machine as a whole may be slower than its average at another time


@dataclass(frozen=True, slots=True)
class Held:
    """What a network took beside the others.

    Attributes:
        measurement: in that campaign.
        held_s: what must lie inside the budget: the end of its interval, or its latency at the machine's usual speed.
        budget_s: the budget.
    """

    measurement: Measurement
    held_s: float
    budget_s: float

    @property
    def inside(self) -> bool:
        """Return whether it lies inside."""
        return self.held_s <= self.budget_s


@dataclass(frozen=True, slots=True)
class Attempt:
    """A network that was timed.

    Attributes:
        choices: its operations.
        score: its score.
        measurement: what it took.
        factor: how much slower the machine was in that campaign than at its calibration, in everything.
        refuted: timed once more it was over the budget; it is not tried a third time.
    """

    choices: Choices
    score: float
    measurement: Measurement
    factor: float
    refuted: bool = False

    @property
    def latency_s(self) -> float:
        """Return what it took."""
        assert self.measurement.latency_s is not None
        return self.measurement.latency_s

    @property
    def confirmed_high_s(self) -> float:
        """Return the end of its interval."""
        assert self.measurement.ci_high_s is not None
        return self.measurement.ci_high_s

    def level_s(self, factor: float) -> float:
        """Return what it would take on the machine at another factor."""
        return self.latency_s * factor / self.factor

    def high_s(self, factor: float) -> float:
        """Return what must lie inside the budget: the end of its interval, and what it may take at another time.

        Args:
            factor: the machine's, averaged over the campaigns so far.
        """
        return max(self.confirmed_high_s, self.level_s(factor) * (1 + RESERVE))

    def held_s(self, factor: float) -> float:
        """Return what must lie inside the budget when it is timed once more; no reserve is asked a second time."""
        return max(self.confirmed_high_s, self.level_s(factor))


def round_line(rounds: int, attempts: Iterable[Attempt], inside: Sequence[Attempt], budget_s: float) -> str:
    """Return how far the loop is, for people."""
    if not inside:
        nearest_s = min(attempt.confirmed_high_s for attempt in attempts)
        return f"round {rounds}: nothing inside yet, the nearest is {nearest_s / budget_s:.1%} of the budget"
    return f"round {rounds}: best inside uses {inside[0].latency_s / budget_s:.1%} of the budget"
