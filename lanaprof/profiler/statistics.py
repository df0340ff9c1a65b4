"""From raw samples to an estimate with an interval.

Disturbance only adds time: the distribution is a sharp floor with a tail that follows the neighbours, so the
estimate is a low quantile over many short visits. Samples of one round share their conditions, so the interval
resamples whole rounds (cluster bootstrap, Field and Welsh 2007), never single samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lanaprof.profiler.clock import RawSample

__all__ = ["CleanSamples", "Interval", "Visit", "clean_samples", "drift_factors", "estimate"]

Floats = npt.NDArray[np.float64]

_OVERHEAD_NS = 3000  # the two clock reads around a run
_PREEMPTED = 1.02  # wall time beyond 1.02 × CPU time: the thread waited for something
_CLEAN_SHARE = 0.25  # fewer clean samples than this: the machine is loaded, use CPU time
_RESAMPLES = 200
_NORMAL_95 = 1.96  # standard deviations to either side that hold 95 %


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate in seconds with its 95 % interval."""

    latency_s: float
    ci_low_s: float
    ci_high_s: float

    @property
    def half_width(self) -> float:
        """Return half the interval's width as a share of the estimate."""
        return (self.ci_high_s - self.ci_low_s) / 2 / self.latency_s

    def widened(self, deviation: float) -> Interval:
        """Return the interval with a further, independent error in it: its relative standard deviation."""
        more_s = _NORMAL_95 * deviation * self.latency_s
        return Interval(
            self.latency_s,
            max(0.0, self.latency_s - math.hypot(self.latency_s - self.ci_low_s, more_s)),
            self.latency_s + math.hypot(self.ci_high_s - self.latency_s, more_s),
        )


@dataclass(frozen=True, slots=True)
class CleanSamples:
    """The samples that count, in seconds, with the round each came from.

    Attributes:
        rejected: how many samples were not clean.
        clock: ``wall``, or ``thread_cpu`` where hardly any run stayed undisturbed.
    """

    seconds: tuple[float, ...]
    rounds: tuple[int, ...]
    rejected: int
    clock: str


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of one operator: when it began, and its fastest clean run, both in seconds."""

    operator: str
    start_s: float
    fastest_s: float


def clean_samples(samples: Sequence[tuple[int, RawSample]], *, threads: int) -> CleanSamples:
    """Return the undisturbed samples.

    A sample is clean when its thread was not descheduled: no involuntary switch and, with one thread, as much CPU
    time as wall time. On a machine so loaded that hardly any is clean, one thread falls back to CPU time.

    Args:
        samples: (round, sample) pairs.
        threads: threads of a run; with several, the caller may rightly wait.
    """
    kept, rounds = [], []
    for number, sample in samples:
        waited = threads == 1 and sample.wall_ns > _PREEMPTED * sample.cpu_ns + _OVERHEAD_NS
        if sample.switches == 0 and not waited:
            kept.append(sample.wall_ns / 1e9)
            rounds.append(number)
    rejected = len(samples) - len(kept)
    if threads == 1 and len(kept) < max(1, _CLEAN_SHARE * len(samples)):
        seconds = tuple(sample.cpu_ns / 1e9 for _, sample in samples)
        return CleanSamples(seconds, tuple(number for number, _ in samples), rejected, "thread_cpu")
    if not kept:  # several threads, none undisturbed: wall time it is, and the interval will say so
        seconds = tuple(sample.wall_ns / 1e9 for _, sample in samples)
        return CleanSamples(seconds, tuple(number for number, _ in samples), rejected, "wall")
    return CleanSamples(tuple(kept), tuple(rounds), rejected, "wall")


def estimate(
    seconds: Sequence[float] | Floats, rounds: Sequence[int], *, quantile: float = 0.10, seed: int = 0
) -> Interval:
    """Return the low quantile of the samples with a cluster-bootstrap interval over rounds.

    Args:
        seconds: clean samples, possibly corrected for drift.
        rounds: the round of each sample.
        quantile: 0.10 for the tenth percentile.
        seed: of the resampling; equal input gives equal output.
    """
    values = np.asarray(seconds, dtype=np.float64)
    numbers = np.asarray(rounds)
    point = float(np.quantile(values, quantile))
    clusters = [values[numbers == number] for number in np.unique(numbers)]
    if len(clusters) < 2:
        return Interval(point, float(values.min()), float(values.max()))
    width = max(len(cluster) for cluster in clusters)
    table = np.full((len(clusters), width), np.nan)
    for row, cluster in zip(table, clusters, strict=True):
        row[: len(cluster)] = cluster
    chosen = np.random.default_rng(seed).integers(0, len(clusters), (_RESAMPLES, len(clusters)))
    resampled = table[chosen].reshape(_RESAMPLES, -1)
    if np.isnan(resampled).any():
        estimates = np.nanquantile(resampled, quantile, axis=1)
    else:
        estimates = np.quantile(resampled, quantile, axis=1)
    low, high = np.quantile(estimates, [0.025, 0.975])
    return Interval(point, min(float(low), point), max(float(high), point))


def drift_factors(visits: Sequence[Visit], *, window: int = 31, iterations: int = 3) -> Floats:
    """Return how much slower than its calm the machine was at each visit.

    Every visit's fastest run is compared with its operator's current estimate; the running lower quartile of
    these ratios over the visits around it is the drift all operators share. Dividing samples by the factors takes
    it out. The calmest quarter of the time has factor 1.

    Args:
        visits: of all operators of a batch, in order of time.
        window: how many visits around each count; 0 for no correction.
        iterations: of estimating operators and drift in turn.
    """
    if not visits or not window:
        return np.ones(len(visits))
    names = {name: index for index, name in enumerate(dict.fromkeys(visit.operator for visit in visits))}
    which = np.array([names[visit.operator] for visit in visits])
    groups = [np.flatnonzero(which == index) for index in range(len(names))]
    fastest = np.log(np.array([visit.fastest_s for visit in visits]))
    factor = np.zeros(len(visits))
    for _ in range(iterations):
        corrected = fastest - factor
        base = np.array([np.quantile(corrected[group], 0.10) for group in groups])
        running = _running_quantile(fastest - base[which], window // 2, 0.25)
        factor = running - np.quantile(running, 0.25)
    drift: Floats = np.exp(factor)
    return drift


def _running_quantile(values: Floats, half: int, quantile: float) -> Floats:
    """Return the quantile of the values up to ``half`` places before and behind each."""
    count = len(values)
    running = np.empty(count)
    inner = range(half, count - half)
    if inner:
        windows = np.lib.stride_tricks.sliding_window_view(values, 2 * half + 1)
        running[half : count - half] = np.quantile(windows, quantile, axis=1)
    for index in (i for i in range(count) if i not in inner):
        running[index] = np.quantile(values[max(0, index - half) : index + half + 1], quantile)
    return running
