"""The door to CUDA over NVIDIA's cuda-bindings alone, for machines without PyCUDA: wheels only, nothing to compile."""

from __future__ import annotations

from typing import Any

from lanaprof.profiler.gpu import graphs
from lanaprof.profiler.gpu.driver import Array, Driver, Stream
from lanaprof.profiler.gpu.graphs import checked
from lanaprof.profiler.gpu.probe import Gpu
from lanaprof.profiler.gpu.spinning import ask_for_spinning

__all__ = ["BindingsDriver"]


class BindingsDriver(Driver):
    """A GPU opened through cuda-bindings."""

    name = "cuda-bindings"

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu)
        from cuda.bindings import driver  # an optional package

        self._cuda: Any = driver
        checked("cuInit", 0)
        self._device = checked("cuDeviceGet", gpu.index)
        self.spins = ask_for_spinning(gpu.index)
        context = checked("cuDevicePrimaryCtxRetain", self._device)
        checked("cuCtxPushCurrent", context)

    @classmethod
    def why_unavailable(cls) -> str:
        """Return why it cannot be used here; empty when it can."""
        try:
            from cuda.bindings import driver  # noqa: F401  (whether it can be imported is the question)
        except ImportError as error:
            return f"cuda-bindings cannot be imported ({error})"
        return ""

    def _wait_for_all(self) -> None:
        checked("cuCtxSynchronize")

    def _memory_bytes(self) -> tuple[int, int]:
        free, total = checked("cuMemGetInfo")
        return int(free), int(total)

    def _release(self) -> None:
        try:
            checked("cuCtxPopCurrent")
        finally:
            checked("cuDevicePrimaryCtxRelease", self._device)

    def _allocate(self, size_bytes: int) -> tuple[Any, int]:
        pointer = checked("cuMemAlloc", size_bytes)
        return pointer, int(pointer)

    def _free(self, memory: Any) -> None:
        checked("cuMemFree", memory)

    def _create_stream(self) -> tuple[Any, int]:
        stream = checked("cuStreamCreate", int(self._cuda.CUstream_flags.CU_STREAM_NON_BLOCKING))
        return stream, int(stream)

    def _destroy_stream(self, stream: Any) -> None:
        checked("cuStreamDestroy", stream)

    def _wait_for_stream(self, stream: Any) -> None:
        checked("cuStreamSynchronize", stream)

    def _create_event(self) -> Any:
        return checked("cuEventCreate", int(self._cuda.CUevent_flags.CU_EVENT_DEFAULT))

    def _destroy_event(self, event: Any) -> None:
        checked("cuEventDestroy", event)

    def _record(self, event: Any, stream: Any) -> None:
        checked("cuEventRecord", event, stream)

    def _wait_for_event(self, event: Any) -> None:
        checked("cuEventSynchronize", event)

    def _elapsed_s(self, begin: Any, end: Any) -> float:
        return float(checked("cuEventElapsedTime", begin, end)) / 1e3  # CUDA tells milliseconds

    def _copy_in(self, memory: Any, values: Array) -> None:
        checked("cuMemcpyHtoD", memory, values.ctypes.data, values.nbytes)

    def _copy_out(self, values: Array, memory: Any) -> None:
        checked("cuMemcpyDtoH", values.ctypes.data, memory, values.nbytes)

    def _fill(self, memory: Any, value: int, size_bytes: int, stream: Any) -> None:
        checked("cuMemsetD8Async", memory, value, size_bytes, stream)

    def _copy(self, target: Any, source: Any, size_bytes: int, stream: Any) -> None:
        checked("cuMemcpyDtoDAsync", target, source, size_bytes, stream)

    def _begin_capture(self, stream: Stream) -> None:
        graphs.begin(stream.handle)

    def _abandon_capture(self, stream: Stream) -> None:
        graphs.abandon(stream.handle)

    def _end_capture(self, stream: Stream) -> Any:
        return graphs.end(stream.handle)

    def _launch(self, graph: Any, stream: Stream) -> None:
        graphs.launch(graph, stream.handle)

    def _destroy_graph(self, graph: Any) -> None:
        graphs.destroy(graph)
