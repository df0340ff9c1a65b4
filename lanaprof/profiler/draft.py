"""A graph on its way to canonical form, and what its values are in JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanaprof.errors import UnsupportedOperator

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Array",
    "Draft",
    "Node",
    "append_graph",
    "attribute_value",
    "is_float",
    "json_tensor",
    "type_name",
]

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Node:
    """One operation; its inputs and outputs are values by name, "" for an absent one."""

    op: str
    domain: str
    attributes: dict[str, Any]
    inputs: list[str]
    outputs: list[str]


@dataclass(slots=True)
class Draft:
    """A graph while it is brought into canonical form; values are still known by name."""

    inputs: list[str]
    outputs: list[str]
    nodes: list[Node]
    constants: dict[str, Array]
    types: dict[str, tuple[str, tuple[int, ...]]]

    def consumers(self) -> dict[str, list[Node]]:
        """Return, per value, the nodes that read it."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                found.setdefault(name, []).append(node)
        return found

    def rename(self, old: str, new: str) -> None:
        """Let everybody who reads one value read another."""
        for node in self.nodes:
            node.inputs = [new if name == old else name for name in node.inputs]
        self.outputs = [new if name == old else name for name in self.outputs]


def type_name(dtype: np.dtype[Any]) -> str:
    """Return a type's name as the graph writes it, e.g. ``float32``."""
    return str(dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Say whether numbers of a type are floating-point ones; NumPy itself does not know the small ones."""
    return bool(np.issubdtype(dtype, np.floating)) or type_name(dtype).startswith(("bfloat", "float8"))


def attribute_value(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute as plain JSON.

    Raises:
        UnsupportedOperator: it holds a graph.
    """
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
        return json_tensor(numpy_helper.to_array(value))
    if isinstance(value, int | float | str):
        return _json_number(value)
    return [item.decode() if isinstance(item, bytes) else _json_number(item) for item in value]


def _json_number(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it; numpy reads it back
    return value


def json_tensor(array: Array) -> dict[str, Any]:
    """Return a constant by value."""
    values = [_json_number(item) for item in array.reshape(-1).tolist()]
    return {
        "type": type_name(array.dtype),
        "shape": list(array.shape),
        "value": values if array.shape else values[0],
    }


def append_graph(
    draft: Draft, graph: Mapping[str, Any], prefix: str, buffers: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    """Add a canonical graph's nodes and constants to a draft.

    Args:
        draft: changed in place.
        graph: canonical.
        prefix: of all names but those of its inputs and outputs.
        buffers: these, by name.
    """
    inputs, outputs = buffers
    names = {"": "", **{f"i{index}": name for index, name in enumerate(inputs)}}
    twice: list[Node] = []  # an output that is an input or another output is a copy, dropped later
    for name, reference in zip(outputs, graph["outputs"], strict=True):
        if reference in names:
            twice.append(Node("Identity", "", {}, [names[reference]], [name]))
        names.setdefault(reference, name)
    for index, constant in enumerate(graph["constants"]):
        names[f"c{index}"] = f"{prefix}/c{index}"
        draft.constants[names[f"c{index}"]] = _constant(constant)
    for index, node in enumerate(graph["nodes"]):
        results = []
        for slot, described in enumerate(node["outputs"]):
            name = names.setdefault(f"n{index}.{slot}", f"{prefix}/n{index}.{slot}")
            results.append(name if described["type"] else "")
            draft.types[name] = (described["type"], tuple(described["shape"]))
        sources = [names[reference] for reference in node["inputs"]]
        draft.nodes.append(
            Node(node["op"], node.get("domain", ""), dict(node["attributes"]), sources, results)
        )
    draft.nodes += twice  # behind what they read


def _constant(constant: Mapping[str, Any]) -> Array:
    """Return a constant; a weight is one zero seen as often as its shape asks, which takes no memory."""
    dtype, shape = np.dtype(constant["type"]), tuple(constant["shape"])
    if "value" in constant:
        return np.asarray(constant["value"], dtype=dtype).reshape(shape)
    return np.broadcast_to(np.zeros((), dtype=dtype), shape)
