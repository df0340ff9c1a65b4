"""Models with floats of 8 bits: their canonical graphs are of opset 19, and nobody else's."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from lanaprof.errors import UnsupportedOperator
from lanaprof.lut import Operator
from lanaprof.profiler.backends.torch_graph import module_from_graph
from lanaprof.profiler.backends.trt_model import model_for
from lanaprof.profiler.canonical import canonical_graph
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.sample_graphs import conv_graph

E4M3 = TensorProto.FLOAT8E4M3FN
SHAPE = (1, 16, 8, 8)


def quantised_model(
    *, opset: int = 19, seed: int = 0, saturate: bool = False, folded: bool = True
) -> onnx.ModelProto:
    """Return a convolution between a rounding to 8-bit floats and weights in them.

    Args:
        opset: of the model.
        seed: of the weights.
        saturate: say the default aloud.
        folded: the weights are rounded already.
    """
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((16, 16, 3, 3)).astype(np.float32)
    rounded = weight.astype(helper.tensor_dtype_to_np_dtype(E4M3))
    zero = helper.make_tensor("zero", E4M3, [], b"\0", raw=True)
    constants = [
        zero,
        numpy_helper.from_array(rounded if folded else weight, "weight"),
        numpy_helper.from_array(np.asarray(0.02, np.float32), "scale"),
        numpy_helper.from_array(np.asarray(0.03, np.float32), "weight_scale"),
        numpy_helper.from_array(np.zeros(16, np.float32), "bias"),
    ]
    said: dict[str, Any] = {"saturate": 1} if saturate else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], **said),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
    ]
    if not folded:
        nodes.append(helper.make_node("QuantizeLinear", ["weight", "weight_scale", "zero"], ["weight8"]))
    nodes += [
        helper.make_node(
            "DequantizeLinear", ["weight" if folded else "weight8", "weight_scale", "zero"], ["w"]
        ),
        helper.make_node("Conv", ["d", "w", "bias"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in "xy"]
    graph = helper.make_graph(nodes, "fp8", infos[:1], infos[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def test_they_are_said_in_opset_19() -> None:
    """Everything else stays at 18, and so do the keys of everything else."""
    graph = canonical_graph(quantised_model())

    assert (graph["opset"], conv_graph()["opset"]) == (19, 18)
    assert [output["type"] for node in graph["nodes"] for output in node["outputs"]] == [
        "float8_e4m3fn", "float32", "float32", "float32",
    ]  # fmt: skip


@pytest.mark.parametrize("changed", [{"opset": 21}, {"seed": 1}, {"saturate": True}, {"folded": False}])
def test_one_operator_has_one_key(changed: dict[str, Any]) -> None:
    """Whatever the opset it was written in, its weights, and what is said aloud; weights may be rounded later."""
    first, second = (Operator(graph=canonical_graph(quantised_model(**each))) for each in ({}, changed))

    assert first.id == second.id


def test_a_rebuilt_model_is_valid_and_runs() -> None:
    """With random weights, and zero points of zero: runtimes know no others."""
    model = model_from_graph(canonical_graph(quantised_model()), seed=1)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)

    (y,) = ReferenceEvaluator(model).run(None, {"x0": x})

    zeros = [numpy_helper.to_array(c) for c in model.graph.initializer if c.data_type == E4M3 and not c.dims]
    assert [float(each) for each in zeros] == [0.0] * 3
    assert 0.05 < float(np.std(np.asarray(y))) < 20


def test_runtimes_without_them_say_so() -> None:
    """A row of the campaign names the type."""
    graph = canonical_graph(quantised_model())

    with pytest.raises(UnsupportedOperator, match="no float8_e4m3fn; 10 and newer have it"):
        model_for(graph, seed=0, tensorrt_version="8.6.1")
    with pytest.raises(UnsupportedOperator, match="no translation of float8_e4m3fn to torch"):
        module_from_graph(graph, seed=0)
