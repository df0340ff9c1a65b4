"""Graphs as a version of TensorRT reads them: operands in the order it expects, the opset its parser knows."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.backends.trt_model import baseline_graph, kinds_of, model_for
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.sample_graphs import SAMPLE_GRAPHS, conv_graph, graph_of

FLOATS: Any = ("float32", (1, 4, 6, 6))
OLD, NEW = "8.6.1", "10.4.0"


def read(graph: Graph, version: str) -> onnx.ModelProto:
    return onnx.load_from_string(model_for(graph, seed=1, tensorrt_version=version))


def opset_of(model: onnx.ModelProto) -> int:
    return int(next(entry.version for entry in model.opset_import if not entry.domain))


def outputs_of(model: onnx.ModelProto, graph: Graph) -> list[Any]:
    generator = np.random.default_rng(0)
    feeds = {
        f"x{index}": generator.standard_normal(row["shape"]).astype(row["type"])
        if row["type"].startswith("float")
        else np.zeros(row["shape"], dtype=row["type"])
        for index, row in enumerate(graph["inputs"])
    }
    return list(ReferenceEvaluator(model).run(None, feeds))


def of_node(
    op: str, *, shape: Any = FLOATS, constants: dict[str, Any] | None = None, **attributes: Any
) -> Graph:
    given = constants or {}
    return graph_of([helper.make_node(op, ["x0", *given], ["y0"], **attributes)], [FLOATS], [shape], **given)


AXES = {"axes": np.array([1], dtype=np.int64)}
GRAPHS: dict[str, Graph] = {
    **{name: make() for name, make in SAMPLE_GRAPHS.items()},
    "mean of channels": of_node("ReduceMean", shape=("float32", (1, 1, 6, 6)), constants=AXES),
    "mean of all": of_node("ReduceMax", shape=("float32", (1, 1, 1, 1))),
    "sum": of_node("ReduceSum", shape=("float32", (1, 1, 6, 6)), constants=AXES),
    "pad": of_node("Pad", shape=("float32", (1, 4, 8, 6)),
                   constants={"pads": np.array([0, 0, 1, 0, 0, 0, 1, 0], dtype=np.int64)}),
    "split": graph_of([helper.make_node("Split", ["x0"], ["y0", "y1"], axis=1, num_outputs=2)], [FLOATS],
                      [("float32", (1, 2, 6, 6))] * 2),
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_an_old_parser_gets_the_same_computation(name: str) -> None:
    """In opset 17, as onnx's own checker knows it; newer parsers get the graph as it is."""
    graph = GRAPHS[name]
    old, new = read(graph, OLD), read(graph, NEW)

    assert (opset_of(old), opset_of(new)) == (17, graph["opset"])
    for one, other in zip(
        outputs_of(model_from_graph(graph, seed=1), graph), outputs_of(old, graph), strict=True
    ):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)


def test_what_opset_17_cannot_say_is_unsupported() -> None:
    """By name; what no opset knows is left for the parser to name."""
    mish = of_node("Mish", shape=FLOATS)
    nobody = {**mish, "nodes": [{**mish["nodes"][0], "op": "Nobody"}]}

    with pytest.raises(UnsupportedOperator) as caught:
        read(mish, OLD)

    assert caught.value.message == (
        "TensorRT 8.6.1 reads ONNX up to opset 17, which cannot say this operator: "
        "Mish is newer, or means something newer"
    )
    assert read(mish, NEW).graph.node[0].op_type == "Mish"
    assert model_for(nobody, seed=0, tensorrt_version=NEW)


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_constants_stand_behind_what_they_change(op: str) -> None:
    """NVIDIA's fusions expect a scale there; canonical graphs put it on either side."""
    tensor = {"type": "float32", "shape": [1, 4]}
    scale = {"type": "float32", "shape": [1], "value": [0.5]}
    node = {"op": op, "attributes": {}, "inputs": ["c0", "i0"], "outputs": [tensor]}
    graph: Graph = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [scale],
                    "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip

    assert list(read(graph, NEW).graph.node[0].input) == ["x0", "c0"]
    assert node["inputs"] == ["c0", "i0"]


def test_a_quotient_keeps_its_order() -> None:
    """A constant over a tensor is not a tensor over a constant."""
    tensor = {"type": "float32", "shape": [1, 4]}
    one = {"type": "float32", "shape": [1], "value": [1.0]}
    node = {"op": "Div", "attributes": {}, "inputs": ["c0", "i0"], "outputs": [tensor]}
    graph: Graph = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [one],
                    "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip

    assert list(read(graph, NEW).graph.node[0].input) == ["c0", "x0"]


def test_the_empty_engine_hands_its_input_on() -> None:
    """A graph like any other: its measurement stands beside those of operators."""
    graph = baseline_graph("float32", (2, 3))

    (output,) = outputs_of(read(graph, NEW), graph)

    assert output.shape == (2, 3)
    assert kinds_of(graph) == {"float32"}


def test_kinds_are_those_of_all_values() -> None:
    """Inputs, constants and results; absent outputs have none."""
    graph = conv_graph()
    graph["nodes"][0]["outputs"][0]["type"] = "float16"
    graph["constants"][0]["type"] = "int8"
    graph["nodes"][-1]["outputs"].append({"type": "", "shape": []})

    assert kinds_of(graph) == {"float16", "float32", "int8"}
