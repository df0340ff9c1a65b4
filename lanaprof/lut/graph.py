"""What can be read off a canonical graph without running it: parameters, memory, arithmetic, a description.

Pure Python over plain JSON; no ONNX needed. The values are derived, hence never exported.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.lut.keys import TYPE_BITS

__all__ = ["GraphStatistics", "describe_graph", "graph_statistics"]

_WEIGHT_INPUT = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = frozenset({"MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul"})
_DESCRIBED_LABELS = 4  # more make the line too long to scan


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphStatistics:
    """Sizes and work of one operator.

    Attributes:
        params: elements of the constants without a value (the weights).
        weight_bytes: bytes of those.
        macs: multiply-accumulates of convolutions and matrix products; element-wise work is not counted.
        peak_bytes: largest sum of activations alive at once, in node order, no buffer shared in place.
        input_bytes: bytes of the graph's inputs.
        output_bytes: bytes of the graph's outputs.
        nodes: number of nodes.
    """

    params: int
    weight_bytes: int
    macs: int
    peak_bytes: int
    input_bytes: int
    output_bytes: int
    nodes: int


def graph_statistics(graph: Mapping[str, Any]) -> GraphStatistics:
    """Return the statistics of a canonical graph (as `lanaprof.lut.keys.check_graph` accepts it)."""
    tensors = _tensors(graph)
    weights = [constant for constant in graph["constants"] if "value" not in constant]
    return GraphStatistics(
        params=sum(_elements(weight["shape"]) for weight in weights),
        weight_bytes=sum(_bytes(weight) for weight in weights),
        macs=sum(_node_macs(node, tensors) for node in graph["nodes"]),
        peak_bytes=_peak_bytes(graph, tensors),
        input_bytes=sum(_bytes(tensor) for tensor in graph["inputs"]),
        output_bytes=sum(_bytes(tensors[reference]) for reference in graph["outputs"]),
        nodes=len(graph["nodes"]),
    )


def describe_graph(graph: Mapping[str, Any]) -> str:
    """Return one short line for people: the main nodes, the input's and the output's shape.

    Convolutions and matrix products come first, then the rest, each in order of appearance. The batch is
    shown when it is not 1.

    >>> image = {"type": "float32", "shape": [1, 8, 4, 4]}
    >>> describe_graph({"inputs": [image], "constants": [], "outputs": ["n0.0"],
    ...     "nodes": [{"op": "Relu", "inputs": ["i0"], "outputs": [image]}]})
    'Relu ×1, 8×4×4 → 8×4×4'
    """
    tensors = _tensors(graph)
    labels = Counter(_label(node, tensors) for node in graph["nodes"])
    heavy = {_label(node, tensors) for node in graph["nodes"] if _node_macs(node, tensors)}
    ordered = sorted(labels, key=lambda label: label not in heavy)  # stable: order of appearance within
    shown = [f"{label} ×{labels[label]}" for label in ordered[:_DESCRIBED_LABELS]] or ["no nodes"]
    if len(ordered) > _DESCRIBED_LABELS:
        shown[-1] += " …"
    inputs = " + ".join(_shape_text(tensor["shape"]) for tensor in graph["inputs"]) or "no input"
    outputs = " + ".join(_shape_text(tensors[reference]["shape"]) for reference in graph["outputs"])
    return f"{', '.join(shown)}, {inputs} → {outputs}"


def _tensors(graph: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return type and shape of every value by its name in the graph."""
    tensors = {f"i{index}": tensor for index, tensor in enumerate(graph["inputs"])}
    tensors.update((f"c{index}", tensor) for index, tensor in enumerate(graph["constants"]))
    for index, node in enumerate(graph["nodes"]):
        tensors.update(
            (f"n{index}.{place}", tensor)
            for place, tensor in enumerate(node["outputs"])
            if tensor is not None
        )
    return tensors


def _bytes(tensor: Mapping[str, Any]) -> int:
    """Return the bytes of a tensor; types under 8 bits are packed."""
    return (_elements(tensor["shape"]) * TYPE_BITS[tensor["type"]] + 7) // 8


def _elements(shape: Sequence[int]) -> int:
    return math.prod(shape)


def _node_macs(node: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]) -> int:
    """Return a node's multiply-accumulates; 0 for nodes that are not counted or lack an operand."""
    op, inputs = node["op"], node["inputs"]
    shapes = [tensors[name]["shape"] if name in tensors else None for name in inputs]
    output = node["outputs"][0]
    if output is None or not shapes or shapes[0] is None:
        return 0
    if op in _WEIGHT_INPUT:
        weight = shapes[_WEIGHT_INPUT[op]] if len(shapes) > _WEIGHT_INPUT[op] else None
        # The weight is (out, in / groups, kernel…): each output element sums one row of it.
        return _elements(output["shape"]) * _elements(weight[1:]) if weight else 0
    if op == "ConvTranspose":
        weight = shapes[1] if len(shapes) > 1 else None
        # The weight is (in, out / groups, kernel…): each input element is spread over one row of it.
        return _elements(shapes[0]) * _elements(weight[1:]) if weight else 0
    if op == "Gemm" and len(shapes[0]) == 2:
        return _elements(output["shape"]) * int(shapes[0][0 if _attribute(node, "transA", 0) else 1])
    if op in _PRODUCTS and shapes[0]:
        return _elements(output["shape"]) * int(shapes[0][-1])
    return 0


def _peak_bytes(graph: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]) -> int:
    """Return the largest sum of activations alive at once: a value lives until its last use."""
    nodes, forever = graph["nodes"], len(graph["nodes"])
    last_use: dict[str, int] = {}
    for step, node in enumerate(nodes):
        last_use.update((name, step) for name in node["inputs"] if name and name[0] != "c")
    last_use.update((name, forever) for name in graph["outputs"])
    ends: dict[int, list[str]] = {}
    for name, step in last_use.items():
        ends.setdefault(step, []).append(name)
    live = {name: _bytes(tensor) for name, tensor in tensors.items() if name[0] == "i"}
    total = peak = sum(live.values())
    for step, node in enumerate(nodes):
        made = [f"n{step}.{place}" for place, tensor in enumerate(node["outputs"]) if tensor is not None]
        for name in made:
            live[name] = _bytes(tensors[name])
            total += live[name]
        peak = max(peak, total)
        unused = [name for name in made if name not in last_use]
        for name in [*ends.get(step, ()), *unused]:
            total -= live.pop(name, 0)
    return peak


def _label(node: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Any]]) -> str:
    op: str = node["op"]
    place = _WEIGHT_INPUT.get(op)
    if place is None or len(node["inputs"]) <= place or node["inputs"][place] not in tensors:
        return op
    shape = tensors[node["inputs"][place]]["shape"]
    groups = _attribute(node, "group", 1)
    prefix = "" if groups == 1 else "Depthwise" if shape[1:2] == [1] else "Grouped"
    return f"{prefix}{op} {'x'.join(str(size) for size in shape[2:])}"


def _attribute(node: Mapping[str, Any], name: str, default: int) -> Any:
    return node.get("attributes", {}).get(name, default)


def _shape_text(shape: Sequence[int]) -> str:
    shown = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    return "×".join(str(size) for size in shown) or "scalar"
