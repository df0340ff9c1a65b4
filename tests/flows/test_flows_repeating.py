"""doctor's self-test: the scatter of interleaved groups, on samples of known noise, and once for real."""

from __future__ import annotations

import math
import random
import tempfile
from pathlib import Path

import pytest

from lanaprof.config import parse_device
from lanaprof.flows import hostchecks
from lanaprof.flows.machine import NoiseReading
from lanaprof.flows.repeating import Repeatability, repeatability, self_test
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.corelock import default_lock_folder, hold_cores
from lanaprof.profiler.environment import choose_cores

Samples = dict[str, list[tuple[int, RawSample]]]
ROUNDS, RUNS = 600, 4


def samples(noise: float, *, drift: float = 0.0, seed: int = 1) -> Samples:
    """Return two operators of 1 ms and 0.5 ms whose rounds are off by normal noise, on a machine that drifts."""
    generator = random.Random(seed)
    found: Samples = {"compute": [], "memory": []}
    now_ns = 0
    for number in range(ROUNDS):
        slow = 1 + drift * (number >= ROUNDS // 2)
        for operator, base_ns in (("compute", 1_000_000), ("memory", 500_000)):
            off = math.exp(generator.gauss(0, noise))
            for _ in range(RUNS):
                wall_ns = round(base_ns * slow * off)
                found[operator].append((number, RawSample(now_ns, wall_ns, wall_ns, 0)))
                now_ns += wall_ns
    return found


def test_equal_runs_repeat_exactly() -> None:
    """No noise, no drift."""
    found = repeatability(samples(0.0), threads=1)

    assert pytest.approx(0.0, abs=1e-9) == found.spread
    assert pytest.approx(0.0, abs=1e-9) == found.drift_range
    assert (2 * ROUNDS * RUNS, 0) == (found.clean, found.rejected)


def test_noise_of_rounds_shows_in_the_spread() -> None:
    """The 10 % quantile of 12 rounds with 2 % noise scatters by about 2 % × 0.5; 1.96 of that is 2 %.

    A sample quantile's standard error is sqrt(p (1 − p) / n) / f: sqrt(0.09 / 12) / 0.175 = 0.49 for p = 0.1; few
    rounds and the drift correction, which takes part of the noise for drift, move it.
    """
    spread = repeatability(samples(0.02), threads=1).spread

    assert pytest.approx(0.02, rel=0.35) == spread


def test_more_noise_is_more_spread() -> None:
    """From 0.5 % to 5 %."""
    calm, loud = (repeatability(samples(noise), threads=1).spread for noise in (0.005, 0.05))

    assert loud > 4 * calm


def test_a_step_of_the_machine_is_drift_and_no_noise() -> None:
    """The second half is 5 % slower: the groups hold rounds of both halves and still agree."""
    found = repeatability(samples(0.0, drift=0.05), threads=1)

    assert pytest.approx(0.05, abs=0.002) == found.drift_range
    assert found.spread < 0.002


def test_interrupted_runs_are_counted_and_left_out() -> None:
    """Every tenth run of one operator was descheduled."""
    given = samples(0.0)
    given["compute"] = [
        (number, RawSample(s.start_ns, s.wall_ns * 9, s.cpu_ns, 1) if place % 10 == 0 else s)
        for place, (number, s) in enumerate(given["compute"])
    ]
    found = repeatability(given, threads=1)

    assert ROUNDS * RUNS // 10 == found.rejected
    assert pytest.approx(0.0, abs=1e-9) == found.spread


@pytest.mark.parametrize(("spread", "state"), [(0.004, "ok"), (0.02, "warn"), (0.2, "warn")])
def test_the_verdict(spread: float, state: str) -> None:
    """Within 1 % is what campaigns aim for; the sentence says the number."""
    found = Repeatability(
        spread=spread,
        halves=0.001,
        drift=(1.0, 1.03),
        clean=9,
        rejected=1,
        noise=NoiseReading(9, 1e-3, 0.01, 0.02),
    )
    check = hostchecks.repeat_check(found)

    assert state == check.state
    assert f"numbers will repeat to ±{spread:.1%}" in check.message
    assert "speed moved by 3.0%" in check.message


def test_this_machine_is_tested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, shortly: samples of both operators, and a number."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # core locks of its own: others may be measuring
    found = self_test(parse_device("cpu"), seconds=0.2).repeatability

    assert found.clean + found.rejected >= 2 * 4 * 12 * RUNS
    assert 0 < found.spread < math.inf


def test_cores_in_use_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a campaign holds the cores, doctor says so and leaves it alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    device = parse_device("cpu")
    with hold_cores(choose_cores(device), default_lock_folder(), lambda _holder: None):
        (check,) = hostchecks.self_test_checks(device, 0.1)

    assert ("repeat", "warn") == (check.name, check.state)
    assert "measures on them now" in check.message
