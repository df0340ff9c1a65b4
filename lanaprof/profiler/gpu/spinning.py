"""Waiting for a GPU by polling: a sleeping thread is woken some microseconds late."""

from __future__ import annotations

import ctypes

from lanaprof.profiler.gpu.library import SUCCESS, open_library

__all__ = ["ask_for_spinning"]

_SCHED_SPIN = 1  # CU_CTX_SCHED_SPIN


def ask_for_spinning(index: int) -> bool:
    """Let this process poll when it waits for a GPU; call it before the GPU's primary context is used.

    PyCUDA cannot set flags of the primary context, hence ctypes.

    Args:
        index: the GPU's number among those this process may use.

    Returns:
        Whether the driver agreed. Where it does not, times by the GPU's own clock stay right; the pauses in between
        grow.
    """
    library = open_library()
    if library is None or not library.has("cuDevicePrimaryCtxSetFlags_v2"):
        return False
    device = ctypes.c_int()
    return (
        library.call("cuDeviceGet", ctypes.byref(device), index) == SUCCESS
        and library.call("cuDevicePrimaryCtxSetFlags_v2", device, _SCHED_SPIN) == SUCCESS
    )
