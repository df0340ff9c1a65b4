"""Operators translated to torch: what they compute is what ONNX Runtime computes, family by family and one by one."""

from __future__ import annotations

import shutil
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from timm.layers.attention import Attention
from timm.models._efficientnet_blocks import InvertedResidual, SqueezeExcite
from timm.models.convnext import ConvNeXtBlock
from timm.models.resnet import Bottleneck
from torch import nn

from lanaprof.errors import BackendError, BackendUnavailable, UnsupportedOperator
from lanaprof.ops import build_operation, families, fuse, parse_operation, why_not
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.ops.build import at_precision
from lanaprof.profiler.backends import Settings
from lanaprof.profiler.backends.torch import Torch
from lanaprof.profiler.backends.torch_graph import module_from_graph, tensor_of
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.export import exported_graph
from lanaprof.profiler.rebuild import model_from_graph
from lanaprof.profiler.sample_graphs import conv_graph, graph_of
from lanaprof.teachers import AttentionHalf

Array = npt.NDArray[Any]
IMAGE: tuple[int, ...] = (16, 8, 8)
TOKENS: tuple[tuple[int, ...], ...] = ((49, 32), (64, 32))  # on grids of 7 × 7 and 8 × 8
NAMES = tuple(family.name for family in families() if family.name != "teacher")
at = pytest.mark.parametrize


def by_torch(graph: Graph, *, seed: int = 3, how: str = "eager") -> list[Array]:
    backend = Torch(Settings(options=(("compile", how),)))
    inputs = [backend.buffer(row["type"], row["shape"], seed=i) for i, row in enumerate(graph["inputs"])]
    outputs = [backend.buffer("float32", (1,), seed=9) for _ in graph["outputs"]]
    backend.compile(graph, seed=seed).bind(inputs, outputs)()
    return [backend.read(output) for output in outputs]


def by_onnxruntime(graph: Graph, *, seed: int = 3) -> list[Array]:
    backend = Torch(Settings())
    model = model_from_graph(graph, seed=seed).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    feeds = {
        f"x{i}": backend.read(backend.buffer(row["type"], row["shape"], seed=i))
        for i, row in enumerate(graph["inputs"])
    }
    return [np.asarray(values) for values in session.run(None, feeds)]


def assert_close(expected: list[Array], actual: list[Array], *, tolerance: float = 1e-4) -> None:
    assert [values.shape for values in expected] == [values.shape for values in actual]
    for one, other in zip(expected, actual, strict=True):
        largest = float(np.abs(one.astype(np.float32)).max())
        np.testing.assert_allclose(
            other.astype(np.float32), one.astype(np.float32), rtol=tolerance, atol=tolerance * largest
        )


# ------------------------------------------------------------------------------------------- all families


@cache
def graph_at(name: str, precision: str) -> Graph:
    """Return an operator of a family at the first shape that it fits."""
    operation = parse_operation(name if precision == "fp32" else f"{name}@{precision}")
    shape = next(one for one in (IMAGE, *TOKENS) if why_not(operation, one, one) is None)
    several = name == "g_ghost"  # stands for so many layers
    teacher = (LayerRun(*(Bottleneck(16, 4) for _ in range(3))) if several else Bottleneck(16, 4)).eval()
    module = build_operation(operation, shape, shape, teacher=teacher, grid=Torch.grid).eval()
    return exported_graph(fuse(module), (1, *shape))


@at("name", NAMES)
def test_every_family_computes_the_same(name: str) -> None:
    """To 1e-4 of the largest value."""
    graph = graph_at(name, "fp32")

    assert_close(by_onnxruntime(graph), by_torch(graph))


@at("name", NAMES)
def test_every_family_in_int8_is_off_by_a_few_steps_at_most(name: str) -> None:
    """A sum that lies between two whole numbers may be rounded either way, and later ones follow it; few do."""
    graph = graph_at(name, "int8")

    (expected,), (actual,) = by_onnxruntime(graph), by_torch(graph)

    off = np.abs(expected - actual) > 1e-4 * np.abs(expected).max()
    assert np.abs(expected - actual).max() < 4.5 / 128 * np.abs(expected).max()
    assert off.mean() < 0.10


@at("name", ["mbconv", "token_attention"])
@at(("precision", "step"), [("fp16", 2**-11), ("bf16", 2**-8)])
def test_families_in_16_bits_are_as_good_as_these(name: str, precision: str, step: float) -> None:
    """Against the same in float32: a few steps of the type, no more."""
    (expected,), (actual,) = by_torch(graph_at(name, "fp32")), by_torch(graph_at(name, precision))

    assert np.abs(expected - actual.astype(np.float32)).max() < 8 * step * np.abs(expected).max()


def teacher_layers() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    gate: Any = SqueezeExcite
    attention = AttentionHalf(nn.LayerNorm(32), Attention(32, 4), nn.Identity(), nn.Identity())
    return {
        "mobilenetv3": (InvertedResidual(16, 16, exp_ratio=4, se_layer=gate, act_layer=nn.Hardswish), IMAGE),
        "efficientnet": (InvertedResidual(16, 24, stride=2, exp_ratio=6, se_layer=gate, act_layer=nn.SiLU), IMAGE),
        "convnext": (ConvNeXtBlock(16), IMAGE),
        "vit": (attention, TOKENS[0]),
    }  # fmt: skip


@at("name", list(teacher_layers()))
@at("exporter", ["torchscript", "dynamo"])
def test_layers_of_teachers_compute_the_same(name: str, exporter: str) -> None:
    """Gates, hard activations, layer norm, attention, as either exporter writes them."""
    module, shape = teacher_layers()[name]
    with torch.no_grad():
        graph = exported_graph(
            fuse(at_precision(module.eval(), "fp32", shape, grid="int8")), (2, *shape), exporter=exporter
        )

    assert_close(by_onnxruntime(graph), by_torch(graph))


# ------------------------------------------------------------------------------------ one operator at a time


def node(op: str, inputs: int = 1, *constants: str, outputs: int = 1, **attributes: Any) -> Any:
    sources = [*(f"x{i}" for i in range(inputs)), *constants]
    return helper.make_node(op, sources, [f"y{i}" for i in range(outputs)], **attributes)


def weight(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def whole(*numbers: int) -> Array:
    return np.asarray(numbers, dtype=np.int64)


def number(value: float) -> Array:
    return np.asarray(value, dtype=np.float32)


X = (("float32", (2, 4, 6, 8)),)
ONE_BY_ONE: dict[str, tuple[Any, tuple[int, ...], dict[str, Array]]] = {
    "AveragePool": (node("AveragePool", kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 0]), (2, 4, 3, 4), {}),
    "Conv, unequal ends": (
        node("Conv", 1, "w", kernel_shape=[3, 3], pads=[0, 0, 1, 2]), (2, 5, 5, 8), {"w": weight(5, 4, 3, 3)}),
    "Cast": (node("Cast", to=10), (2, 4, 6, 8), {}),
    "Clip": (node("Clip", 1, "low", "high"), (2, 4, 6, 8), {"low": number(-1), "high": number(0.5)}),
    "Clip, one end": (node("Clip", 1, "low"), (2, 4, 6, 8), {"low": number(-1)}),
    "DepthToSpace": (node("DepthToSpace", blocksize=2), (2, 1, 12, 16), {}),
    "DepthToSpace, CRD": (node("DepthToSpace", blocksize=2, mode="CRD"), (2, 1, 12, 16), {}),
    "SpaceToDepth": (node("SpaceToDepth", blocksize=2), (2, 16, 3, 4), {}),
    "Elu": (node("Elu", alpha=0.5), (2, 4, 6, 8), {}),
    "Flatten": (node("Flatten", axis=2), (8, 48), {}),
    "Gather": (node("Gather", 1, "at", axis=2), (2, 4, 2, 8), {"at": whole(3, -1)}),
    "GlobalMaxPool": (node("GlobalMaxPool"), (2, 4, 1, 1), {}),
    "HardSigmoid": (node("HardSigmoid", alpha=0.25), (2, 4, 6, 8), {}),
    "LeakyRelu": (node("LeakyRelu", alpha=0.2), (2, 4, 6, 8), {}),
    "LogSoftmax": (node("LogSoftmax", axis=1), (2, 4, 6, 8), {}),
    "MaxPool": (node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]), (2, 4, 3, 4), {}),
    "PRelu": (node("PRelu", 1, "s"), (2, 4, 6, 8), {"s": weight(4, 1, 1)}),
    "Pad": (node("Pad", 1, "p", "v"), (2, 4, 9, 9), {"p": whole(0, 0, 1, 0, 0, 0, 2, 1), "v": number(0.5)}),
    "Pad, reflected": (node("Pad", 1, "p", mode="reflect"), (2, 4, 9, 9), {"p": whole(0, 0, 1, 0, 0, 0, 2, 1)}),
    "ReduceL2": (node("ReduceL2", 1, "d", keepdims=0), (2, 6, 8), {"d": whole(1)}),
    "ReduceMax": (node("ReduceMax", 1, "d"), (2, 4, 1, 1), {"d": whole(2, 3)}),
    "ReduceMean": (node("ReduceMean"), (1, 1, 1, 1), {}),
    "Resize, nearest": (
        node("Resize", 1, "", "r", mode="nearest", coordinate_transformation_mode="asymmetric",
             nearest_mode="floor"), (2, 4, 12, 16), {"r": np.asarray([1, 1, 2, 2], np.float32)}),
    "Resize, linear": (
        node("Resize", 1, "", "", "s", mode="linear"), (2, 4, 9, 5), {"s": whole(2, 4, 9, 5)}),
    "Resize, cubic": (
        node("Resize", 1, "", "", "s", mode="cubic"), (2, 4, 12, 16), {"s": whole(2, 4, 12, 16)}),
    "Slice": (
        node("Slice", 1, "b", "e", "d", "t"), (2, 2, 6, 3),
        {"b": whole(1, -6), "e": whole(3, 99), "d": whole(1, 3), "t": whole(1, 2)}),
    "Tile": (node("Tile", 1, "r"), (2, 8, 6, 8), {"r": whole(1, 2, 1, 1)}),
    "Softplus": (node("Softplus"), (2, 4, 6, 8), {}),
    "Expand": (node("Expand", 1, "s"), (3, 2, 4, 6, 8), {"s": whole(3, 1, 1, 1, 1)}),
    "ConvTranspose": (
        node("ConvTranspose", 1, "w", "b", kernel_shape=[2, 2], strides=[2, 2]), (2, 3, 12, 16),
        {"w": weight(4, 3, 2, 2), "b": weight(3)}),
    "InstanceNormalization": (
        node("InstanceNormalization", 1, "w", "b"), (2, 4, 6, 8), {"w": weight(4), "b": weight(4)}),
    "Einsum": (node("Einsum", equation="bchw->bhcw"), (2, 6, 4, 8), {}),
}  # fmt: skip


@at("kind", ONE_BY_ONE)
def test_an_operator_computes_what_onnx_says(kind: str) -> None:
    """Attributes that ONNX and torch spell differently, by ONNX's reference evaluator."""
    made, shape, constants = ONE_BY_ONE[kind]
    result = "float16" if kind == "Cast" else "float32"
    graph = graph_of([made], X, [(result, shape)], **constants)
    x = np.asarray(Torch(Settings()).buffer(*X[0], seed=0).values)

    expected = ReferenceEvaluator(model_from_graph(graph, seed=3)).run(None, {"x0": x})

    assert_close([np.asarray(values) for values in expected], by_torch(graph))


@at("attributes", [{"transB": 1}, {"alpha": 0.5, "transB": 1}, {"beta": 2.0, "transA": 1}])
def test_products_of_matrices_compute_what_onnx_says(attributes: dict[str, Any]) -> None:
    """Turned, scaled, with a bias."""
    shape = (5, 4) if "transA" in attributes else (4, 5)
    constants = {"w": weight(6, 5) if "transB" in attributes else weight(5, 6), "b": weight(6)}
    graph = graph_of(
        [node("Gemm", 1, "w", "b", **attributes)], [("float32", shape)], [("float32", (4, 6))], **constants
    )

    assert_close(by_onnxruntime(graph), by_torch(graph))


@at(
    ("made", "shape", "why"),
    [
        (node("Det"), (2, 4), "Det"),
        (node("Resize", 1, "", "", "s", mode="nearest"), (2, 4, 9, 5), "Resize with mode='nearest'"),
        (node("AveragePool", kernel_shape=[2, 2], pads=[1, 0, 0, 0]), (2, 4, 6, 7), "unequal pads"),
    ],
)
def test_what_has_no_translation_is_unsupported(made: Any, shape: tuple[int, ...], why: str) -> None:
    """The row of the campaign names it."""
    x = ("float32", (2, 4, 4, 4)) if made.op_type == "Det" else X[0]
    graph = graph_of([made], [x], [("float32", shape)], s=whole(2, 4, 9, 5))

    with pytest.raises(UnsupportedOperator, match=why):
        module_from_graph(graph, seed=0)


def test_weights_in_int8_become_floats_once() -> None:
    """Not at every run: what hangs on constants alone is computed when the operator is translated."""
    module = module_from_graph(graph_at("conv", "int8"), seed=0)

    kinds = {str(value.dtype) for value in module.buffers() if value.dim() > 1}
    assert kinds == {"torch.float32"}


def test_bits_of_bfloat16_survive() -> None:
    """NumPy knows the type by an extension, torch by its own name."""
    values = weight(3, 5).astype("bfloat16")
    backend = Torch(Settings())
    place = backend.buffer("bfloat16", (3, 5), seed=0)

    backend.write(place, values)

    assert tensor_of(values).dtype == torch.bfloat16
    assert np.array_equal(values.view(np.int16), backend.read(place).view(np.int16))


# ----------------------------------------------------------------------------------------------- inductor


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
@at("name", ["ds", "token_attention"])
def test_compiled_families_compute_the_same(name: str) -> None:
    """By inductor's C++."""
    graph = graph_at(name, "fp32")

    assert_close(by_onnxruntime(graph), by_torch(graph, how="inductor"))


def test_without_a_compiler_inductor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any operator is tried, with what to do."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)

    with pytest.raises(BackendUnavailable, match="needs a C\\+\\+ compiler") as caught:
        Torch(Settings(options=(("compile", "inductor"),)))

    assert "compile: eager" in caught.value.hint


def test_a_wrong_number_of_buffers_is_an_error() -> None:
    """Of the operator, at once."""
    backend = Torch(Settings())

    with pytest.raises(BackendError, match="1 inputs and 1 outputs"):
        backend.compile(conv_graph(), seed=0).bind([], [])
