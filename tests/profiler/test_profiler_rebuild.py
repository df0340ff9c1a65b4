"""Rebuilding an operator: seeded weights of sane magnitude; preparing one: weights that need not be carried."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from lanaprof.lut.keys import operator_key
from lanaprof.profiler.canonical import canonical_graph
from lanaprof.profiler.rebuild import model_from_graph

DEEP = 40  # convolutions in a row


def convolutions(count: int, width: int = 96, size: int = 6) -> dict[str, Any]:
    """Return the graph of a chain of pointwise convolutions and ReLUs, every third one residual."""
    tensor = {"type": "float32", "shape": [1, width, size, size]}
    constants: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    value = before = "i0"
    for index in range(count):
        constants += [
            {"type": "float32", "shape": [width, width, 1, 1]},
            {"type": "float32", "shape": [width]},
        ]
        inputs = [value, f"c{2 * index}", f"c{2 * index + 1}"]
        nodes.append({"op": "Conv", "attributes": {}, "inputs": inputs, "outputs": [tensor]})
        nodes.append(
            {"op": "Relu", "attributes": {}, "inputs": [f"n{len(nodes) - 1}.0"], "outputs": [tensor]}
        )
        value = f"n{len(nodes) - 1}.0"
        if index % 3 == 2:
            nodes.append({"op": "Add", "attributes": {}, "inputs": [value, before], "outputs": [tensor]})
            value = before = f"n{len(nodes) - 1}.0"
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": constants, "nodes": nodes,
        "outputs": [value],
    }  # fmt: skip


def weights(graph: dict[str, Any], seed: int) -> list[npt.NDArray[Any]]:
    return [numpy_helper.to_array(tensor) for tensor in model_from_graph(graph, seed=seed).graph.initializer]


def test_weights_follow_the_seed() -> None:
    """One seed, one model; another seed, other weights; no two weights of a model alike."""
    graph = convolutions(4)
    one, same, other = weights(graph, 1), weights(graph, 1), weights(graph, 2)

    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert len({array.tobytes() for array in one}) == len(one)


def test_rows_of_a_large_weight_differ() -> None:
    """No output channel repeats another one, although the numbers are used over and over."""
    matrix = weights(convolutions(1, width=512), 0)[0].reshape(512, 512)

    assert len({row.tobytes() for row in matrix}) == 512


def test_weights_have_the_deviation_of_their_fan_in() -> None:
    """A convolution's weights keep the power of what goes through: He et al., arXiv 1502.01852."""
    weight = weights(convolutions(1, width=512), 0)[0]

    assert weight.std() == pytest.approx((2 / 512) ** 0.5, rel=0.05)
    assert abs(weight.mean()) < 0.05 * weight.std()


def test_a_deep_network_neither_overflows_nor_vanishes() -> None:
    """Activations at the end of forty layers are ordinary numbers: a denormal costs many times a normal one."""
    session = onnxruntime.InferenceSession(
        model_from_graph(convolutions(DEEP)).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    data = np.random.default_rng(0).standard_normal((1, 96, 6, 6), dtype=np.float32)

    (output,) = session.run(None, {"x0": data})

    assert np.isfinite(output).all()
    assert 1e-2 < output.std() < 1e5
    assert not ((output != 0) & (abs(output) < np.finfo(np.float32).tiny)).any()


def product(*, transposed: bool, legacy: bool = False) -> onnx.ModelProto:
    """Return x · W with a large W, written down as it is or as the transpose of another constant."""
    weight = np.ones((64, 48) if transposed else (48, 64), np.float32)
    nodes = [helper.make_node("MatMul", ["x", "t" if transposed else "w"], ["y"])]
    if transposed:
        nodes.insert(0, helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 48])]
    if legacy:
        inputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, weight.shape))
    graph = helper.make_graph(
        nodes, "product", inputs, [helper.make_empty_tensor_value_info("y")],
        initializer=[numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("legacy", [False, True], ids=["constants", "constants among the inputs"])
@pytest.mark.parametrize("transposed", [False, True], ids=["as it is", "transposed"])
def test_large_weights_are_constants_of_the_graph(*, transposed: bool, legacy: bool) -> None:
    """However a large weight is written down, the graph has one input and holds the weight by shape."""
    graph = canonical_graph(product(transposed=transposed, legacy=legacy))

    assert [tensor["shape"] for tensor in graph["inputs"]] == [[1, 48]]
    assert graph["constants"] == [{"type": "float32", "shape": [48, 64]}]
    assert operator_key(graph) == operator_key(canonical_graph(product(transposed=False)))


def test_preparing_leaves_the_model_as_it_was() -> None:
    """The caller's model keeps its weights."""
    model = product(transposed=False)
    before = model.SerializeToString()

    canonical_graph(model)

    assert before == model.SerializeToString()
