"""One measuring process per core, machine-wide; the same for other parts of a machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["CoreLocks", "default_lock_folder", "hold", "hold_cores"]


def default_lock_folder() -> Path:
    """Return the folder that all users of the machine share for locks."""
    return Path(tempfile.gettempdir()) / "lanaprof-locks"


@contextlib.contextmanager
def hold_cores(cores: Sequence[int], folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold the cores for this process; wait for whoever holds them now.

    Args:
        cores: taken in ascending order, so that two processes cannot wait for each other.
        folder: where the lock files lie; made when absent, writable for everyone.
        waiting: called once with the holder's process id when there is something to wait for.
    """
    with hold({f"core-{core}": f"core {core}" for core in sorted(cores)}, folder, waiting):
        yield


@contextlib.contextmanager
def hold(things: Mapping[str, str], folder: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Hold parts of the machine for this process, in the order given; wait for whoever holds them now.

    The kernel releases the locks when the process ends, however it ends.

    Args:
        things: the name of the lock file → what it stands for, in words.
        folder: where the lock files lie; made when absent, writable for everyone.
        waiting: called with what the holder wrote, for each thing that somebody else holds.
    """
    import fcntl

    with contextlib.suppress(FileExistsError):
        folder.mkdir(parents=True)
        folder.chmod(0o1777)
    with contextlib.ExitStack() as stack:
        for name, words in things.items():
            path = folder / f"{name}.lock"
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
            file.write(f"process {os.getpid()} on {words}")
            file.flush()
        yield


class CoreLocks:
    """The locks of several core sets, held by this process for its workers; use it as a context manager.

    All are taken in one ascending order, whatever set they are of, so that two processes cannot wait for each other.

    Args:
        core_sets: whose cores.
        waiting: called with the holder's process id for each core that another process holds.
        folder: where the lock files lie.
    """

    def __init__(
        self,
        core_sets: Iterable[Sequence[int]],
        waiting: Callable[[str], None],
        folder: Path | None = None,
    ) -> None:
        self._cores = sorted({core for cores in core_sets for core in cores})
        self._waiting, self._folder = waiting, folder or default_lock_folder()
        self._held: dict[int, contextlib.ExitStack] = {}

    def __enter__(self) -> Self:
        try:
            for core in self._cores:
                stack = contextlib.ExitStack()
                stack.enter_context(hold_cores((core,), self._folder, self._waiting))
                self._held[core] = stack
        except BaseException:
            self.keep_only(())
            raise
        return self

    def keep_only(self, core_sets: Iterable[Sequence[int]]) -> None:
        """Give the other cores back."""
        kept = {core for cores in core_sets for core in cores}
        for core in [core for core in self._held if core not in kept]:
            self._held.pop(core).close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep_only(())
