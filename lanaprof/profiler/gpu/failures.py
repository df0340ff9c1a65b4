"""What CUDA's errors mean to a campaign: one operator's failure, or the end of the process's context."""

from __future__ import annotations

from lanaprof.errors import BackendError

__all__ = ["CaptureRefused", "DeviceLost", "OutOfDeviceMemory", "error_from_code"]

_OUT_OF_MEMORY = 2
_CAPTURE_CODES = range(
    900, 909
)  # CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED … CUDA_ERROR_CAPTURED_EVENT, _WRONG_THREAD
# After these "the process must be terminated and relaunched" (cuda.h), or the context is no more.
_LOST_CODES = frozenset((
    4,  # DEINITIALIZED
    46,  # DEVICE_UNAVAILABLE
    201,  # INVALID_CONTEXT
    214,  # ECC_UNCORRECTABLE
    220,  # NVLINK_UNCORRECTABLE
    226,  # CONTAINED
    *(700, 702),  # ILLEGAL_ADDRESS, LAUNCH_TIMEOUT
    *range(709, 711),  # CONTEXT_IS_DESTROYED, ASSERT
    *range(714, 720),  # HARDWARE_STACK_ERROR … LAUNCH_FAILED
    721,  # TENSOR_MEMORY_LEAK
    999,  # UNKNOWN
))  # fmt: skip


class OutOfDeviceMemory(BackendError):
    """The GPU has no room for it; what is allocated stays, and smaller things go on."""


class DeviceLost(BackendError):
    """The GPU's context is broken for good: every later call fails, and only a new process helps."""


class CaptureRefused(BackendError):
    """What was enqueued cannot become a graph."""


def error_from_code(code: int, *, call: str, name: str, text: str = "") -> BackendError:
    """Return the error that a CUDA code means.

    Args:
        code: of ``CUresult``.
        call: the function that returned it.
        name: CUDA's name of the code.
        text: CUDA's words for it.

    >>> type(error_from_code(2, call="cuMemAlloc", name="CUDA_ERROR_OUT_OF_MEMORY")).__name__
    'OutOfDeviceMemory'
    """
    kind: type[BackendError] = BackendError
    if code == _OUT_OF_MEMORY:
        kind = OutOfDeviceMemory
    elif code in _LOST_CODES:
        kind = DeviceLost
    elif code in _CAPTURE_CODES:
        kind = CaptureRefused
    return kind(f"{call}: {name}" + (f" ({text})" if text else ""))
