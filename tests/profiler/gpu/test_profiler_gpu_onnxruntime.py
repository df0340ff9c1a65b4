"""ONNX Runtime on GPUs: everything but the GPU, which a scripted one on the host stands for.

The backend runs as it would, with ONNX Runtime's CPU provider in the place of its CUDA provider and the script's memory
in the place of the GPU's. What is left to be seen on a GPU: the CUDA and TensorRT providers themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import BackendError, BackendUnavailable, DeviceUnavailable, UnsupportedOperator
from lanaprof.profiler.backends import Settings, backend_class
from lanaprof.profiler.backends.onnxruntime_gpu import OnnxRuntimeCuda, OnnxRuntimeTensorRt
from lanaprof.profiler.gpu.clock import GpuCall, GpuClock
from lanaprof.profiler.gpu.probe import find_gpus
from lanaprof.profiler.gpu.testing import ScriptedDriver
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sample_graphs import SAMPLE_GRAPHS, conv_graph
from lanaprof.profiler.testing import FakeClock

at = pytest.mark.parametrize
BOTH = at("name", ["onnxruntime-cuda", "onnxruntime-tensorrt"])


class OnHost(OnnxRuntimeCuda):
    """The same on the CPU."""

    name = "on-host"
    providers = ("CPUExecutionProvider",)
    place = "cpu"

    def _provider_options(self, name: str, graph: Mapping[str, Any]) -> dict[str, str]:
        super()._provider_options(name, graph)
        return {}


class OnTensorRt(OnnxRuntimeTensorRt):
    """Made without the provider, for what it would be told."""

    providers = ("CPUExecutionProvider",)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")


@pytest.fixture
def backend() -> OnHost:
    return OnHost(Settings(), driver=ScriptedDriver(FakeClock()))


def buffers(backend: OnHost, graph: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    places = [reference[1:].split(".") for reference in graph["outputs"]]
    described = [graph["nodes"][int(node)]["outputs"][int(slot)] for node, slot in places]
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    return inputs, [backend.buffer(row["type"], row["shape"], seed=99) for row in described]


@at("kind", SAMPLE_GRAPHS)
def test_it_computes_what_onnx_says(backend: OnHost, kind: str) -> None:
    """On memory of the driver's: inputs, outputs, integers, several of each."""
    graph = SAMPLE_GRAPHS[kind]()
    inputs, outputs = buffers(backend, graph)

    backend.compile(graph, seed=3).bind(inputs, outputs)()

    feeds = {f"x{index}": backend.read(buffer) for index, buffer in enumerate(inputs)}
    expected = ReferenceEvaluator(model_from_graph(graph, seed=3)).run(None, feeds)
    for one, buffer in zip(expected, outputs, strict=True):
        np.testing.assert_allclose(backend.read(buffer), one, rtol=1e-4, atol=1e-4 * float(np.abs(one).max()))


def test_what_is_written_is_what_the_next_run_reads(backend: OnHost) -> None:
    """Buffers are bound, not copied."""
    graph = conv_graph()
    (source,), (target,) = buffers(backend, graph)
    call = backend.compile(graph, seed=0).bind([source], [target])
    call()
    before = backend.read(target)

    backend.write(source, np.zeros(source.shape, dtype=np.float32))
    call()

    assert not np.allclose(before, backend.read(target))


def test_its_calls_are_timed_by_the_gpus_clock(backend: OnHost) -> None:
    """They are GpuCalls on the backend's stream; any other stream is refused."""
    graph = conv_graph()
    call = backend.compile(graph, seed=0).bind(*buffers(backend, graph))
    assert isinstance(call, GpuCall)

    call.enqueue(call.stream)

    with pytest.raises(BackendError, match="stream its session was made with"):
        call.enqueue(backend._driver.stream())
    assert isinstance(backend.clock(), GpuClock)


def test_an_operator_without_a_kernel_is_unsupported(backend: OnHost) -> None:
    """A row of the campaign; what contradicts itself is an error, and the next one runs."""
    tensor = {"type": "float32", "shape": [1, 4]}
    node = {"op": "Unsupported", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}
    graph = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
             "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip
    broken = conv_graph()
    broken["constants"][0]["shape"] = [16, 7, 3, 3]
    rig = LocalRig(backend, backend.clock())

    with pytest.raises(UnsupportedOperator):
        backend.compile(graph, seed=0)
    with pytest.raises(BackendError):
        rig.build("broken", broken, seed=0)
    rig.build("whole", conv_graph(), seed=0)


def test_float32_is_not_shortened(backend: OnHost) -> None:
    """TF32 is off for every library that is loaded afterwards, and in the providers' own options."""
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    assert (
        OnnxRuntimeCuda._provider_options(backend, "CUDAExecutionProvider", conv_graph())["use_tf32"] == "0"
    )


def test_the_providers_options_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """In words of ours; then other libraries may shorten float32, too."""
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    chosen = (("convolutions", "heuristic"), ("layout", "nhwc"), ("tf32", "on"))
    backend = OnHost(Settings(options=chosen), driver=ScriptedDriver(FakeClock()))

    found = OnnxRuntimeCuda._provider_options(backend, "CUDAExecutionProvider", conv_graph())

    assert (found["cudnn_conv_algo_search"], found["prefer_nhwc"], found["use_tf32"]) == (
        "HEURISTIC",
        "1",
        "1",
    )
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    assert set(chosen) <= set(OnnxRuntimeCuda.options_with(1, chosen))


def test_tensorrts_options_can_be_chosen(backend: OnHost) -> None:
    """In the provider's words where they are, and not said where they are not."""
    chosen = (("optimization_level", "5"), ("workspace", "2GiB"))
    given = [
        OnTensorRt(Settings(options=options), driver=backend._driver)._provider_options(
            "TensorrtExecutionProvider", conv_graph()
        )
        for options in ((), chosen)
    ]

    assert {name: given[1][name] for name in given[1].keys() - given[0].keys()} == {
        "trt_builder_optimization_level": "5",
        "trt_max_workspace_size": str(2 << 30),
    }


@at(("kind", "fp16", "int8"), [("float32", "0", "0"), ("float16", "1", "0")])
def test_tensorrt_is_allowed_the_types_in_the_graph(backend: OnHost, kind: str, fp16: str, int8: str) -> None:
    """No others: a float32 operator stays one."""
    graph = json.loads(json.dumps(conv_graph()).replace("float32", kind))
    options = OnTensorRt(Settings(), driver=backend._driver)._provider_options(
        "TensorrtExecutionProvider", graph
    )

    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == (fp16, int8)


@BOTH
def test_without_the_provider_it_is_refused(name: str) -> None:
    """Before any GPU is asked for; a session would fall back to the CPU without a word."""
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has the CUDA provider")
    with pytest.raises(BackendUnavailable, match="CUDAExecutionProvider"):
        backend_class(name)(Settings())


def test_without_a_gpu_it_is_refused() -> None:
    """By the door's own words."""
    if find_gpus():
        pytest.skip("there is a GPU")
    with pytest.raises(DeviceUnavailable, match="no GPU to use"):
        OnHost(Settings())
