"""Campaigns on a GPU, which a script stands for: what is recorded of its clocks, and batches that fit its memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut.keys import operator_key
from lanaprof.lut.records import Measurement
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.backends.base import Program
from lanaprof.profiler.campaign import Campaign, Provenance, Target
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.driver import Memory
from lanaprof.profiler.gpu.nvml import ClockWatch, GpuState
from lanaprof.profiler.gpu.testing import ScriptedDriver, ScriptedStates
from lanaprof.profiler.protocol import HOT
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sample_graphs import relu_graph
from lanaprof.profiler.testing import FakeClock, ScriptedBackend, scripted_latency_s

GRAPHS = {operator_key(graph): graph for graph in (relu_graph(1, 1000 * n) for n in range(1, 7))}
KEYS = list(GRAPHS)
CALM = GpuState(sm_clock_hz=1380e6, temperature_c=61, power_w=212.5, reasons=("idle",))
HOT_STATE = replace(CALM, sm_clock_hz=1100e6, temperature_c=84, reasons=("software thermal slowdown",))


class OnGpu(ScriptedBackend):
    """A program keeps memory of the scripted GPU while it lives, and runs as long as the script says."""

    def __init__(self, driver: ScriptedDriver, program_bytes: int = 0) -> None:
        super().__init__(Settings())
        self.driver, self.program_bytes, self.stream = driver, program_bytes, driver.stream()

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        return Kernel(self, graph, self.driver.allocate(self.program_bytes))


class Kernel(Program):
    def __init__(self, backend: OnGpu, graph: Mapping[str, Any], memory: Memory) -> None:
        self._backend, self._seconds, self._memory = backend, scripted_latency_s(graph), memory

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        driver = self._backend.driver
        return GpuCall(self._backend.stream, lambda stream: driver.work(stream, self._seconds), keep=self)


class Bench:
    """A scripted GPU with a campaign on it."""

    def __init__(self, folder: Path, *states: GpuState, **driver: Any) -> None:
        self.clock = FakeClock()
        self.kept: list[Measurement] = []
        self.rigs = 0
        self.program_bytes = 0
        self.driver = ScriptedDriver(self.clock, **driver)
        self.states = ScriptedStates(states or (CALM,), default_sm_hz=1312e6)
        self.campaign = Campaign(
            environment="e" * 32,
            threads=1,
            protocol=replace(HOT, spread_s=0.0),
            provenance=Provenance(team="lab", host="0123456789ab", tool_version="0"),
            journals=folder,
            graph_of=GRAPHS.__getitem__,
            new_rig=self.new_rig,
            emit=self.kept.append,
            clock=self.clock,
        )

    def new_rig(self) -> LocalRig:
        self.rigs += 1
        clock = GpuClock(self.driver, watch=ClockWatch(self.states), host=self.clock)
        return LocalRig(OnGpu(self.driver, self.program_bytes), clock)


def test_what_the_clock_saw_is_recorded(tmp_path: Path) -> None:
    """With every measurement: clock, heat, power, and how the runs were launched."""
    bench = Bench(tmp_path)

    bench.campaign.run([Target(KEYS[0])])

    (record,) = bench.kept
    assert record.message == "by: scripted; graphs: all; clock: 1380 MHz (lowest 1380), 61 °C, 212 W"
    assert record.latency_s == pytest.approx(scripted_latency_s(GRAPHS[KEYS[0]]), rel=1e-3)


def test_a_gpu_that_was_held_back_says_so(tmp_path: Path) -> None:
    """The samples are gone, the reason stands in the record."""
    bench = Bench(tmp_path, *[CALM] * 200, HOT_STATE, HOT_STATE, CALM)

    bench.campaign.run([Target(KEYS[0])])

    (record,) = bench.kept
    assert record.rejected > 0
    assert "(lowest 1100), 84 °C" in record.message
    assert "held back in 2 of" in record.message
    assert record.message.endswith("software thermal slowdown in 2")
