"""ONNX model → canonical graph.

A canonical graph is plain JSON that says everything a runtime's speed depends on and nothing else: names are
dropped, weights are kept by shape and type, shape-like and scalar inputs by value, evaluated batch norm is
folded, and what two exporters spell differently is spelled one way. Its digest is the operator's key;
:mod:`lanaprof.profiler.rebuild` makes a runnable model with random weights of it alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanaprof.digest import digest
from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.prepare import OPSET, prepared_model

if TYPE_CHECKING:
    import onnx

__all__ = ["FORMAT", "Graph", "canonical_graph"]

FORMAT = "lanaprof-graph/1"
Array = npt.NDArray[Any]
Graph = dict[str, Any]

# Inputs that are weights whatever their shape: they change from training to training.
_WEIGHT_INPUTS: Mapping[str, frozenset[int]] = {
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "QLinearConv": frozenset({1, 2, 3, 4, 5, 6, 7, 8}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({1, 2}),
    "BatchNormalization": frozenset({1, 2, 3, 4}),
    "LayerNormalization": frozenset({1, 2}),
    "PRelu": frozenset({1}),
}
_COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor"})
_NO_WORK = frozenset({"Identity", "Dropout"})  # at inference
_VIEWS = frozenset({"Flatten", "Squeeze", "Unsqueeze", "Reshape"})  # one copy-free Reshape
_HAS_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm"})


@dataclass(slots=True)
class _Node:
    op: str
    domain: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]


@dataclass(slots=True)
class _Draft:
    """A graph while it is brought into canonical form; values are still known by name."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[_Node]
    constants: dict[str, Array]
    types: dict[str, tuple[str, tuple[int, ...]]]
    weights: set[str] = field(default_factory=set)

    def consumers(self) -> dict[str, list[_Node]]:
        found: dict[str, list[_Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def rename(self, old: str, new: str) -> None:
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]


def canonical_graph(model: onnx.ModelProto, *, batch: int | None = None) -> Graph:
    """Return the canonical graph of an ONNX model.

    Args:
        model: any model of one graph with static shapes.
        batch: what an open first dimension of an input is set to; None refuses it.

    Raises:
        UnsupportedOperator: control flow, shapes that cannot be inferred, or an opset that cannot be converted.
    """
    draft = _draft_from_model(prepared_model(model, batch=batch))
    for step in (_drop_idle_nodes, _fold_batch_norms, _fold_pads, _respell, _add_biases, _drop_dead_nodes):
        step(draft)
    return _graph_from_draft(draft)


def _draft_from_model(model: onnx.ModelProto) -> _Draft:
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    nodes: list[_Node] = []
    for node in graph.node:
        attributes = {a.name: _attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = _constant_array(node)
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        nodes.append(_Node(node.op_type, domain, attributes, list(node.input), list(node.output)))
    types: dict[str, tuple[str, tuple[int, ...]]] = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if tensor.elem_type and tensor.HasField("shape") and all(d >= 0 for d in dims):
            numpy_type = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            types[value.name] = (_type_name(numpy_type), tuple(dims))
    inputs = [value.name for value in graph.input if value.name not in constants]
    return _Draft(inputs, [value.name for value in graph.output], nodes, constants, types)


def _type_name(dtype: np.dtype[Any]) -> str:
    return str(dtype)


def _attribute_value(attribute: onnx.AttributeProto) -> Any:
    import onnx
    from onnx import numpy_helper

    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise UnsupportedOperator(
            f"control flow (attribute {attribute.name!r} holds a graph) cannot be timed"
        )
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _json_tensor(numpy_helper.to_array(value))
    if isinstance(value, int | float | str):
        return _json_number(value)
    return [item.decode() if isinstance(item, bytes) else _json_number(item) for item in value]


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it; numpy reads it back
    return value


def _json_tensor(array: Array) -> dict[str, Any]:
    values = [_json_number(item) for item in array.reshape(-1).tolist()]
    return {
        "type": _type_name(array.dtype),
        "shape": list(array.shape),
        "value": values if array.shape else values[0],
    }


def _constant_array(node: onnx.NodeProto) -> Array:
    import onnx
    from onnx import numpy_helper

    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return numpy_helper.to_array(value)
    if attribute.name in ("value_float", "value_floats"):
        return np.asarray(value, dtype=np.float32)
    if attribute.name in ("value_int", "value_ints"):
        return np.asarray(value, dtype=np.int64)
    raise UnsupportedOperator(f"constants given as {attribute.name!r} cannot be timed")


def _drop_idle_nodes(draft: _Draft) -> None:
    kept = []
    for node in draft.nodes:
        if node.op not in _NO_WORK or node.domain:
            kept.append(node)
            continue
        source = node.inputs[0]
        if node.outputs[0] in draft.outputs and source in (*draft.inputs, *draft.constants):
            kept.append(node)  # the graph's output would be its input
            continue
        draft.rename(node.outputs[0], source)
        for later in kept:
            later.inputs = [source if name == node.outputs[0] else name for name in later.inputs]
    draft.nodes = kept


def _fold_batch_norms(draft: _Draft) -> None:
    """Evaluated batch norm behind a convolution becomes its bias, as every runtime does it."""
    producer = {node.outputs[0]: node for node in draft.nodes}
    consumers = draft.consumers()
    folded = set()
    for index, node in enumerate(draft.nodes):
        if node.op != "BatchNormalization" or node.attributes.get("training_mode", 0):
            continue
        source = producer.get(node.inputs[0])
        if (
            source is None
            or source.op not in ("Conv", "ConvTranspose")
            or len(consumers[node.inputs[0]]) != 1
            or node.inputs[0] in draft.outputs
            or source.inputs[1] not in draft.constants
        ):
            continue
        bias = f"{node.outputs[0]}//bias"
        draft.constants[bias] = draft.constants[node.inputs[2]]
        source.inputs = [*source.inputs[:2], bias]
        draft.rename(node.outputs[0], source.outputs[0])
        folded.add(index)
    draft.nodes = [node for index, node in enumerate(draft.nodes) if index not in folded]


def _fold_pads(draft: _Draft) -> None:
    """A zero padding in front of a convolution becomes the convolution's own."""
    producer = {node.outputs[0]: node for node in draft.nodes}
    consumers = draft.consumers()
    for node in draft.nodes:
        pad = producer.get(node.inputs[0]) if node.op == "Conv" and not node.domain else None
        if (
            pad is None
            or pad.op != "Pad"
            or len(consumers[node.inputs[0]]) != 1
            or node.inputs[0] in draft.outputs
        ):
            continue
        amounts = _zero_padding(draft, pad)
        rank = len(amounts) // 2
        if rank < 3 or node.attributes.get("auto_pad", "NOTSET") != "NOTSET":
            continue
        if any(amounts[:2]) or any(amounts[rank : rank + 2]) or min(amounts) < 0:
            continue
        own = node.attributes.get("pads", [0] * (2 * (rank - 2)))
        extra = amounts[2:rank] + amounts[rank + 2 :]
        node.attributes = {**node.attributes, "pads": [a + b for a, b in zip(own, extra, strict=True)]}
        node.inputs = [pad.inputs[0], *node.inputs[1:]]


def _zero_padding(draft: _Draft, pad: _Node) -> list[int]:
    """Return the amounts of a Pad that adds constant zeros on all axes, else an empty list."""
    sources = [*pad.inputs, "", "", ""]
    amounts = draft.constants.get(sources[1])
    value = draft.constants.get(sources[2]) if sources[2] else None
    if amounts is None or sources[3] or pad.attributes.get("mode", "constant") != "constant":
        return []
    if sources[2] and (value is None or value.any()):
        return []
    return [int(amount) for amount in amounts]


def _respell(draft: _Draft) -> None:
    """What two exporters spell differently, and every runtime does alike, gets one spelling."""
    kept: list[_Node] = []
    for node in draft.nodes:
        shape_in = draft.types.get(node.inputs[0], ("", ()))[1] if node.inputs else ()
        typed = draft.types.get(node.outputs[0])
        if not node.domain and node.op in _VIEWS and typed is not None:
            constant = f"{node.outputs[0]}//shape"
            draft.constants[constant] = np.asarray(typed[1], dtype=np.int64)
            node.op, node.attributes, node.inputs = "Reshape", {}, [node.inputs[0], constant]
        elif not node.domain and node.op == "ReduceMean" and node.attributes.get("keepdims", 1) == 1:
            axes = _axes(draft, node, len(shape_in))
            if len(shape_in) >= 3 and axes == tuple(range(2, len(shape_in))):
                node.op, node.attributes, node.inputs = "GlobalAveragePool", {}, node.inputs[:1]
            elif axes is not None:
                constant = f"{node.outputs[0]}//axes"
                draft.constants[constant] = np.asarray(axes, dtype=np.int64)
                node.inputs, node.attributes = [node.inputs[0], constant], {"keepdims": 1}
        elif not node.domain and node.op == "Pad" and len(node.inputs) > 1:
            pads = draft.constants.get(node.inputs[1])
            if pads is not None and not pads.any() and node.outputs[0] not in draft.outputs:
                draft.rename(node.outputs[0], node.inputs[0])
                for later in kept:
                    later.inputs = [node.inputs[0] if n == node.outputs[0] else n for n in later.inputs]
                continue
        node.attributes = _without_defaults(draft, node)
        while node.inputs and not node.inputs[-1]:
            node.inputs.pop()
        kept.append(node)
    draft.nodes = kept


def _axes(draft: _Draft, node: _Node, rank: int) -> tuple[int, ...] | None:
    if len(node.inputs) > 1 and node.inputs[1]:
        constant = draft.constants.get(node.inputs[1])
        if constant is None:
            return None
        axes = [int(axis) for axis in constant.reshape(-1)]
    else:
        axes = list(node.attributes.get("axes", range(rank)))
    return tuple(sorted(axis % rank for axis in axes)) if rank else None


def _without_defaults(draft: _Draft, node: _Node) -> dict[str, Any]:
    """Drop the attributes that only repeat what the specification or the weights' shape says."""
    import onnx

    attributes = dict(node.attributes)
    try:
        schema = onnx.defs.get_schema(node.op, OPSET, node.domain)
    except onnx.defs.SchemaError:
        return attributes
    for name, described in schema.attributes.items():
        default = described.default_value
        if name in attributes and default.type and attributes[name] == _attribute_value(default):
            del attributes[name]
    weight = draft.constants.get(node.inputs[1]) if node.op in ("Conv", "ConvTranspose") else None
    if weight is not None and attributes.get("kernel_shape") == list(weight.shape[2:]):
        del attributes["kernel_shape"]
    neutral = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}
    if node.op in ("Conv", "ConvTranspose", "MaxPool", "AveragePool"):
        for name, value in neutral.items():
            if name in attributes and all(item == value for item in attributes[name]):
                del attributes[name]
    return attributes


def _add_biases(draft: _Draft) -> None:
    """Give every convolution a bias: an exporter drops one that happens to be zero, training fills it."""
    for node in draft.nodes:
        if node.domain or node.op not in _HAS_BIAS or (len(node.inputs) > 2 and node.inputs[2]):
            continue
        weight = draft.constants.get(node.inputs[1])
        if weight is None:
            continue
        if node.op == "Conv":
            width = weight.shape[0]
        elif node.op == "ConvTranspose":
            width = weight.shape[1] * int(node.attributes.get("group", 1))
        else:
            width = weight.shape[0] if node.attributes.get("transB", 0) else weight.shape[1]
        name = f"{node.outputs[0]}//bias"
        draft.constants[name] = np.zeros(width, dtype=weight.dtype)
        node.inputs = [*node.inputs[:2], name]


def _drop_dead_nodes(draft: _Draft) -> None:
    needed = set(draft.outputs)
    kept = []
    for node in reversed(draft.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(name for name in node.inputs if name)
    draft.nodes = kept[::-1]


def _is_weight(op: str, position: int, array: Array) -> bool:
    """Weights are known by shape and type; shape-like and scalar constants by value."""
    if position in _WEIGHT_INPUTS.get(op, ()):
        return True
    return bool(np.issubdtype(array.dtype, np.floating) and array.ndim > 0 and array.size > 1)


def _graph_from_draft(draft: _Draft) -> Graph:
    producer = {
        name: (node, index) for node in draft.nodes for index, name in enumerate(node.outputs) if name
    }
    hashes = _structural_hashes(draft, producer)
    order: list[_Node] = []
    seen: set[int] = set()
    for node in draft.nodes:
        if node.op in _COMMUTATIVE and not node.domain and len(node.inputs) == 2:
            node.inputs.sort(key=lambda name: hashes[name])
    for output in draft.outputs:
        _visit(producer, output, order, seen)
    references = {name: f"i{index}" for index, name in enumerate(draft.inputs)}
    for index, node in enumerate(order):
        references.update({name: f"n{index}.{slot}" for slot, name in enumerate(node.outputs) if name})
    constants: list[dict[str, Any]] = []

    def reference(node: _Node, position: int, name: str) -> str:
        if not name:
            return ""
        if name not in draft.constants or name in references:
            return references[name]
        array = draft.constants[name]
        if _is_weight(node.op, position, array):
            constants.append({"type": _type_name(array.dtype), "shape": list(array.shape)})
        else:
            constants.append(_json_tensor(array))
        return f"c{len(constants) - 1}"

    nodes = []
    for node in order:
        entry: dict[str, Any] = {
            "op": node.op,
            "attributes": node.attributes,
            "inputs": [reference(node, position, name) for position, name in enumerate(node.inputs)],
            "outputs": [_typed(draft, node, name) for name in node.outputs],
        }
        if node.domain:
            entry["domain"] = node.domain
        nodes.append(entry)
    for name in draft.outputs:
        if name not in references:
            raise UnsupportedOperator("an output of the graph is a constant; there is nothing to time")
    return {
        "format": FORMAT,
        "opset": OPSET,
        "inputs": [_input_type(draft, name) for name in draft.inputs],
        "constants": constants,
        "nodes": nodes,
        "outputs": [references[name] for name in draft.outputs],
    }


def _visit(producer: Mapping[str, tuple[_Node, int]], start: str, order: list[_Node], seen: set[int]) -> None:
    """Append the nodes behind a value in depth-first order, inputs before their users."""
    stack: list[tuple[str, bool]] = [(start, False)]
    while stack:
        name, ready = stack.pop()
        if name not in producer:
            continue
        node = producer[name][0]
        if ready:
            if id(node) not in seen:
                seen.add(id(node))
                order.append(node)
            continue
        if id(node) in seen:
            continue
        stack.append((name, True))
        stack.extend((source, False) for source in reversed(node.inputs) if source)


def _structural_hashes(draft: _Draft, producer: Mapping[str, tuple[_Node, int]]) -> dict[str, str]:
    hashes = {"": ""}
    for index, name in enumerate(draft.inputs):
        hashes[name] = digest(["input", index])
    for node in draft.nodes:  # a model lists its nodes in topological order
        sources = []
        for position, name in enumerate(node.inputs):
            if name in draft.constants and name not in producer:
                array = draft.constants[name]
                weight = _is_weight(node.op, position, array)
                described = {"shape": list(array.shape)} if weight else _json_tensor(array)
                sources.append(digest(["constant", described]))
                hashes.setdefault(name, sources[-1])
            else:
                sources.append(hashes[name])
        if node.op in _COMMUTATIVE and not node.domain:
            sources.sort()
        for index, name in enumerate(node.outputs):
            hashes[name] = digest([node.op, node.domain, node.attributes, sources, index])
    return hashes


def _typed(draft: _Draft, node: _Node, name: str) -> dict[str, Any]:
    if not name:
        return {"type": "", "shape": []}
    if name not in draft.types:
        raise UnsupportedOperator(f"the shape of an output of {node.op} cannot be inferred")
    kind, shape = draft.types[name]
    return {"type": kind, "shape": list(shape)}


def _input_type(draft: _Draft, name: str) -> dict[str, Any]:
    kind, shape = draft.types[name]
    return {"type": kind, "shape": list(shape)}
