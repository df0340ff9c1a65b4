"""devices --detect: entries of devices.yaml for what is in this machine."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.config import Device
from lanaprof.errors import BackendUnavailable
from lanaprof.flows.machine import Gpu

__all__ = [
    "BackendState",
    "backend_states",
    "detected_entries",
    "device_name",
    "find_cpu_model",
    "matching_devices",
]

_NOISE = re.compile(r"\((?:r|tm|c)\)|\bcpu\b|\bprocessor\b|\d+-core|@.*$|\bwith\b.*$", re.IGNORECASE)
_SPECIAL = re.compile(r"([.^$*+?{}\[\]|()\\])")


def device_name(model: str) -> str:
    """Return a short name for a processor or GPU.

    >>> device_name("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"), device_name("AMD EPYC")
    ('intel-xeon-platinum-8375c', 'amd-epyc')
    """
    words = re.sub(r"[^a-z0-9]+", "-", _NOISE.sub(" ", model).lower()).strip("-")
    return words or "this-machine"


def detected_entries(cpu_model: str, gpus: Sequence[Gpu] = ()) -> dict[str, dict[str, Any]]:
    """Return entries for devices.yaml, by name: the CPU's, and one per kind of GPU.

    The patterns match the whole name, so that a similar model is not taken for this one.
    """
    match = {"cpu_model": _exactly(cpu_model)} if cpu_model else {}
    found: dict[str, dict[str, Any]] = {
        device_name(cpu_model): {
            "backend": "onnxruntime",
            "match": match,
            "threads": 1,
            "batch": 1,
            "precision": "fp32",
        }
    }
    for gpu in gpus:
        found[device_name(gpu.name)] = {
            "backend": "tensorrt",
            "match": {"gpu_name": _exactly(gpu.name), "compute_capability": gpu.compute_capability},
            "batch": 1,
            "precision": "fp16",
        }
    return found


def _exactly(text: str) -> str:
    return "^" + _SPECIAL.sub(r"\\\1", text) + "$"


def matching_devices(cpu_model: str, gpus: Sequence[Gpu], known: Iterable[Device]) -> tuple[str, ...]:
    """Return the names of the known devices that are this machine's processor or one of its GPUs.

    Whether a runtime for them is installed does not matter here.
    """
    return tuple(device.name for device in known if _matches(device, cpu_model, gpus))


def _is_gpu(device: Device) -> bool:
    """Say whether a device is a GPU; of a runtime that nobody knows here, its match rules alone tell."""
    from lanaprof.profiler.environment import runs_on_gpu

    try:
        return runs_on_gpu(device)
    except BackendUnavailable:
        return False


def _matches(device: Device, cpu_model: str, gpus: Sequence[Gpu]) -> bool:
    wanted = dict(device.match)
    if "cpu_model" in wanted and not re.search(wanted["cpu_model"], cpu_model):
        return False
    if not _is_gpu(device):
        return True
    return any(
        re.search(wanted.get("gpu_name", ""), gpu.name)
        and wanted.get("compute_capability", gpu.compute_capability) == gpu.compute_capability
        for gpu in gpus
    )


@dataclass(frozen=True, slots=True)
class BackendState:
    """A runtime lanaprof can measure with: its version here, or (version empty) what to type for having it."""

    name: str
    version: str
    hint: str = ""


def backend_states() -> tuple[BackendState, ...]:
    """Return the known runtimes, those of installed packages included; none is imported for it."""
    from lanaprof.profiler.backends import backend_class, backend_names

    found = []
    for name in backend_names():
        try:
            found.append(BackendState(name, backend_class(name).version()))
        except BackendUnavailable as error:
            found.append(BackendState(name, "", error.hint or error.message))
    return tuple(found)


def find_cpu_model() -> str:
    """Return this machine's processor as environments name it; empty when it says nothing."""
    import contextlib
    from pathlib import Path

    from lanaprof.profiler.environment import cpu_model_from_cpuinfo

    cpuinfo = ""
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return cpu_model_from_cpuinfo(cpuinfo) or platform.processor() or platform.machine()
