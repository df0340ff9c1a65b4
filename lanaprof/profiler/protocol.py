"""Protocols: named and versioned ways of timing. A change of what a number means is a new version."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HOT", "NETWORK", "RELAY", "Protocol"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """One way of timing.

    Attributes:
        name, version: printed as ``relay/1`` in every measurement.
        cache: the cache state its numbers stand for.
        warmups, recorded: passes of a visit that are not recorded, and that are.
        rounds_min, rounds_max: visits of every operator.
        rebuild_every: rounds after which all sessions are built anew (addresses and layouts vary by build).
        tolerance: an operator ends when its 95 % interval's half-width is below this share of the estimate.
        noisy_above: beyond this share at the end, its state is ``noisy``.
        spread_s: the rounds of a batch cover at least this time, unless rounds_max are done; where they are short,
            more of them fit in, with pauses in between.
        longest_s: a batch ends after this time, its rounds_min done, however wide its intervals are.
        quantile: the estimate is this low quantile of the clean samples.
        between: standard deviation between campaigns, as a share. A recorded interval covers it: another campaign is
            what one compares with, and the rounds of one do not show it.
        drift_window: samples are corrected for the drift that this many visits around them share; 0 for not at all.
        together: whether operators end together, so that each is timed at all the times of the others.
    """

    name: str
    version: int
    cache: str
    warmups: int
    recorded: int
    rounds_min: int
    rounds_max: int
    rebuild_every: int
    tolerance: float = 0.01
    noisy_above: float = 0.10
    spread_s: float = 20.0
    longest_s: float = 75.0
    quantile: float = 0.10
    between: float = 0.0
    drift_window: int = 31
    together: bool = False

    @property
    def text(self) -> str:
        """Return ``name/version``."""
        return f"{self.name}/{self.version}"


RELAY = Protocol(
    name="relay", version=2, cache="relay", warmups=1, recorded=2, rounds_min=24, rounds_max=60,
    rebuild_every=30, spread_s=18.0,
    tolerance=0.02,  # a network sums dozens of operators, whose errors average out
    between=0.02,  # 1 to 4 % of it common to all operators
    drift_window=0,  # neighbours in time are neighbours in the network: what they share is no drift alone
)  # fmt: skip
HOT = Protocol(
    name="hot", version=1, cache="hot", warmups=1, recorded=4, rounds_min=6, rounds_max=24, rebuild_every=6,
    spread_s=3.0, between=0.015,
)  # fmt: skip
NETWORK = Protocol(
    name="network", version=2, cache="hot", warmups=1, recorded=3, rounds_min=18, rounds_max=96,
    rebuild_every=200,
    quantile=0.25, drift_window=9,  # neighbours disturb for tenths of a second: some visits of whole networks
    together=True,
)  # fmt: skip
