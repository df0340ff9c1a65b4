"""torch on GPUs: everything but the GPU, which a scripted one on the host stands for.

The backend runs as it would, with torch's CPU functions in the place of its CUDA kernels. What is left to be seen on a
GPU: torch's CUDA part, its pools of memory while a run is recorded, and Triton's kernels.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import BackendError, DeviceUnavailable, UnsupportedOperator
from lanaprof.profiler.backends import Settings, backend_class
from lanaprof.profiler.backends.torch_cuda import TorchCuda, why_torch_cannot
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.failures import DeviceLost, OutOfDeviceMemory
from lanaprof.profiler.gpu.probe import find_gpus
from lanaprof.profiler.gpu.testing import ScriptedDriver
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sample_graphs import SAMPLE_GRAPHS, conv_graph
from lanaprof.profiler.sampling import PlannedVisit, Run
from lanaprof.profiler.testing import FakeClock

at = pytest.mark.parametrize
RUN_S = 3e-4


class OnHost(TorchCuda):
    """The same on the CPU; a run keeps the scripted GPU busy for 0.3 ms."""

    device = "cpu"

    def _new_pool(self) -> Any:
        return None

    def __init__(self, settings: Settings, *, driver: ScriptedDriver) -> None:
        super().__init__(settings, driver=driver)
        self.script, self.depth = driver, 0
        self.depths: list[int] = []

    def _surroundings(self) -> Callable[[], contextlib.AbstractContextManager[object]]:
        @contextlib.contextmanager
        def surrounded() -> Iterator[None]:
            assert not self.script._queues[0].recording, "entered while a run is recorded"
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1

        return surrounded

    def _module(self, graph: Mapping[str, Any], seed: int) -> Any:
        module = super()._module(graph, seed)

        def working(*inputs: Any) -> Any:
            self.depths.append(self.depth)
            self.script.work(self._stream, RUN_S)
            return module(*inputs)

        return working


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")


@pytest.fixture
def driver() -> ScriptedDriver:
    return ScriptedDriver(FakeClock())


@pytest.fixture
def backend(driver: ScriptedDriver) -> OnHost:
    return OnHost(Settings(), driver=driver)


def buffers(backend: OnHost, graph: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    return inputs, [backend.buffer("float32", (1,), seed=99) for _ in graph["outputs"]]


@at("kind", SAMPLE_GRAPHS)
def test_it_computes_what_onnx_says(backend: OnHost, kind: str) -> None:
    """Inputs, outputs, integers, several of each."""
    graph = SAMPLE_GRAPHS[kind]()
    inputs, outputs = buffers(backend, graph)

    backend.compile(graph, seed=3).bind(inputs, outputs)()

    feeds = {f"x{index}": backend.read(buffer) for index, buffer in enumerate(inputs)}
    expected = ReferenceEvaluator(model_from_graph(graph, seed=3)).run(None, feeds)
    for one, buffer in zip(expected, outputs, strict=True):
        np.testing.assert_allclose(backend.read(buffer), one, rtol=1e-4, atol=1e-4 * float(np.abs(one).max()))


def test_what_is_written_lies_where_it_lay(backend: OnHost) -> None:
    """A recorded run reads an address."""
    (source,), _ = buffers(backend, conv_graph())
    address = source.values.data_ptr()

    backend.write(source, np.ones(source.values.shape, dtype=np.float32))

    assert source.values.data_ptr() == address
    assert backend.read(source).min() == 1.0


def test_a_run_gives_back_its_results_before_it_makes_new_ones(backend: OnHost) -> None:
    """What a recording needs is then in the pool already: nothing can be allocated while it is made."""
    graph = conv_graph()
    inputs, outputs = buffers(backend, graph)
    held: list[Any] = []
    module = backend._module(graph, 0)

    def looking(x: Any) -> Any:
        held.append(outputs[0].values)
        return module(x)

    call = backend.bound(looking, inputs, outputs)
    call()
    call()

    assert held == [None, None]


def test_runs_are_recorded_and_timed_by_the_gpus_clock(backend: OnHost, driver: ScriptedDriver) -> None:
    """As those of every other runtime: exact on a scripted clock."""
    rig = LocalRig(backend, GpuClock(driver, host=driver.clock))
    rig.build("conv", conv_graph(), seed=0)

    timed = rig.run([PlannedVisit((Run("conv"),), 1, 3)])

    assert [run.sample.wall_ns for run in timed] == [round(1e9 * RUN_S)] * 3
    assert driver.graphs_made > 0


@at("refuses", [False, True])
def test_its_pool_is_entered_before_a_recording_begins(refuses: bool) -> None:
    """torch asks for its own recording otherwise; runs that cannot be recorded are in it, too."""
    driver = ScriptedDriver(FakeClock(), refuses_capture=refuses)
    backend = OnHost(Settings(), driver=driver)
    call = backend.compile(conv_graph(), seed=0).bind(*buffers(backend, conv_graph()))

    GpuClock(driver, host=driver.clock).sample(call)

    assert set(backend.depths) == {1}
    assert bool(driver.graphs_made) != refuses


def test_any_other_stream_is_refused(backend: OnHost, driver: ScriptedDriver) -> None:
    """Its memory belongs to one."""
    graph = conv_graph()
    call = backend.compile(graph, seed=0).bind(*buffers(backend, graph))
    assert isinstance(call, GpuCall)

    call.enqueue(call.stream)

    with pytest.raises(BackendError, match="the stream its memory belongs to"):
        call.enqueue(driver.stream())
    assert isinstance(backend.clock(), GpuClock)


class Accelerator(RuntimeError):
    """As torch.AcceleratorError, which has CUDA's own code."""

    def __init__(self, code: int) -> None:
        super().__init__("CUDA error: as it may be\nand more")
        self.error_code = code


@at(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), OutOfDeviceMemory),
        (Accelerator(2), OutOfDeviceMemory),
        (Accelerator(700), DeviceLost),
        (RuntimeError("\"conv2d\" not implemented for 'Char'"), UnsupportedOperator),
        (RuntimeError("sizes do not match"), BackendError),
    ],
)
def test_errors_mean_what_they_mean_for_a_campaign(backend: OnHost, error: Exception, kind: type) -> None:
    """One operator's failure, or the end of the process."""

    def failing(*_inputs: Any) -> Any:
        raise error

    with pytest.raises(BackendError) as caught:
        backend.bound(failing, [], [])()

    assert type(caught.value) is kind


def test_float32_is_not_shortened(driver: ScriptedDriver) -> None:
    """Unless that is chosen, which is another environment."""
    OnHost(Settings(), driver=driver)
    assert os.environ.pop("NVIDIA_TF32_OVERRIDE") == "0"

    OnHost(Settings(options=(("tf32", "on"),)), driver=driver)

    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    assert dict(TorchCuda.options_with(1, (("tf32", "on"),)))["tf32"] == "on"


def test_torch_has_what_is_asked_of_it() -> None:
    """Its CUDA part exists without a GPU: names and arguments are the installed version's."""
    pool, stream = inspect.signature(torch.cuda.MemPool), torch.cuda.ExternalStream.__new__
    needed = [
        one
        for one in pool.parameters.values()
        if one.default is one.empty and one.kind is one.POSITIONAL_ONLY
    ]

    assert needed == []
    assert next(iter(inspect.signature(torch.cuda.use_mem_pool).parameters)) == "pool"
    assert list(inspect.signature(stream).parameters)[1:3] == ["stream_ptr", "device"]
    assert isinstance(torch.cuda.get_arch_list(), list)
    assert issubclass(torch.OutOfMemoryError, RuntimeError)


def built(cuda: str | None, *names: str, available: bool = True) -> Any:
    """Return a torch with code for these."""
    known = SimpleNamespace(
        get_arch_list=lambda: list(names), is_available=lambda: available, use_mem_pool=contextlib.nullcontext
    )
    return SimpleNamespace(__version__="2.14.1", version=SimpleNamespace(cuda=cuda), cuda=known)


@at(
    ("found", "capability", "words"),
    [
        (built(None), (8, 0), "torch 2.14.1 is built without CUDA"),
        (built("13.0", "sm_80", "sm_90"), (7, 0), "has code for sm_80, sm_90, not for 7.0"),
        (built("13.0", "sm_86"), (8, 0), "not for 8.0"),
        (built("13.0", "sm_90a"), (12, 0), "not for 12.0"),
        (built("13.0", "sm_80", available=False), (8, 6), "finds no GPU; its CUDA is 13.0"),
        (built("13.0", "sm_80"), (8, 6), ""),
        (built("13.0", "sm_80", "compute_90"), (12, 0), ""),
        (built("13.0", "sm_100f"), (10, 3), ""),
        (built("13.0", "sm_90a"), (9, 0), ""),
    ],
)
def test_a_torch_without_code_for_the_gpu_is_refused(
    found: Any, capability: tuple[int, int], words: str
) -> None:
    """Code for 8.0 runs on 8.6 and not the other way round; PTX on all that are newer."""
    said = why_torch_cannot(found, capability)

    assert words in said
    assert bool(words) == bool(said)


def test_without_a_gpu_it_is_refused() -> None:
    """By the door's own words, before torch is asked."""
    if find_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceUnavailable, match="no GPU to use"):
        backend_class("torch-cuda")(Settings())
