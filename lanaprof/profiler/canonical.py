"""ONNX model → canonical graph.

A canonical graph is plain JSON that says everything a runtime's speed depends on and nothing else: names are
dropped, weights are kept by shape and type, shape-like and scalar inputs by value, evaluated batch norm is
folded, and what two exporters spell differently is spelled one way. Its digest is the operator's key;
:mod:`lanaprof.profiler.rebuild` makes a runnable model with random weights of it alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lanaprof.digest import digest
from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.draft import (
    Array,
    Draft,
    Node,
    attribute_value,
    is_float,
    json_tensor,
    type_name,
)
from lanaprof.profiler.normalising import normalise
from lanaprof.profiler.prepare import OPSET, OPSET_FP8, is_fp8, prepared_model

if TYPE_CHECKING:
    import onnx

__all__ = ["FORMAT", "Graph", "canonical_graph", "graph_from_draft"]

FORMAT = "lanaprof-graph/1"
Graph = dict[str, Any]

# Inputs that are weights whatever their shape: they change from training to training.
_WEIGHT_INPUTS: Mapping[str, frozenset[int]] = {
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({0, 1, 2}),
    "QLinearConv": frozenset({1, 2, 3, 4, 5, 6, 7, 8}),
    "QLinearMatMul": frozenset({1, 2, 4, 5, 6, 7}),
    "Conv": frozenset({1, 2}),
    "ConvTranspose": frozenset({1, 2}),
    "Gemm": frozenset({1, 2}),
    "BatchNormalization": frozenset({1, 2, 3, 4}),
    "LayerNormalization": frozenset({1, 2}),
    "PRelu": frozenset({1}),
}
# Inputs that say what is computed, however many numbers they are.
_VALUE_INPUTS: Mapping[str, frozenset[int]] = {"Resize": frozenset({1, 2})}
_COMMUTATIVE = frozenset({"Add", "Mul", "And", "Or", "Xor"})


def canonical_graph(model: onnx.ModelProto, *, batch: int | None = None) -> Graph:
    """Return the canonical graph of an ONNX model.

    Args:
        model: any model of one graph with static shapes.
        batch: what an open first dimension of an input is set to; None refuses it.

    Raises:
        UnsupportedOperator: control flow, shapes that cannot be inferred, or an opset that cannot be converted.
    """
    draft = _draft_from_model(*prepared_model(model, batch=batch))
    normalise(draft)
    return graph_from_draft(draft)


def _draft_from_model(model: onnx.ModelProto, weights: Mapping[str, Array]) -> Draft:
    import onnx
    from onnx import numpy_helper

    graph = model.graph
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    constants.update(weights)
    nodes: list[Node] = []
    for node in graph.node:
        attributes = {a.name: attribute_value(a) for a in node.attribute}
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants[node.output[0]] = _constant_array(node)
            continue
        domain = "" if node.domain == "ai.onnx" else node.domain
        nodes.append(Node(node.op_type, domain, attributes, list(node.input), list(node.output)))
    types: dict[str, tuple[str, tuple[int, ...]]] = {}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        tensor = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim]
        if tensor.elem_type and tensor.HasField("shape") and all(d >= 0 for d in dims):
            numpy_type = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            types[value.name] = (type_name(numpy_type), tuple(dims))
    inputs = [value.name for value in graph.input if value.name not in constants]
    return Draft(inputs, [value.name for value in graph.output], nodes, constants, types)


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


def _is_weight(op: str, position: int, array: Array) -> bool:
    """Weights are known by shape and type; shape-like and scalar constants by value."""
    if position in _WEIGHT_INPUTS.get(op, ()):
        return True
    if position in _VALUE_INPUTS.get(op, ()):
        return False
    return is_float(array.dtype) and array.ndim > 0 and array.size > 1


def graph_from_draft(draft: Draft) -> Graph:
    """Return the canonical graph of a normalised draft; its nodes are in topological order.

    Raises:
        UnsupportedOperator: a value without a known shape, or an output that is a constant.
    """
    producer = {
        name: (node, index) for node in draft.nodes for index, name in enumerate(node.outputs) if name
    }
    hashes = _structural_hashes(draft, producer)
    order: list[Node] = []
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

    def reference(node: Node, position: int, name: str) -> str:
        if not name:
            return ""
        if name not in draft.constants or name in references:
            return references[name]
        array = draft.constants[name]
        if _is_weight(node.op, position, array):
            constants.append({"type": type_name(array.dtype), "shape": list(array.shape)})
        else:
            constants.append(json_tensor(array))
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
    inputs = [_input_type(draft, name) for name in draft.inputs]
    described = [*inputs, *constants, *(output for entry in nodes for output in entry["outputs"])]
    return {
        "format": FORMAT,
        "opset": OPSET_FP8 if any(is_fp8(value["type"]) for value in described) else OPSET,
        "inputs": inputs,
        "constants": constants,
        "nodes": nodes,
        "outputs": [references[name] for name in draft.outputs],
    }


def _visit(producer: Mapping[str, tuple[Node, int]], start: str, order: list[Node], seen: set[int]) -> None:
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


def _structural_hashes(draft: Draft, producer: Mapping[str, tuple[Node, int]]) -> dict[str, str]:
    hashes = {"": ""}
    for index, name in enumerate(draft.inputs):
        hashes[name] = digest(["input", index])
    for node in draft.nodes:  # a model lists its nodes in topological order
        sources = []
        for position, name in enumerate(node.inputs):
            if name in draft.constants and name not in producer:
                array = draft.constants[name]
                weight = _is_weight(node.op, position, array)
                described = {"shape": list(array.shape)} if weight else json_tensor(array)
                sources.append(digest(["constant", described]))
                hashes.setdefault(name, sources[-1])
            else:
                sources.append(hashes[name])
        if node.op in _COMMUTATIVE and not node.domain:
            sources.sort()
        for index, name in enumerate(node.outputs):
            hashes[name] = digest([node.op, node.domain, node.attributes, sources, index])
    return hashes


def _typed(draft: Draft, node: Node, name: str) -> dict[str, Any]:
    if not name:
        return {"type": "", "shape": []}
    if name not in draft.types:
        raise UnsupportedOperator(f"the shape of an output of {node.op} cannot be inferred")
    kind, shape = draft.types[name]
    return {"type": kind, "shape": list(shape)}


def _input_type(draft: Draft, name: str) -> dict[str, Any]:
    kind, shape = draft.types[name]
    return {"type": kind, "shape": list(shape)}
