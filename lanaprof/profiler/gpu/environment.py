"""The environment of a GPU that is here, or what is missing for it: said before any work, and within a blink.

The host's processor is no part of it: a recorded graph is replayed by the GPU alone.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

from lanaprof.config.devices import Device
from lanaprof.errors import BackendUnavailable, DeviceUnavailable
from lanaprof.lut.records import Environment
from lanaprof.profiler.backends import Backend, backend_class
from lanaprof.profiler.backends.tensorrt import installed_package
from lanaprof.profiler.gpu.fixing import planned_clock
from lanaprof.profiler.gpu.probe import Gpu, driver_version, find_gpus, why_no_gpu
from lanaprof.profiler.gpu.support import cuda_of_package, find_conflict, tensorrt_range

__all__ = ["SM_CLOCK", "choose_gpu", "driver_from_proc", "gpu_environment", "wanted_gpu"]

SM_CLOCK = "sm_clock_mhz"  # among the environment's options where the clock is fixed
_TENSORRT = "tensorrt"
_PROC = Path("/proc/driver/nvidia/version")
_ELSEWHERE = "use --device cpu here, or bring a table measured on the device: lanaprof lut import FILE"


def gpu_environment(device: Device) -> Environment:
    """Return the environment in which the device would be measured here.

    Raises:
        DeviceUnavailable: there is no such GPU; says what is here and what the device needs.
        BackendUnavailable: its runtime is not installed, or does not run on this GPU; says what to install.
    """
    gpu = choose_gpu(device, find_gpus())
    backend = backend_class(device.backend)
    options = dict(backend.options_with(device.threads, device.options))
    sm_clock_mhz = planned_clock(gpu.uuid, device.lock_clocks).sm_clock_mhz
    if sm_clock_mhz:
        options[SM_CLOCK] = str(sm_clock_mhz)
    return Environment(
        backend=backend.name,
        backend_version=_runtime_version(backend, gpu),
        cpu_model="",
        isa="",
        cores=0,
        smt=False,
        gpu_model=gpu.name,
        driver=_driver_text(),
        threads=device.threads,
        options=tuple(sorted(options.items())),
    )


def choose_gpu(device: Device, gpus: tuple[Gpu, ...]) -> Gpu:
    """Return the first GPU that is the device.

    Raises:
        DeviceUnavailable: none is; says what is here.
    """
    if not gpus:
        raise DeviceUnavailable(
            f"device {device.name!r} needs {wanted_gpu(device)}; here, {why_no_gpu() or 'there is none'}",
            hint=f"{_where_it_is(device)}; {_ELSEWHERE}",
        )
    for gpu in gpus:
        if _is(device, gpu):
            return gpu
    here = ", ".join(f"{gpu.name} ({_dotted(gpu.capability)})" for gpu in gpus)
    raise DeviceUnavailable(
        f"device {device.name!r} needs {wanted_gpu(device)}; here: {here}",
        hint=f"lanaprof devices --detect prints entries for what is here; {_ELSEWHERE}",
    )


def wanted_gpu(device: Device) -> str:
    """Return in words which GPU a device is, and what runs on it.

    >>> from lanaprof.config.devices import parse_device
    >>> print(wanted_gpu(parse_device("v100")))
    an NVIDIA GPU (V100 of compute capability 7.0) with TensorRT 8.6 up to, not including, 10.5
    """
    wanted = dict(device.match)
    name = wanted.get("gpu_name", "").replace(r"\\b", "").replace(r"\b", "").strip("^$")
    capability = wanted.get("compute_capability", "")
    said = " of ".join(
        part for part in (name, f"compute capability {capability}" if capability else "") if part
    )
    runtime = device.backend
    if device.backend == _TENSORRT:
        found = tensorrt_range(_numbers(capability)) if capability else None
        runtime = found.text if found is not None and found.pin else "TensorRT"
    return f"an NVIDIA GPU ({said or 'any'}) with {runtime}"


def driver_from_proc(text: str) -> str:
    """Return the driver's version in the text of /proc/driver/nvidia/version; empty when it says none.

    >>> driver_from_proc("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024")
    '550.54.15'
    """
    found = re.search(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)", text)
    return found[1] if found else ""


def _is(device: Device, gpu: Gpu) -> bool:
    wanted = dict(device.match)
    capability = wanted.get("compute_capability", "")
    return device.matches(
        backend=device.backend, cpu_model="", gpu_model=gpu.name, threads=device.threads
    ) and capability in ("", _dotted(gpu.capability))


def _runtime_version(backend: type[Backend], gpu: Gpu) -> str:
    if backend.name != _TENSORRT:
        return backend.version()
    try:
        version = backend.version()
    except BackendUnavailable as error:
        conflict = find_conflict(gpu.capability, "", driver_version())
        if conflict is None or not conflict.command:
            raise
        raise BackendUnavailable(
            f"{gpu.name}: {conflict.message}", hint=f"{error.hint or 'pip install lanaprof[tensorrt]'}; "
            f"the version for this GPU: {conflict.command}",
        ) from None  # fmt: skip
    found = installed_package()
    built_for = cuda_of_package(found[0]) if found is not None else None
    conflict = find_conflict(gpu.capability, version, driver_version(), built_for=built_for)
    if conflict is not None:
        raise BackendUnavailable(f"{gpu.name}: {conflict.message}", hint=conflict.command or _ELSEWHERE)
    return version


def _where_it_is(device: Device) -> str:
    """Return what to install on the machine that has the GPU."""
    capability = dict(device.match).get("compute_capability", "")
    found = tensorrt_range(_numbers(capability)) if capability else None
    pin = f" {found.pin}" if found is not None and found.pin and device.backend == _TENSORRT else ""
    return f"where the GPU is: pip install 'lanaprof[tensorrt]'{pin}"


def _driver_text() -> str:
    """Return the driver's version: two of the same CUDA may differ in speed."""
    with contextlib.suppress(OSError):
        found = driver_from_proc(_PROC.read_text(encoding="utf-8"))
        if found:
            return found
    speaks = driver_version()
    return f"CUDA {_dotted(speaks)}" if speaks else ""


def _numbers(capability: str) -> tuple[int, int]:
    major, _, minor = capability.partition(".")
    return int(major), int(minor or 0)


def _dotted(numbers: tuple[int, int]) -> str:
    return f"{numbers[0]}.{numbers[1]}"
