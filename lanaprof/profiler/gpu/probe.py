"""Which NVIDIA GPUs are here, asked of the driver itself: no CUDA package is imported, nothing is allocated.

Without a driver this takes a millisecond and finds none; nothing here raises for a GPU that is missing. What is found
is what CUDA would give this process: ``CUDA_VISIBLE_DEVICES`` has had its say, and a slice of a GPU (MIG) counts as a
GPU of its own.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from lanaprof.errors import DeviceUnavailable
from lanaprof.profiler.gpu.library import SUCCESS, CudaLibrary, open_library

__all__ = ["Gpu", "driver_version", "find_gpus", "get_gpu", "reason_from_code", "why_no_gpu"]

_LIBRARY_NAME = "libcuda.so.1"
_NAME_BYTES = 256
# CUdevice_attribute of cuda.h
_MULTIPROCESSOR_COUNT, _L2_CACHE_SIZE, _MAJOR, _MINOR = 16, 38, 75, 76
# What to do about the codes with which cuInit fails in practice; words of NVIDIA's documentation of CUresult.
_REMEDIES: Mapping[int, str] = {
    34: "a stub of libcuda is loaded, not the driver's: take the toolkit's stubs folder out of LD_LIBRARY_PATH",
    100: "the driver runs, but no GPU is visible to this process",
    802: "the system is not ready: is the fabric manager running?",
    803: "the driver's library and its kernel module are of different versions: restart the machine",
    804: "this GPU does not support the forward compatibility package that is loaded",
    999: "often the kernel module of the driver is not loaded, or lost the GPU: see `nvidia-smi` and `dmesg`",
}
_NO_DEVICE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU, or a slice of one.

    Attributes:
        index: its number among those this process may use.
        name: as the driver gives it, e.g. ``Tesla V100-SXM2-16GB``.
        capability: compute capability, e.g. (7, 0).
        uuid: ``GPU-…``, or ``MIG-…`` of a slice; the same in every process, whatever is visible.
        memory_bytes: of the device, or of the slice.
        l2_bytes: its second-level cache.
        sm_count: streaming multiprocessors.
        mig: whether it is a slice.
    """

    index: int
    name: str
    capability: tuple[int, int]
    uuid: str
    memory_bytes: int
    l2_bytes: int
    sm_count: int
    mig: bool = False


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs this process may use, in CUDA's order; none where there is no driver or no GPU."""
    return _look()[0]


def get_gpu(which: str | int = 0) -> Gpu:
    """Return one GPU.

    Args:
        which: its UUID, or its number among those this process may use.

    Raises:
        DeviceUnavailable: there is none like that; says why, or which there are.
    """
    gpus = find_gpus()
    if not gpus:
        raise DeviceUnavailable(f"there is no GPU to use: {why_no_gpu()}")
    for gpu in gpus:
        if which in (gpu.index, gpu.uuid):
            return gpu
    there = ", ".join(f"{gpu.index} ({gpu.name}, {gpu.uuid})" for gpu in gpus)
    raise DeviceUnavailable(f"there is no GPU {which} here; there are: {there}")


def why_no_gpu() -> str:
    """Return a sentence saying why :func:`find_gpus` found none; empty when it found one."""
    return _look()[1]


def driver_version() -> tuple[int, int] | None:
    """Return the newest CUDA version that the installed driver speaks, e.g. (12, 8); None without a driver."""
    library = open_library()
    if library is None:
        return None
    version = ctypes.c_int()
    if library.call("cuDriverGetVersion", ctypes.byref(version)) != SUCCESS:
        return None
    return version.value // 1000, version.value % 1000 // 10


def reason_from_code(code: int, *, name: str, visible: str | None) -> str:
    """Return in words why CUDA does not start.

    Args:
        code: what cuInit returned.
        name: CUDA's name of the code.
        visible: the value of CUDA_VISIBLE_DEVICES; None when it is not set.

    >>> reason_from_code(100, name="CUDA_ERROR_NO_DEVICE", visible="")
    'CUDA does not start (CUDA_ERROR_NO_DEVICE): CUDA_VISIBLE_DEVICES="" hides every GPU'
    """
    remedy = _REMEDIES.get(code, "")
    if code == _NO_DEVICE and visible is not None:
        remedy = f'CUDA_VISIBLE_DEVICES="{visible}" hides every GPU'
    return f"CUDA does not start ({name})" + (f": {remedy}" if remedy else "")


@cache
def _look() -> tuple[tuple[Gpu, ...], str]:
    """Return the GPUs, or why there are none; asked once, as CUDA itself reads its variables once."""
    library = open_library()
    if library is None:
        return (), f"no NVIDIA driver is installed ({_LIBRARY_NAME} is not there)"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    code = library.call("cuInit", 0)
    if code != SUCCESS:
        return (), reason_from_code(code, name=library.error_name(code), visible=visible)
    count = ctypes.c_int()
    code = library.call("cuDeviceGetCount", ctypes.byref(count))
    if code != SUCCESS or count.value == 0:
        code = code or _NO_DEVICE
        return (), reason_from_code(code, name=library.error_name(code), visible=visible)
    return tuple(_gpu(library, index) for index in range(count.value)), ""


def _gpu(library: CudaLibrary, index: int) -> Gpu:
    device = ctypes.c_int()
    library.call("cuDeviceGet", ctypes.byref(device), index)
    name = ctypes.create_string_buffer(_NAME_BYTES)
    library.call("cuDeviceGetName", name, _NAME_BYTES, device)
    memory = ctypes.c_size_t()
    library.call("cuDeviceTotalMem_v2", ctypes.byref(memory), device)
    # The first version of the call tells the whole GPU's id, the second (CUDA 11.4) the slice's where there is one.
    whole = _uuid(library, "cuDeviceGetUuid", device)
    own = _uuid(library, "cuDeviceGetUuid_v2", device) or whole
    is_slice = own != whole
    return Gpu(
        index=index,
        name=name.value.decode(errors="replace"),
        capability=(_attribute(library, _MAJOR, device), _attribute(library, _MINOR, device)),
        uuid=f"{'MIG' if is_slice else 'GPU'}-{own}",
        memory_bytes=memory.value,
        l2_bytes=_attribute(library, _L2_CACHE_SIZE, device),
        sm_count=_attribute(library, _MULTIPROCESSOR_COUNT, device),
        mig=is_slice,
    )


def _attribute(library: CudaLibrary, attribute: int, device: ctypes.c_int) -> int:
    value = ctypes.c_int()
    library.call("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
    return value.value


def _uuid(library: CudaLibrary, function: str, device: ctypes.c_int) -> str:
    """Return 8-4-4-4-12 hexadecimal digits; empty where the driver has no such function."""
    raw = (ctypes.c_ubyte * 16)()
    if not library.has(function) or library.call(function, ctypes.byref(raw), device) != SUCCESS:
        return ""
    digits = bytes(raw).hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
