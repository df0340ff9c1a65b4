"""NVIDIA's real ONNX parser and builder on what we measure, by our build code, without a GPU.

TensorRT-RTX has the API of TensorRT 11 and builds plans on any machine; loading and running them takes a GPU. It is
proprietary, and here for tests alone. Each batch of graphs is built in one child process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.attention import Attention
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import Bottleneck
from torch import nn

from lanaprof.ops import build_operation, families, fuse, parse_operation, why_not
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.ops.build import at_precision
from lanaprof.profiler.backends.tensorrt import TensorRt
from lanaprof.profiler.backends.trt_model import baseline_graph
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.export import exported_graph
from lanaprof.profiler.sample_graphs import SAMPLE_GRAPHS, conv_graph
from lanaprof.teachers import AttentionHalf

CHILD = Path(__file__).parent / "bindings" / "builds.py"
IMAGE: tuple[int, ...] = (16, 8, 8)
TOKENS: tuple[tuple[int, ...], ...] = ((49, 32), (64, 32))  # on grids of 7 × 7 and 8 × 8
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
# The builder's own words are in the row; a campaign records them and goes on.
REFUSED: Mapping[str, frozenset[str]] = {"bf16": frozenset({"outlook", "teacher mobilenetv3"})}


def built(graphs: Mapping[str, Graph], *, edges: bool = False) -> dict[str, Any]:
    """Return what the builder made of each graph, or skip where it is not installed."""
    try:
        version("tensorrt-rtx-cu12")
    except PackageNotFoundError:
        pytest.skip("NVIDIA's builder is not installed: pip install 'lanaprof[tensorrt-rtx]' (Linux x86-64)")
    done = subprocess.run(
        [sys.executable, str(CHILD)], input=json.dumps({"graphs": dict(graphs), "edges": edges}),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    assert set(graphs) == set(found)
    return found


def refusals(found: Mapping[str, Any]) -> dict[str, str]:
    return {name: f"{row['error']}: {row['message']}" for name, row in found.items() if "error" in row}


def test_every_kind_of_graph_is_built() -> None:
    """Convolutions, matrix products, gates, integer inputs, several inputs and outputs, and the one that is empty."""
    graphs = {name: make() for name, make in SAMPLE_GRAPHS.items()}
    graphs["baseline"] = baseline_graph("float16", (1, 16, 14, 14))

    found = built(graphs)

    assert refusals(found) == {}
    assert min(row["bytes"] for row in found.values()) > 1000


def test_floats_of_8_bits_are_built() -> None:
    """A convolution between a rounding to them and weights in them, in opset 19."""
    kind, image = {"type": "float8_e4m3fn"}, {"type": "float32", "shape": [1, 16, 8, 8]}
    scalar = {"type": "float32", "shape": []}
    constants = [
        scalar,
        {**kind, "shape": []},
        {**kind, "shape": [16, 16, 3, 3]},
        {"type": "float32", "shape": [16]},
    ]
    nodes = [
        {
            "op": "QuantizeLinear",
            "inputs": ["i0", "c0", "c1"],
            "outputs": [{**kind, "shape": image["shape"]}],
        },
        {"op": "DequantizeLinear", "inputs": ["n0.0", "c0", "c1"], "outputs": [image]},
        {
            "op": "DequantizeLinear",
            "inputs": ["c2", "c0", "c1"],
            "outputs": [{**image, "shape": [16, 16, 3, 3]}],
        },
        {"op": "Conv", "inputs": ["n1.0", "n2.0", "c3"], "outputs": [image]},
    ]
    graph = {
        "format": "lanaprof-graph/1", "opset": 19, "inputs": [image], "constants": constants, "outputs": ["n3.0"],
        "nodes": [{"attributes": {"pads": [1] * 4} if node["op"] == "Conv" else {}, **node} for node in nodes],
    }  # fmt: skip

    found = built({"fp8": graph})

    assert refusals(found) == {}


@pytest.fixture(scope="module")
def broken() -> dict[str, Any]:
    """Return what became of graphs that are wrong, and of one that is right."""
    tensor = {"type": "float32", "shape": [1, 4]}
    node = {"op": "Unsupported", "attributes": {}, "inputs": ["i0"], "outputs": [tensor]}
    unsupported = {"format": "lanaprof-graph/1", "opset": 18, "inputs": [tensor], "constants": [],
                   "nodes": [node], "outputs": ["n0.0"]}  # fmt: skip
    contradictory = conv_graph()
    contradictory["constants"][0]["shape"] = [16, 7, 3, 3]
    loose = conv_graph()
    loose["nodes"][0]["inputs"][0] = "n7.0"
    return built({
        "unsupported": unsupported,
        "contradictory": contradictory,
        "loose": loose,
        "no model": conv_graph(),
        "after them": conv_graph(),
    })  # fmt: skip


def test_an_operator_without_an_importer_is_unsupported(broken: dict[str, Any]) -> None:
    """Its name is in the message."""
    assert broken["unsupported"]["error"] == "UnsupportedOperator"
    assert "parser refused the operator: Unsupported " in broken["unsupported"]["message"]


@pytest.mark.parametrize("name", ["contradictory", "loose"])
def test_a_broken_graph_is_an_error_of_the_operator(broken: dict[str, Any], name: str) -> None:
    """Broken, not unsupported: nobody concludes that TensorRT lacks a convolution."""
    assert broken[name]["error"] == "BackendError"


def test_what_is_no_model_is_refused(broken: dict[str, Any]) -> None:
    """The parser takes it without a word; that no layer came of it shows."""
    assert broken["no model"] == {
        "error": "BackendError",
        "message": "TensorRT's parser found no layer in the model",
    }


def test_the_next_one_is_built(broken: dict[str, Any]) -> None:
    """No refusal spoils the process for what follows, and none of its words reach the next."""
    assert broken["after them"]["bytes"] > 1000
    assert broken["after them"]["warnings"] == []


def test_edges_may_have_formats_of_their_own() -> None:
    """Half-precision images between neighbours, whatever their number of channels; nothing else is touched."""
    half = conv_graph()
    for value in (
        *half["inputs"],
        *half["constants"],
        *(out for node in half["nodes"] for out in node["outputs"]),
    ):
        value["type"] = "float16" if value["type"] == "float32" else value["type"]
    graphs = {"fp16": half, "fp32": conv_graph(), "several": SAMPLE_GRAPHS["two_outputs"]()}

    plain, inside = built(graphs), built(graphs, edges=True)

    assert refusals(inside) == {}
    assert plain["fp16"]["bytes"] != inside["fp16"]["bytes"]
    assert plain["fp32"]["bytes"] == inside["fp32"]["bytes"]


# ------------------------------------------------------------------------------------- all that is measured


def attention(channels: int, *, heads: int) -> nn.Module:
    return AttentionHalf(nn.LayerNorm(channels), Attention(channels, heads), nn.Identity(), nn.Identity())


def teacher_layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Return layers as teachers have them: gates, hard activations, layer norm, attention."""
    gate: Any = SqueezeExcite
    return {
        "mobilenetv3": (InvertedResidual(16, 16, exp_ratio=4, se_layer=gate, act_layer=nn.Hardswish), IMAGE),
        "efficientnet": (InvertedResidual(16, 24, stride=2, exp_ratio=6, se_layer=gate, act_layer=nn.SiLU), IMAGE),
        "resnet": (Bottleneck(16, 4), IMAGE),
        "convnext": (ConvNeXtBlock(16), IMAGE),
        # NVIDIA's fusion of attention crashed on these while the scale stood before the queries.
        "vit": (attention(32, heads=4), TOKENS[0]),
        "vit, odd": (attention(64, heads=2), (50, 64)),
    }  # fmt: skip


@cache
def graphs_at(precision: str) -> dict[str, Graph]:
    """Return an operator of every family at the first shape that it fits, and the teachers' layers."""
    suffix = "" if precision == "fp32" else f"@{precision}"
    graphs: dict[str, Graph] = {}
    layers = teacher_layers()
    for family in families():
        operation = parse_operation(f"{family.name}{suffix}")
        if family.name == "teacher":
            continue
        shape = next(one for one in (IMAGE, *TOKENS) if why_not(operation, one, one) is None)
        teacher = layers["resnet"][0].eval() if family.needs_teacher else None
        if family.name == "g_ghost":  # stands for several
            teacher = LayerRun(*(Bottleneck(16, 4) for _ in range(3))).eval()
        module = build_operation(operation, shape, shape, teacher=teacher, grid=TensorRt.grid).eval()
        graphs[family.name] = exported_graph(fuse(module), (1, *shape))
    with torch.no_grad():
        for name, (layer, shape) in layers.items():
            module = at_precision(layer.eval(), precision, shape, grid=TensorRt.grid)
            graphs[f"teacher {name}"] = exported_graph(fuse(module), (1, *shape))
    return graphs


@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_family_is_built(precision: str) -> None:
    """Everything a space can hold has a plan, but for what the builder itself refuses, which is known by name."""
    graphs = graphs_at(precision)

    found = refusals(built(graphs))

    assert REFUSED.get(precision, frozenset()) == set(found), found
    assert {family.name for family in families()} - {"teacher"} <= set(graphs)
