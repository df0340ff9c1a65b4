"""The TensorRT backend from graph to number, over a scripted GPU and TensorRT that compute what onnx says."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import BackendError, BackendUnavailable, BadInput, UnsupportedOperator
from lanaprof.profiler.backends.base import Edges, Settings
from lanaprof.profiler.backends.tensorrt import TensorRt
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.gpu.clock import GpuClock
from lanaprof.profiler.gpu.failures import CaptureRefused, OutOfDeviceMemory
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.sample_graphs import SAMPLE_GRAPHS, conv_graph, relu_graph
from lanaprof.profiler.testing import FakeClock

HERE = Path(__file__).parent

_spec = importlib.util.spec_from_file_location("tensorrt_doubles", HERE / "bindings" / "doubles.py")
assert _spec is not None
assert _spec.loader is not None
doubles = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(doubles)

Array = npt.NDArray[Any]
VERSIONS = ("8.6.1", "10.0.1", "10.4.0", "11.4.0.106")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what builds leave in the test's own folder."""
    monkeypatch.setenv("LANAPROF_CACHE", str(tmp_path))
    return tmp_path


def opened(script: Any, version: str = "11.4.0", **options: str) -> TensorRt:
    settings = Settings(options=tuple(options.items()))
    return TensorRt(settings, driver=script.gpu, api=doubles.scripted_api(script, version))


def buffers_of(backend: TensorRt, graph: Graph) -> tuple[list[Any], list[Any]]:
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    places = [reference[1:].split(".") for reference in graph["outputs"]]
    described = [graph["nodes"][int(node)]["outputs"][int(slot)] for node, slot in places]
    return inputs, [backend.buffer(row["type"], row["shape"], seed=99) for row in described]


def evaluated(graph: Graph, inputs: Sequence[Array], *, seed: int = 0) -> list[Array]:
    feeds = {f"x{index}": values for index, values in enumerate(inputs)}
    results = ReferenceEvaluator(model_from_graph(graph, seed=seed)).run(None, feeds)
    return [np.asarray(value) for value in results]


def halved(graph: Graph) -> Graph:
    """Return a graph in half precision."""
    for value in (
        *graph["inputs"],
        *graph["constants"],
        *(o for node in graph["nodes"] for o in node["outputs"]),
    ):
        value["type"] = {"float32": "float16"}.get(value["type"], value["type"])
    return graph


# ------------------------------------------------------------------------------------------------ computing


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", SAMPLE_GRAPHS)
def test_it_computes_what_onnx_says(kind: str, version: str) -> None:
    """Through every version's way: addresses, working memory, streams; 8.6 gets opset 17."""
    graph, script = SAMPLE_GRAPHS[kind](), doubles.Script()
    backend = opened(script, version)
    inputs, outputs = buffers_of(backend, graph)

    backend.compile(graph, seed=3).bind(inputs, outputs)()

    expected = evaluated(graph, [backend.read(buffer) for buffer in inputs], seed=3)
    for one, buffer in zip(expected, outputs, strict=True):
        np.testing.assert_allclose(backend.read(buffer), one, rtol=1e-5, atol=1e-5)


def test_a_program_can_stand_in_several_places() -> None:
    """Each call keeps its own context and buffers, and outlives the program."""
    graph, script = conv_graph(), doubles.Script()
    backend = opened(script)
    program = backend.compile(graph, seed=0)
    places = [buffers_of(backend, graph) for _ in range(2)]
    backend.write(places[1][0][0], np.full((1, 16, 14, 14), 2.0, dtype=np.float32))
    calls = [program.bind(*place) for place in places]
    del program
    gc.collect()

    for index in (0, 1, 1, 0):
        calls[index]()

    for (source,), (target,) in places:
        (expected,) = evaluated(graph, [backend.read(source)])
        np.testing.assert_allclose(backend.read(target), expected, rtol=1e-5, atol=1e-5)
    assert len(script.contexts) == 2


def test_what_is_written_is_read() -> None:
    """Values are taken to the tensor's type; a value of another size is no value of it."""
    backend = opened(doubles.Script())
    buffer = backend.buffer("float16", (2, 3), seed=0)

    backend.write(buffer, np.arange(6).reshape(2, 3))

    assert backend.read(buffer).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert backend.read(buffer).dtype == np.float16
    with pytest.raises(ValueError, match="reshape"):
        backend.write(buffer, np.zeros(5))


def test_the_gpus_clock_times_its_calls() -> None:
    """Captured into a graph, replayed, divided: what the script says a run takes."""
    clock = FakeClock()
    script = doubles.Script(doubles.Gpu(clock))
    backend = opened(script)
    graph = relu_graph(1, 8)
    call = backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))
    call()

    sample = GpuClock(script.gpu, host=clock).sample(call)

    assert sample.wall_ns == pytest.approx(1e9 * doubles.RUN_S, rel=1e-3)
    assert script.gpu.graphs_made > 0


# ------------------------------------------------------------------------------------------------- building


def test_a_strongly_typed_network_takes_no_flags() -> None:
    """From 10 on the types in the model are the precision; TF32 is off, and one stream is all there is."""
    script = doubles.Script()
    opened(script, "10.4.0").compile(halved(conv_graph()), seed=0)
    (config,), (network,) = script.configs, script.networks

    assert network.flags == 0b11
    assert config.flags == set()
    assert (config.max_aux_streams, config.builder_optimization_level) == (0, 3)
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.workspace_bytes == 1 << 30


def test_a_weakly_typed_network_is_allowed_its_types() -> None:
    """8.6 needs a flag to use half precision at all; in a float32 model nothing is allowed."""
    script = doubles.Script()
    backend = opened(script, "8.6.1")
    backend.compile(halved(conv_graph()), seed=0)
    backend.compile(conv_graph(), seed=0)

    assert [config.flags for config in script.configs] == [{"FP16"}, set()]
    assert [network.flags for network in script.networks] == [0b1, 0b1]


def test_options_change_the_build() -> None:
    """As they are printed."""
    script = doubles.Script()
    backend = opened(
        script, workspace="256MiB", tf32="on", optimization_level="5", timing_iterations="2", aux_streams="1"
    )
    backend.compile(conv_graph(), seed=0)
    (config,) = script.configs

    assert config.workspace_bytes == 256 << 20
    assert config.flags == {"TF32"}
    assert (config.builder_optimization_level, config.avg_timing_iterations, config.max_aux_streams) == (
        5,
        2,
        1,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tf23": "on"}, "tensorrt has no option 'tf23'; known: aux_streams, builds, optimization_level"),
        ({"tf32": "yes"}, "option tf32 of the backend tensorrt is off or on, not 'yes'"),
        ({"plans": "keep"}, "option plans of the backend tensorrt is off or reuse, not 'keep'"),
        ({"workspace": "1024"}, "workspace of the backend tensorrt is a size of 1MiB or more, such as 2GiB"),
        ({"optimization_level": "6"}, "optimization_level .* is a whole number from 0 to 5, not '6'"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, str], words: str) -> None:
    """What was asked, and what there is."""
    with pytest.raises(BadInput, match=words):
        opened(doubles.Script(), **options)


def test_edges_may_have_other_formats() -> None:
    """Between neighbours, in half precision, for images: the plain format and that of tensor cores."""
    script = doubles.Script()
    backend = opened(script)
    backend.compile_inside(halved(conv_graph()), seed=0, edges=Edges((True,), (False,)))
    backend.compile_inside(conv_graph(), seed=0, edges=Edges((True,), (True,)))
    backend.compile(halved(conv_graph()), seed=0)

    formats = [(n.get_input(0).allowed_formats, n.get_output(0).allowed_formats) for n in script.networks]
    assert formats == [(0b101, 1), (1, 1), (1, 1)]


def test_edge_buffers_have_room_for_them() -> None:
    """Channels filled up to a whole vector; what it says of itself stays the network's shape."""
    backend = opened(doubles.Script())
    buffer = backend.edge_buffer("float16", (1, 3, 4, 4), seed=0)

    assert buffer.memory.size_bytes == 2 * 32 * 16
    assert backend.read(buffer).shape == (1, 3, 4, 4)


# -------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            "Error Code 10: Internal Error (Could not find any implementation for node n0.)",
            UnsupportedOperator,
        ),
        (  # TensorRT 10.3 on a GPU of compute capability 8.6
            "Error Code 9: API Usage Error (Networks with FP8 Q/DQ layers require hardware with FP8 support.)",
            UnsupportedOperator,
        ),
        ("Could not find any implementation for node n0 due to insufficient workspace.", OutOfDeviceMemory),
        ("Error Code 2: OutOfMemory (no further information)", OutOfDeviceMemory),
        (
            "Error Code 9: API Usage Error (Target GPU SM 70 is not supported by this TensorRT release.)",
            BackendError,
        ),
        ("Error Code 1: Myelin (something else)", BackendError),
    ],
)
def test_the_log_says_why_a_build_failed(words: str, kind: type[BackendError]) -> None:
    """TensorRT gives no plan and no reason; texts as users report them."""
    script = doubles.Script()
    backend, script.build_error = opened(script), words

    with pytest.raises(BackendError) as caught:
        backend.compile(conv_graph(), seed=0)

    assert type(caught.value) is kind
    assert caught.value.message == f"TensorRT could not build the operator: {words}"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("operation not permitted when stream is capturing", CaptureRefused),
        ("Cuda Runtime (out of memory)", OutOfDeviceMemory),
        ("Cuda Runtime (an illegal memory access was encountered)", BackendError),
    ],
)
def test_the_log_says_why_a_run_failed(words: str, kind: type[BackendError]) -> None:
    """Whether a graph can be made of it is what the clock wants to know."""
    script, graph = doubles.Script(), conv_graph()
    backend = opened(script)
    call = backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))
    script.run_error = words

    with pytest.raises(BackendError) as caught:
        call()

    assert type(caught.value) is kind
    assert caught.value.message == f"TensorRT did not run the operator: {words}"


def test_one_failure_is_not_told_of_the_next() -> None:
    """What was logged before belongs to another operator."""
    script = doubles.Script()
    backend, script.build_error = opened(script), "a first failure"
    with pytest.raises(BackendError):
        backend.compile(conv_graph(), seed=0)
    script.build_error = "a second one"

    with pytest.raises(BackendError, match=r"operator: a second one$"):
        backend.compile(conv_graph(), seed=0)


def test_other_types_than_the_operators_are_unsupported() -> None:
    """TensorRT 8 takes int64 inputs for int32: it would read every buffer wrongly."""
    script = doubles.Script()
    backend, script.reads_int64_as = opened(script, "8.6.1"), "INT32"

    with pytest.raises(UnsupportedOperator) as caught:
        backend.compile(SAMPLE_GRAPHS["embedding"](), seed=0)

    assert (
        caught.value.message == "TensorRT has input x0 as int32 1×6; the operator has input x0 as int64 1×6"
    )


def test_bfloat16_needs_a_newer_version() -> None:
    """Said before anything is built."""
    graph = conv_graph()
    graph["nodes"][0]["outputs"][0]["type"] = "bfloat16"

    with pytest.raises(UnsupportedOperator, match=r"TensorRT 8.6.1 has no bfloat16; 10 and newer have it"):
        opened(doubles.Script(), "8.6.1").compile(graph, seed=0)


def test_a_gpu_without_room_is_a_row() -> None:
    """The working memory does not fit: the operator fails, what is bound goes on."""
    script, graph = doubles.Script(), conv_graph()
    backend = opened(script)
    call = backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))
    script.scratch_bytes = 1 << 40

    with pytest.raises(OutOfDeviceMemory):
        backend.compile(graph, seed=1).bind(*buffers_of(backend, graph))

    script.scratch_bytes = 1000
    call()


# ---------------------------------------------------------------------------------- what stands before a GPU


def test_no_gpu_is_said_before_tensorrt_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU its runtime ends the process; here it is not even looked for."""
    from lanaprof.profiler.backends import tensorrt as module

    monkeypatch.setattr(module, "find_conflict", lambda *_a, **_k: pytest.fail("TensorRT was looked for"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")

    with pytest.raises(Exception, match="there is no GPU"):
        TensorRt(Settings())


def test_a_wrong_version_is_refused_with_the_pin(monkeypatch: pytest.MonkeyPatch) -> None:
    """A V100 with today's TensorRT: what to type, before anything is loaded."""
    from lanaprof.profiler.backends import tensorrt as module

    monkeypatch.setattr(module, "installed_package", lambda: ("tensorrt-cu13", "11.4.0.106"))
    monkeypatch.setattr(module, "driver_version", lambda: (12, 4))

    with pytest.raises(BackendUnavailable, match=r"Volta.* up to, not including, 10.5") as caught:
        TensorRt(Settings(), driver=doubles.Gpu())

    assert caught.value.hint == "pip install tensorrt-cu12==10.4.0"


@pytest.mark.parametrize(("version", "typing"), [("8.6.1", "weak"), ("10.4.0", "strong"), ("", "strong")])
def test_weak_typing_is_another_environment(
    monkeypatch: pytest.MonkeyPatch, version: str, typing: str
) -> None:
    """It may take float32 kernels where half precision was asked for: numbers of another experiment."""
    from lanaprof.profiler.backends import tensorrt as module

    monkeypatch.setattr(module, "installed_package", lambda: ("tensorrt", version) if version else None)

    options = dict(TensorRt.options(1))
    assert options["typing"] == typing
    assert options["tf32"] == "off"
