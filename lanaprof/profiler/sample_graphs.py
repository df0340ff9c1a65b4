"""Small canonical graphs of the kinds networks are made of: what every backend must compile and compute.

Public, for tests of whoever writes a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from lanaprof.profiler.canonical import Graph, canonical_graph
from lanaprof.profiler.draft import Array

if TYPE_CHECKING:
    import onnx

__all__ = [
    "SAMPLE_GRAPHS",
    "attention_graph",
    "conv_graph",
    "embedding_graph",
    "graph_of",
    "matmul_graph",
    "relu_graph",
    "squeeze_excite_graph",
    "two_output_graph",
]

Tensor = tuple[str, Sequence[int]]  # NumPy's name of the type, and the shape


def graph_of(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Tensor], outputs: Sequence[Tensor], **constants: Array
) -> Graph:
    """Return the canonical graph of nodes that read ``x0, x1, …`` and constants by name, and write ``y0, y1, …``."""
    from onnx import helper, numpy_helper

    def infos(letter: str, rows: Sequence[Tensor]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                f"{letter}{i}", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), shape
            )
            for i, (kind, shape) in enumerate(rows)
        ]

    initial = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(list(nodes), "sample", infos("x", inputs), infos("y", outputs), initial)
    return canonical_graph(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    )


def _weights(*shape: int) -> Array:
    """Return a weight; graphs keep its shape and type alone."""
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def relu_graph(*shape: int) -> Graph:
    """Return one ReLU on a float tensor of a shape."""
    from onnx import helper

    tensor = ("float32", shape)
    return graph_of([helper.make_node("Relu", ["x0"], ["y0"])], [tensor], [tensor])


def matmul_graph(rows: int, inner: int, columns: int) -> Graph:
    """Return (rows, inner) times a weight of (inner, columns)."""
    from onnx import helper

    node = helper.make_node("MatMul", ["x0", "w"], ["y0"])
    return graph_of(
        [node], [("float32", (rows, inner))], [("float32", (rows, columns))], w=_weights(inner, columns)
    )


def conv_graph(channels: int = 16, size: int = 14, *, groups: int = 1, layers: int = 1) -> Graph:
    """Return 3×3 convolutions with ReLU on (1, channels, size, size)."""
    from onnx import helper

    nodes, source = [], "x0"
    for number in range(layers):
        target = f"r{number}" if number + 1 < layers else "y0"
        nodes += [
            helper.make_node("Conv", [source, f"w{number}"], [f"t{number}"], pads=[1] * 4, group=groups),
            helper.make_node("Relu", [f"t{number}"], [target]),
        ]
        source = target
    image = ("float32", (1, channels, size, size))
    kernels = {f"w{number}": _weights(channels, channels // groups, 3, 3) for number in range(layers)}
    return graph_of(nodes, [image], [image], **kernels)


def squeeze_excite_graph() -> Graph:
    """Return a gate on 16 channels, batch 2."""
    from onnx import helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x0"], ["pooled"]),
        helper.make_node("Conv", ["pooled", "down", "bias"], ["narrow"]),
        helper.make_node("Relu", ["narrow"], ["active"]),
        helper.make_node("Conv", ["active", "up"], ["wide"]),
        helper.make_node("HardSigmoid", ["wide"], ["gate"], alpha=1 / 6),
        helper.make_node("Mul", ["x0", "gate"], ["y0"]),
    ]
    image = ("float32", (2, 16, 7, 7))
    kernels = {"down": _weights(4, 16, 1, 1), "bias": _weights(4), "up": _weights(16, 4, 1, 1)}
    return graph_of(nodes, [image], [image], **kernels)


def attention_graph() -> Graph:
    """Return one head over 12 tokens of width 32: projections, softmax, a residual, layer norm."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["x0", f"w{name}"], [name]) for name in "qkv"]
    nodes += [
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["logits"]),
        helper.make_node("Mul", ["logits", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["attended"], axis=-1),
        helper.make_node("MatMul", ["attended", "v"], ["mixed"]),
        helper.make_node("Add", ["mixed", "x0"], ["summed"]),
        helper.make_node("LayerNormalization", ["summed", "gain", "shift"], ["y0"], axis=-1),
    ]
    constants = {f"w{name}": _weights(32, 32) for name in "qkv"}
    constants |= {"gain": _weights(32), "shift": _weights(32), "scale": np.array(32**-0.5, dtype=np.float32)}
    tokens = ("float32", (1, 12, 32))
    return graph_of(nodes, [tokens], [tokens], **constants)


def embedding_graph() -> Graph:
    """Return a look-up in a table: an input of integers."""
    from onnx import helper

    nodes = [
        helper.make_node("Gather", ["table", "x0"], ["rows"]),
        helper.make_node("Tanh", ["rows"], ["y0"]),
    ]
    return graph_of(nodes, [("int64", (1, 6))], [("float32", (1, 6, 8))], table=_weights(10, 8))


def two_output_graph() -> Graph:
    """Return a product, and the sigmoid of its sum with the second input."""
    from onnx import helper

    nodes = [
        helper.make_node("MatMul", ["x0", "w"], ["y0"]),
        helper.make_node("Add", ["y0", "x1"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["y1"]),
    ]
    tensor = ("float32", (3, 8))
    return graph_of(nodes, [tensor, tensor], [tensor, tensor], w=_weights(8, 8))


SAMPLE_GRAPHS: Mapping[str, Callable[[], Graph]] = {
    "conv": conv_graph,
    "depthwise": lambda: conv_graph(groups=16),
    "squeeze_excite": squeeze_excite_graph,
    "attention": attention_graph,
    "embedding": embedding_graph,
    "two_outputs": two_output_graph,
}
