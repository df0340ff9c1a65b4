"""One measuring process per core, machine-wide."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

__all__ = ["default_lock_folder", "hold_cores"]


def default_lock_folder() -> Path:
    """Return the folder that all users of the machine share for locks."""
    return Path(tempfile.gettempdir()) / "lanaprof-locks"


@contextlib.contextmanager
def hold_cores(cores: Sequence[int], folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the cores for this process; wait for whoever holds them now.

    The kernel releases the locks when the process ends, however it ends.

    Args:
        cores: taken in ascending order, so that two processes cannot wait for each other.
        folder: where the lock files lie; made when absent, writable for everyone.
        waiting: called once with the holder's process id when there is something to wait for.
    """
    import fcntl

    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    with contextlib.ExitStack() as stack:
        for core in sorted(cores):
            path = folder / f"core-{core}.lock"
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR))
                path.chmod(0o666)
            file = stack.enter_context(path.open("r+"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                waiting(file.read().strip() or "another process")
                fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on core {core}")
            file.flush()
        yield
