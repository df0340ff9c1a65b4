"""Operators as they run inside a network: ONNX Runtime's blocked layout kept at the edges between layers.

An operator alone pays for what a network does not: it turns its input into the runtime's blocked layout (NCHWc) and
its output back, and adds its residual in a pass of its own. So a neighbour stands in at each edge, a convolution of
one by one; the runtime optimises the whole; then the stand-ins are cut off and what is left reads and writes the
layout that its neighbours use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

    from lanaprof.profiler.backends.base import Edges

__all__ = ["CutModel", "Port", "add_stand_ins", "cut_stand_ins"]

_INSIDE = "__inside"  # suffix of the tensors between a stand-in and the operator
_BLOCKED_DOMAIN = "com.microsoft.nchwc"
_CONVOLUTIONS = ("Conv", "FusedConv")


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor through which a program is fed or read: its name and the shape it has in memory."""

    name: str
    shape: tuple[int, ...]


_Cut = tuple[Port, list["onnx.NodeProto"]]  # where to cut, and the nodes that go


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
    """Return the optimised model without its stand-ins; None when nothing is left between them, or no stand-in.

    What the runtime fused with a stand-in goes with it: an activation at the operator's begin becomes part of the
    convolution that ends a neighbour, a padding at its end part of the one that begins the next. Where the runtime
    leaves the blocked layout for the next operator's sake (few channels), that operator does so.

    Args:
        model: what the runtime made of a model with stand-ins; changed in place.
        edges: as given to :func:`add_stand_ins`.
        inputs: the operator's shapes, the batch included.
        outputs: likewise.
    """
    from onnx import helper

    graph = model.graph
    dropped: set[str] = set()  # nodes, by their first outputs
    feeding: list[Port] = []
    read: list[Port] = []
    kinds: list[int] = []  # of all ports: what is no edge may be integers
    for found, values, shapes, are_edges, cut in (
        (feeding, graph.input, inputs, edges.inputs, _cut_before),
        (read, graph.output, outputs, edges.outputs, _cut_behind),
    ):
        for value, shape, is_edge in zip(values, shapes, are_edges, strict=True):
            kinds.append(value.type.tensor_type.elem_type)
            if not (is_edge and _channels(value)):
                found.append(Port(value.name, tuple(shape)))
                continue
            done = cut(graph, value.name, shape)
            if done is None:
                return None
            port, nodes = done
            found.append(port)
            dropped.update(node.output[0] for node in nodes)
    kept = [node for node in graph.node if node.output[0] not in dropped]
    if not kept or {port.name for port in feeding} & {port.name for port in read}:
        return None
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    infos = [
        helper.make_tensor_value_info(port.name, kind, port.shape)
        for port, kind in zip([*feeding, *read], kinds, strict=True)
    ]
    for field, content in (
        (graph.node, kept),
        (graph.initializer, weights),
        (graph.input, infos[: len(feeding)]),
        (graph.output, infos[len(feeding) :]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in content]
        del field[:]
        field.extend(copies)
    del graph.value_info[:]
    return CutModel(model, tuple(feeding), tuple(read))


def _cut_before(graph: onnx.GraphProto, source: str, shape: Sequence[int]) -> _Cut | None:
    """Return the port behind a feeding stand-in, and the nodes up to it; None where there is no stand-in any more."""
    nodes: list[onnx.NodeProto] = []
    name = source
    for _ in range(2):  # a reorder first, perhaps
        readers = [node for node in graph.node if name in node.input]
        if len(readers) != 1:  # the stand-in was all that read it
            return None
        nodes += readers
        name = nodes[-1].output[0]
        if nodes[-1].op_type in _CONVOLUTIONS:
            return Port(name, _in_memory(shape, _filled_channels(graph, nodes[-1]))), nodes
    return None


def _cut_behind(graph: onnx.GraphProto, target: str, shape: Sequence[int]) -> _Cut | None:
    """Return the port before a reading stand-in, and the nodes from there on; None as above."""
    writers = {name: node for node in graph.node for name in node.output}
    nodes = [writers[target]]
    if nodes[-1].op_type == "ReorderOutput":
        nodes.append(writers[nodes[-1].input[0]])
    if nodes[-1].op_type not in _CONVOLUTIONS:
        return None
    stand_in = nodes[-1]
    name, filled = stand_in.input[0], _filled_channels(graph, stand_in)
    before = writers.get(name)
    if before is None or before.domain != _BLOCKED_DOMAIN:
        filled = 0  # few channels that end outside the layout: the next operator does a reorder more than in a network
    elif before.op_type == "ReorderOutput":
        if sum(name in node.input for node in graph.node) == 1:
            nodes.append(before)
        name = before.input[0]
    return Port(name, _in_memory(_before_padding(stand_in, shape), filled)), nodes


def _filled_channels(graph: onnx.GraphProto, stand_in: onnx.NodeProto) -> int:
    """Return how many channels a blocked stand-in has with its last block filled up; 0 when it is not blocked."""
    if stand_in.domain != _BLOCKED_DOMAIN:
        return 0
    return next(int(tensor.dims[0]) for tensor in graph.initializer if tensor.name == stand_in.input[1])


def _before_padding(stand_in: onnx.NodeProto, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape that a stand-in reads, which may have taken over a padding."""
    top, left, bottom, right = next((a.ints for a in stand_in.attribute if a.name == "pads"), (0, 0, 0, 0))
    return (shape[0], shape[1], shape[2] - top - bottom, shape[3] - left - right)


def _in_memory(shape: Sequence[int], filled_channels: int) -> tuple[int, ...]:
    """Return the shape in memory: blocks of channels are filled up."""
    return (shape[0], filled_channels or shape[1], *shape[2:])
