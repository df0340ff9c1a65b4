"""The door to CUDA over PyCUDA; graphs through cuda-bindings where it is installed beside."""

from __future__ import annotations

import atexit
import contextlib
import re
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

from lanaprof.errors import BackendError
from lanaprof.profiler.gpu import graphs
from lanaprof.profiler.gpu.driver import Array, Driver, Stream
from lanaprof.profiler.gpu.failures import error_from_code
from lanaprof.profiler.gpu.library import open_library
from lanaprof.profiler.gpu.probe import Gpu
from lanaprof.profiler.gpu.spinning import ask_for_spinning

__all__ = ["PyCudaDriver"]

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING


class PyCudaDriver(Driver):
    """A GPU opened through PyCUDA."""

    name = "pycuda"

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu)
        import pycuda.driver  # an optional package

        self._cuda: Any = pycuda.driver
        with self._translated():
            self._cuda.init()
            self.spins = ask_for_spinning(gpu.index)
            self._context = self._cuda.Device(gpu.index).retain_primary_context()
            self._context.push()
        # PyCUDA aborts a process that ends with a context on its stack.
        atexit.register(_close_if_there, weakref.ref(self))

    @classmethod
    def why_unavailable(cls) -> str:
        """Return why it cannot be used here; empty when it can."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of a driver older than it was built for, then fails
            try:
                import pycuda.driver  # noqa: F401  (whether it can be imported is the question)
            except ImportError as error:
                return f"PyCUDA cannot be imported ({error})"
        return ""

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (
            self._cuda.Error
        ) as error:  # the base of its MemoryError, LogicError, LaunchError and RuntimeError
            raise _error_from_text(str(error)) from error

    def _wait_for_all(self) -> None:
        with self._translated():
            self._context.synchronize()

    def _memory_bytes(self) -> tuple[int, int]:
        with self._translated():
            free, total = self._cuda.mem_get_info()
        return int(free), int(total)

    def _release(self) -> None:
        try:
            with self._translated():
                self._context.pop()
        finally:  # also takes it from PyCUDA's stack when CUDA refused to pop it
            with self._translated():
                self._context.detach()

    def _allocate(self, size_bytes: int) -> tuple[Any, int]:
        with self._translated():
            memory = self._cuda.mem_alloc(size_bytes)
        return memory, int(memory)

    def _free(self, memory: Any) -> None:
        with self._translated():
            memory.free()

    def _create_stream(self) -> tuple[Any, int]:
        with self._translated():
            stream = self._cuda.Stream(_NON_BLOCKING)
        return stream, int(stream.handle)

    def _destroy_stream(self, stream: Any) -> None:
        """Do nothing: PyCUDA's own object does it when it is dropped."""

    def _wait_for_stream(self, stream: Any) -> None:
        with self._translated():
            stream.synchronize()

    def _create_event(self) -> Any:
        with self._translated():
            return self._cuda.Event()

    def _destroy_event(self, event: Any) -> None:
        """Do nothing: PyCUDA's own object does it when it is dropped."""

    def _record(self, event: Any, stream: Any) -> None:
        with self._translated():
            event.record(stream)

    def _wait_for_event(self, event: Any) -> None:
        with self._translated():
            event.synchronize()

    def _elapsed_s(self, begin: Any, end: Any) -> float:
        with self._translated():
            return float(end.time_since(begin)) / 1e3  # CUDA tells milliseconds

    def _copy_in(self, memory: Any, values: Array) -> None:
        with self._translated():
            self._cuda.memcpy_htod(memory, values)

    def _copy_out(self, values: Array, memory: Any) -> None:
        with self._translated():
            self._cuda.memcpy_dtoh(values, memory)

    def _fill(self, memory: Any, value: int, size_bytes: int, stream: Any) -> None:
        with self._translated():
            self._cuda.memset_d8_async(memory, value, size_bytes, stream)

    def _copy(self, target: Any, source: Any, size_bytes: int, stream: Any) -> None:
        with self._translated():
            self._cuda.memcpy_dtod_async(target, source, size_bytes, stream)

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


def _close_if_there(reference: weakref.ref[PyCudaDriver]) -> None:
    driver = reference()
    if driver is not None:
        driver.close()


def _error_from_text(message: str) -> BackendError:
    """Return what a PyCUDA error means: it says ``cuMemAlloc failed: out of memory`` and carries no code."""
    match = re.match(r"(\w+) failed: (.*?)(?: - .*)?$", message, re.DOTALL)
    library = open_library()
    if match is None or library is None:
        return BackendError(message)
    call, text = match[1], match[2].strip()
    code = library.find_code(text)
    if code is None:
        return BackendError(message)
    return error_from_code(code, call=call, name=library.error_name(code), text=text)
