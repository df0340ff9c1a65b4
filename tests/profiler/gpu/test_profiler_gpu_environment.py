"""Which GPU is which device, and what is said before any work where one is missing or its TensorRT does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lanaprof.config import known_devices, parse_device
from lanaprof.config.devices import Device
from lanaprof.errors import BackendUnavailable, DeviceUnavailable
from lanaprof.profiler.environment import runs_on_gpu
from lanaprof.profiler.gpu import environment
from lanaprof.profiler.gpu.environment import choose_gpu, driver_from_proc, gpu_environment
from lanaprof.profiler.gpu.probe import Gpu

NAMES = {  # as CUDA gives them
    "Tesla V100-SXM2-16GB": ((7, 0), "v100"),
    "Tesla T4": ((7, 5), "t4"),
    "NVIDIA A100-SXM4-80GB": ((8, 0), "a100"),
    "NVIDIA A100-SXM4-40GB MIG 1g.5gb": ((8, 0), ""),
    "NVIDIA A10": ((8, 6), "a10"),
    "NVIDIA A10G": ((8, 6), ""),
    "Orin": ((8, 7), "jetson-orin"),
    "NVIDIA L4": ((8, 9), "l4"),
    "NVIDIA L40S": ((8, 9), "l40s"),
    "NVIDIA GeForce RTX 4090": ((8, 9), "rtx4090"),
    "NVIDIA GeForce RTX 4090 Laptop GPU": ((8, 9), ""),
    "NVIDIA H100 80GB HBM3": ((9, 0), "h100"),
    "NVIDIA H200": ((9, 0), "h200"),
    "NVIDIA B200": ((10, 0), "b200"),
    "NVIDIA GeForce GTX 1080 Ti": ((6, 1), ""),
}


def gpu(name: str, capability: tuple[int, int], *, index: int = 0) -> Gpu:
    """Return a GPU of a name."""
    return Gpu(
        index=index, name=name, capability=capability, uuid=f"GPU-{index}", memory_bytes=1 << 34, l2_bytes=6 << 20,
        sm_count=80, mig=" MIG " in name,
    )  # fmt: skip


V100 = gpu("Tesla V100-SXM2-16GB", (7, 0))
SLICE = gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put GPUs and a driver's CUDA into this machine."""

    def put(*gpus: Gpu, cuda: tuple[int, int] = (12, 4)) -> None:
        monkeypatch.setattr(environment, "find_gpus", lambda: gpus)
        monkeypatch.setattr(environment, "driver_version", lambda: cuda)

    return put


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let a version of TensorRT be installed; empty for none."""

    def install(version: str) -> None:
        class Installed:
            name = "tensorrt"

            @classmethod
            def version(cls) -> str:
                if not version:
                    raise BackendUnavailable(
                        "TensorRT is not installed", hint="pip install 'lanaprof[tensorrt]'"
                    )
                return version

            @classmethod
            def options_with(
                cls, threads: int, chosen: tuple[tuple[str, str], ...]
            ) -> tuple[tuple[str, str], ...]:
                return (*chosen, ("threads", str(threads)))

        monkeypatch.setattr(environment, "backend_class", lambda _name: Installed)

    return install


@pytest.mark.parametrize("name", NAMES)
def test_each_gpu_is_one_device_at_most(name: str) -> None:
    """A10 is not A100, L4 not L40S, a laptop's 4090 and a slice of an A100 are none that is known."""
    capability, wanted = NAMES[name]
    fitting = []
    for device in known_devices().values():
        try:
            choose_gpu(device, (gpu(name, capability),))
        except DeviceUnavailable:
            continue
        if runs_on_gpu(device):
            fitting.append(device.name)
    assert fitting == ([wanted] if wanted else [])


def test_a_slice_is_a_device_of_its_own() -> None:
    """An entry whose pattern says MIG is the slice, and not the whole GPU."""
    own = Device(
        name="sliced", text="sliced", backend="tensorrt", match=(("gpu_name", r"A100.* MIG 1g\.5gb"),)
    )
    whole = gpu("NVIDIA A100-SXM4-40GB", (8, 0), index=1)

    assert choose_gpu(own, (whole, SLICE)) == SLICE
    with pytest.raises(DeviceUnavailable):
        choose_gpu(own, (whole,))


def test_another_gpu_is_named() -> None:
    """What is asked for, what is here, and what to type."""
    with pytest.raises(DeviceUnavailable) as caught:
        choose_gpu(parse_device("h100"), (V100,))

    assert "compute capability 9.0" in caught.value.message
    assert "Tesla V100-SXM2-16GB (7.0)" in caught.value.message
    assert "--detect" in caught.value.hint


def test_without_a_driver_the_missing_parts_are_named() -> None:
    """The GPU, the range of TensorRT and the pin for it."""
    with pytest.raises(DeviceUnavailable) as caught:
        choose_gpu(parse_device("v100"), ())

    assert "V100 of compute capability 7.0" in caught.value.message
    assert "10.5" in caught.value.message
    assert "tensorrt-cu12==10.4.0" in caught.value.hint


@pytest.mark.parametrize("installed", ["11.4.0.106", "10.5.0", ""])
def test_a_v100_with_another_tensorrt_is_told_the_pin(here: Any, tensorrt: Any, installed: str) -> None:
    """A version that dropped Volta, or none at all: the command names the last that has it."""
    here(V100)
    tensorrt(installed)
    with pytest.raises(BackendUnavailable) as caught:
        gpu_environment(parse_device("v100"))

    assert "Tesla V100" in caught.value.message
    assert "tensorrt-cu12==10.4.0" in caught.value.hint


def test_the_environment_is_the_gpus(here: Any, tensorrt: Any) -> None:
    """The GPU's name, the driver and the runtime are in it; the host's processor is not."""
    here(V100)
    tensorrt("10.4.0")
    found = gpu_environment(parse_device("v100"))

    assert (found.gpu_model, found.backend, found.backend_version) == (V100.name, "tensorrt", "10.4.0")
    assert found.driver == "CUDA 12.4"
    assert (found.cpu_model, found.isa, found.cores) == ("", "", 0)
    assert parse_device("v100").matches(
        backend=found.backend, cpu_model=found.cpu_model, gpu_model=found.gpu_model, threads=found.threads
    )


def test_the_drivers_version_is_read() -> None:
    """The proprietary and the open kernel module say it alike."""
    closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version:\n"
    opened = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (dvs-builder@U16)  "
        "Thu Jan 23 22:50:36 UTC 2025\n"
    )

    assert [driver_from_proc(text) for text in (closed, opened, "")] == ["535.104.05", "570.86.15", ""]
