"""Operators as they run inside a network: ONNX Runtime's blocked layout kept at the edges between layers.

An operator alone pays for what a network does not: it turns its input into the runtime's blocked layout (NCHWc) and
its output back, and adds its residual in a pass of its own. So a neighbour stands in at each edge, a convolution of
one by one; the runtime optimises the whole; then the stand-ins are cut off and what is left reads and writes the
layout that its neighbours use.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

    from lanaprof.profiler.backends.base import Edges

__all__ = ["CutModel", "Port", "add_stand_ins", "cut_stand_ins"]

_INSIDE = "__inside"  # suffix of the tensors between a stand-in and the operator
_BLOCKED_DOMAIN = "com.microsoft.nchwc"
_BLOCKED_NAME = "_nchwc"  # the runtime names a blocked node after its output, with this suffix


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor through which a program is fed or read: its name and the shape it has in memory."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CutModel:
    """An optimised model without its stand-ins; to be loaded as it is, with no further optimisation."""

    model: onnx.ModelProto
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def add_stand_ins(model: onnx.ModelProto, edges: Edges) -> None:
    """Put a convolution before every input and behind every output of rank 4 that is an edge, in place.

    Args:
        model: inputs ``x0, x1, …`` and outputs ``y0, y1, …`` of static shape.
        edges: which of them lie between layers.
    """
    graph = model.graph
    front = [
        _stand_in(model, value, feeds=True)
        for value, is_edge in zip(graph.input, edges.inputs, strict=True)
        if is_edge and _channels(value)
    ]
    back = [
        _stand_in(model, value, feeds=False)
        for value, is_edge in zip(graph.output, edges.outputs, strict=True)
        if is_edge and _channels(value)
    ]
    inner = list(graph.node)
    del graph.node[:]
    graph.node.extend([*front, *inner, *back])


def _channels(value: onnx.ValueInfoProto) -> int:
    """Return the channels of a float tensor (batch, channels, height, width); 0 for any other."""
    tensor = value.type.tensor_type
    is_image = len(tensor.shape.dim) == 4 and tensor.elem_type == 1  # TensorProto.FLOAT
    return int(tensor.shape.dim[1].dim_value) if is_image else 0


def _stand_in(model: onnx.ModelProto, value: onnx.ValueInfoProto, *, feeds: bool) -> onnx.NodeProto:
    from onnx import helper, numpy_helper

    outside, inside = value.name, value.name + _INSIDE
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == outside:
                    names[index] = inside
    channels = _channels(value)
    weight = f"{outside}__weight"
    values = np.random.default_rng(channels).standard_normal((channels, channels, 1, 1), dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(values / np.float32(np.sqrt(channels)), weight))
    names = ([outside, weight], [inside]) if feeds else ([inside, weight], [outside])
    return helper.make_node("Conv", *names, name=f"{outside}__stand_in")


def cut_stand_ins(
    model: onnx.ModelProto,
    edges: Edges,
    inputs: Sequence[Sequence[int]],
    outputs: Sequence[Sequence[int]],
) -> CutModel | None:
    """Return the optimised model without its stand-ins; None when the runtime left nothing between them.

    Args:
        model: what the runtime made of a model with stand-ins; changed in place.
        edges: as given to :func:`add_stand_ins`.
        inputs: the operator's shapes, the batch included.
        outputs: likewise.
    """
    from onnx import helper

    graph = model.graph
    writers = {name: node for node in graph.node for name in node.output}
    padded = {tensor.name: int(tensor.dims[0]) for tensor in graph.initializer if len(tensor.dims)}
    dropped: set[int] = set()
    feeding, read = [], []
    for index, (shape, is_edge) in enumerate(zip(inputs, edges.inputs, strict=True)):
        node = _find_stand_in(graph, f"x{index}{_INSIDE}") if is_edge else None
        if node is None:
            feeding.append(Port(f"x{index}", tuple(shape)))
            continue
        before = writers.get(node.input[0])
        dropped.update({id(node)} | ({id(before)} if before is not None else set()))
        blocked = node.domain == _BLOCKED_DOMAIN
        feeding.append(Port(node.output[0], _in_memory(shape, padded[node.input[1]] if blocked else 0)))
    for index, (shape, is_edge) in enumerate(zip(outputs, edges.outputs, strict=True)):
        node = _find_stand_in(graph, f"y{index}") if is_edge else None
        if node is None:
            read.append(Port(f"y{index}", tuple(shape)))
            continue
        behind = [other for other in graph.node if node.output[0] in other.input]
        dropped.update({id(node)} | {id(other) for other in behind})
        made_by = writers.get(node.input[0])
        blocked = made_by is not None and made_by.domain == _BLOCKED_DOMAIN
        blocked = blocked and made_by is not None and made_by.op_type != "ReorderOutput"
        read.append(Port(node.input[0], _in_memory(shape, padded[node.input[1]] if blocked else 0)))
    kept = [node for node in graph.node if id(node) not in dropped]
    if not kept or {port.name for port in feeding} & {port.name for port in read}:
        return None
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    for field, content in (
        (graph.node, kept),
        (graph.initializer, weights),
        (graph.input, [helper.make_tensor_value_info(port.name, 1, port.shape) for port in feeding]),
        (graph.output, [helper.make_tensor_value_info(port.name, 1, port.shape) for port in read]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in content]
        del field[:]
        field.extend(copies)
    del graph.value_info[:]
    return CutModel(model, tuple(feeding), tuple(read))


def _find_stand_in(graph: onnx.GraphProto, made: str) -> onnx.NodeProto | None:
    """Return the stand-in that makes a tensor, in the blocked layout or as it was; None when it was fused away."""
    nodes: Iterable[onnx.NodeProto] = graph.node
    for node in nodes:
        if node.op_type == "Conv" and (node.name == made + _BLOCKED_NAME or made in node.output):
            return node
    return None


def _in_memory(shape: Sequence[int], padded_channels: int) -> tuple[int, ...]:
    """Return the shape in memory: blocks of channels are filled up."""
    return (shape[0], padded_channels or shape[1], *shape[2:])
