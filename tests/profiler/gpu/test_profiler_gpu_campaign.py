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
from lanaprof.profiler.clock import SystemClock
from lanaprof.profiler.fitting import Room, fitting
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.driver import Memory
from lanaprof.profiler.gpu.nvml import ClockWatch, GpuState
from lanaprof.profiler.gpu.testing import SCRIPTED_GPU, ScriptedDriver, ScriptedStates
from lanaprof.profiler.protocol import HOT
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sample_graphs import matmul_graph, relu_graph
from lanaprof.profiler.testing import FakeClock, ScriptedBackend, scripted_latency_s

GRAPHS = {operator_key(graph): graph for graph in (relu_graph(1, 1000 * n) for n in range(1, 7))}
KEYS = list(GRAPHS)
CALM = GpuState(sm_clock_hz=1380e6, temperature_c=61, power_w=212.5, reasons=("idle",))
HOT_STATE = replace(CALM, sm_clock_hz=1100e6, temperature_c=84, reasons=("software thermal slowdown",))


class OnGpu(ScriptedBackend):
    """A program keeps memory of the scripted GPU while it lives, and runs as long as the script says."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(Settings())
        self.bench, self.driver, self.stream = bench, bench.driver, bench.driver.stream()

    def free_bytes(self) -> int | None:
        return self.driver.memory_bytes()[0] + self.bench.overestimate_bytes

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        size_bytes = self.bench.program_bytes_of.get(operator_key(graph), self.bench.program_bytes)
        return Kernel(self, graph, self.driver.allocate(size_bytes))


class Kernel(Program):
    def __init__(self, backend: OnGpu, graph: Mapping[str, Any], memory: Memory) -> None:
        self._backend, self._seconds, self._memory = backend, scripted_latency_s(graph), memory
        self._bound = 0

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        driver, self._bound = self._backend.driver, self._bound + 1
        # The first is that of the build, which is given back.
        room = driver.allocate(self._backend.bench.run_bytes if self._bound > 1 else 0)
        return GpuCall(
            self._backend.stream, lambda stream: driver.work(stream, self._seconds), keep=(self, room)
        )


class Bench:
    """A scripted GPU with a campaign on it."""

    def __init__(self, folder: Path, *states: GpuState, **driver: Any) -> None:
        self.clock = FakeClock()
        self.kept: list[Measurement] = []
        self.rigs = 0
        self.program_bytes = self.run_bytes = self.overestimate_bytes = 0
        self.program_bytes_of: dict[str, int] = {}
        self.taken: Memory | None = None
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
        return LocalRig(OnGpu(self), clock)


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


# ------------------------------------------------------------------------------------------------- memory


def crowded(folder: Path, programs: int, program_bytes: int = 1 << 20) -> Bench:
    """Return a bench whose GPU has room for so many programs, though the estimate thinks they are small."""
    gpu = replace(SCRIPTED_GPU, memory_bytes=programs * program_bytes + (64 << 20) + 4096)
    bench = Bench(folder, gpu=gpu)
    bench.taken = bench.driver.allocate(64 << 20)  # by others
    bench.program_bytes = program_bytes
    bench.overestimate_bytes = 1 << 30
    return bench


@pytest.mark.parametrize("programs", [1, 2, 4, 6])
def test_what_does_not_fit_is_measured_later(tmp_path: Path, programs: int) -> None:
    """In batches of as many as were built, until all have their number; nothing fails."""
    bench = crowded(tmp_path, programs)

    result = bench.campaign.run([Target(key) for key in KEYS])

    assert result.counts == {"ok": len(KEYS)}
    assert sorted(KEYS) == sorted(record.operator for record in bench.kept)
    assert bench.rigs == -(-len(KEYS) // programs)


def test_what_fits_nowhere_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    """Alone on the GPU it is still too large."""
    bench = crowded(tmp_path, 3)
    bench.program_bytes_of[KEYS[2]] = 1 << 30

    result = bench.campaign.run([Target(key) for key in KEYS])

    assert result.counts == {"ok": len(KEYS) - 1, "failed": 1}
    (row,) = [record for record in bench.kept if record.status == "failed"]
    assert row.operator == KEYS[2]
    assert "has no 1073741824 bytes left" in row.message
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_is_loaded_and_has_no_room_to_run_is_halved(tmp_path: Path) -> None:
    """A run may ask for more than building did."""
    bench = crowded(tmp_path, 6)
    bench.run_bytes = 2 << 20

    result = bench.campaign.run([Target(key) for key in KEYS])

    assert result.counts == {"ok": len(KEYS)}
    assert list(tmp_path.iterdir()) == []


def test_builds_anew_first_give_back_the_old(tmp_path: Path) -> None:
    """Where the two do not fit side by side; no operator is put off for it."""
    bench = crowded(tmp_path, 6)
    campaign = replace(bench.campaign, protocol=replace(HOT, spread_s=0.0, rounds_min=6, rebuild_every=2))

    result = campaign.run([Target(key) for key in KEYS])

    assert result.counts == {"ok": len(KEYS)}
    assert bench.rigs == 1


def test_the_estimate_counts_weights_and_buffers(tmp_path: Path) -> None:
    """Of a GPU's free memory four fifths; what one works in is shared; one operator always is tried."""
    graph = matmul_graph(1, 256, 1024)  # 1 MiB of weights
    targets = [Target(f"op{number}") for number in range(9)]

    def room(device_bytes: int | None) -> int:
        return len(fitting(targets, lambda _key: graph, Room(device_bytes=device_bytes)))

    assert [room(None), room(100 << 20), room(10 << 20), room(1)] == [9, 9, 3, 1]
    assert len(fitting(targets, lambda _key: graph, Room(operators=2))) == 2


def test_a_worker_without_room_lives_on(tmp_path: Path) -> None:
    """In a real child process: the row says what was missing, the others are measured by two processes at most."""
    large = relu_graph(1, 7)
    large["nodes"][0]["op"] = "Large"
    graphs = {KEYS[0]: GRAPHS[KEYS[0]], operator_key(large): large, KEYS[1]: GRAPHS[KEYS[1]]}
    started: list[RemoteRig] = []
    kept: list[Measurement] = []

    def new_rig() -> RemoteRig:
        started.append(RemoteRig(WorkerSettings("scripted", 1, (), locks=tmp_path)))
        return started[-1]

    campaign = replace(
        Bench(tmp_path).campaign,
        clock=SystemClock(),
        emit=kept.append,
        graph_of=graphs.__getitem__,
        new_rig=new_rig,
    )
    campaign.run([Target(key) for key in graphs])

    rows = {record.operator: record for record in kept}
    assert rows.keys() == graphs.keys()
    assert (rows[operator_key(large)].status, len(started)) == ("failed", 2)
    assert rows[operator_key(large)].message == "the script's device has no room for Large"


def test_a_full_driver_defers_operators(emulated: Callable[..., str], tmp_path: Path) -> None:
    """CUDA's own error, through cuda-bindings, on a driver that has room for four of six."""
    pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
    program = """
        import os
        from dataclasses import replace
        from pathlib import Path
        from lanaprof.lut.keys import operator_key
        from lanaprof.profiler.backends import Program, Settings
        from lanaprof.profiler.campaign import Campaign, Provenance, Target
        from lanaprof.profiler.clock import SystemClock
        from lanaprof.profiler.gpu.bindings_driver import BindingsDriver
        from lanaprof.profiler.gpu.clock import GpuCall, GpuClock, Pace
        from lanaprof.profiler.gpu.probe import get_gpu
        from lanaprof.profiler.protocol import HOT
        from lanaprof.profiler.rig import LocalRig
        from lanaprof.profiler.sample_graphs import relu_graph
        from lanaprof.profiler.testing import ScriptedBackend

        driver = BindingsDriver(get_gpu())
        stream = driver.stream()
        starts = []

        class Kernel(Program):
            def __init__(self):
                self.memory, self.some = driver.allocate(10 << 20), driver.allocate(1000)
            def bind(self, inputs, outputs):
                return GpuCall(stream, lambda where: driver.fill(self.some, 0, where), keep=self)

        class Filling(ScriptedBackend):
            def free_bytes(self):
                return 1 << 30
            def compile(self, graph, *, seed):
                return Kernel()

        def new_rig():
            starts.append(driver.memory_bytes()[0] >> 20)
            return LocalRig(Filling(Settings()), GpuClock(driver, pace=Pace(warmup_s=0.0, sample_s=1e-5, graph_s=1e-6)))

        graphs = {operator_key(graph): graph for graph in (relu_graph(1, 1000 * n) for n in range(1, 7))}
        campaign = Campaign(
            environment="e" * 32, threads=1, protocol=replace(HOT, spread_s=0.0, rounds_max=8),
            provenance=Provenance(team="lab", host="0123456789ab", tool_version="0"),
            journals=Path(os.environ["FOLDER"]), graph_of=graphs.__getitem__,
            new_rig=new_rig, emit=lambda record: None, clock=SystemClock(),
        )
        print(campaign.run([Target(key) for key in graphs]).counts, starts)
    """

    printed = emulated(program, FOLDER=str(tmp_path), EMULATED_CUDA_MEMORY=str(48 << 20))

    assert printed == "{'ok': 6} [48, 48]\n"
