"""Canonical graphs: one operator, one key, however it was exported."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from lanaprof.errors import UnsupportedOperator
from lanaprof.lut.keys import operator_key
from lanaprof.ops import build_operation, fuse, parse_operation
from lanaprof.profiler.canonical import canonical_graph
from lanaprof.profiler.export import exported_graph, exported_model
from lanaprof.profiler.rebuild import model_from_graph

# Keys that databases in the field hold. A change here makes every stored measurement unreachable: it needs a new
# graph format, not a new number.
GOLDEN = {
    "mbconv(expand=4,kernel=5)": "8eb2c4ae6dee58c9bc1f7c34192e4bf0",
    "repvgg": "1e419f1c4ff1d641dc4580951204ba6c",
}


class Block(nn.Module):
    """Convolution, batch norm, activation, pooling, a view and a linear layer."""

    def __init__(self, *, high: float = 6.0, groups: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3, padding=padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.act = nn.Hardtanh(0.0, high)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, 5)."""
        x = self.act(self.bn(self.conv(x)))
        logits: torch.Tensor = self.fc(torch.flatten(x.mean((2, 3), keepdim=True), 1))
        return logits


def trained(module: nn.Module, seed: int = 0) -> nn.Module:
    """Return the module with weights and statistics that are not its initial ones."""
    generator = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module).eval()
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                noise = torch.rand(value.shape, generator=generator) + 0.5
                value.copy_(noise if "var" in name else noise - 0.5)
    return module


def key_of(module: nn.Module, exporter: str = "torchscript", shape: tuple[int, ...] = (1, 8, 12, 12)) -> str:
    return operator_key(exported_graph(module.eval(), shape, exporter=exporter))


SPECS = ["ds(kernel=5,act=hswish)", "mbconv(expand=2,se=0.25,act=silu)", "basic", "repvgg"]


@pytest.mark.parametrize("text", SPECS)
def test_both_exporters_give_one_key(text: str) -> None:
    """The TorchScript and the dynamo exporter lead to the same operator."""
    module = fuse(trained(build_operation(parse_operation(text), (16, 8, 8), (16, 8, 8))))

    keys = {key_of(module, exporter, (1, 16, 8, 8)) for exporter in ("torchscript", "dynamo")}

    assert len(keys) == 1


def test_weights_do_not_matter() -> None:
    """Fresh and trained weights of one block are one operator."""
    fresh, other = key_of(Block()), key_of(trained(Block(), seed=3))

    assert fresh == other


def test_names_and_order_do_not_matter() -> None:
    """Renamed values and another listing order of independent nodes give the same key."""

    def model(prefix: str, *, swapped: bool) -> onnx.ModelProto:
        left = helper.make_node("Relu", ["x"], [f"{prefix}a"], name=f"{prefix}1")
        right = helper.make_node("Sigmoid", ["x"], [f"{prefix}b"], name=f"{prefix}2")
        total = helper.make_node(
            "Add", [f"{prefix}b", f"{prefix}a"] if swapped else [f"{prefix}a", f"{prefix}b"], ["y"]
        )
        nodes = [right, left, total] if swapped else [left, right, total]
        return simple_model(nodes, [1, 4])

    assert operator_key(canonical_graph(model("", swapped=False))) == operator_key(
        canonical_graph(model("other/", swapped=True))
    )


def simple_model(
    nodes: list[onnx.NodeProto],
    shape: list[Any],
    *,
    initial: list[onnx.TensorProto] | None = None,
    opset: int = 18,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_empty_tensor_value_info("y")],
        initializer=initial or [],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


@pytest.mark.parametrize(
    "other",
    [Block(high=5.0), Block(groups=8), Block(padding=0)],
    ids=["another clip bound", "another group", "another pad"],
)
def test_what_changes_speed_changes_the_key(other: nn.Module) -> None:
    """Scalar bounds, groups and paddings are part of the operator."""
    assert key_of(Block()) != key_of(other)


def test_batch_is_part_of_the_key() -> None:
    """Batch 1 and batch 8 are two operators."""
    assert key_of(Block()) != key_of(Block(), shape=(8, 8, 12, 12))


def test_batch_norm_without_a_convolution_stays() -> None:
    """Only a batch norm behind a convolution can be folded."""
    graph = exported_graph(nn.Sequential(nn.BatchNorm2d(8), nn.ReLU()).eval(), (1, 8, 4, 4))

    assert [node["op"] for node in graph["nodes"]] == ["BatchNormalization", "Relu"]


def test_batch_norm_of_a_value_that_others_read_stays() -> None:
    """Of two batch norms in a row the second stays when what the first gave is read elsewhere, too."""
    weights = [numpy_helper.from_array(np.ones((4, 4, 1, 1), np.float32), "w")]
    weights += [numpy_helper.from_array(np.ones(4, np.float32), name) for name in "abcd"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["0"]),
        helper.make_node("BatchNormalization", ["0", "a", "b", "c", "d"], ["1"]),
        helper.make_node("BatchNormalization", ["1", "a", "b", "c", "d"], ["2"]),
        helper.make_node("Sub", ["1", "2"], ["y"]),
    ]

    graph = canonical_graph(simple_model(nodes, [1, 4, 2, 2], initial=weights))

    assert [node["op"] for node in graph["nodes"]] == ["Conv", "BatchNormalization", "Sub"]


def test_constants_are_lifted_by_value_and_weights_by_shape() -> None:
    """Clip bounds keep their values, convolution weights do not."""
    graph = exported_graph(Block().eval(), (1, 8, 12, 12))
    clip = next(node for node in graph["nodes"] if node["op"] == "Clip")
    bounds = [graph["constants"][int(name[1:])]["value"] for name in clip["inputs"][1:]]
    conv = next(node for node in graph["nodes"] if node["op"] == "Conv")

    assert bounds == [0.0, 6.0]
    assert "value" not in graph["constants"][int(conv["inputs"][1][1:])]


def test_rebuilt_model_runs_and_has_the_same_key() -> None:
    """The JSON alone is enough for a runnable model of the same operator."""
    graph = exported_graph(Block().eval(), (2, 8, 12, 12))
    model = model_from_graph(graph)
    onnx.checker.check_model(model, full_check=True)

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = session.run(None, {"x0": np.ones((2, 8, 12, 12), np.float32)})

    assert [value.shape for value in outputs] == [(2, 5)]
    assert np.isfinite(outputs[0]).all()
    assert operator_key(graph) == operator_key(canonical_graph(model))


def test_padding_arithmetic_is_folded() -> None:
    """Pads computed from constants end as plain numbers of the convolution."""
    half = numpy_helper.from_array(np.array([0, 0, 1, 1], np.int64), "half")
    weight = numpy_helper.from_array(np.zeros((4, 3, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Concat", ["half", "half"], ["pads"], axis=0),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        helper.make_node("Conv", ["padded", "w"], ["y"]),
    ]

    graph = canonical_graph(simple_model(nodes, [1, 3, 8, 8], initial=[half, weight]))

    assert [(n["op"], n["attributes"]["pads"]) for n in graph["nodes"]] == [("Conv", [1, 1, 1, 1])]


def test_older_opsets_are_converted() -> None:
    """A model of opset 13 and its twin of opset 18 are one operator."""
    node = helper.make_node("Relu", ["x"], ["y"])

    keys = {operator_key(canonical_graph(simple_model([node], [1, 4], opset=opset))) for opset in (13, 18)}

    assert len(keys) == 1


def test_open_shapes_are_refused() -> None:
    """A dimension without a size cannot be timed."""
    with pytest.raises(UnsupportedOperator, match="dimension 2 open"):
        canonical_graph(simple_model([helper.make_node("Relu", ["x"], ["y"])], [1, 4, "height"]))


def test_an_open_batch_is_filled_in() -> None:
    """An open first dimension takes the device's batch."""
    graph = canonical_graph(simple_model([helper.make_node("Relu", ["x"], ["y"])], ["batch", 4]), batch=8)

    assert graph["inputs"][0]["shape"] == [8, 4]


def test_control_flow_is_refused() -> None:
    """Graphs inside graphs have no fixed cost."""
    body = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])],
        "body",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    condition = numpy_helper.from_array(np.array(True), "c")
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)

    with pytest.raises(UnsupportedOperator, match="control flow"):
        canonical_graph(simple_model([node], [1], initial=[condition]))


@pytest.mark.parametrize("text", sorted(GOLDEN))
def test_golden_keys(text: str) -> None:
    """The keys of released databases stay what they are."""
    module = fuse(trained(build_operation(parse_operation(text), (16, 8, 8), (16, 8, 8))))

    assert GOLDEN[text] == key_of(module, shape=(1, 16, 8, 8))


def test_exported_model_agrees_with_torch() -> None:
    """ONNX with weights gives torch's numbers."""
    module, x = trained(Block()), torch.randn(1, 8, 12, 12)
    session = onnxruntime.InferenceSession(
        exported_model(module, (1, 8, 12, 12)).SerializeToString(), providers=["CPUExecutionProvider"]
    )

    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], module(x).numpy(), atol=1e-4)
