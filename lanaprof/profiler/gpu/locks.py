"""One measuring process per GPU, machine-wide."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from lanaprof.profiler.corelock import default_lock_folder, hold

__all__ = ["hold_gpu"]


@contextlib.contextmanager
def hold_gpu(
    uuid: str, waiting: Callable[[str], None] = lambda _holder: None, folder: Path | None = None
) -> Iterator[None]:
    """Hold a GPU for this process; wait for whoever measures on it now.

    Whoever holds cores as well takes those first, so that two processes cannot wait for each other.

    Args:
        uuid: of the GPU, which is the same whatever CUDA_VISIBLE_DEVICES says. A slice (MIG) has one of its own and
            is held alone: its multiprocessors and its part of the cache are not shared.
        waiting: called with the holder's process id when there is something to wait for.
        folder: where the lock files lie.
    """
    with hold({f"gpu-{uuid}": uuid}, folder or default_lock_folder(), waiting):
        yield
