"""doctor: is this machine fit to measure a device? Looks, changes nothing, and says what to do.

Every check is ok, warn (numbers will be worse than they could be) or fail (measuring cannot work).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from lanaprof.config import Device, parse_device
from lanaprof.errors import BackendUnavailable, BadInput, DeviceUnavailable, LanaprofError, UserError
from lanaprof.flows.hostchecks import (
    Check,
    clock_checks,
    cores_check,
    load_check,
    memory_check,
    priority_check,
    read_timer,
    self_test_checks,
    steal_check,
    throttled_check,
    timer_check,
)
from lanaprof.flows.machine import (
    GPU_QUERY,
    Gpu,
    available_from_meminfo,
    gpus_from_nvidia_smi,
)
from lanaprof.lut import open_store
from lanaprof.lut.engine import locate, network_file_system
from lanaprof.profiler.backends import backend_class
from lanaprof.profiler.conditions import take_snapshot
from lanaprof.profiler.environment import available_cores, choose_cores, is_device, local_environment
from lanaprof.profiler.gpu.fixing import find_forgotten_clocks, free_forgotten_clock
from lanaprof.profiler.gpu.probe import driver_version, why_no_gpu
from lanaprof.profiler.gpu.probe import find_gpus as usable_gpus
from lanaprof.profiler.gpu.support import find_conflict, tensorrt_range, version_of
from lanaprof.units import format_size

__all__ = ["TEST_S", "Check", "checks_of", "find_gpus", "tensorrt_check"]

TEST_S = 2.0  # of timing: some hundred visits of either operator
_DISK_FAIL_BYTES, _DISK_WARN_BYTES = 100e6, 1e9
_TENSORRT = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu11", "tensorrt-cu12-bindings")


def checks_of(text: str, folder: Path, database: str, *, test_s: float = TEST_S) -> Iterator[Check]:
    """Yield the checks of a device on this machine, each when it is found.

    Args:
        text: the device.
        folder: where devices.yaml may lie.
        database: path or URL.
        test_s: how long the self-test times operators; 0 leaves it out.
    """
    device: Device | None = None
    measurable = False
    try:
        device = parse_device(text, folder)
    except UserError as error:
        yield Check("device", "fail", error.message, error.hint)
    else:
        measurable = True
        for check in _device_checks(device):
            measurable = measurable and check.state != "fail"
            yield check
    shot = take_snapshot(_cores_of(device))
    if device is not None:
        yield cores_check(device, shot.allowed, shot.control.quota_cores if shot.control else None)
        yield load_check(shot.load, shot.online, device.threads)
        measurable = measurable and len(shot.allowed) >= device.threads
    yield throttled_check(shot.control)
    active = (_text("/sys/devices/system/cpu/smt/active") or "").strip() == "1"
    yield from clock_checks(shot, hardware_threads=active)
    yield priority_check()
    yield memory_check(available_from_meminfo(_text("/proc/meminfo") or ""))
    source = _text("/sys/devices/system/clocksource/clocksource0/current_clocksource") or ""
    yield timer_check(read_timer(), source)
    if device is not None and measurable and test_s > 0:
        yield from self_test_checks(device, test_s)
    else:
        yield steal_check(shot)
    yield database_check(database)
    path = locate_path(database)
    yield disk_check(path, free_bytes(path))
    yield file_system_check(path, network_file_system(path) if _is_file(database) else None)


def _cores_of(device: Device | None) -> tuple[int, ...]:
    """Return the cores a campaign would take; all that may be used where it can take none."""
    if device is not None:
        with contextlib.suppress(DeviceUnavailable):  # the check of the cores says so
            return choose_cores(device)
    return available_cores()


def _text(path: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return Path(path).read_text(encoding="utf-8")
    return None


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
    capability = version_of(dict(device.match).get("compute_capability", ""))
    pin = tensorrt_range((capability[0], capability[1])).pin if len(capability) > 1 else ""
    return f"pip install 'lanaprof[tensorrt]' {pin}".rstrip()


def find_tensorrt() -> str | None:
    """Return the version of the TensorRT that is installed, without loading it."""
    from importlib.metadata import PackageNotFoundError, version

    for name in _TENSORRT:
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return None


def find_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that this process may use, with their clocks where nvidia-smi lists them."""
    listed = {gpu.name: gpu for gpu in _listed_gpus()}
    found = [
        listed.get(one.name, Gpu(one.name, ".".join(map(str, one.capability)), "")) for one in usable_gpus()
    ]
    return tuple(found or listed.values())


def _listed_gpus() -> tuple[Gpu, ...]:
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
    numbers = version_of(capability)
    conflict = find_conflict((numbers[0], numbers[1]), version or "", driver_version())
    if conflict is not None:
        return Check("tensorrt", "fail", conflict.message, conflict.command)
    served = tensorrt_range((numbers[0], numbers[1]))
    return Check("tensorrt", "ok", f"TensorRT {version} serves {served.architecture} ({capability})")


def gpu_checks(device: Device, gpus: tuple[Gpu, ...]) -> Iterator[Check]:
    """Yield whether the GPU is the device's, and how its clocks stand."""
    import re

    if not gpus:
        hint = "install NVIDIA's driver, or measure on a machine that has the GPU"
        yield Check("hardware", "fail", why_no_gpu() or "there is no GPU here", hint)
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
    for uuid in find_forgotten_clocks():
        if not free_forgotten_clock(uuid):
            message = "a measurement that was killed left the GPU's clock fixed"
            yield Check("gpu clock", "warn", message, "sudo nvidia-smi --reset-gpu-clocks")
    if gpu.persistent is False:
        hint = "sudo nvidia-smi -pm 1"
        yield Check("persistence", "warn", "the driver is unloaded between runs: the first are slow", hint)
    if gpu.sm_clock_mhz is not None and gpu.sm_clock_max_mhz is not None:
        message = f"the GPU runs at {gpu.sm_clock_mhz} of {gpu.sm_clock_max_mhz} MHz; its clock follows heat and load"
        hint = "as root: `lock_clocks: true` in devices.yaml fixes it while lanaprof measures"
        yield Check("gpu clock", "warn", message, hint)


def hardware_check(device: Device) -> Check:
    """Return whether this machine is the device."""
    try:
        environment = local_environment(device)
    except (BackendUnavailable, BadInput, DeviceUnavailable) as error:
        return Check("hardware", "fail", error.message, error.hint)
    if not is_device(device, environment):
        wanted = ", ".join(f"{name} {pattern}" for name, pattern in device.match)
        return Check(
            "hardware",
            "fail",
            f"device {device.name!r} asks for {wanted}; here: {environment.gpu_model or environment.cpu_model}",
            "lanaprof devices --detect prints an entry for this machine",
        )
    return Check("hardware", "ok", f"{environment.gpu_model or environment.cpu_model}, {environment.isa}")


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


def _is_file(database: str) -> bool:
    """Say whether the database is a file of this machine; a text that names none is the database check's."""
    with contextlib.suppress(LanaprofError):
        return locate(database).path is not None
    return False


def file_system_check(folder: Path, kind: str | None) -> Check:
    """Return whether SQLite's locks hold where the database lies.

    Args:
        folder: where it lies.
        kind: the type of its network file system; None for a local disk.
    """
    if kind is None:
        return Check("file system", "ok", "the database needs no network file system")
    hint = "keep it on a local disk (--database /tmp/lanaprof.db) and exchange exports, or use PostgreSQL"
    return Check("file system", "fail", f"{folder} is on {kind}, where SQLite's locks do not hold", hint)
