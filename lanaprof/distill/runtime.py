"""Where training runs, how often it saves, what it tells, and files that are whole or absent."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.errors import StoreError

__all__ = [
    "PRECISIONS",
    "Ledger",
    "Limits",
    "Pace",
    "Progress",
    "ProgressCallback",
    "Runtime",
    "crew",
    "keep_random_state",
    "load_checkpoint",
    "write_whole",
]


PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True, slots=True)
class Limits:
    """What training may use besides time.

    Attributes:
        checkpoint_s: seconds between checkpoints; kill -9 loses at most this much (and never less work than
            ten times what writing one takes).
        max_bytes: memory for weights, gradients and optimiser state; what needs more is trained in turns.
            None: half of the machine's memory.
    """

    checkpoint_s: float = 20.0
    max_bytes: int | None = None

    @property
    def bytes_allowed(self) -> int:
        """The memory limit in bytes."""
        return self.max_bytes if self.max_bytes is not None else _physical_memory_bytes() // 2


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a long job is.

    Attributes:
        stage: what is being done, for people.
        done: units done, of ``total``.
        seconds_left: an estimate, or None before there is one.
    """

    stage: str
    done: int
    total: int
    seconds_left: float | None


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The device computed on, and whether in mixed precision with bfloat16."""

    device: torch.device
    mixed: bool

    @classmethod
    def here(cls, precision: str = "auto") -> Runtime:
        """Return the best this machine has, computing in one of PRECISIONS."""
        if torch.cuda.is_available():
            mixed = precision == "bf16" or (
                precision == "auto" and torch.cuda.is_bf16_supported(including_emulation=False)
            )
            return cls(torch.device("cuda"), mixed)
        return cls(torch.device("cpu"), precision == "bf16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context the forward passes run in."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def place(self, module: nn.Module) -> nn.Module:
        """Move a module here; convolutions get the layout they are fastest in, 1.3 times on our CPU."""
        module.to(self.device)
        for parameter in module.parameters():
            if (
                parameter.ndim == 4
            ):  # Module.to(memory_format=...) would refuse three-dimensional convolutions
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        return module

    def send(self, x: Tensor) -> Tensor:
        """Move a batch here, images in the modules' layout."""
        moved = x.to(self.device, non_blocking=True)
        return moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved


class Pace:
    """Tells when to save and how long is left."""

    def __init__(self, checkpoint_s: float) -> None:
        self._checkpoint_s = checkpoint_s
        self._saved_s = time.monotonic()
        self._first: tuple[float, int] | None = None  # when something was done first, and how much
        self._cost_s = 0.0

    def save_if_due(self, save: Callable[[], None]) -> None:
        """Call ``save`` when enough time has passed since the last call of it."""
        began_s = time.monotonic()
        if began_s - self._saved_s >= max(self._checkpoint_s, 10 * self._cost_s):
            save()
            self._saved_s = time.monotonic()
            self._cost_s = self._saved_s - began_s

    def seconds_left(self, done: int, total: int) -> float | None:
        """Return the time left, at the pace since the first units were done: loading says nothing of the others."""
        now_s = time.monotonic()
        if self._first is None:
            if done:
                self._first = now_s, done
            return None
        first_s, first = self._first
        return (now_s - first_s) * (total - done) / (done - first) if done > first else None


class Ledger:
    """Counts candidate steps over all groups, and tells how far the whole is.

    Args:
        candidates: in all groups.
        steps: of each.
        told: whom to tell; None: nobody.
    """

    def __init__(self, candidates: int, steps: int, told: ProgressCallback | None) -> None:
        self._stage = f"distilling {candidates} candidates"
        self._total = candidates * steps
        self._told = told
        self._done = self._worked = 0
        self._began_s: float | None = None  # the end of the first work: loading says nothing of the rest

    def spare(self, count: int) -> None:
        """Count steps that need no work: done by an earlier call, or of candidates given up."""
        self._done += count

    def work(self, count: int) -> None:
        """Count steps just done, and tell."""
        self._done += count
        if self._began_s is None:
            self._began_s = time.monotonic()
        else:
            self._worked += count

    def tell(self) -> None:
        """Tell how far it is."""
        if self._told is not None:
            left_s = None
            if self._began_s is not None and self._worked:
                elapsed_s = time.monotonic() - self._began_s
                left_s = elapsed_s * (self._total - self._done) / self._worked
            self._told(Progress(self._stage, self._done, self._total, left_s))


@contextmanager
def crew(runtime: Runtime) -> Iterator[ThreadPoolExecutor | None]:
    """Give one worker per core, each computing with one thread; None where there is one core or a GPU.

    Candidates are small and independent: one per core was 1.45 times as fast as all cores on each in turn
    (90 candidates of the Fashion-MNIST example, 64 images, 2 cores), and another program that takes a core
    away does not hold up the other one.
    """
    threads = torch.get_num_threads()
    if threads < 2 or runtime.device.type != "cpu":
        yield None
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as workers:
            yield workers
    finally:
        torch.set_num_threads(threads)  # torch keeps the last number set in any thread for new threads


@contextmanager
def keep_random_state() -> Iterator[None]:
    """Give the global random numbers of the CPU back as they were; inside, anyone may seed."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    Raises:
        StoreError: the disk is full or the folder cannot be written.
    """
    # random, not the process id alone: on shared storage two machines may have the same
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = (
            temporary.stat().st_mode
        )  # as this user's files have it; what writes may make one for itself alone
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise StoreError(
            f"cannot write {path}: {error}", hint="free some space, or choose a folder that can be written"
        ) from error
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Return a checkpoint written by ``torch.save``, or None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ):  # damaged by the disk, or of an older torch: starting again is right, and loses only time
        path.unlink(missing_ok=True)
        return None
    return found if isinstance(found, dict) else None


def _physical_memory_bytes() -> int:
    try:
        physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 8 * 2**30
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or "max": no limit
        return physical
