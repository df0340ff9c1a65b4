"""A GPU without a GPU: a driver whose work takes scripted times, and a script of its clocks.

Public, for tests of whoever builds on the door. Memory is the host's, and so are its addresses; work is done at once,
and takes time on a :class:`~lanaprof.profiler.testing.FakeClock` for the host's part and on each stream for the GPU's:
every number is exact. A graph's launch costs the host one call, whatever is in it, as CUDA's do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from lanaprof.profiler.gpu.driver import Array, Driver, Stream
from lanaprof.profiler.gpu.failures import CaptureRefused, OutOfDeviceMemory
from lanaprof.profiler.gpu.nvml import GpuState
from lanaprof.profiler.gpu.probe import Gpu
from lanaprof.profiler.testing import FakeClock

__all__ = ["SCRIPTED_GPU", "ScriptedDriver", "ScriptedStates"]

SCRIPTED_GPU = Gpu(
    index=0,
    name="Scripted GPU",
    capability=(7, 0),
    uuid="GPU-00000000-0000-0000-0000-000000000000",
    memory_bytes=16_000_000_000,
    l2_bytes=64 << 10,
    sm_count=80,
)
_Cost = Callable[[float], float]
_Work = tuple[Callable[[], None], _Cost]


@dataclass(slots=True)
class _Queue:
    """A stream: when its work is done, and what it records instead of working."""

    done_ns: int = 0
    recording: list[_Work] | None = None


@dataclass(slots=True)
class _Block:
    content: Array


@dataclass(slots=True)
class _Moment:
    time_ns: int = field(default=0)


class ScriptedDriver(Driver):
    """A GPU that does what tests tell it.

    Args:
        clock: the host's.
        gpu: what it is.
        call_s: what enqueuing anything costs the host.
        fill_s: what setting or copying memory costs the GPU, however much it is.
        refuses_capture: no graphs can be made.
    """

    name = "scripted"

    def __init__(
        self,
        clock: FakeClock,
        *,
        gpu: Gpu = SCRIPTED_GPU,
        call_s: float = 5e-6,
        fill_s: float = 2e-6,
        refuses_capture: bool = False,
    ) -> None:
        super().__init__(gpu)
        self.clock, self.refuses_capture = clock, refuses_capture
        self.graphs_made = self.graph_launches = self.used_bytes = 0
        self._call_s, self._fill_s = call_s, fill_s
        self._addresses = count(1)
        self._queues: list[_Queue] = []

    def work(self, stream: Stream, seconds: float | _Cost, action: Callable[[], None] = lambda: None) -> None:
        """Enqueue work of a length: what a kernel would be.

        Args:
            stream: where.
            seconds: how long; or a function of the time at which it begins, in seconds.
            action: what it does.
        """
        cost: _Cost = seconds if callable(seconds) else (lambda _begin_s: seconds)
        self._enqueue(stream.native, (action, cost))

    def _enqueue(self, queue: _Queue, work: _Work) -> None:
        if queue.recording is not None:
            queue.recording.append(work)
            return
        self._begin(queue)
        self._do(queue, work)

    def _begin(self, queue: _Queue) -> None:
        self.clock.advance(self._call_s)
        queue.done_ns = max(queue.done_ns, self._now_ns())

    def _do(self, queue: _Queue, work: _Work) -> None:
        action, cost = work
        action()
        queue.done_ns += round(1e9 * cost(queue.done_ns / 1e9))

    def _now_ns(self) -> int:
        return round(1e9 * self.clock.now_s())

    def _wait_until(self, time_ns: int) -> None:
        self.clock.advance(max(0, time_ns - self._now_ns()) / 1e9)

    def _wait_for_all(self) -> None:
        for queue in self._queues:
            self._wait_until(queue.done_ns)

    def _memory_bytes(self) -> tuple[int, int]:
        return self.gpu.memory_bytes - self.used_bytes, self.gpu.memory_bytes

    def _release(self) -> None:
        self._queues.clear()

    def _allocate(self, size_bytes: int) -> tuple[Any, int]:
        if size_bytes > self.gpu.memory_bytes - self.used_bytes:
            raise OutOfDeviceMemory(f"allocate: the script's GPU has no {size_bytes} bytes left")
        self.used_bytes += size_bytes
        block = _Block(np.zeros(size_bytes, dtype=np.uint8))
        return block, int(block.content.ctypes.data)

    def _free(self, memory: Any) -> None:
        self.used_bytes -= memory.content.nbytes

    def _create_stream(self) -> tuple[Any, int]:
        self._queues.append(_Queue())
        return self._queues[-1], next(self._addresses)

    def _destroy_stream(self, stream: Any) -> None:
        self._queues = [queue for queue in self._queues if queue is not stream]

    def _wait_for_stream(self, stream: Any) -> None:
        if stream.recording is not None:
            raise CaptureRefused("synchronize: the stream is being captured")
        self._wait_until(stream.done_ns)

    def _create_event(self) -> Any:
        return _Moment()

    def _destroy_event(self, event: Any) -> None:
        pass

    def _record(self, event: Any, stream: Any) -> None:
        event.time_ns = max(stream.done_ns, self._now_ns())

    def _wait_for_event(self, event: Any) -> None:
        self._wait_until(event.time_ns)

    def _elapsed_s(self, begin: Any, end: Any) -> float:
        return float(end.time_ns - begin.time_ns) / 1e9

    def _copy_in(self, memory: Any, values: Array) -> None:
        memory.content[: values.nbytes] = np.frombuffer(values.tobytes(), dtype=np.uint8)

    def _copy_out(self, values: Array, memory: Any) -> None:
        raw = memory.content[: values.nbytes].tobytes()
        values[...] = np.frombuffer(raw, dtype=values.dtype).reshape(values.shape)

    def _fill(self, memory: Any, value: int, size_bytes: int, stream: Any) -> None:
        def fill() -> None:
            memory.content[:size_bytes] = value

        self._enqueue(stream, (fill, lambda _begin_s: self._fill_s))

    def _copy(self, target: Any, source: Any, size_bytes: int, stream: Any) -> None:
        def copy() -> None:
            target.content[:size_bytes] = source.content[:size_bytes]

        self._enqueue(stream, (copy, lambda _begin_s: self._fill_s))

    def _begin_capture(self, stream: Stream) -> None:
        if self.refuses_capture:
            raise CaptureRefused("capture: the script allows none")
        stream.native.recording = []

    def _abandon_capture(self, stream: Stream) -> None:
        stream.native.recording = None

    def _end_capture(self, stream: Stream) -> Any:
        recorded, stream.native.recording = stream.native.recording, None
        self.graphs_made += 1
        return recorded

    def _launch(self, graph: Any, stream: Stream) -> None:
        self.graph_launches += 1
        self._begin(stream.native)
        for work in graph:
            self._do(stream.native, work)

    def _destroy_graph(self, graph: Any) -> None:
        pass


class ScriptedStates:
    """A script of a GPU's clocks: the readings in order, the last one for ever.

    Args:
        states: the readings.
        default_sm_hz: the clock it should run at.
    """

    def __init__(self, states: Iterable[GpuState], *, default_sm_hz: float | None = None) -> None:
        self._states = list(states)
        self.default_sm_hz = default_sm_hz
        self.reads = 0

    def state(self) -> GpuState:
        """Return the next reading."""
        state = self._states[min(self.reads, len(self._states) - 1)]
        self.reads += 1
        return state
