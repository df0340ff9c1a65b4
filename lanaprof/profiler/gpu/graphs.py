"""CUDA graphs over cuda-bindings, on plain addresses of streams: what both implementations of the door share.

PyCUDA knows no stream capture (looked for in 2026.1), but its streams are ordinary ones that cuda-bindings can record.
"""

from __future__ import annotations

import contextlib
from typing import Any

from lanaprof.errors import BackendError
from lanaprof.profiler.gpu.failures import CaptureRefused, error_from_code
from lanaprof.profiler.gpu.probe import driver_version

__all__ = ["abandon", "begin", "checked", "destroy", "end", "launch"]


def _cuda() -> Any:
    # An optional package, loaded when a GPU is used.
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise CaptureRefused(
            f"graphs need cuda-bindings, which cannot be imported ({error})", hint="pip install cuda-bindings"
        ) from error
    return driver


def checked(call: str, *arguments: Any) -> Any:
    """Return what a function of the driver returns beside its code: None, one value, or a tuple of them.

    Args:
        call: its name, e.g. ``cuMemAlloc``.
        arguments: as cuda-bindings takes them.

    Raises:
        BackendError: the code says it failed.
    """
    driver = _cuda()
    try:
        code, *values = getattr(driver, call)(*arguments)
    except RuntimeError as error:  # 'Function "cu…" not found': the driver is older than the package
        major, minor = driver_version() or (0, 0)
        raise BackendError(
            f"{call}: {error}; this driver speaks CUDA {major}.{minor}",
            hint=f"pip install 'cuda-bindings<={major}.{minor}.99'",
        ) from error
    if code != driver.CUresult.CUDA_SUCCESS:
        text = driver.cuGetErrorString(code)[1] or b""
        raise error_from_code(int(code), call=call, name=code.name, text=text.decode())
    return values[0] if len(values) == 1 else (tuple(values) or None)


def begin(handle: int) -> None:
    """Start recording a stream; other threads may go on with what they do."""
    driver = _cuda()
    mode = driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked("cuStreamBeginCapture", driver.CUstream(handle), mode)


def abandon(handle: int) -> None:
    """Stop recording and throw it away; a recording that is already spoilt is as good as thrown away."""
    driver = _cuda()
    with contextlib.suppress(CaptureRefused):
        checked("cuGraphDestroy", checked("cuStreamEndCapture", driver.CUstream(handle)))


def end(handle: int) -> Any:
    """Return the recording, ready to launch."""
    driver = _cuda()
    recorded = checked("cuStreamEndCapture", driver.CUstream(handle))
    try:
        return checked("cuGraphInstantiate", recorded, 0)
    finally:
        checked("cuGraphDestroy", recorded)


def launch(graph: Any, handle: int) -> None:
    """Enqueue a recording."""
    checked("cuGraphLaunch", graph, _cuda().CUstream(handle))


def destroy(graph: Any) -> None:
    """Give a recording back."""
    checked("cuGraphExecDestroy", graph)
