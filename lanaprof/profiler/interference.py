"""Whether processes that measure at once disturb each other: a judgement of samples, as pure functions.

Cores of their own do not make processes independent: they share the last cache, the memory and its bandwidth, and the
clock that the processor can hold with so many cores busy. All of that slows every run alike and marks none, so no
filter of samples finds it. It is found by comparison: one worker alone, then the same worker among all, in turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.statistics import clean_samples

__all__ = ["SLOWDOWN_LIMIT", "Interference", "find_interference"]

SLOWDOWN_LIMIT = 0.02  # what campaigns of one process differ by among themselves
_QUANTILE = 0.10  # as campaigns estimate
_RESAMPLES = 200

Floats = npt.NDArray[np.float64]
Samples = Mapping[str, Sequence[tuple[int, RawSample]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interference:
    """How much slower operators run while other workers measure.

    Attributes:
        workers: how many measured at once.
        slowdown: latency among all over latency alone, less 1: the median of the operators.
        low, high: its 95 % interval, from drawing whole cycles again.
        worst: the slow-down of the operator that suffers most; with few samples it is mostly noise.
        operators: how many were compared.
    """

    workers: int
    slowdown: float
    low: float
    high: float
    worst: float
    operators: int

    @property
    def tolerable(self) -> bool:
        """Say whether so many may measure at once."""
        return self.slowdown <= SLOWDOWN_LIMIT

    @property
    def decided(self) -> bool:
        """Say whether the interval lies on one side of the limit."""
        return self.low > SLOWDOWN_LIMIT or self.high <= SLOWDOWN_LIMIT


def find_interference(
    alone: Samples, together: Samples, *, workers: int, threads: int, seed: int = 0
) -> Interference:
    """Return how much one worker's operators are slowed by the others.

    The ratio of the 10 % quantiles per operator, and the median of these. A cycle, one phase alone and one among all,
    shares its moment, so the interval draws whole cycles again (cluster bootstrap), the same for all operators.

    Args:
        alone: operator → (cycle, sample) pairs while the others waited.
        together: likewise while all ran.
        workers: how many ran then.
        threads: threads of a run.
        seed: of the drawing; equal input gives equal output.

    Raises:
        ValueError: no operator has samples of both kinds.
    """
    pairs = [
        (_by_cycle(alone[key], threads), _by_cycle(together[key], threads))
        for key in sorted(alone)
        if alone[key] and together.get(key)
    ]
    if not pairs:
        raise ValueError("no operator was timed both alone and among all workers")
    cycles = np.array(sorted({cycle for pair in pairs for side in pair for cycle in side}))
    ratios = _ratios(pairs, cycles)
    generator = np.random.default_rng(seed)
    drawn = [_ratios(pairs, generator.choice(cycles, len(cycles))) for _ in range(_RESAMPLES)]
    low, high = np.quantile([np.median(each) for each in drawn if each.size], [0.025, 0.975])
    slowdown = float(np.median(ratios)) - 1.0
    return Interference(
        workers=workers,
        slowdown=slowdown,
        low=min(float(low) - 1.0, slowdown),
        high=max(float(high) - 1.0, slowdown),
        worst=float(ratios.max()) - 1.0,
        operators=len(pairs),
    )


def _by_cycle(samples: Sequence[tuple[int, RawSample]], threads: int) -> dict[int, Floats]:
    clean = clean_samples(samples, threads=threads)
    seconds, numbers = np.array(clean.seconds), np.array(clean.rounds)
    return {int(number): seconds[numbers == number] for number in np.unique(numbers)}


def _ratios(
    pairs: Sequence[tuple[dict[int, Floats], dict[int, Floats]]], cycles: npt.NDArray[np.int64]
) -> Floats:
    """Return each operator's latency among all over that alone, of those with samples in the cycles."""
    found = []
    for alone, together in pairs:
        before, after = (
            [side[cycle] for cycle in cycles.tolist() if cycle in side] for side in (alone, together)
        )
        if before and after:
            found.append(_low(np.concatenate(after)) / _low(np.concatenate(before)))
    return np.array(found)


def _low(values: Floats) -> float:
    """Return the low quantile as one of the values: a hundred times faster than interpolating, and as good here."""
    place = int(_QUANTILE * (len(values) - 1))
    return float(np.partition(values, place)[place])
