"""Clocks, heat and power: the real nvidia-ml-py over an emulated library, and what is made of its readings."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from lanaprof.profiler.gpu.nvml import ClockWatch, GpuState, reasons_from_bits
from lanaprof.profiler.gpu.testing import ScriptedStates

Emulated = Callable[..., str]

FOUND = """
import ctypes, dataclasses, json
from lanaprof.profiler.gpu.nvml import *
from lanaprof.profiler.gpu.probe import get_gpu
said = []
nvml = find_nvml(get_gpu(), said.append)
assert nvml is not None, said
"""
V100 = {
    "EMULATED_NVML_SM": "1380", "EMULATED_NVML_MEM": "877", "EMULATED_NVML_SM_DEFAULT": "1312",
    "EMULATED_NVML_SM_MAX": "1530", "EMULATED_NVML_TEMPERATURE": "61", "EMULATED_NVML_POWER": "212500",
    "EMULATED_NVML_LIMIT": "300000", "EMULATED_NVML_PERSISTENCE": "1", "EMULATED_NVML_REASONS": "36",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _needs_nvml() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: pip install 'lanaprof[test]'")


STATE = (
    FOUND
    + """
print(json.dumps([dataclasses.asdict(nvml.state()), nvml.default_sm_hz, nvml.application_sm_hz, nvml.highest_sm_hz,
                  nvml.power_limit_w, nvml.persistent]))
"""
)


@pytest.mark.parametrize("old", ["", "1"])
def test_a_reading_is_in_base_units(emulated: Emulated, old: str) -> None:
    """Hertz, watts and words, under the drivers' older names of the reasons as well."""
    state, *rest = json.loads(emulated(STATE, **V100, EMULATED_NVML_OLD=old))

    assert state == {
        "sm_clock_hz": 1380e6,
        "memory_clock_hz": 877e6,
        "temperature_c": 61,
        "power_w": 212.5,
        "reasons": ["software power cap", "software thermal slowdown"],
    }
    assert rest == [1312e6, 1312e6, 1530e6, 300.0, True]


def test_what_a_gpu_does_not_tell_is_unknown(emulated: Emulated) -> None:
    """A desktop's card knows no applications clock: the highest stands for it. None is not zero."""
    state, *rest = json.loads(emulated(STATE, EMULATED_NVML_SM_MAX="2100"))

    assert set(map(json.dumps, state.values())) == {"null", "[]"}
    assert rest == [2100e6, None, 2100e6, None, None]


def test_a_slice_has_the_clocks_of_its_gpu(emulated: Emulated) -> None:
    """NVML tells none of a slice; and nobody fixes the clocks of its neighbours."""
    program = (
        FOUND
        + """
print(nvml.is_slice, nvml.state().sm_clock_hz, nvml.state().temperature_c)
print(nvml.lock(1e9))
"""
    )
    first, second = emulated(program, EMULATED_CUDA_MIG="1", EMULATED_NVML_PERMITTED="1", **V100).splitlines()

    assert first == "True 1380000000.0 61"
    assert second == "a slice of a GPU shares its clock with the other slices"


@pytest.mark.parametrize(
    ("begin", "words"),
    [
        (
            "import sys; sys.modules['pynvml'] = None",
            "nvidia-ml-py is not installed (pip install nvidia-ml-py)",
        ),
        ("", "NVML does not know this GPU (Not Found)"),
    ],
)
def test_without_nvml_it_is_said_once(emulated: Emulated, begin: str, words: str) -> None:
    """Whoever asks again gets None without a word; nothing fails."""
    printed = emulated(
        begin
        + """
import dataclasses
from lanaprof.profiler.gpu.nvml import find_nvml, why_no_nvml
from lanaprof.profiler.gpu.probe import get_gpu
said = []
gpu = dataclasses.replace(get_gpu(), uuid="GPU-00000000-0000-0000-0000-000000000000")
print([find_nvml(gpu, said.append) for _ in range(3)], len(said), why_no_nvml(gpu))
print(said[0])
"""
    )

    counted, told = printed.splitlines()
    assert counted == f"[None, None, None] 1 {words}"
    assert told == f"the clocks of Emulated GPU 0 cannot be watched: {words}; throttling will go unnoticed"


# ------------------------------------------------------------------------------------------ what is made of it


@pytest.mark.parametrize(
    ("bits", "words"),
    [
        (0, ()),
        (0x1, ("idle",)),
        (0x2 | 0x10 | 0x100, ("applications clocks setting", "sync boost", "display clock setting")),
        (0x8 | 0x40 | 0x80, ("hardware slowdown", "hardware thermal slowdown", "hardware power brake")),
        (0x200 | 0x400 | 1 << 40, ("board limit", "reliability", "reason 0x10000000000")),
    ],
)
def test_reasons_have_names(bits: int, words: tuple[str, ...]) -> None:
    """Bits that nobody knows yet keep their number."""
    assert reasons_from_bits(bits) == words


@pytest.mark.parametrize(
    ("reason", "counts"),
    [
        ("idle", False),
        ("applications clocks setting", False),
        ("sync boost", False),
        ("software power cap", True),
        ("hardware slowdown", True),
        ("software thermal slowdown", True),
        ("hardware thermal slowdown", True),
        ("hardware power brake", True),
    ],
)
def test_power_and_heat_throttle(reason: str, counts: bool) -> None:
    """How somebody set the clocks up does not: it holds for the whole campaign."""
    watch = ClockWatch(ScriptedStates([GpuState(reasons=(reason,))], default_sm_hz=1e9))

    assert watch.look() == (reason if counts else "")


@pytest.mark.parametrize(
    ("mhz", "default_hz", "words"),
    [
        (750, 1e9, ""),
        (749, 1e9, "clock 749 MHz of 1000 MHz"),
        (749, None, ""),
        (None, 1e9, ""),
    ],
)
def test_a_clock_below_three_quarters_is_throttled(
    mhz: int | None, default_hz: float | None, words: str
) -> None:
    """Whatever the reasons say; where either clock is unknown, nothing is claimed."""
    state = GpuState(sm_clock_hz=None if mhz is None else mhz * 1e6)

    assert ClockWatch(ScriptedStates([state], default_sm_hz=default_hz)).look() == words


def test_a_clock_that_was_fixed_is_judged_by_what_it_was_fixed_at() -> None:
    """Slower than usual on purpose is not throttled."""
    states = ScriptedStates([GpuState(sm_clock_hz=600e6)], default_sm_hz=1e9)

    assert ClockWatch(states, default_sm_hz=600e6).look() == ""


def test_a_watch_sums_up() -> None:
    """Means, extremes, and how often each reason was given."""
    readings = [
        GpuState(sm_clock_hz=1000e6, memory_clock_hz=800e6, temperature_c=60, power_w=200.0),
        GpuState(
            sm_clock_hz=900e6, memory_clock_hz=800e6, temperature_c=71, power_w=250.0, reasons=("idle",)
        ),
        GpuState(sm_clock_hz=500e6, memory_clock_hz=800e6, reasons=("idle", "hardware slowdown")),
    ]
    watch = ClockWatch(ScriptedStates(readings, default_sm_hz=1e9))
    for _ in readings:
        watch.look()

    told = watch.summary()

    assert (told.looks, told.throttled) == (3, 1)
    assert (told.sm_clock_hz, told.lowest_sm_clock_hz, told.memory_clock_hz) == (800e6, 500e6, 800e6)
    assert (told.temperature_c, told.power_w) == (71, 250.0)
    assert told.reasons == (("hardware slowdown", 1), ("idle", 2))


def test_a_watch_of_nothing_sees_nothing() -> None:
    """Without NVML no sample is ever throttled, and all is unknown."""
    watch = ClockWatch(None)

    assert (watch.look(), watch.summary().looks, watch.summary().sm_clock_hz) == ("", 0, None)
