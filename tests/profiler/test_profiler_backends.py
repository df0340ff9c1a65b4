"""The contract of lanaprof.profiler.backends.base, held by every backend that is registered here.

A backend of another package joins by being installed: the suite runs over all names of the registry.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import BackendError, BackendUnavailable, DeviceUnavailable, UnsupportedOperator
from lanaprof.profiler.backends import Backend, Settings, backend_class, backend_names
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.clock import SystemClock
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sample_graphs import (
    SAMPLE_GRAPHS,
    conv_graph,
    matmul_graph,
    relu_graph,
    two_output_graph,
)

Array = npt.NDArray[Any]
REAL = tuple(backend_names())
NAMES = ("scripted", *REAL)  # the script spends time and computes nothing
at = pytest.mark.parametrize


def opened(name: str, threads: int = 1) -> Backend:
    """Return a backend, or skip where its runtime is not installed, or its GPU not here."""
    found = backend_class(name)
    try:
        found.version()
        return found(Settings(threads=threads))
    except (BackendUnavailable, DeviceUnavailable) as error:
        pytest.skip(f"{error.message}: {error.hint}")


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    return opened(request.param)


every = at("backend", NAMES, indirect=True)
computing = at("backend", REAL, indirect=True)


def described_outputs(graph: Graph) -> list[dict[str, Any]]:
    places = [reference[1:].split(".") for reference in graph["outputs"]]
    return [graph["nodes"][int(node)]["outputs"][int(slot)] for node, slot in places]


def buffers_of(backend: Backend, graph: Graph) -> tuple[list[Any], list[Any]]:
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    outputs = [backend.buffer(row["type"], row["shape"], seed=99) for row in described_outputs(graph)]
    return inputs, outputs


def result_of(backend: Backend, graph: Graph, *, seed: int = 0) -> list[Array]:
    inputs, outputs = buffers_of(backend, graph)
    backend.compile(graph, seed=seed).bind(inputs, outputs)()
    return [backend.read(output) for output in outputs]


def evaluated(graph: Graph, inputs: list[Array], *, seed: int = 0) -> list[Array]:
    """Return what ONNX's reference evaluator computes."""
    feeds = {f"x{index}": values for index, values in enumerate(inputs)}
    return [
        np.asarray(value) for value in ReferenceEvaluator(model_from_graph(graph, seed=seed)).run(None, feeds)
    ]


def expected_of(backend: Backend, graph: Graph, *, seed: int = 0) -> list[Array]:
    inputs, _ = buffers_of(backend, graph)
    return evaluated(graph, [backend.read(buffer) for buffer in inputs], seed=seed)


def assert_close(expected: list[Array], actual: list[Array]) -> None:
    for one, other in zip(expected, actual, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-4 * float(np.abs(one).max()))


# ---------------------------------------------------------------------------------- what every backend does


@every
@at("kind", SAMPLE_GRAPHS)
def test_it_compiles_and_runs(backend: Backend, kind: str) -> None:
    """Convolutions, matrix products, gates, integer inputs, several inputs and outputs."""
    graph = SAMPLE_GRAPHS[kind]()
    inputs, outputs = buffers_of(backend, graph)

    call = backend.compile(graph, seed=0).bind(inputs, outputs)

    for _ in range(3):
        call()


@computing
@at("kind", SAMPLE_GRAPHS)
def test_it_computes_what_onnx_says(backend: Backend, kind: str) -> None:
    """To 1e-4 of the largest value; a runtime that quietly takes bf16 misses that a hundredfold."""
    graph = SAMPLE_GRAPHS[kind]()

    actual = result_of(backend, graph, seed=3)

    assert_close(expected_of(backend, graph, seed=3), actual)


@computing
def test_a_seed_decides_the_weights(backend: Backend) -> None:
    """The same seed computes the same, another one something else."""
    graph = conv_graph()
    first, again, other = (result_of(backend, graph, seed=seed)[0] for seed in (1, 1, 2))

    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


@every
def test_a_seed_decides_a_buffer(backend: Backend) -> None:
    """Standard normal numbers for floats, zeros for integers."""
    first, again, other = (backend.read(backend.buffer("float32", (2, 500), seed=seed)) for seed in (1, 1, 2))
    whole = backend.read(backend.buffer("int64", (3,), seed=1))

    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert (abs(float(first.mean())) < 0.2, 0.8 < float(first.std()) < 1.2) == (True, True)
    assert (whole.dtype, whole.tolist()) == (np.dtype(np.int64), [0, 0, 0])


@every
def test_what_is_written_is_read(backend: Backend) -> None:
    """Reading gives a copy: later writes do not change it."""
    buffer = backend.buffer("float32", (2, 3), seed=0)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)

    backend.write(buffer, values)
    before = backend.read(buffer)
    backend.write(buffer, -values)

    assert np.array_equal(values, before)
    assert np.array_equal(-values, backend.read(buffer))


@computing
def test_a_bound_input_is_shared(backend: Backend) -> None:
    """What is written into it after binding is what the next run reads; the run leaves it as it was."""
    graph = two_output_graph()
    inputs, outputs = buffers_of(backend, graph)
    call = backend.compile(graph, seed=0).bind(inputs, outputs)
    call()
    before = backend.read(outputs[1])
    values = np.full((3, 8), 3.0, dtype=np.float32)

    backend.write(inputs[1], values)
    call()

    assert not np.allclose(before, backend.read(outputs[1]))
    assert np.array_equal(values, backend.read(inputs[1]))


@computing
def test_a_program_reads_what_its_predecessor_wrote(backend: Backend) -> None:
    """The output of one is the input of the next, as under relay: one buffer, no copy to make."""
    graph = conv_graph()
    (first,), (middle,) = buffers_of(backend, graph)
    last = backend.buffer("float32", (1, 16, 14, 14), seed=5)
    calls = [
        backend.compile(graph, seed=1).bind([first], [middle]),
        backend.compile(graph, seed=2).bind([middle], [last]),
    ]

    for call in calls:
        call()

    halfway = evaluated(graph, [backend.read(first)], seed=1)
    assert_close(evaluated(graph, halfway, seed=2), [backend.read(last)])


@computing
def test_a_program_can_stand_in_several_places(backend: Backend) -> None:
    """Bound twice, each call keeps to its own buffers, in any order of calls, and outlives the program."""
    graph = conv_graph()
    program = backend.compile(graph, seed=0)
    places = [
        (
            [backend.buffer("float32", (1, 16, 14, 14), seed=seed)],
            [backend.buffer("float32", (1, 16, 14, 14), seed=9)],
        )
        for seed in (1, 2)
    ]
    calls = [program.bind(*place) for place in places]
    del program
    gc.collect()

    for index in (0, 1, 1, 0):
        calls[index]()

    for (source,), (target,) in places:
        assert_close(evaluated(graph, [backend.read(source)]), [backend.read(target)])


@every
def test_a_run_makes_no_arrays(backend: Backend) -> None:
    """Results go into the bound buffers: a copy of the 1.6 MB output would be seen here."""
    relu = relu_graph(1, 8, 224, 224)
    call = backend.compile(relu, seed=0).bind(*buffers_of(backend, relu))
    call()

    tracemalloc.start()
    try:
        call()
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak_bytes < 100_000


@at("name", REAL)
def test_denormals_are_flushed(name: str) -> None:
    """Trained weights and features hold some, and CPUs are slow with them; tried where no other runtime ran."""
    if backend_class(name).on_gpu:
        pytest.skip("GPUs are as fast with denormals as with other numbers")
    opened(name)
    ran = in_own_process(
        name,
        """
        relu = relu_graph(1, 64)
        inputs, outputs = buffers_of(backend, relu)
        tiny = np.full((1, 64), 1e-40, dtype=np.float32)
        backend.write(inputs[0], tiny)
        backend.compile(relu, seed=0).bind(inputs, outputs)()
        print(tiny.view(np.int32).any(), backend.read(outputs[0]).view(np.int32).any())
        """,
    )

    assert ran == "True False\n"


@every
def test_one_thread_is_the_calling_thread(backend: Backend) -> None:
    """Its CPU time is the process's: samples may be judged by it."""
    graph = conv_graph(64, 56, layers=2)
    call = backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))
    call()
    process_ns, thread_ns = time.process_time_ns(), time.thread_time_ns()

    for _ in range(20):
        call()

    thread_ns = time.thread_time_ns() - thread_ns
    process_ns = time.process_time_ns() - process_ns
    assert process_ns - thread_ns < 0.1 * process_ns + 2e6


@every
def test_dropped_programs_are_released(backend: Backend) -> None:
    """A campaign builds thousands, a hundred at a time."""
    graph = matmul_graph(1, 1024, 2048)

    def build() -> None:
        backend.compile(graph, seed=0).bind(*buffers_of(backend, graph))()
        gc.collect()

    build()
    before_bytes = resident_bytes()
    for _ in range(12):  # 8 MiB of weights each
        build()

    assert resident_bytes() - before_bytes < 48 << 20


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@every
def test_an_operator_without_a_kernel_is_unsupported(backend: Backend) -> None:
    """The row of the campaign then says so, and nobody tries again."""
    tensor = {"type": "float32", "shape": [1, 4]}
    node = {"op": "Unsupported", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}
    graph = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
             "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip

    with pytest.raises(UnsupportedOperator, match="Unsupported"):
        backend.compile(graph, seed=0)


@every
def test_a_graph_with_a_loose_end_is_an_error(backend: Backend) -> None:
    """A node that reads what nothing writes: an error of the operator, and no other one."""
    graph = conv_graph()
    graph["nodes"][0]["inputs"][0] = "n7.0"

    with pytest.raises(BackendError) as caught:
        backend.compile(graph, seed=0)

    assert not isinstance(caught.value, UnsupportedOperator)


@computing
def test_a_graph_that_contradicts_itself_is_an_error(backend: Backend) -> None:
    """A kernel for other channels: broken, not unsupported, found at the first run at the latest; the next one runs."""
    graph = conv_graph()
    graph["constants"][0]["shape"] = [16, 7, 3, 3]
    rig = LocalRig(backend, SystemClock())

    with pytest.raises(BackendError) as caught:
        rig.build("broken", graph, seed=0)

    assert not isinstance(caught.value, UnsupportedOperator)
    rig.build("whole", conv_graph(), seed=0)


@at("name", REAL)
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="this process may use one core")
def test_several_threads_compute_the_same(name: str) -> None:
    """In a process of its own, as campaigns do: thread pools are a process's."""
    opened(name)
    ran = in_own_process(
        name,
        """
        graph = conv_graph(32, 28, layers=2)
        assert_close(expected_of(backend, graph), result_of(backend, graph))
        print("equal")
        """,
        threads=2,
    )

    assert ran == "equal\n"


def in_own_process(name: str, body: str, *, threads: int = 1, core: int | None = None) -> str:
    """Return what a program prints that has this module's names and the backend; pinned first, as workers are."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        + ("" if core is None else f"os.sched_setaffinity(0, {{{core}}})\n")
        + "from test_profiler_backends import *\n"
        + f"backend = opened({name!r}, {threads})\n"
        + textwrap.dedent(body)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------------------------------------- OpenVINO


def test_openvino_refuses_threads_it_would_not_use() -> None:
    """On one core it takes one of two threads without a word: that latency would be filed under two."""
    opened("openvino")
    ran = in_own_process(
        "openvino",
        """
        try:
            backend.compile(conv_graph(), seed=0)
        except BackendError as error:
            print(error.message)
        """,
        threads=2,
        core=min(os.sched_getaffinity(0)),
    )

    assert ran == "OpenVINO runs 1 of the 2 threads asked for: it sees too few cores\n"


def test_openvino_reports_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its import starts no process that tells of it and keeps no record; who wants to report still can."""
    opened("openvino")
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = in_own_process(
        "openvino",
        """
        print([name for name in sys.modules if name.startswith("openvino_telemetry")])
        import openvino_telemetry
        """,
    )

    assert ran == "[]\n"
    assert list(tmp_path.iterdir()) == []
