"""What a machine says about itself: parsers of its texts.

Nothing here opens a file or starts a program; :mod:`lanaprof.flows.doctoring` does, and hands the text over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = [
    "Gpu",
    "NoiseReading",
    "TimerReading",
    "available_from_meminfo",
    "gpus_from_nvidia_smi",
    "noise_from_durations",
    "timer_from_readings",
]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One line of nvidia-smi.

    Attributes:
        name: e.g. ``Tesla V100-SXM2-16GB``.
        compute_capability: e.g. ``7.0``.
        driver: the driver's version.
        persistent: whether the driver stays loaded; None when it does not say.
        sm_clock_mhz, sm_clock_max_mhz: now, and at most; None when it does not say.
    """

    name: str
    compute_capability: str
    driver: str
    persistent: bool | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None


GPU_QUERY = "name,compute_cap,driver_version,persistence_mode,clocks.sm,clocks.max.sm"


def gpus_from_nvidia_smi(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs in what ``nvidia-smi --query-gpu=… --format=csv,noheader`` printed for GPU_QUERY.

    >>> gpus_from_nvidia_smi("NVIDIA T4, 7.5, 550.54.15, Enabled, 300 MHz, 1590 MHz")[0].sm_clock_max_mhz
    1590
    """
    found = []
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) < 3 or not re.fullmatch(r"\d+\.\d+", fields[1]):
            continue
        fields += [""] * (6 - len(fields))
        persistent = {"Enabled": True, "Disabled": False}.get(fields[3])
        found.append(Gpu(fields[0], fields[1], fields[2], persistent, _mhz(fields[4]), _mhz(fields[5])))
    return tuple(found)


def _mhz(text: str) -> int | None:
    match = re.fullmatch(r"(\d+) MHz", text)
    return int(match[1]) if match else None


def available_from_meminfo(text: str) -> int | None:
    r"""Return the bytes that programs can still have, from the text of /proc/meminfo; None when it does not say.

    >>> available_from_meminfo("MemTotal:       24684092 kB\nMemFree: 1 kB\nMemAvailable:   24194812 kB\n")
    24775487488
    """
    match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None


@dataclass(frozen=True, slots=True)
class TimerReading:
    """How fine a timer is, in ns: the smallest step it makes, and what one reading costs (0: less than a step)."""

    step_ns: int
    cost_ns: int


def timer_from_readings(readings_ns: Sequence[int]) -> TimerReading:
    """Return what readings in a row say of the timer; a timer that does not move steps by their whole span.

    >>> timer_from_readings([0, 0, 40, 40, 80, 1080])
    TimerReading(step_ns=40, cost_ns=40)
    """
    steps = sorted(after - before for before, after in pairwise(readings_ns))
    moved = [step for step in steps if step > 0]
    return TimerReading(moved[0] if moved else readings_ns[-1] - readings_ns[0], steps[len(steps) // 2])


@dataclass(frozen=True, slots=True)
class NoiseReading:
    """How much one piece of work varies.

    Attributes:
        runs: how often it ran.
        floor_s: its 10 % quantile.
        spread: median over the floor, minus 1: what a typical disturbance costs.
        tail: 95 % quantile over the floor, minus 1.
    """

    runs: int
    floor_s: float
    spread: float
    tail: float


def noise_from_durations(durations_s: Sequence[float]) -> NoiseReading:
    """Return the noise in the durations of equal work.

    >>> noise_from_durations([1.0, 1.0, 1.0, 1.1, 2.0]).spread
    0.0
    """
    ordered = sorted(durations_s)
    last = len(ordered) - 1
    floor_s, median_s, tail_s = (ordered[round(share * last)] for share in (0.1, 0.5, 0.95))
    return NoiseReading(len(ordered), floor_s, median_s / floor_s - 1, tail_s / floor_s - 1)
