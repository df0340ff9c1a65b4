"""A GPU's clock, fixed while it is measured, and given back whatever becomes of the process that fixed it.

Fixing takes root. NVML cannot tell whether somebody had fixed the clock before, so that is undone too. A marker beside
the GPU's lock says that its clock is fixed: who holds the lock and finds one knows that its writer is dead, and frees
the clock. So what kill -9 leaves behind lasts until the next measurement on this GPU, or ``lanaprof doctor``, at most.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.corelock import default_lock_folder
from lanaprof.profiler.gpu.locks import hold_gpu
from lanaprof.profiler.gpu.nvml import Nvml, open_nvml

__all__ = ["ClockPlan", "find_forgotten_clocks", "fixed_clock", "free_forgotten_clock", "planned_clock"]

_MHZ = 1e6


@dataclass(frozen=True, slots=True)
class ClockPlan:
    """What clock a GPU is to have while it is measured.

    Attributes:
        sm_clock_mhz: of its multiprocessors; 0 where it is left alone.
        why_not: why it is, although it was to be fixed, and what to type; empty otherwise.
    """

    sm_clock_mhz: int = 0
    why_not: str = ""


def planned_clock(uuid: str, wanted_mhz: int | None) -> ClockPlan:
    """Return the clock that a GPU can be given.

    Args:
        uuid: of the GPU.
        wanted_mhz: 0 for the default one, which it can hold; None leaves it alone.
    """
    if wanted_mhz is None:
        return ClockPlan()
    nvml = open_nvml(uuid)
    if isinstance(nvml, str):
        return _not(nvml, wanted_mhz)
    found_mhz = wanted_mhz or round((nvml.default_sm_hz or 0.0) / _MHZ)
    if not found_mhz:
        return _not("its default clock is unknown", 0)
    if nvml.is_slice:
        return ClockPlan(
            why_not="a slice of a GPU shares its clock with the other slices; its clock is not fixed"
        )
    if os.geteuid() != 0:
        return _not("that takes root", found_mhz)
    return ClockPlan(found_mhz)


def _not(reason: str, mhz: int) -> ClockPlan:
    text = str(mhz) if mhz else "MHZ"
    return ClockPlan(
        why_not=f"the GPU's clock is not fixed: {reason}; samples at a throttled clock are dropped instead "
        f"(as root: nvidia-smi --lock-gpu-clocks={text},{text}, and --reset-gpu-clocks afterwards)"
    )


@contextlib.contextmanager
def fixed_clock(uuid: str, sm_clock_mhz: int, folder: Path) -> Iterator[None]:
    """Fix a GPU's clock while this lasts, and free it of what a dead process left; only while its lock is held.

    Args:
        uuid: of the GPU.
        sm_clock_mhz: as planned; 0 fixes nothing.
        folder: where the locks lie.

    Raises:
        BackendUnavailable: it cannot be fixed, against the plan.
    """
    marker = _marker(uuid, folder)
    if not sm_clock_mhz and not marker.exists():
        yield
        return
    nvml = open_nvml(uuid)
    if not isinstance(nvml, str):
        _free(nvml, marker)
    if not sm_clock_mhz:
        yield
        return
    if isinstance(nvml, str):
        raise BackendUnavailable(f"the GPU's clock cannot be fixed: {nvml}")
    marker.write_text(f"{sm_clock_mhz} MHz by process {os.getpid()}", encoding="utf-8")
    try:
        reason = nvml.lock(sm_clock_mhz * _MHZ)
        if reason:
            raise BackendUnavailable(
                f"the GPU's clock cannot be fixed at {sm_clock_mhz} MHz: {reason}",
                hint="leave `lock_clocks` out of devices.yaml",
            )
        yield
    finally:
        _free(nvml, marker)


def free_forgotten_clock(uuid: str, folder: Path | None = None) -> bool:
    """Free a GPU's clock if a dead process left it fixed; return whether it is as it should be.

    Where a process measures on the GPU now, nothing is to be done: that one freed it first.
    """
    folder = folder or default_lock_folder()
    if not _marker(uuid, folder).exists():
        return True

    def taken(_holder: str) -> None:
        raise _Taken

    try:
        with hold_gpu(uuid, taken, folder):
            nvml = open_nvml(uuid)
            return not isinstance(nvml, str) and _free(nvml, _marker(uuid, folder))
    except _Taken:
        return True


def find_forgotten_clocks(folder: Path | None = None) -> tuple[str, ...]:
    """Return the GPUs whose clock somebody fixed who may be dead, by UUID."""
    return tuple(
        sorted(
            path.stem.removeprefix("gpu-") for path in (folder or default_lock_folder()).glob("gpu-*.clock")
        )
    )


class _Taken(Exception):
    """Somebody else holds the GPU."""


def _marker(uuid: str, folder: Path) -> Path:
    return folder / f"gpu-{uuid}.clock"


def _free(nvml: Nvml, marker: Path) -> bool:
    """Let the GPU choose its clock again; say whether it had been fixed, and is no longer."""
    if not marker.exists() or nvml.unlock():
        return False
    marker.unlink(missing_ok=True)
    return True
