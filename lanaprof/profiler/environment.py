"""What really runs here: the environment record of this machine, and the conditions of the moment.

Probes are parsers of text, so that other machines' texts can be tested.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import socket
from collections.abc import Sequence
from pathlib import Path

from lanaprof.config.devices import Device
from lanaprof.errors import BackendUnavailable, BadInput, DeviceUnavailable
from lanaprof.lut.records import Environment
from lanaprof.profiler.backends import backend_class

__all__ = [
    "available_cores",
    "choose_cores",
    "cpu_model_from_cpuinfo",
    "cpu_quota_from_cgroup",
    "find_free_bytes",
    "find_load",
    "free_bytes_from_meminfo",
    "host_hash",
    "is_device",
    "isa_from_cpuinfo",
    "local_environment",
    "runs_on_gpu",
]

# Instruction sets that runtimes pick kernels by, weakest first.
_X86_SETS = ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile")
_ARM_SETS = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme")
_UNKNOWN_MEMORY_BYTES = 4 << 30


def cpu_model_from_cpuinfo(text: str) -> str:
    r"""Return the processor's name in the text of /proc/cpuinfo; empty when it names none.

    >>> cpu_model_from_cpuinfo("processor\t: 0\nmodel name\t: AMD  EPYC 9R14\n")
    'AMD EPYC 9R14'
    """
    fields = _fields(text)
    if "model name" in fields:
        return " ".join(fields["model name"].split())
    parts = [fields[name] for name in ("CPU implementer", "CPU part", "CPU variant") if name in fields]
    return "ARM " + " ".join(parts) if parts else ""


def isa_from_cpuinfo(text: str, machine: str) -> str:
    r"""Return the architecture with the instruction sets that runtimes pick kernels by.

    >>> isa_from_cpuinfo("flags : fpu sse4_2 avx avx2 fma\n", "x86_64")
    'x86_64 sse4_2 avx fma avx2'
    """
    fields = _fields(text)
    have = set((fields.get("flags") or fields.get("Features") or "").split())
    return " ".join([machine, *(name for name in (*_X86_SETS, *_ARM_SETS) if name in have)])


def _fields(text: str) -> dict[str, str]:
    pairs = [line.partition(":") for line in text.splitlines() if ":" in line]
    return {name.strip(): value.strip() for name, _, value in reversed(pairs)}


def cpu_quota_from_cgroup(text: str) -> float | None:
    r"""Return the cores a container may use, from the text of cgroup's cpu.max; None when unlimited.

    >>> cpu_quota_from_cgroup("150000 100000\n"), cpu_quota_from_cgroup("max 100000\n")
    (1.5, None)
    """
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" or not period else int(quota) / int(period)


def find_load() -> float | None:
    """Return the load average of the last minute; None where the system has none."""
    with contextlib.suppress(OSError, AttributeError):
        return round(os.getloadavg()[0], 2)
    return None


def free_bytes_from_meminfo(text: str) -> int | None:
    r"""Return the memory that can be had without swapping, from the text of /proc/meminfo; None when it does not say.

    >>> free_bytes_from_meminfo("MemTotal: 24576 kB\nMemAvailable:   12288 kB\n")
    12582912
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else None


def find_free_bytes() -> int:
    """Return the memory that can be had without swapping; 4 GiB where the system does not say."""
    with contextlib.suppress(OSError):
        return free_bytes_from_meminfo(Path("/proc/meminfo").read_text()) or _UNKNOWN_MEMORY_BYTES
    return _UNKNOWN_MEMORY_BYTES


def host_hash() -> str:
    """Return a short hash that tells this host from others and does not name it."""
    identity = ""
    for path in ("/etc/machine-id", "/var/lib/dbus/machine-id"):
        with contextlib.suppress(OSError):
            identity = identity or Path(path).read_text().strip()
    return hashlib.sha256(f"lanaprof {identity} {socket.gethostname()}".encode()).hexdigest()[:12]


def available_cores() -> tuple[int, ...]:
    """Return the cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def choose_cores(device: Device) -> tuple[int, ...]:
    """Return the cores to pin to: the last ones, for the first serve interrupts; of those it names where it does.

    There are as many as threads: more would let the runs wander from core to core.

    Raises:
        DeviceUnavailable: the machine has fewer cores, or not the named ones.
    """
    have = available_cores()
    if device.cores:
        absent = sorted(set(device.cores) - set(have))
        if absent:
            raise DeviceUnavailable(
                f"device {device.name!r} wants core {absent[0]}, but this process may use {_listed(have)}",
                hint="change `cores` in devices.yaml",
            )
        return device.cores[-device.threads :]
    if len(have) < device.threads:
        raise DeviceUnavailable(
            f"device {device.name!r} wants {device.threads} threads, but this process may use {len(have)} cores",
            hint=f"lower the threads: --device {device.name},threads={len(have)}",
        )
    return have[-device.threads :]


def _listed(cores: Sequence[int]) -> str:
    return "core " + ", ".join(str(core) for core in cores)


def runs_on_gpu(device: Device) -> bool:
    """Say whether a device is a GPU: its match rules or its backend say so.

    Raises:
        BackendUnavailable: nobody knows its backend.
    """
    return (
        bool({"gpu_name", "compute_capability"} & set(dict(device.match)))
        or backend_class(device.backend).on_gpu
    )


def is_device(device: Device, environment: Environment) -> bool:
    """Say whether an environment is this device: its hardware, backend and threads, and the options of its runtime.

    What the device does not choose is the backend's default; an environment that says nothing of an option is older
    than the option, and had its default. A fixed clock is another matter: where it may not be fixed, the same device is
    measured without, and a clock of so many MHz is never another. A device whose options are wrong is nothing that was
    measured: whoever asks for it, or lists the devices, is told why, and no other device's environments are in the way.
    """
    if not device.matches(
        backend=environment.backend,
        cpu_model=environment.cpu_model,
        gpu_model=environment.gpu_model,
        threads=device.threads,
    ):
        return False
    fixed_mhz = dict(environment.options).get("sm_clock_mhz", "")
    if fixed_mhz and device.lock_clocks and int(fixed_mhz) != device.lock_clocks:
        return False
    try:
        backend = backend_class(device.backend)
    except BackendUnavailable:  # another package's, which is not here: what it lets choose is unknown
        return set(device.options) <= set(environment.options)
    try:
        wanted = dict(backend.options_with(device.threads, device.options))
    except BadInput:
        return False
    told = {**dict(backend.options(device.threads)), **dict(environment.options)}
    keys = {choice.key or name for name, choice in backend.choices.items() if choice.changes}
    return all(told.get(key) == wanted.get(key) for key in keys)


def local_environment(device: Device) -> Environment:
    """Return the environment in which the device would be measured here.

    Raises:
        BadInput: its backend has no such option.
        BackendUnavailable: its runtime is not installed, or does not run on the GPU that is here.
        DeviceUnavailable: this machine is not that device.
    """
    if runs_on_gpu(device):
        from lanaprof.profiler.gpu.environment import gpu_environment  # only where a GPU is asked for

        return gpu_environment(device)
    wanted = dict(device.match)
    backend = backend_class(device.backend)
    version = backend.version()
    cpuinfo = ""
    with contextlib.suppress(OSError):
        cpuinfo = Path("/proc/cpuinfo").read_text()
    cpu_model = cpu_model_from_cpuinfo(cpuinfo) or platform.processor() or platform.machine()
    if "cpu_model" in wanted and not re.search(wanted["cpu_model"], cpu_model):
        raise DeviceUnavailable(
            f"device {device.name!r} is a CPU whose name matches {wanted['cpu_model']!r}; "
            f"this machine's is {cpu_model!r}",
            hint="use --device cpu, or change `match` in devices.yaml",
        )
    smt = False
    with contextlib.suppress(OSError):
        smt = Path("/sys/devices/system/cpu/smt/active").read_text().strip() == "1"
    return Environment(
        backend=backend.name,
        backend_version=version,
        cpu_model=cpu_model,
        isa=isa_from_cpuinfo(cpuinfo, platform.machine()),
        cores=len(choose_cores(device)),
        smt=smt,
        threads=device.threads,
        options=backend.options_with(device.threads, device.options),
    )
