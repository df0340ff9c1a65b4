"""The door to time on a GPU."""

from __future__ import annotations

from collections.abc import Callable

from lanaprof.profiler.gpu.driver import Stream

__all__ = ["GpuCall"]


class GpuCall:
    """A program bound to its buffers: called, it runs once and waits; enqueued, it does not wait.

    Args:
        stream: where a plain call runs.
        enqueue: puts one run on a stream, waits for nothing and allocates nothing.
        keep: what must live as long as the call.
    """

    def __init__(self, stream: Stream, enqueue: Callable[[Stream], object], *, keep: object = None) -> None:
        self.stream, self._enqueue, self._keep = stream, enqueue, keep

    def __call__(self) -> None:
        """Run once and wait."""
        self.enqueue(self.stream)
        self.stream.synchronize()

    def enqueue(self, stream: Stream) -> None:
        """Put one run on a stream, without waiting."""
        self._enqueue(stream)
