"""Networks that the proving loop has timed, what of their latency must lie inside a budget, and how the loop ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.refusing import Refused
from lanaprof.lut import Measurement

__all__ = ["RESERVE", "Attempt", "Held", "Proof", "held_of", "mean_of", "noisy_line", "round_line"]

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


@dataclass(frozen=True, slots=True)
class Proof:
    """How the loop ended.

    Attributes:
        status: ``verified`` or ``over_budget``.
        choices: the answer, or the best attempt.
        score: its score.
        measurement: its latency, from a fresh process when verified.
        teacher: the teacher's, timed beside it; None when nothing was inside.
        rounds: campaigns of the loop.
        corrected: the predictor, corrected by all that was timed.
        allowed_s: up to this latency, by the corrected predictor, networks turned out to be inside the budget.
        factors: how much slower the machine was than at its calibration, in everything, in each campaign.
        too_noisy: whether in some campaign it repeated itself too badly to be trusted.
        budget_s: what the answer had to lie inside; of a relative budget, by the teacher timed beside it.
        fraction: of the teacher's latency, where the budget was relative.
        refused: networks that could not be built or run, with the reasons.
        suspects: candidates, by place and operation, that only these have.
    """

    status: str
    choices: Choices
    score: float
    measurement: Measurement
    teacher: Measurement | None
    rounds: int
    corrected: Predictor
    allowed_s: float
    factors: tuple[float, ...]
    too_noisy: bool
    budget_s: float
    fraction: float | None
    refused: tuple[Refused, ...] = ()
    suspects: tuple[tuple[str, str], ...] = ()

    @property
    def predicted_s(self) -> float:
        """Return what the corrected predictor says of the answer."""
        return self.corrected.predict(self.choices).latency_s

    @property
    def common_factor(self) -> float:
        """Return how much slower the machine was than at its calibration, on average over the campaigns."""
        return mean_of(self.factors)


def held_of(
    attempt: Attempt, usual: float, budget_s: float, *, fraction: float | None, teacher: Measurement
) -> Held:
    """Judge a network that was timed once more.

    Args:
        attempt: the network.
        usual: the machine's factor, averaged over the campaigns.
        budget_s: what it must lie inside at that speed, where the budget is absolute.
        fraction: of the teacher, where the budget is relative: then both are of one campaign, whatever its speed.
        teacher: timed beside it.
    """
    if fraction is None:
        held_s = attempt.held_s(usual)
    else:
        held_s, budget_s = attempt.confirmed_high_s, fraction * (teacher.latency_s or 0.0)
    return Held(attempt.measurement, held_s, budget_s)


def round_line(rounds: int, attempts: Iterable[Attempt], inside: Sequence[Attempt], budget_s: float) -> str:
    """Return how far the loop is, for people."""
    if not inside:
        nearest_s = min(attempt.confirmed_high_s for attempt in attempts)
        return f"round {rounds}: nothing inside yet, the nearest is {nearest_s / budget_s:.1%} of the budget"
    return f"round {rounds}: best inside uses {inside[0].latency_s / budget_s:.1%} of the budget"


def noisy_line(repeatability: tuple[float, float]) -> str:
    """Return, for people, how badly two builds of one network repeat: median and 95 % point."""
    median, high = repeatability
    return (
        f"too noisy: two builds of one network differ by {median:.1%}, some by {high:.1%}; stop what else runs here "
        "(lanaprof doctor says what), then select again"
    )


def mean_of(factors: Sequence[float]) -> float:
    """Return the mean of the machine's factors; 1 where there is none yet."""
    return sum(factors) / len(factors) if factors else 1.0
