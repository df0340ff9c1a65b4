"""The contract of compile_inside and edge_buffer, held by every registered backend.

Whatever layout a backend keeps between operators: two programs with such an edge between them compute what they
compute alone, and at ends that are no edges everything is as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lanaprof.errors import BackendError, BackendUnavailable, DeviceUnavailable, UnsupportedOperator
from lanaprof.profiler.backends import Backend, Edges, Settings, backend_class, backend_names
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.sample_graphs import (
    SAMPLE_GRAPHS,
    attention_graph,
    conv_graph,
    embedding_graph,
    graph_of,
    matmul_graph,
)

REAL = tuple(backend_names())
ALONE, FIRST, LAST = Edges((False,), (False,)), Edges((False,), (True,)), Edges((True,), (False,))
at = pytest.mark.parametrize


@pytest.fixture
def backend(request: pytest.FixtureRequest) -> Backend:
    found = backend_class(request.param)
    try:
        found.version()
        return found(Settings())
    except (BackendUnavailable, DeviceUnavailable) as error:
        pytest.skip(f"{error.message}: {error.hint}")


every = at("backend", ("scripted", *REAL), indirect=True)
computing = at("backend", REAL, indirect=True)


def pair(first: Callable[[], Graph], second: Callable[[], Graph]) -> tuple[Graph, Graph]:
    return first(), second()


def shape_of_output(graph: Graph) -> tuple[str, tuple[int, ...]]:
    node, slot = graph["outputs"][0][1:].split(".")
    row = graph["nodes"][int(node)]["outputs"][int(slot)]
    return row["type"], tuple(row["shape"])


def result_through(
    backend: Backend, graphs: tuple[Graph, Graph], edges: tuple[Edges, Edges], *, inside: bool
) -> npt.NDArray[Any]:
    """Return what the second of two programs writes that share one buffer."""
    first, second = graphs
    row = first["inputs"][0]
    source = backend.buffer(row["type"], row["shape"], seed=0)
    middle = (backend.edge_buffer if inside else backend.buffer)(*shape_of_output(first), seed=1)
    target = backend.buffer(*shape_of_output(second), seed=2)
    places = (([source], [middle]), ([middle], [target]))
    for seed, (graph, edge, (inputs, outputs)) in enumerate(zip(graphs, edges, places, strict=True)):
        compiled = partial(backend.compile_inside, edges=edge) if inside else backend.compile
        compiled(graph, seed=seed).bind(inputs, outputs)()
    return backend.read(target)


def widening() -> Graph:
    """Return a convolution from 5 channels to 12: neither fills a block of any width."""
    from onnx import helper

    image, wide = ("float32", (2, 5, 9, 9)), ("float32", (2, 12, 5, 5))
    weight = np.random.default_rng(0).standard_normal((12, 5, 3, 3), dtype=np.float32)
    node = helper.make_node("Conv", ["x0", "w"], ["y0"], pads=[1] * 4, strides=[2, 2])
    return graph_of([node], [image], [wide], w=weight)


def narrowing() -> Graph:
    """Return a convolution back from 12 channels to 5."""
    from onnx import helper

    image, narrow = ("float32", (2, 12, 5, 5)), ("float32", (2, 5, 5, 5))
    weight = np.random.default_rng(0).standard_normal((5, 12, 1, 1), dtype=np.float32)
    return graph_of([helper.make_node("Conv", ["x0", "w"], ["y0"])], [image], [narrow], w=weight)


CHAINS: dict[str, tuple[Callable[[], Graph], Callable[[], Graph]]] = {
    "convolutions": (conv_graph, conv_graph),
    "depthwise": (conv_graph, lambda: conv_graph(groups=16)),
    "odd channels, batch 2": (widening, narrowing),
    "tokens": (attention_graph, attention_graph),
    "rows": (lambda: matmul_graph(4, 8, 8), lambda: matmul_graph(4, 8, 6)),
    "integers": (embedding_graph, lambda: _tanh(1, 6, 8)),
}


def _tanh(*shape: int) -> Graph:
    from onnx import helper

    tensor = ("float32", shape)
    return graph_of([helper.make_node("Tanh", ["x0"], ["y0"])], [tensor], [tensor])


@computing
@at("kind", CHAINS)
def test_two_programs_with_an_edge_between_them_compute_the_same(backend: Backend, kind: str) -> None:
    """The layout on the edge is the backend's own affair; what comes out behind it is not."""
    graphs = pair(*CHAINS[kind])

    alone = result_through(backend, graphs, (ALONE, ALONE), inside=False)
    inside = result_through(backend, graphs, (FIRST, LAST), inside=True)

    np.testing.assert_allclose(inside, alone, rtol=1e-4, atol=1e-4 * float(np.abs(alone).max()))


@computing
def test_without_edges_inside_is_as_alone(backend: Backend) -> None:
    """No neighbour on either side: plain buffers in and out."""
    graphs = pair(conv_graph, conv_graph)

    alone = result_through(backend, graphs, (ALONE, ALONE), inside=False)
    inside = result_through(backend, graphs, (ALONE, ALONE), inside=True)

    np.testing.assert_allclose(inside, alone, rtol=1e-4, atol=1e-4 * float(np.abs(alone).max()))


@every
@at("kind", SAMPLE_GRAPHS)
def test_everything_runs_between_edges(backend: Backend, kind: str) -> None:
    """All inputs and outputs are edges, of whatever rank and type."""
    graph = SAMPLE_GRAPHS[kind]()
    shapes = [
        graph["nodes"][int(n)]["outputs"][int(s)] for n, s in (r[1:].split(".") for r in graph["outputs"])
    ]
    inputs = [backend.edge_buffer(row["type"], row["shape"], seed=0) for row in graph["inputs"]]
    outputs = [backend.edge_buffer(row["type"], row["shape"], seed=1) for row in shapes]
    edges = Edges((True,) * len(inputs), (True,) * len(outputs))

    call = backend.compile_inside(graph, seed=0, edges=edges).bind(inputs, outputs)

    for _ in range(3):
        call()


@every
def test_an_operator_without_a_kernel_is_unsupported_inside_too(backend: Backend) -> None:
    """The same errors as alone: the campaign's row says so."""
    tensor = {"type": "float32", "shape": [1, 4]}
    node = {"op": "Unsupported", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}
    graph = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
             "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip

    with pytest.raises(UnsupportedOperator, match="Unsupported"):
        backend.compile_inside(graph, seed=0, edges=Edges((True,), (True,)))


@every
def test_a_graph_with_a_loose_end_is_an_error_inside_too(backend: Backend) -> None:
    """A node that reads what nothing writes."""
    graph = conv_graph()
    graph["nodes"][0]["inputs"][0] = "n7.0"

    with pytest.raises(BackendError) as caught:
        backend.compile_inside(graph, seed=0, edges=Edges((True,), (True,)))

    assert not isinstance(caught.value, UnsupportedOperator)
