"""The protocol of a GPU's clock against a scripted driver: every number is exact.

The script's host takes 5 µs for whatever it enqueues; fills of the cache take the GPU 2 µs.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from lanaprof.errors import BackendError
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock, Pace
from lanaprof.profiler.gpu.driver import Stream
from lanaprof.profiler.gpu.failures import DeviceLost, OutOfDeviceMemory
from lanaprof.profiler.gpu.nvml import ClockWatch, GpuState
from lanaprof.profiler.gpu.testing import SCRIPTED_GPU, ScriptedDriver, ScriptedStates
from lanaprof.profiler.statistics import clean_samples
from lanaprof.profiler.testing import FakeClock

FAST = GpuState(sm_clock_hz=1530e6)
HOT_CHIP = GpuState(sm_clock_hz=1530e6, reasons=("hardware thermal slowdown",))
at = pytest.mark.parametrize


class Bench:
    """A scripted GPU, its clock, and a count of the runs it made."""

    def __init__(
        self,
        states: list[GpuState] | None = None,
        *,
        cold: bool = False,
        refuses_capture: bool = False,
        warmup_s: float = 0.01,
    ) -> None:
        self.host = FakeClock()
        self.driver = ScriptedDriver(self.host, refuses_capture=refuses_capture)
        watch = None if states is None else ClockWatch(ScriptedStates(states, default_sm_hz=1530e6))
        pace = Pace(warmup_s=warmup_s)
        self.clock = GpuClock(self.driver, watch=watch, cold=cold, host=self.host, pace=pace)
        self.stream = self.driver.stream()
        self.runs = 0

    def call(self, seconds: float | Callable[[float], float]) -> GpuCall:
        def ran() -> None:
            self.runs += 1

        return GpuCall(self.stream, lambda stream: self.driver.work(stream, seconds, ran))

    def next_runs(self, call: GpuCall) -> int:
        """Return how many runs one more sample makes."""
        before = self.runs
        self.clock.sample(call)
        return self.runs - before


# ------------------------------------------------------------------------------------------ what a number is


@at("cold", [False, True])
@at("seconds", [200e-9, 1e-6, 7e-6, 300e-6, 5e-3])
def test_a_sample_is_the_time_of_one_run(seconds: float, cold: bool) -> None:
    """Neither the host's calls nor the fills of the cache are in it, however short the run."""
    bench = Bench(cold=cold)

    sample = bench.clock.sample(bench.call(seconds))

    assert (sample.wall_ns, sample.cpu_ns, sample.switches) == (round(1e9 * seconds), round(1e9 * seconds), 0)


def test_a_sample_lasts_a_millisecond() -> None:
    """7 µs: 15 runs in a graph of 0.1 ms; 16 launches are the first power of two beyond 1 ms, and one goes ahead."""
    bench = Bench()
    call = bench.call(7e-6)
    bench.clock.sample(call)

    assert bench.next_runs(call) == 15 * (16 + 1)


def test_a_long_run_is_timed_once() -> None:
    """5 ms: one run, after one that keeps the GPU busy while it is enqueued."""
    bench = Bench()
    call = bench.call(5e-3)
    bench.clock.sample(call)

    assert bench.next_runs(call) == 2


def test_what_gets_faster_is_timed_more_often() -> None:
    """A sample that became too short is not one: twice the launches, until it lasts again."""
    bench = Bench()
    taken_s = [2e-3]
    call = bench.call(lambda _begin_s: taken_s[0])
    first = bench.clock.sample(call)
    taken_s[0] = 0.3e-3

    second = bench.clock.sample(call)

    assert (first.wall_ns, second.wall_ns) == (2_000_000, 300_000)
    assert bench.next_runs(call) == 4 + 1


def test_slow_drift_is_seen_as_it_is() -> None:
    """Samples are not smoothed: 1 % slower is 1 % more."""
    bench = Bench()
    drift = [1.0]
    call = bench.call(lambda _begin_s: 2e-3 * drift[0])
    first = bench.clock.sample(call)
    drift[0] = 1.01

    second = bench.clock.sample(call)

    assert (first.wall_ns, second.wall_ns) == (2_000_000, 2_020_000)


def test_samples_are_those_that_statistics_keep() -> None:
    """One thread or several: clean ones count as they are, throttled ones are dropped."""
    bench = Bench([FAST] * 400 + [HOT_CHIP] + [FAST])
    call = bench.call(1e-3)
    samples = [(number, bench.clock.sample(call)) for number in range(400)]
    throttled = sum(sample.switches for _, sample in samples)

    for threads in (1, 2):
        kept = clean_samples(samples, threads=threads)
        assert (kept.rejected, kept.clock, set(kept.seconds)) == (throttled, "wall", {1e-3})
    assert throttled == 1


def test_other_calls_cannot_be_timed() -> None:
    """The GPU would be idle meanwhile, and its clock say so."""
    with pytest.raises(BackendError, match="times GpuCalls, not function"):
        Bench().clock.sample(lambda: None)


# ------------------------------------------------------------------------------------------ hot and cold


def test_a_cold_run_finds_an_emptied_cache() -> None:
    """As many bytes as the cache has are set before each run; what that takes is told."""
    bench = Bench(cold=True)
    order: list[str] = []
    fill, call = bench.driver.fill, GpuCall(bench.stream, lambda stream: bench.driver.work(stream, 1e-3, run))

    def run() -> None:
        order.append("run")

    def watched_fill(memory: object, value: int, stream: Stream) -> None:
        bench.driver.work(stream, 0.0, lambda: order.append("fill"))
        fill(memory, value, stream)  # type: ignore[arg-type]

    bench.driver.fill = watched_fill  # type: ignore[method-assign]
    bench.clock.sample(call)

    # One that goes ahead, the fills alone, and the same number of runs with theirs.
    assert order[-5:] == ["fill", "run", "fill", "fill", "run"]
    assert bench.driver.used_bytes == SCRIPTED_GPU.l2_bytes
    assert bench.clock.report().flush_s == pytest.approx(2e-6)


def test_a_hot_clock_holds_no_memory() -> None:
    """And fills nothing."""
    bench = Bench()
    bench.clock.sample(bench.call(1e-3))

    assert bench.driver.used_bytes == 0
    assert bench.clock.report().flush_s is None


def test_a_run_lost_beside_its_fill_is_not_clean() -> None:
    """Subtraction gave nothing or less: the upper bound stands there, marked."""
    bench = Bench(cold=True)
    sample = bench.clock.sample(bench.call(0.0))

    assert sample.switches == 1
    assert sample.wall_ns >= 2000


# ------------------------------------------------------------------------------------------ graphs


def test_a_call_becomes_a_graph_once() -> None:
    """A graph of one run to see how long it takes, one of several where it is short, and the empty one."""
    bench = Bench()
    calls = [bench.call(7e-6), bench.call(1e-3)]
    for _ in range(3):
        for call in calls:
            bench.clock.sample(call)

    assert bench.driver.graphs_made == 1 + 2 + 1
    assert bench.clock.conditions == {"by": "scripted", "graphs": "all"}


def test_launching_an_empty_graph_is_told() -> None:
    """The script's host takes 5 µs for it; no sample has it subtracted."""
    bench = Bench()
    before = bench.clock.report().baseline_s
    bench.clock.sample(bench.call(1e-3))

    assert before is None
    assert bench.clock.report().baseline_s == pytest.approx(5e-6)


def test_without_graphs_runs_are_enqueued_one_by_one() -> None:
    """Right where the GPU is slower than the host, the host's pace where it is not; either way it is said."""
    bench = Bench(refuses_capture=True)
    long, short = bench.clock.sample(bench.call(40e-6)), bench.clock.sample(bench.call(1e-6))

    told = bench.clock.report()
    assert (long.wall_ns, short.wall_ns) == (40_000, 5000)
    assert (told.calls, told.plain, told.why_plain) == (2, 2, ("capture: the script allows none",))
    assert bench.clock.conditions["graphs"] == "all but 2 of 2: capture: the script allows none"


def test_a_runtime_that_refuses_to_be_captured_is_enqueued() -> None:
    """Its own error counts as CUDA's does, once a plain run has shown that it works."""
    bench = Bench()

    def enqueue(stream: Stream) -> None:
        if stream.native.recording is not None:
            raise BackendError("the runtime waits for itself")
        bench.driver.work(stream, 2e-3)

    sample = bench.clock.sample(GpuCall(bench.stream, enqueue))

    assert sample.wall_ns == 2_000_000
    assert bench.clock.report().why_plain == ("the runtime waits for itself",)


@at("kind", [DeviceLost, OutOfDeviceMemory])
def test_a_gpu_that_fails_while_capturing_is_no_refusal(kind: type[BackendError]) -> None:
    """Those errors are the operator's or the process's: nothing is tried again."""
    bench = Bench()

    def enqueue(stream: Stream) -> None:
        if stream.native.recording is not None:
            raise kind("gone")
        bench.driver.work(stream, 2e-3)

    with pytest.raises(kind):
        bench.clock.sample(GpuCall(bench.stream, enqueue))


def test_dropped_calls_take_their_graphs_along() -> None:
    """A campaign makes thousands."""
    bench = Bench()
    destroyed: list[object] = []
    bench.driver._destroy_graph = destroyed.append  # type: ignore[method-assign, assignment]
    call = bench.call(1e-3)
    bench.clock.sample(call)
    kept = len(destroyed)  # the empty one is needed once

    del call
    gc.collect()

    assert (kept, len(destroyed)) == (1, 2)


# ------------------------------------------------------------------------------------------ warm-up, throttling


def test_a_gpu_that_paused_works_before_it_is_timed() -> None:
    """0.2 s of work at the begin and after every pause, none in between."""
    bench = Bench(warmup_s=Pace().warmup_s)
    call = bench.call(1e-3)
    worked_s = []
    for pause_s in (0.0, 0.0, 0.04, 0.06, 3.0):
        bench.host.advance(pause_s)
        worked_s.append(1e-3 * bench.next_runs(call))

    assert [round(seconds, 3) for seconds in worked_s[1:3]] == [0.002, 0.002]
    assert all(0.2 <= worked_s[index] <= 0.5 for index in (0, 3, 4))
    assert bench.clock.report().warmups == 3


def test_what_is_timed_after_a_warm_up_is_at_full_clock() -> None:
    """A GPU that takes 150 ms of work to speed up: the slow runs are in no sample."""
    bench = Bench(warmup_s=Pace().warmup_s)
    woke_s = [0.0]
    call = bench.call(lambda begin_s: 4e-3 if begin_s < woke_s[0] + 0.15 else 1e-3)

    first = bench.clock.sample(call)
    bench.host.advance(10.0)
    woke_s[0] = bench.host.now_s()
    second = bench.clock.sample(call)

    assert (first.wall_ns, second.wall_ns) == (1_000_000, 1_000_000)


def test_a_throttled_sample_is_marked_and_the_gpu_rests() -> None:
    """Longer each time in a row, and not for ever: a GPU that is always throttled gets no faster by waiting."""
    bench = Bench([HOT_CHIP])
    call = bench.call(1e-3)
    rests_s: list[float] = []
    sleep = bench.host.sleep

    def watched_sleep(seconds: float) -> None:
        rests_s.append(seconds)
        sleep(seconds)

    bench.host.sleep = watched_sleep  # type: ignore[method-assign]
    samples = [bench.clock.sample(call) for _ in range(8)]

    assert [sample.switches for sample in samples] == [1] * 8
    assert [sample.wall_ns for sample in samples] == [1_000_000] * 8
    assert rests_s == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert bench.clock.report().throttled == 8


def test_a_gpu_that_recovers_is_timed_again() -> None:
    """Clean samples follow; the next rest is a short one again."""
    slow = GpuState(sm_clock_hz=1100e6)  # below 75 % of 1530 MHz
    bench = Bench()
    states = ScriptedStates([FAST], default_sm_hz=1530e6)
    bench.clock = GpuClock(bench.driver, watch=ClockWatch(states), host=bench.host, pace=Pace(warmup_s=0.0))
    call = bench.call(2e-3)
    bench.clock.sample(call)
    seen = []
    for state in (slow, FAST, slow, FAST):
        states.state = lambda state=state: state  # type: ignore[method-assign, misc]
        before_s = bench.host.now_s()
        sample = bench.clock.sample(call)
        seen.append((sample.switches, round(bench.host.now_s() - before_s, 2)))

    assert seen == [(1, 0.05), (0, 0.0), (1, 0.05), (0, 0.0)]


def test_the_clock_is_read_while_the_gpu_works() -> None:
    """Before the host waits for the sample's end: an idle GPU would show another clock."""
    bench = Bench([FAST])
    busy: list[bool] = []

    class Watch(ClockWatch):
        def look(self) -> str:
            busy.append(bench.stream.native.done_ns > round(1e9 * bench.host.now_s()))
            return ""

    clock = GpuClock(bench.driver, watch=Watch(None), host=bench.host)
    call = bench.call(1e-3)
    clock.sample(call)
    busy.clear()  # of what came before, an empty graph leaves nothing to do
    clock.sample(call)

    assert busy == [True]
