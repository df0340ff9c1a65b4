"""The door to CUDA: contexts, memory, streams, events and graphs, and the only way our code touches them.

Two packages stand behind it: PyCUDA (:mod:`lanaprof.profiler.gpu.pycuda_driver`) and NVIDIA's own cuda-bindings
(:mod:`lanaprof.profiler.gpu.bindings_driver`). The contract:

- A driver holds the GPU's *primary* context, the one that TensorRT, torch and the CUDA runtime share, current on the
  thread that opened it, with spin-wait scheduling: the CPU that waits for a GPU polls, it does not sleep. One thread.
- ``stream``, ``event``, ``allocate`` and ``capture`` return objects that give back what they hold when they are
  dropped or closed, the latter as often as one likes; after the driver's ``close`` they hold nothing.
- Streams do not wait for the default stream. What is enqueued returns at once; ``synchronize`` waits. ``read`` and
  ``write`` wait for everything before and copy for real: never on a path that is timed.
- ``capture`` records what a function enqueues and runs nothing of it; what cannot be recorded is CaptureRefused, and
  the stream is as good as before.
- Every error is a BackendError with CUDA's own name of it: OutOfDeviceMemory (one operator's failure: the context
  lives on), DeviceLost (the context is beyond repair: only another process helps), CaptureRefused, or BackendError.
"""

from __future__ import annotations

import contextlib
import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from lanaprof.errors import BackendError
from lanaprof.profiler.gpu.failures import CaptureRefused, DeviceLost, OutOfDeviceMemory
from lanaprof.profiler.gpu.probe import Gpu

__all__ = [
    "CaptureRefused",
    "DeviceLost",
    "Driver",
    "Event",
    "Graph",
    "Memory",
    "OutOfDeviceMemory",
    "Stream",
]

Array = npt.NDArray[Any]


class _Held:
    """Something of CUDA's that is given back once: when closed, when dropped, or with its driver."""

    __slots__ = ("__weakref__", "_driver", "native")

    def __init__(self, driver: Driver, native: Any) -> None:
        self._driver, self.native = driver, native

    def close(self) -> None:
        """Give it back; more than once does nothing."""
        native, self.native = self.native, None
        if native is not None and not self._driver.closed:
            self._give_back(native)

    def _give_back(self, native: Any) -> None:
        raise NotImplementedError

    def __del__(self) -> None:
        self.close()


class Memory(_Held):
    """Memory of the device.

    Attributes:
        pointer: its address there.
        size_bytes: as asked for.
    """

    __slots__ = ("pointer", "size_bytes")

    def __init__(self, driver: Driver, native: Any, pointer: int, size_bytes: int) -> None:
        super().__init__(driver, native)
        self.pointer, self.size_bytes = pointer, size_bytes

    def _give_back(self, native: Any) -> None:
        self._driver._free(native)


class Stream(_Held):
    """A queue of work, done in order.

    Attributes:
        handle: the address by which other CUDA libraries know it.
    """

    __slots__ = ("handle",)

    def __init__(self, driver: Driver, native: Any, handle: int) -> None:
        super().__init__(driver, native)
        self.handle = handle

    def synchronize(self) -> None:
        """Wait until everything enqueued so far is done; what failed meanwhile is raised here."""
        self._driver._wait_for_stream(self.native)

    def _give_back(self, native: Any) -> None:
        self._driver._destroy_stream(native)


class Event(_Held):
    """A moment in a stream."""

    __slots__ = ()

    def record(self, stream: Stream) -> None:
        """Put the moment behind everything the stream has so far."""
        self._driver._record(self.native, stream.native)

    def synchronize(self) -> None:
        """Wait until the moment has come; what failed meanwhile is raised here."""
        self._driver._wait_for_event(self.native)

    def _give_back(self, native: Any) -> None:
        self._driver._destroy_event(native)


class Graph(_Held):
    """Recorded work, launched as one."""

    __slots__ = ()

    def launch(self, stream: Stream) -> None:
        """Enqueue all of it."""
        self._driver._launch(self.native, stream)

    def _give_back(self, native: Any) -> None:
        self._driver._destroy_graph(native)


class Driver(ABC):
    """An open GPU.

    What implementations provide works on their package's own objects (``native``), and raises this module's errors.

    Args:
        gpu: from :func:`lanaprof.profiler.gpu.probe.find_gpus`.
    """

    name: ClassVar[str]

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.closed = False

    # ------------------------------------------------------------------------------------ what callers use

    def allocate(self, size_bytes: int) -> Memory:
        """Return memory; none is a byte all the same, as an address must exist.

        Raises:
            OutOfDeviceMemory: there is no room.
        """
        native, pointer = self._allocate(max(1, size_bytes))
        return Memory(self, native, pointer, size_bytes)

    def stream(self) -> Stream:
        """Return a new stream, which does not wait for the default one."""
        native, handle = self._create_stream()
        return Stream(self, native, handle)

    def event(self) -> Event:
        """Return a new event that keeps time."""
        return Event(self, self._create_event())

    def elapsed_s(self, begin: Event, end: Event) -> float:
        """Return the seconds between two moments that have come, by the GPU's own clock (about 0.5 µs fine)."""
        return self._elapsed_s(begin.native, end.native)

    def write(self, memory: Memory, values: Array) -> None:
        """Copy an array to the device, once everything enqueued is done."""
        whole = np.ascontiguousarray(values)
        if whole.nbytes > memory.size_bytes:
            raise BackendError(f"{whole.nbytes} bytes do not fit into {memory.size_bytes} of the GPU's")
        self.synchronize()
        if whole.nbytes:
            self._copy_in(memory.native, whole)

    def read(self, memory: Memory, kind: npt.DTypeLike, shape: Sequence[int]) -> Array:
        """Return a copy of an array on the device, once everything enqueued is done."""
        values = np.empty(tuple(shape), dtype=kind)
        if values.nbytes > memory.size_bytes:
            raise BackendError(f"{values.nbytes} bytes are not in {memory.size_bytes} of the GPU's")
        self.synchronize()
        if values.nbytes:
            self._copy_out(values, memory.native)
        return values

    def fill(self, memory: Memory, value: int, stream: Stream) -> None:
        """Enqueue setting every byte of the memory."""
        self._fill(memory.native, value, memory.size_bytes, stream.native)

    def copy(self, target: Memory, source: Memory, stream: Stream) -> None:
        """Enqueue a copy from memory to memory, as many bytes as the source has."""
        self._copy(target.native, source.native, source.size_bytes, stream.native)

    def capture(self, stream: Stream, enqueue: Callable[[Stream], object]) -> Graph:
        """Return what a function enqueues as a graph; nothing of it runs.

        Raises:
            CaptureRefused: part of it cannot be recorded, e.g. because it waits or allocates.
        """
        # The garbage collector might free memory meanwhile, which would spoil the recording.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._begin_capture(stream)
            try:
                enqueue(stream)
            except BaseException:
                self._abandon_capture(stream)
                raise
            return Graph(self, self._end_capture(stream))
        finally:
            if collecting:
                gc.enable()

    def synchronize(self) -> None:
        """Wait for everything enqueued on any stream; what failed meanwhile is raised here."""
        self._wait_for_all()

    def memory_bytes(self) -> tuple[int, int]:
        """Return how much of the GPU's memory is free, and how much there is."""
        return self._memory_bytes()

    def close(self) -> None:
        """Release the GPU; what it handed out is of no further use. More than once does nothing."""
        if self.closed:
            return
        self.closed = True
        for finish in (self._wait_for_all, self._release):
            with contextlib.suppress(
                BackendError
            ):  # a lost GPU has nothing to wait for, and nothing left to give
                finish()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---------------------------------------------------------------------- what implementations provide

    @abstractmethod
    def _wait_for_all(self) -> None:
        """Wait for everything on any stream."""

    @abstractmethod
    def _memory_bytes(self) -> tuple[int, int]:
        """Return free and whole."""

    @abstractmethod
    def _release(self) -> None:
        """Give the context back."""

    @abstractmethod
    def _allocate(self, size_bytes: int) -> tuple[Any, int]:
        """Return memory and its address."""

    @abstractmethod
    def _free(self, memory: Any) -> None:
        """Give memory back."""

    @abstractmethod
    def _create_stream(self) -> tuple[Any, int]:
        """Return a stream and its address."""

    @abstractmethod
    def _destroy_stream(self, stream: Any) -> None:
        """Give a stream back."""

    @abstractmethod
    def _wait_for_stream(self, stream: Any) -> None:
        """Wait for a stream."""

    @abstractmethod
    def _create_event(self) -> Any:
        """Return an event that keeps time."""

    @abstractmethod
    def _destroy_event(self, event: Any) -> None:
        """Give an event back."""

    @abstractmethod
    def _record(self, event: Any, stream: Any) -> None:
        """Enqueue a moment."""

    @abstractmethod
    def _wait_for_event(self, event: Any) -> None:
        """Wait for a moment."""

    @abstractmethod
    def _elapsed_s(self, begin: Any, end: Any) -> float:
        """Return seconds between moments."""

    @abstractmethod
    def _copy_in(self, memory: Any, values: Array) -> None:
        """Copy a contiguous array to the device."""

    @abstractmethod
    def _copy_out(self, values: Array, memory: Any) -> None:
        """Copy from the device into a contiguous array."""

    @abstractmethod
    def _fill(self, memory: Any, value: int, size_bytes: int, stream: Any) -> None:
        """Enqueue setting bytes."""

    @abstractmethod
    def _copy(self, target: Any, source: Any, size_bytes: int, stream: Any) -> None:
        """Enqueue a copy on the device."""

    @abstractmethod
    def _begin_capture(self, stream: Stream) -> None:
        """Record instead of running what this thread enqueues from now on."""

    @abstractmethod
    def _abandon_capture(self, stream: Stream) -> None:
        """Stop recording and throw it away, without raising."""

    @abstractmethod
    def _end_capture(self, stream: Stream) -> Any:
        """Stop recording; return a graph ready to launch."""

    @abstractmethod
    def _launch(self, graph: Any, stream: Stream) -> None:
        """Enqueue a graph."""

    @abstractmethod
    def _destroy_graph(self, graph: Any) -> None:
        """Give a graph back."""
