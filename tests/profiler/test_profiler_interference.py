"""Interference: ratios of low quantiles, with an interval that holds the truth."""

from __future__ import annotations

import random

import pytest

from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.interference import SLOWDOWN_LIMIT, Interference, find_interference

Samples = dict[str, list[tuple[int, RawSample]]]


def samples(latencies_us: dict[str, float], *, noise: float = 0.0, cycles: int = 6, seed: int = 0) -> Samples:
    """Return samples on one thread: a floor, and noise that only adds, common to a cycle and of each run."""
    generator = random.Random(seed)
    made: Samples = {key: [] for key in latencies_us}
    for cycle in range(cycles):
        common = 1 + noise / 4 * generator.random()
        for key, latency_us in latencies_us.items():
            for _ in range(20):
                wall_ns = round(1000 * latency_us * common * (1 + noise * generator.expovariate(1)))
                made[key].append((cycle, RawSample(0, wall_ns, wall_ns, 0)))
    return made


def test_the_median_ratio_is_the_slowdown() -> None:
    """Without noise: +1 %, +3 % and +10 % are 3 % in the median and 10 % at worst, exactly known."""
    alone = samples({"a": 100.0, "b": 200.0, "c": 400.0})
    together = samples({"a": 101.0, "b": 206.0, "c": 440.0})

    found = find_interference(alone, together, workers=2, threads=1)

    assert pytest.approx((0.03, 0.03, 0.03, 0.10)) == (found.slowdown, found.low, found.high, found.worst)
    assert (2, 3) == (found.workers, found.operators)
    assert (found.tolerable, found.decided) == (False, True)


def test_workers_that_do_not_disturb_each_other_are_tolerable() -> None:
    """Equal latencies are no slow-down, though runs scatter by several per cent."""
    latencies = {f"o{number}": 50.0 + number for number in range(9)}

    found = find_interference(
        samples(latencies, noise=0.05, seed=1), samples(latencies, noise=0.05, seed=2), workers=4, threads=1
    )

    assert found.tolerable
    assert abs(found.slowdown) < 0.01


def test_the_interval_holds_the_truth() -> None:
    """Over forty noisy probes of a slow-down of 2 %, nominal 95 % intervals hold it at least 34 times."""
    latencies = {f"o{number}": 50.0 + number for number in range(5)}
    slower = {key: 1.02 * latency for key, latency in latencies.items()}
    held = 0
    for seed in range(40):
        found = find_interference(
            samples(latencies, noise=0.05, cycles=8, seed=seed),
            samples(slower, noise=0.05, cycles=8, seed=1000 + seed),
            workers=2,
            threads=1,
        )
        held += found.low <= 0.02 <= found.high

    assert held >= 34


def test_interrupted_runs_do_not_count() -> None:
    """Every other run of the crowded phase is interrupted and ten times as long: no slow-down."""
    alone = samples({"a": 100.0})
    together = {
        "a": [
            (cycle, sample if place % 2 else RawSample(0, 10 * sample.wall_ns, sample.cpu_ns, 1))
            for place, (cycle, sample) in enumerate(alone["a"])
        ]
    }

    assert 0.0 == find_interference(alone, together, workers=2, threads=1).slowdown


def test_an_interval_across_the_limit_decides_nothing() -> None:
    """Only an interval on one side of the limit ends the probe early."""
    found = Interference(workers=2, slowdown=0.019, low=0.01, high=0.03, worst=0.05, operators=8)

    assert found.slowdown < SLOWDOWN_LIMIT
    assert (found.tolerable, found.decided) == (True, False)


def test_nothing_to_compare_is_an_error() -> None:
    """Operators timed only alone say nothing of interference."""
    with pytest.raises(ValueError, match="no operator was timed"):
        find_interference(samples({"a": 1.0}), {}, workers=2, threads=1)
