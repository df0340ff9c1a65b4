"""Probes are parsers of text; the environment key holds what changes speed and nothing else."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from lanaprof.config import Device, parse_device
from lanaprof.errors import BackendUnavailable, DeviceUnavailable
from lanaprof.profiler.environment import (
    choose_cores,
    cpu_model_from_cpuinfo,
    cpu_quota_from_cgroup,
    host_hash,
    isa_from_cpuinfo,
    local_environment,
)

CPU = Device(name="cpu", text="cpu", backend="onnxruntime")

XEON = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Gold 6226 CPU @ 2.70GHz
flags\t\t: fpu vme sse4_1 sse4_2 avx fma avx2 avx512f avx512_vnni

processor\t: 1
model name\t: Intel(R) Xeon(R) Gold 6226 CPU @ 2.70GHz
"""
GRAVITON = """processor\t: 0
Features\t: fp asimd evtstrm aes asimdhp asimddp sve bf16 i8mm
CPU implementer\t: 0x41
CPU variant\t: 0x1
CPU part\t: 0xd40
"""


def test_an_intel_machine() -> None:
    """Name and vector instructions of the first processor."""
    assert "Intel(R) Xeon(R) Gold 6226 CPU @ 2.70GHz" == cpu_model_from_cpuinfo(XEON)
    assert "x86_64 sse4_2 avx fma avx2 avx512f avx512_vnni" == isa_from_cpuinfo(XEON, "x86_64")


def test_an_arm_machine_has_no_model_name() -> None:
    """Implementer and part stand in for the name."""
    assert "ARM 0x41 0xd40 0x1" == cpu_model_from_cpuinfo(GRAVITON)
    assert "aarch64 asimd asimdhp asimddp i8mm bf16 sve" == isa_from_cpuinfo(GRAVITON, "aarch64")


def test_a_text_without_anything() -> None:
    """Unknown is empty, not a guess."""
    assert "" == cpu_model_from_cpuinfo("")


def test_threads_are_part_of_the_environment_and_the_name_is_not() -> None:
    """Two names for one setting are one environment; another number of threads is another."""
    one = local_environment(CPU)

    assert one.id == local_environment(replace(CPU, name="mine", text="mine")).id
    if len(os.sched_getaffinity(0)) > 1:
        assert one.id != local_environment(replace(CPU, threads=2)).id


def test_the_host_is_hashed() -> None:
    """The hash is stable and short, and the host's name is not in it."""
    assert host_hash() == host_hash()
    assert 12 == len(host_hash())


def test_more_threads_than_cores_are_refused() -> None:
    """The message says how many there are and what to type."""
    with pytest.raises(DeviceUnavailable, match="4096 threads") as caught:
        choose_cores(replace(CPU, threads=4096))

    assert "threads=" in caught.value.hint


def test_cores_that_are_not_here_are_refused() -> None:
    """A devices.yaml of another machine names cores this one lacks."""
    with pytest.raises(DeviceUnavailable, match="wants core 4000"):
        choose_cores(replace(CPU, cores=(4000,)))


def test_a_gpu_device_says_what_it_needs() -> None:
    """v100 without a GPU is unavailable, in words."""
    with pytest.raises(
        DeviceUnavailable, match=r"NVIDIA GPU \(V100 of compute capability 7\.0\) with TensorRT"
    ):
        local_environment(parse_device("v100"))


def test_another_cpu_is_another_device() -> None:
    """A device that names a CPU is only that CPU."""
    with pytest.raises(DeviceUnavailable, match="Pentium"):
        local_environment(replace(CPU, match=(("cpu_model", "Pentium"),)))


def test_an_unknown_backend_is_unavailable() -> None:
    """devices.yaml may name a runtime this version does not have."""
    with pytest.raises(BackendUnavailable, match="known: onnxruntime, "):
        local_environment(replace(CPU, backend="abacus"))


def test_quota_is_quota_over_period() -> None:
    """Half a core, and no limit at all."""
    assert 0.5 == cpu_quota_from_cgroup("50000 100000")
    assert cpu_quota_from_cgroup("max 100000") is None
