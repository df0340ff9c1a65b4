"""The garbage collector, while thousands of records are made that it has no business with."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["seldom_collecting"]

_NEW_OBJECTS = 50_000  # between two collections; the usual 700 are a few dozen records
# Of younger objects before older ones are looked at, too: results of queries have cycles, and hold whole batches.
_GENERATIONS = (2, 2)
_lock = threading.Lock()
_inside: list[tuple[int, int, int]] = []  # what the first of all threads that are inside found


@contextmanager
def seldom_collecting() -> Iterator[None]:
    """Let the collector look at new objects a hundred times less often: records come by the thousand, without cycles.

    It takes a fifth of an import otherwise, and a third of reading a table. The last thread to leave puts the usual
    thresholds back. A collector that somebody turned off stays off.
    """
    with _lock:
        _inside.append(_inside[0] if _inside else gc.get_threshold())
        if _inside[0][0]:
            gc.set_threshold(max(_NEW_OBJECTS, _inside[0][0]), *_GENERATIONS)
    try:
        yield
    finally:
        with _lock:
            usual = _inside.pop()
            if not _inside:
                gc.set_threshold(*usual)
