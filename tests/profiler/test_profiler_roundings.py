"""Operators in int8 and 16 bits: keyed by what is computed, rebuilt as runtimes compute it, joined where they meet."""

from __future__ import annotations

import copy
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from lanaprof.lut.keys import operator_key
from lanaprof.ops import build_operation, parse_operation
from lanaprof.ops.quantising.module import Quantised, ValueRounding
from lanaprof.profiler.canonical import canonical_graph
from lanaprof.profiler.export import exported_graph, exported_model
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.roundings import deployed_model

SHAPE = (8, 12, 12)
BATCH = (1, *SHAPE)
# Keys that databases in the field hold.
GOLDEN = {
    ("conv@int8", "uint8"): "24fd13688442c4c8be244865e3346168",
    ("conv@int8", "int8"): "2b19e30d4efeb0763d32876b4372c4be",
    ("conv@fp16", "uint8"): "4419c578bca741482c7a1d29c9613004",
}


def built(text: str, *, grid: str = "uint8", seed: int = 0) -> nn.Module:
    return build_operation(parse_operation(text), SHAPE, SHAPE, grid=grid, seed=seed)


def optimised(model: onnx.ModelProto) -> Counter[str]:
    """Return the nodes that ONNX Runtime makes of a model, by kind."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


@pytest.mark.parametrize(("text", "grid"), GOLDEN)
def test_keys_stay_what_they_are(text: str, grid: str) -> None:
    """An operator at a precision has the key under which it was measured."""
    assert GOLDEN[text, grid] == operator_key(exported_graph(built(text, grid=grid), BATCH))


def test_scales_and_weights_are_no_part_of_a_key() -> None:
    """Another training and another calibration give another student, not another operator."""
    first, second = built("mbconv(expand=2)@int8"), built("mbconv(expand=2)@int8", seed=1)
    assert isinstance(second, Quantised)
    for number, rounding in enumerate(second.values):
        assert isinstance(rounding, ValueRounding)
        rounding.scale.fill_(0.1 + 0.01 * number)
        rounding.zero_point.fill_(number)

    assert operator_key(exported_graph(first, BATCH)) == operator_key(exported_graph(second, BATCH))


def test_every_precision_is_an_operator_of_its_own() -> None:
    """Float32, 16 bits and the two grids of int8 have four keys."""
    modules = [built("conv"), built("conv@fp16"), built("conv@int8"), built("conv@int8", grid="int8")]
    keys = {operator_key(exported_graph(module.eval(), BATCH)) for module in modules}

    assert len(keys) == 4


@pytest.mark.parametrize(
    "text", ["conv", "mbconv(expand=2,se=0.25)", "basic(width=0.5)", "bottleneck(width=0.5)"]
)
def test_what_is_rebuilt_runs_as_what_was_exported(text: str) -> None:
    """ONNX Runtime makes the same kernels of the graph with made-up scales as of the calibrated module."""
    model = exported_model(built(f"{text}@int8"), BATCH)
    kinds = optimised(model_from_graph(canonical_graph(model)))

    assert optimised(deployed_model(model)) == kinds
    assert kinds["Conv"] == kinds["FusedConv"] == 0
    assert kinds["QLinearConv"] > 0


def test_weights_in_int8_are_kept_by_shape_and_made_up_again() -> None:
    """A graph stays small however large its weights, and the rebuilt ones are no zeros."""
    graph = exported_graph(built("conv@int8"), BATCH)
    weights = [constant for constant in graph["constants"] if constant["shape"] == [8, 8, 3, 3]]
    rebuilt = [numpy_helper.to_array(tensor) for tensor in model_from_graph(graph).graph.initializer]
    kernels = [array for array in rebuilt if array.shape == (8, 8, 3, 3)]

    assert weights == [{"type": "int8", "shape": [8, 8, 3, 3]}]
    assert len(kernels) == 1
    assert np.abs(kernels[0]).mean() > 10


def roundings(*scales: float) -> onnx.ModelProto:
    """Return a model that rounds its input and turns it back, once by every scale."""
    nodes, name = [], "x"
    constants = [numpy_helper.from_array(np.array(0, np.uint8), "zero")]
    for number, scale in enumerate(scales):
        constants.append(numpy_helper.from_array(np.array(scale, np.float32), f"s{number}"))
        nodes.append(helper.make_node("QuantizeLinear", [name, f"s{number}", "zero"], [f"q{number}"]))
        nodes.append(
            helper.make_node("DequantizeLinear", [f"q{number}", f"s{number}", "zero"], [f"d{number}"])
        )
        name = f"d{number}"
    graph = helper.make_graph(
        nodes,
        "roundings",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])],
        initializer=constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def kinds_of(graph: dict[str, Any]) -> list[str]:
    return [node["op"] for node in graph["nodes"]]


def test_equal_roundings_that_meet_are_one() -> None:
    """What is turned back and rounded again by the same scale stays as it is."""
    assert kinds_of(canonical_graph(roundings(0.1, 0.1, 0.1))) == ["QuantizeLinear", "DequantizeLinear"]


def test_roundings_by_different_scales_stay_two_and_are_rebuilt_so() -> None:
    """Another scale is another rounding; the runtime must not join in the rebuilt model what it cannot join."""
    graph = canonical_graph(roundings(0.1, 0.2))
    scales = {
        float(numpy_helper.to_array(tensor))
        for tensor in model_from_graph(graph).graph.initializer
        if tensor.data_type == TensorProto.FLOAT
    }

    assert kinds_of(graph) == ["QuantizeLinear", "DequantizeLinear"] * 2
    assert len(scales) == 2


def test_sixteen_bits_that_meet_are_not_widened_between() -> None:
    """Two neighbours in fp16 pass their values on as they are."""
    graph = exported_graph(nn.Sequential(built("conv@fp16"), built("conv@fp16")), BATCH)

    assert kinds_of(graph).count("Cast") == 2


class Two(nn.Module):
    """Two layers in int8, the scale between them agreed on."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = built("basic(width=0.5)@int8"), built("conv@int8", seed=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 8, 12, 12)."""
        y: Tensor = self.second(self.first(x))
        return y


def test_a_deployed_file_computes_what_was_exported_with_less() -> None:
    """Weights in int8, no conversion between neighbours, the same numbers."""
    model = exported_model(Two().eval(), BATCH)
    deployed = deployed_model(copy.deepcopy(model))
    x = np.random.default_rng(0).standard_normal(BATCH, dtype=np.float32)
    given = [
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"input": x}
        )[0]
        for one in (model, deployed)
    ]
    roundings_of = [
        sum(node.op_type == "QuantizeLinear" for node in one.graph.node) for one in (model, deployed)
    ]

    np.testing.assert_array_equal(given[1], given[0])
    assert len(deployed.SerializeToString()) < len(model.SerializeToString())
    assert roundings_of[0] - roundings_of[1] == 4  # three kernels' weights, and one between the layers
