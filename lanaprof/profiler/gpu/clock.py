"""The door to time on a GPU: a sample is many runs between two events of the GPU's own clock.

The protocol, and where it is from:

- One plain run, then the call becomes a CUDA graph, short calls several in one graph: what is timed are the kernels,
  not how fast Python or the runtime enqueue them (TensorRT's trtexec does so by default since 11). Where a call cannot
  become one, it is enqueued run by run, which is told in the report.
- As many replays as make a sample last a millisecond: the resolution of events is half a microsecond.
- A GPU that idled runs at a low clock for a while: after any pause it works 0.2 s before it is timed, and the host
  polls, so that no gap opens in between (TensorRT's issue 2107: 2 ms become much longer with sleeps).
- The clock is read while the GPU works on the sample. A sample at a throttled clock is marked as unclean and dropped
  later, never rescaled, and the GPU gets a rest (nvbench, ``measure_cold.cu``).
- *Hot* runs follow each other directly. Before each *cold* run, exactly as many bytes as the second-level cache has
  are set; the same fills alone are timed in the same sample and subtracted.
- An empty graph, timed like a call, is told beside the samples and subtracted from nothing.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from lanaprof.errors import BackendError
from lanaprof.profiler.clock import Clock, RawSample, SystemClock
from lanaprof.profiler.gpu.driver import Driver, Graph, Memory, Stream
from lanaprof.profiler.gpu.failures import CaptureRefused, DeviceLost, OutOfDeviceMemory
from lanaprof.profiler.gpu.nvml import ClockSummary, ClockWatch

__all__ = ["ClockReport", "GpuCall", "GpuClock", "Pace"]


class GpuCall:
    """A program bound to its buffers: called, it runs once and waits; enqueued, it does not wait.

    Args:
        stream: where a plain call runs.
        enqueue: puts one run on a stream, waits for nothing and allocates nothing.
        keep: what must live as long as the call.
        around: makes what has to be entered before runs are enqueued, and before a recording of them begins.
    """

    def __init__(
        self,
        stream: Stream,
        enqueue: Callable[[Stream], object],
        *,
        keep: object = None,
        around: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.stream, self._enqueue, self._keep, self.around = stream, enqueue, keep, around

    def __call__(self) -> None:
        """Run once and wait."""
        with self.around():
            self.enqueue(self.stream)
        self.stream.synchronize()

    def enqueue(self, stream: Stream) -> None:
        """Put one run on a stream, without waiting."""
        self._enqueue(stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things take.

    Attributes:
        sample_s: a sample lasts at least this.
        graph_s: one launch of a graph lasts at least this, so that launching keeps ahead of the GPU.
        runs_max: in one graph; launches_max: in one sample.
        warmup_s: of work after a pause; ``pause_s`` is what counts as one.
        backoff_s: the first rest of a throttled GPU; each further one is twice as long, ``backoffs_max`` in a row at
            most: a GPU that is throttled all the time does not get faster by waiting.
    """

    sample_s: float = 1e-3
    graph_s: float = 100e-6  # enqueuing a graph takes the host 5 to 10 µs
    runs_max: int = 64
    launches_max: int = 10_000
    warmup_s: float = 0.2
    pause_s: float = 0.05
    backoff_s: float = 0.05
    backoffs_max: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockReport:
    """What a clock did so far.

    Attributes:
        samples: taken; ``throttled`` how many of them were marked as unclean.
        calls: how many different ones; ``plain`` how many of them could not become graphs.
        why_plain: CUDA's reasons, each once.
        warmups: how often the GPU had to be warmed up.
        baseline_s: launching an empty graph; None before the first sample, or where there are no graphs.
        flush_s: setting as many bytes as the cache has, the latest; None when hot.
        clocks: what the GPU's clocks did.
    """

    samples: int
    throttled: int
    calls: int
    plain: int
    why_plain: tuple[str, ...]
    warmups: int
    baseline_s: float | None
    flush_s: float | None
    clocks: ClockSummary


class _Prepared:
    """A call as it is launched.

    Attributes:
        graph: of ``runs`` runs; None for a call that is enqueued run by run.
        flushes: a graph of as many fills of the cache; None when hot, or without graphs.
        launches: in one sample.
    """

    __slots__ = ("flushes", "graph", "launches", "runs")

    def __init__(self, graph: Graph | None, flushes: Graph | None, runs: int) -> None:
        self.graph, self.flushes, self.runs, self.launches = graph, flushes, runs, 1


@dataclass(frozen=True, slots=True)
class _Timed:
    """One stretch of work: the whole of it, one fill of the cache, one run (its fill subtracted), and the clock's."""

    whole_s: float
    flush_s: float
    run_s: float
    throttled: str


class GpuClock:
    """Times :class:`GpuCall` objects; implements :class:`lanaprof.profiler.clock.Clock`.

    Args:
        driver: the GPU, open.
        watch: of its clocks; without one nothing is ever throttled.
        cold: empty the cache before each run.
        pace: how long things take.
        host: tells the time between samples, and sleeps.
    """

    def __init__(
        self,
        driver: Driver,
        *,
        watch: ClockWatch | None = None,
        cold: bool = False,
        pace: Pace | None = None,
        host: Clock | None = None,
    ) -> None:
        self._driver, self._pace = driver, pace or Pace()
        self._watch, self._host = watch or ClockWatch(None), host or SystemClock()
        self._flushed: Memory | None = driver.allocate(driver.gpu.l2_bytes) if cold else None
        self._events = (driver.event(), driver.event(), driver.event())
        self._prepared: weakref.WeakKeyDictionary[GpuCall, _Prepared] = weakref.WeakKeyDictionary()
        self._busy_until_s = -math.inf
        self._samples = self._throttled = self._in_a_row = self._calls = self._plain = self._warmups = 0
        self._why_plain: dict[str, None] = {}
        self._baseline_s: float | None = None
        self._flush_s: float | None = None

    def sample(self, run: Callable[[], object]) -> RawSample:
        """Return what one run took, from a sample of many; a throttled GPU counts as a switch.

        The GPU tells one time only, which stands for the wall and the thread's.

        Raises:
            BackendError: the call failed; as :mod:`lanaprof.profiler.gpu.driver` says.
        """
        if not isinstance(run, GpuCall):
            raise BackendError(f"a GPU's clock times GpuCalls, not {type(run).__name__}")
        prepared = self._prepared.get(run)
        if prepared is None:
            prepared = self._prepared[run] = self._prepare(run)
        self._warm_up(run, prepared)
        start_ns = round(self._host.now_s() * 1e9)
        timed = self._long_enough(run, prepared)
        self._samples += 1
        if self._flushed is not None:
            self._flush_s = timed.flush_s
        # A run that is lost in the time of the fills is no faster than nothing: its upper bound, marked.
        lost = timed.run_s <= 0
        run_s = timed.whole_s / (prepared.launches * prepared.runs) if lost else timed.run_s
        taken_ns = max(1, round(run_s * 1e9))
        self._rest_if(timed.throttled)
        return RawSample(start_ns, taken_ns, taken_ns, int(lost or bool(timed.throttled)))

    def now_s(self) -> float:
        """Return the host's time."""
        return self._host.now_s()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._host.sleep(seconds)

    def report(self) -> ClockReport:
        """Return what was done so far."""
        return ClockReport(
            samples=self._samples,
            throttled=self._throttled,
            calls=self._calls,
            plain=self._plain,
            why_plain=tuple(self._why_plain),
            warmups=self._warmups,
            baseline_s=self._baseline_s,
            flush_s=self._flush_s,
            clocks=self._watch.summary(),
        )

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return in words how samples were taken, for the record of a measurement."""
        told = self.report()
        graphs = (
            "all" if not told.plain else f"all but {told.plain} of {told.calls}: {'; '.join(told.why_plain)}"
        )
        found = {"by": self._driver.name, "graphs": graphs, "clock": told.clocks.text}
        return {name: text for name, text in found.items() if text}

    # --------------------------------------------------------------------------------------- preparing

    def _prepare(self, call: GpuCall) -> _Prepared:
        """Return a call ready to be launched; what it does at its first run only is done."""
        call()
        self._calls += 1
        prepared = self._captured(call, 1)
        if prepared.graph is None:
            return prepared
        if self._baseline_s is None:
            empty = _Prepared(self._driver.capture(call.stream, lambda _stream: None), None, 1)
            self._warm_up(call, prepared)
            self._baseline_s = self._long_enough(call, empty).whole_s / empty.launches
        self._warm_up(call, prepared)
        while prepared.graph is not None and prepared.runs < self._pace.runs_max:
            timed = self._long_enough(call, prepared)
            launch_s = max(timed.whole_s / prepared.launches, 1e-9)
            if launch_s >= self._pace.graph_s:
                break
            # Of a graph that short the host's launches may be what was timed: then it needs more runs still.
            runs = max(2 * prepared.runs, math.ceil(prepared.runs * self._pace.graph_s / launch_s))
            prepared = self._captured(call, min(self._pace.runs_max, runs))
        return prepared

    def _captured(self, call: GpuCall, runs: int) -> _Prepared:
        def enqueue(stream: Stream) -> None:
            for _ in range(runs):
                self._flush(stream)
                call.enqueue(stream)

        def enqueue_flushes(stream: Stream) -> None:
            for _ in range(runs):
                self._flush(stream)

        try:
            with call.around():
                graph = self._driver.capture(call.stream, enqueue)
            cold = self._flushed is not None
            flushes = self._driver.capture(call.stream, enqueue_flushes) if cold else None
        except (DeviceLost, OutOfDeviceMemory):
            raise
        except BackendError as error:  # the runtime's own refusal as well as CUDA's
            reason = error if isinstance(error, CaptureRefused) else CaptureRefused(error.message)
            self._plain += 1
            self._why_plain[reason.message] = None
            call()  # a refusal leaves the stream as it was: else this fails, rightly
            return _Prepared(None, None, 1)
        return _Prepared(graph, flushes, runs)

    def _flush(self, stream: Stream) -> None:
        if self._flushed is not None:
            self._driver.fill(self._flushed, 0, stream)

    # ------------------------------------------------------------------------------------------ timing

    def _warm_up(self, call: GpuCall, prepared: _Prepared) -> None:
        """Let the GPU work when it paused; not for longer than ten times what it should take."""
        began_s = self._host.now_s()
        if began_s - self._busy_until_s < self._pace.pause_s:
            return
        self._warmups += 1
        worked_s = 0.0
        while worked_s < self._pace.warmup_s and self._host.now_s() < began_s + 10 * self._pace.warmup_s:
            worked_s += self._long_enough(call, prepared).whole_s

    def _long_enough(self, call: GpuCall, prepared: _Prepared) -> _Timed:
        """Return a stretch of work that lasts long enough, with twice the launches until it does."""
        while True:
            timed = self._timed(call, prepared)
            if timed.whole_s >= self._pace.sample_s or prepared.launches >= self._pace.launches_max:
                return timed
            prepared.launches = min(2 * prepared.launches, self._pace.launches_max)

    def _timed(self, call: GpuCall, prepared: _Prepared) -> _Timed:
        """Return what one stretch of work takes: the fills alone first, then the runs."""
        begin, middle, end = self._events
        stream, count = call.stream, prepared.launches
        self._launch_runs(call, prepared, 1)  # keeps the GPU busy until the first that counts is enqueued
        begin.record(stream)
        if self._flushed is not None:
            self._launch_flushes(stream, prepared, count)
        middle.record(stream)
        self._launch_runs(call, prepared, count)
        end.record(stream)
        throttled = self._watch.look()  # the GPU is at work meanwhile
        end.synchronize()
        self._busy_until_s = self._host.now_s()
        runs = count * prepared.runs
        whole_s = self._driver.elapsed_s(middle, end)
        flushes_s = self._driver.elapsed_s(begin, middle) if self._flushed is not None else 0.0
        return _Timed(whole_s, flushes_s / runs, (whole_s - flushes_s) / runs, throttled)

    def _launch_runs(self, call: GpuCall, prepared: _Prepared, count: int) -> None:
        if prepared.graph is not None:
            for _ in range(count):
                prepared.graph.launch(call.stream)
            return
        with call.around():
            for _ in range(count):
                self._flush(call.stream)
                call.enqueue(call.stream)

    def _launch_flushes(self, stream: Stream, prepared: _Prepared, count: int) -> None:
        for _ in range(count):
            if prepared.flushes is None:
                self._flush(stream)
            else:
                prepared.flushes.launch(stream)

    def _rest_if(self, throttled: str) -> None:
        if not throttled:
            self._in_a_row = 0
            return
        self._throttled += 1
        if self._in_a_row < self._pace.backoffs_max:
            self._host.sleep(self._pace.backoff_s * 2**self._in_a_row)
        self._in_a_row += 1
