"""doctor: is this machine fit to measure a device? Looks, changes nothing, and says what to do.

Every check is ok, warn (numbers will be worse than they could be) or fail (measuring cannot work).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lanaprof.config import Device, parse_device
from lanaprof.errors import BackendUnavailable, DeviceUnavailable, LanaprofError, UserError
from lanaprof.flows.machine import (
    GPU_QUERY,
    Gpu,
    cpu_quota_from_cgroup_v1,
    gpus_from_nvidia_smi,
    noise_from_durations,
    steal_share,
    tensorrt_range,
    turbo_from_sysfs,
    version_from_text,
)
from lanaprof.lut import open_store
from lanaprof.lut.engine import locate
from lanaprof.profiler.backends import backend_class
from lanaprof.profiler.environment import available_cores, find_cpu_quota, find_load, local_environment
from lanaprof.units import format_duration, format_size

__all__ = ["Check", "checks_of", "find_gpus", "noise_check", "tensorrt_check"]

_PROBE_S = 1.0
_PIECE_S = 0.001  # of the probe's work: shorter than a scheduler's slice
_QUIET = 0.02  # spread below which nothing disturbs
_LOUD = 0.10
_STEAL = 0.01
_DISK_FAIL_BYTES, _DISK_WARN_BYTES = 100e6, 1e9
_TENSORRT = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu11", "tensorrt-cu12-bindings")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: state is ok, warn or fail; the hint says what to do."""

    name: str
    state: str
    message: str
    hint: str = ""


def checks_of(text: str, folder: Path, database: str, *, probe_s: float = _PROBE_S) -> Iterator[Check]:
    """Yield the checks of a device on this machine, each when it is found.

    Args:
        text: the device.
        folder: where devices.yaml may lie.
        database: path or URL.
        probe_s: how long the noise is listened to.
    """
    try:
        device = parse_device(text, folder)
    except UserError as error:
        yield Check("device", "fail", error.message, error.hint)
    else:
        yield from _device_checks(device)
    yield from clock_checks(_text)
    yield priority_check()
    yield from noise_checks(probe_s)
    yield database_check(database)
    path = locate_path(database)
    yield disk_check(path, free_bytes(path))


def _device_checks(device: Device) -> Iterator[Check]:
    match = ", ".join(f"{name} {pattern}" for name, pattern in device.match) or "any machine"
    yield Check("device", "ok", f"{device.text}: {device.backend}, {match}")
    yield runtime_check(device)
    if device.backend == "tensorrt":
        gpus = find_gpus()
        yield tensorrt_check(device, gpus, find_tensorrt())
        yield from gpu_checks(device, gpus)
    else:
        yield hardware_check(device)
    yield cores_check(device, available_cores(), find_quota())
    yield load_check(find_load(), len(available_cores()), device.threads)


# -------------------------------------------------------------------------------- the device and its runtime


def runtime_check(device: Device) -> Check:
    """Return whether the device's runtime is installed."""
    if device.backend == "tensorrt":
        version = find_tensorrt()
        if version is None:
            return Check("runtime", "fail", "TensorRT is not installed", _pin(device))
        return Check("runtime", "ok", f"TensorRT {version}")
    try:
        version = backend_class(device.backend).version()
    except BackendUnavailable as error:
        return Check("runtime", "fail", error.message, error.hint or f"pip install {device.backend}")
    return Check("runtime", "ok", f"{device.backend} {version}")


def _pin(device: Device) -> str:
    capability = dict(device.match).get("compute_capability", "")
    served = tensorrt_range(capability) if capability else None
    return served.pin if served is not None else "pip install lanaprof[tensorrt]"


def find_tensorrt() -> str | None:
    """Return the version of the TensorRT that is installed, without loading it."""
    from importlib.metadata import PackageNotFoundError, version

    for name in _TENSORRT:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """Return what nvidia-smi lists; nothing where there is none."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={GPU_QUERY}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        return gpus_from_nvidia_smi(done.stdout)
    return ()


def tensorrt_check(device: Device, gpus: tuple[Gpu, ...], version: str | None) -> Check:
    """Return whether the TensorRT that is installed serves the GPU, or which one does."""
    capability = next(
        (gpu.compute_capability for gpu in gpus), dict(device.match).get("compute_capability", "")
    )
    if not capability:
        return Check("tensorrt", "warn", "no GPU says which TensorRT it needs", "nvidia-smi must list one")
    served = tensorrt_range(capability)
    if served is None:
        return Check("tensorrt", "fail", f"no usable TensorRT serves compute capability {capability}")
    last = f" and ≤ {'.'.join(map(str, served.last))}" if served.last else ""
    need = f"{served.generation} (compute capability {capability}) needs TensorRT ≥ " + (
        ".".join(map(str, served.first)) + last + (f", {served.note}" if served.note else "")
    )
    if version is None:
        return Check("tensorrt", "fail", f"{need}; none is installed", served.pin)
    if not served.serves(version_from_text(version)):
        return Check("tensorrt", "fail", f"{need}; installed is {version}", served.pin)
    return Check("tensorrt", "ok", f"TensorRT {version} serves {served.generation}")


def gpu_checks(device: Device, gpus: tuple[Gpu, ...]) -> Iterator[Check]:
    """Yield whether the GPU is the device's, and how its clocks stand."""
    import re

    if not gpus:
        hint = "install NVIDIA's driver, or measure on a machine that has the GPU"
        yield Check("hardware", "fail", "nvidia-smi lists no GPU here", hint)
        return
    wanted = dict(device.match)
    gpu = next((g for g in gpus if re.search(wanted.get("gpu_name", ""), g.name)), None)
    if gpu is None:
        names = ", ".join(g.name for g in gpus)
        yield Check(
            "hardware",
            "fail",
            f"device {device.name!r} is a {wanted['gpu_name']}; here: {names}",
            "lanaprof devices",
        )
        return
    yield Check(
        "hardware", "ok", f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver}"
    )
    if gpu.persistent is False:
        hint = "sudo nvidia-smi -pm 1"
        yield Check("persistence", "warn", "the driver is unloaded between runs: the first are slow", hint)
    if gpu.sm_clock_mhz is not None and gpu.sm_clock_max_mhz is not None:
        message = f"the GPU runs at {gpu.sm_clock_mhz} of {gpu.sm_clock_max_mhz} MHz; its clock follows heat and load"
        hint = f"sudo nvidia-smi -lgc {gpu.sm_clock_max_mhz} fixes it; nvidia-smi -rgc undoes that"
        yield Check("gpu clock", "warn", message, hint)


def hardware_check(device: Device) -> Check:
    """Return whether this machine is the device."""
    try:
        environment = local_environment(device)
    except (BackendUnavailable, DeviceUnavailable) as error:
        return Check("hardware", "fail", error.message, error.hint)
    if not device.matches(
        backend=environment.backend,
        cpu_model=environment.cpu_model,
        gpu_model=environment.gpu_model,
        threads=environment.threads,
    ):
        wanted = ", ".join(f"{name} {pattern}" for name, pattern in device.match)
        return Check(
            "hardware",
            "fail",
            f"device {device.name!r} asks for {wanted}; here: {environment.gpu_model or environment.cpu_model}",
            "lanaprof devices --detect prints an entry for this machine",
        )
    return Check("hardware", "ok", f"{environment.gpu_model or environment.cpu_model}, {environment.isa}")


# ------------------------------------------------------------------------------------------ cores and clocks


def find_quota() -> float | None:
    """Return the cores this process' control group allows; None when unlimited."""
    quota = find_cpu_quota()
    if quota is not None:
        return quota
    with contextlib.suppress(OSError, ValueError):
        base = Path("/sys/fs/cgroup/cpu")
        return cpu_quota_from_cgroup_v1(
            (base / "cpu.cfs_quota_us").read_text(), (base / "cpu.cfs_period_us").read_text()
        )
    return None


def cores_check(device: Device, cores: tuple[int, ...], quota: float | None) -> Check:
    """Return whether there are enough cores, by affinity and by the control group's quota."""
    text = f"{len(cores)} core{'s' if len(cores) > 1 else ''} to use, {device.threads} wanted"
    if device.threads > len(cores):
        hint = f"--device {device.name},threads={len(cores)}"
        return Check("cores", "fail", text, hint)
    if quota is not None and quota < device.threads:
        hint = "raise the container's CPU limit: a throttled process measures its own pauses"
        return Check("cores", "fail", f"{text}, but the control group allows {quota:g} cores", hint)
    limit = "no quota" if quota is None else f"quota {quota:g} cores"
    if len(cores) == device.threads:
        hint = "with one more core, other work would have somewhere to run"
        return Check("cores", "warn", f"{text}, {limit}: none is left for the rest of the system", hint)
    return Check("cores", "ok", f"{text}, {limit}")


def load_check(load: float | None, cores: int, threads: int) -> Check:
    """Return whether other work leaves the measured cores alone."""
    if load is None:
        return Check("load", "ok", "this system tells no load average")
    text = f"load average {load:g} on {cores} cores"
    if load > max(0.5, cores - threads):
        return Check(
            "load", "warn", f"{text}: other work competes for them", "stop other programs while measuring"
        )
    return Check("load", "ok", text)


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8")
    return None


def clock_checks(read: Callable[[str], str | None]) -> Iterator[Check]:
    """Yield what is visible of the CPU's governor, turbo and hardware threads.

    Args:
        read: gives a file's text, None when it cannot be read.
    """
    system = "/sys/devices/system/cpu"
    governor = (read(f"{system}/cpu0/cpufreq/scaling_governor") or "").strip()
    if governor in ("", "performance"):
        yield Check("governor", "ok", governor or "not visible here (a virtual machine, or not Linux)")
    else:
        hint = "sudo cpupower frequency-set -g performance"
        yield Check("governor", "warn", f"{governor}: the clock follows the load", hint)
    turbo = turbo_from_sysfs(
        no_turbo=read(f"{system}/intel_pstate/no_turbo"), boost=read(f"{system}/cpufreq/boost")
    )
    if turbo:
        hint = "lanaprof corrects slow drift; for the last percent switch it off in the firmware or in sysfs"
        yield Check("turbo", "warn", "on: the clock follows heat and neighbours", hint)
    else:
        yield Check("turbo", "ok", "not visible here" if turbo is None else "off")
    if (read(f"{system}/smt/active") or "").strip() == "1":
        hint = "measure with at most half as many threads as there are hardware threads, on a quiet machine"
        yield Check("smt", "warn", "two hardware threads share each core", hint)
    else:
        yield Check("smt", "ok", "no hardware threads share a core")


def priority_check() -> Check:
    """Return whether a measuring process may raise its priority; tries it on a child of its own."""
    import sys

    program = "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    if done.returncode == 0:
        return Check("priority", "ok", "measuring processes may raise their priority")
    hint = "allow it: sudo setcap cap_sys_nice+ep on Python, or a nice limit in limits.conf"
    return Check("priority", "warn", "measuring processes keep the normal priority", hint)


def noise_checks(probe_s: float) -> Iterator[Check]:
    """Yield how much equal work varies here, and what the hypervisor took meanwhile."""
    before = _text("/proc/stat")
    durations = _time_pieces(probe_s)
    after = _text("/proc/stat")
    yield noise_check(durations)
    if before is None or after is None:
        yield Check("steal", "ok", "not visible here")
        return
    share = steal_share(before, after)
    if share > _STEAL:
        hint = "ask for dedicated cores, or measure when the neighbours sleep"
        yield Check("steal", "warn", f"the hypervisor took {share:.1%} of the time", hint)
    else:
        yield Check("steal", "ok", f"the hypervisor took {share:.1%} of the time")


def _time_pieces(probe_s: float) -> list[float]:
    def work(count: int) -> float:
        began = time.perf_counter()
        total = 0
        for number in range(count):
            total += number
        return time.perf_counter() - began

    count = 1000
    count = max(1, round(count * _PIECE_S / max(1e-9, min(work(count) for _ in range(5)))))
    end = time.perf_counter() + probe_s
    found = [work(count)]
    while time.perf_counter() < end:
        found.append(work(count))
    return found


def noise_check(durations_s: list[float]) -> Check:
    """Return a verdict on the durations of equal work."""
    noise = noise_from_durations(durations_s)
    message = (
        f"a loop of {format_duration(noise.floor_s, digits=2)} takes {noise.spread:.1%} more than its best at the "
        f"median, {noise.tail:.1%} at 95 %"
    )
    if noise.spread < _QUIET:
        return Check("noise", "ok", message)
    loud = ": very noisy" if noise.spread > _LOUD else ""
    return Check("noise", "warn", message + loud, "stop other programs; campaigns here take more rounds")


# ---------------------------------------------------------------------------------------- database and disk


def database_check(database: str) -> Check:
    """Return whether the database can be reached and has this program's schema."""
    try:
        path = locate(database).path
        if path is not None and not path.exists():
            return Check("database", "ok", f"{path} does not exist yet; lanaprof measure makes it")
        with open_store(database, readonly=True) as store:
            counts = store.counts()
            return Check(
                "database", "ok", f"{store.name}: {counts['measurement']} measurements, schema at head"
            )
    except LanaprofError as error:
        return Check("database", "fail", error.message, error.hint)


def locate_path(database: str) -> Path:
    """Return the folder that must have room: the database's, or this one for a server's."""
    with contextlib.suppress(LanaprofError):
        path = locate(database).path
        if path is not None and path.absolute().parent.is_dir():
            return path.absolute().parent
    return Path.cwd()


def free_bytes(folder: Path) -> int:
    """Return the free space where a folder lies."""
    return shutil.disk_usage(folder).free


def disk_check(folder: Path, free: int) -> Check:
    """Return whether there is room for a database and for trained weights."""
    text = f"{format_size(free)} free at {folder}"
    if not os.access(folder, os.W_OK):
        return Check("disk", "fail", f"{folder} cannot be written", "use a folder of your own, or --database")
    if free < _DISK_FAIL_BYTES:
        return Check("disk", "fail", text, "free some space")
    if free < _DISK_WARN_BYTES:
        return Check("disk", "warn", text, "trained candidates of a large teacher take gigabytes")
    return Check("disk", "ok", text)
