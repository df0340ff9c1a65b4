"""The door to time: one sample is one run with the wall time, the thread's CPU time and the interruptions."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Clock", "RawSample", "SystemClock"]


@dataclass(frozen=True, slots=True)
class RawSample:
    """One timed run; all times in nanoseconds.

    Attributes:
        start_ns: when it began, on the clock's own scale.
        wall_ns, cpu_ns: elapsed wall time and CPU time of the calling thread.
        switches: involuntary context switches of the process's threads meanwhile.
    """

    start_ns: int
    wall_ns: int
    cpu_ns: int
    switches: int


class Clock(Protocol):
    """Times a call; a fake one makes tests exact."""

    def sample(self, run: Callable[[], object]) -> RawSample:
        """Return what one run took."""
        ...

    def now_s(self) -> float:
        """Return seconds on a monotonic scale."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return in words how samples were taken so far, name → text; empty where there is nothing to say."""
        ...


class SystemClock:
    """The machine's clocks.

    Args:
        every_thread: count context switches of all threads of the process, not the caller's only.
    """

    def __init__(self, *, every_thread: bool = False) -> None:
        self._who = resource.RUSAGE_SELF if every_thread else getattr(resource, "RUSAGE_THREAD", 0)

    def sample(self, run: Callable[[], object]) -> RawSample:
        """Return what one run took; the wall clock is innermost, so it holds the run alone."""
        switches = resource.getrusage(self._who).ru_nivcsw
        cpu = time.thread_time_ns()
        start = time.perf_counter_ns()
        run()
        wall = time.perf_counter_ns() - start
        cpu = time.thread_time_ns() - cpu
        return RawSample(start, wall, cpu, resource.getrusage(self._who).ru_nivcsw - switches)

    def now_s(self) -> float:
        """Return the monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return nothing: what disturbs a CPU is seen from outside of the process that measures."""
        return {}
