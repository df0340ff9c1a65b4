"""Estimates, intervals, drift and cleanliness, on numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.statistics import (
    Interval,
    Visit,
    _running_quantile,
    clean_samples,
    drift_factors,
    estimate,
)


def sample(wall_us: float, cpu_us: float | None = None, switches: int = 0) -> RawSample:
    return RawSample(
        0, round(wall_us * 1000), round((wall_us if cpu_us is None else cpu_us) * 1000), switches
    )


def test_interrupted_samples_are_counted_and_not_used() -> None:
    """A context switch, or wall time the thread did not compute in, makes a sample unclean."""
    rows = [(0, sample(100)), (0, sample(100, switches=1)), (1, sample(180, cpu_us=100)), (1, sample(101))]

    clean = clean_samples(rows, threads=1)

    assert pytest.approx(clean.seconds) == (100e-6, 101e-6)
    assert clean.rounds == (0, 1)
    assert (clean.rejected, clean.clock) == (2, "wall")


def test_clock_overhead_is_no_interruption() -> None:
    """Two microseconds of difference are what reading two clocks takes."""
    assert clean_samples([(0, sample(12, cpu_us=10))], threads=1).rejected == 0


def test_on_a_loaded_machine_cpu_time_counts() -> None:
    """When hardly any sample is clean, one thread falls back to CPU time and says so."""
    rows = [(number, sample(5000, cpu_us=1000, switches=2)) for number in range(8)]

    clean = clean_samples(rows, threads=1)

    assert clean.clock == "thread_cpu"
    assert pytest.approx(list(clean.seconds)) == [1e-3] * 8


def test_several_threads_may_wait_for_each_other() -> None:
    """With a pool the caller's CPU time is no measure; only switches make a sample unclean."""
    assert clean_samples([(0, sample(1000, cpu_us=300))], threads=2).rejected == 0


def test_estimate_is_the_tenth_percentile() -> None:
    """Of 1 … 101 the tenth percentile is 11."""
    interval = estimate([float(value) for value in range(1, 102)], [value % 5 for value in range(101)])

    assert interval.latency_s == 11.0
    assert interval.ci_low_s <= 11.0 <= interval.ci_high_s


def test_interval_follows_the_rounds_not_the_samples() -> None:
    """A thousand samples of two disagreeing rounds leave the interval as wide as the rounds are apart."""
    seconds = [1.0] * 500 + [1.2] * 500
    rounds = [0] * 500 + [1] * 500

    interval = estimate(seconds, rounds)

    assert (interval.ci_low_s, interval.ci_high_s) == (1.0, 1.2)


def test_interval_narrows_with_rounds() -> None:
    """Sixteen times the rounds give a clearly narrower interval."""
    generator = np.random.default_rng(0)

    def width(rounds: int) -> float:
        seconds = 1 + 0.05 * generator.standard_normal((rounds, 3))
        return estimate(seconds.ravel(), np.repeat(np.arange(rounds), 3).tolist()).half_width

    assert np.mean([width(64) for _ in range(20)]) < 0.6 * np.mean([width(4) for _ in range(20)])


def test_interval_covers_the_truth() -> None:
    """About 95 % of intervals hold the true quantile (at least 85 % with 16 rounds, whose bootstrap is short)."""
    generator = np.random.default_rng(1)
    truth = float(np.quantile(generator.exponential(1.0, 1_000_000), 0.10)) + 10
    inside = 0
    for _ in range(200):
        seconds = 10 + generator.exponential(1.0, (16, 4))
        interval = estimate(seconds.ravel(), np.repeat(np.arange(16), 4).tolist())
        inside += interval.ci_low_s <= truth <= interval.ci_high_s

    assert inside >= 170


def test_equal_input_gives_equal_intervals() -> None:
    """The resampling is seeded."""
    seconds = np.random.default_rng(2).random(30).tolist()
    rounds = [index // 3 for index in range(30)]

    assert estimate(seconds, rounds) == estimate(seconds, rounds)


def test_drift_that_all_operators_share_is_taken_out() -> None:
    """A machine that is 20 % slower in its second half leaves no trace after the correction."""
    truth = {"a": 1.0, "b": 3.0, "c": 0.2}
    visits, slow = [], []
    for number in range(120):
        name = "abc"[number % 3]
        factor = 1.2 if number >= 60 else 1.0
        visits.append(Visit(name, float(number), truth[name] * factor))
        slow.append(factor)

    factors = drift_factors(visits)

    calm = [visit.fastest_s / f for visit, f in zip(visits, factors, strict=True)]
    away_from_the_step = [number for number in range(120) if abs(number - 60) > 16]
    errors = [calm[number] / truth[visits[number].operator] - 1 for number in away_from_the_step]
    assert max(map(abs, errors)) < 1e-9


def test_no_visits_have_no_drift() -> None:
    """Nothing in, nothing out."""
    assert len(drift_factors([])) == 0


@pytest.mark.parametrize("count", [1, 5, 9, 40])
@pytest.mark.parametrize("half", [0, 1, 4, 15])
@pytest.mark.parametrize("quantile", [0.1, 0.25, 0.5])
def test_the_running_quantile_is_that_of_each_window(count: int, half: int, quantile: float) -> None:
    """Window by window, shorter at both ends, and where the values are fewer than a window."""
    values = np.random.default_rng(count).standard_normal(count)

    running = _running_quantile(values, half, quantile)

    windows = [values[max(0, index - half) : index + half + 1] for index in range(count)]
    assert pytest.approx([np.quantile(window, quantile) for window in windows]) == list(running)


def test_no_window_corrects_nothing() -> None:
    """Relay asks for none: its visits differ in their neighbours, which is no drift."""
    visits = [Visit("a", float(number), 1.0 + number) for number in range(9)]

    assert [1.0] * 9 == drift_factors(visits, window=0).tolist()


def test_widening_adds_an_independent_error() -> None:
    """Both sides by the square root of the sum of squares: sqrt(0.01² + (1.96 · 0.01)²) = 0.0220."""
    found = Interval(2.0, 1.98, 2.02).widened(0.01)

    assert pytest.approx(2.0 - 2 * 0.0220036) == found.ci_low_s
    assert pytest.approx(2.0 + 2 * 0.0220036) == found.ci_high_s
