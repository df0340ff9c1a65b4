"""Operator and environment keys: what makes two measurements measurements of the same thing.

A key is the digest of a canonical JSON text, so it means the same in every database, on every machine and
in every version. The operator's is that of its canonical graph; the environment's that of a closed list of
fields. What a graph may look like is checked here, before it gets a key.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from lanaprof.digest import DIGEST_LENGTH, digest
from lanaprof.errors import BadInput

__all__ = [
    "GRAPH_FORMAT",
    "TYPE_BITS",
    "check_graph",
    "environment_key",
    "is_digest",
    "operator_key",
    "shown",
]

GRAPH_FORMAT = "lanaprof-graph/1"

TYPE_BITS: Mapping[str, int] = {
    "bfloat16": 16, "bool": 8, "complex128": 128, "complex64": 64, "float16": 16, "float32": 32,
    "float4e2m1": 4, "float64": 64, "float8e4m3fn": 8, "float8e4m3fnuz": 8, "float8e5m2": 8,
    "float8e5m2fnuz": 8, "float8e8m0": 8, "float8_e4m3fn": 8, "float8_e4m3fnuz": 8, "float8_e5m2": 8,
    "float8_e5m2fnuz": 8, "int16": 16, "int32": 32, "int4": 4, "int64": 64, "int8": 8,
    "uint16": 16, "uint32": 32, "uint4": 4, "uint64": 64, "uint8": 8,
}  # fmt: skip
"""Bits of one element, per ONNX tensor type; floats of 8 bits by NumPy's names, too, which graphs have."""

_DIGEST = re.compile(f"[0-9a-f]{{{DIGEST_LENGTH}}}")
_REFERENCE = re.compile(r"([ic])(0|[1-9]\d*)|n(0|[1-9]\d*)\.(0|[1-9]\d*)")


def is_digest(text: str) -> bool:
    """Return whether a text looks like a key or an id: 32 hexadecimal digits.

    >>> is_digest("0" * 32), is_digest("v100")
    (True, False)
    """
    return _DIGEST.fullmatch(text) is not None


def shown(value: Any) -> str:
    """Return a value for an error message, or its type when it is long."""
    text = reprlib.repr(value)
    return text if len(text) <= 60 else f"of type {type(value).__name__}"


def operator_key(graph: Mapping[str, Any]) -> str:
    """Return the key of an operator: the digest of its canonical graph.

    Raises:
        BadInput: the value is not a canonical graph; the message says where.
    """
    check_graph(graph)
    try:
        return digest(graph)
    except (TypeError, ValueError, RecursionError) as error:
        raise _bad(f"it has no canonical JSON text ({error})") from None


def environment_key(fields: Mapping[str, Any]) -> str:
    """Return the key of an environment: the digest of its record, given as JSON values without id.

    `Environment.id` is this key; the closed list of fields is that class's.
    """
    return digest(
        {**{name: value for name, value in fields.items() if name != "id"}, "record": "environment"}
    )


def check_graph(graph: Mapping[str, Any]) -> None:
    """Check that a value has the shape of a canonical graph.

    The graph lists its inputs, constants and nodes in order; a value is named ``i<k>`` (input), ``c<k>``
    (constant), ``n<k>.<j>`` (output j of node k) or ``""`` (optional input left out). A node may use only
    what stands before it.

    Raises:
        BadInput: something is missing, of the wrong type, or refers to what is not there.
    """
    if not isinstance(graph, Mapping):
        raise _bad(f"it is {_kind(graph)}, not an object")
    if graph.get("format") != GRAPH_FORMAT:
        raise _bad(f"format is {shown(graph.get('format'))}, expected {GRAPH_FORMAT!r}")
    opset = graph.get("opset")
    if not isinstance(opset, int) or isinstance(opset, bool) or opset < 1:
        raise _bad(f"opset is {shown(opset)}, expected a positive integer")
    inputs = _items(graph, "inputs")
    constants = _items(graph, "constants")
    for name, values in (("inputs", inputs), ("constants", constants)):
        for index, value in enumerate(values):
            _check_tensor(value, f"{name}[{index}]")
    arities: list[int] = []
    for index, node in enumerate(_items(graph, "nodes")):
        _check_node(node, f"nodes[{index}]", (len(inputs), len(constants), arities))
        arities.append(len(node["outputs"]))
    outputs = _items(graph, "outputs")
    if not outputs:
        raise _bad("outputs is empty")
    for index, reference in enumerate(outputs):
        _check_reference(reference, f"outputs[{index}]", (len(inputs), len(constants), arities))


def _check_node(node: Any, where: str, known: tuple[int, int, list[int]]) -> None:
    if not isinstance(node, Mapping):
        raise _bad(f"{where} is {_kind(node)}, not an object")
    if not isinstance(node.get("op"), str) or not node["op"]:
        raise _bad(f"{where}.op is {shown(node.get('op'))}, expected an ONNX operator's name")
    if not isinstance(node.get("domain", ""), str):
        raise _bad(f"{where}.domain is {_kind(node['domain'])}, expected text")
    if not isinstance(node.get("attributes", {}), Mapping):
        raise _bad(f"{where}.attributes is {_kind(node['attributes'])}, expected an object")
    for index, reference in enumerate(_items(node, "inputs", where)):
        if reference != "":
            _check_reference(reference, f"{where}.inputs[{index}]", known)
    outputs = _items(node, "outputs", where)
    if not outputs:
        raise _bad(f"{where}.outputs is empty")
    for index, output in enumerate(outputs):
        if output is not None:  # an optional output nobody asked for
            _check_tensor(output, f"{where}.outputs[{index}]")


def _check_tensor(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise _bad(f"{where} is {_kind(value)}, not an object")
    if not isinstance(value.get("type"), str) or value["type"] not in TYPE_BITS:
        raise _bad(f"{where}.type is {shown(value.get('type'))}; known: {', '.join(sorted(TYPE_BITS))}")
    for size in _items(value, "shape", where):
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            raise _bad(
                f"{where}.shape holds {shown(size)}; sizes are integers from 0 on (static shapes only)"
            )


def _check_reference(reference: Any, where: str, known: tuple[int, int, list[int]]) -> None:
    match = _REFERENCE.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        raise _bad(f"{where} is {shown(reference)}, expected i<k>, c<k> or n<k>.<j>")
    inputs, constants, arities = known
    if match[1] is not None:
        there = int(match[2]) < (inputs if match[1] == "i" else constants)
    else:
        there = int(match[3]) < len(arities) and int(match[4]) < arities[int(match[3])]
    if not there:
        raise _bad(f"{where} refers to {reference}, which does not stand before it")


def _items(value: Mapping[str, Any], name: str, where: str = "") -> Sequence[Any]:
    items = value.get(name)
    if not isinstance(items, (list, tuple)):
        raise _bad(f"{where + '.' if where else ''}{name} is {_kind(items)}, expected a list")
    return items


def _kind(value: Any) -> str:
    return "missing" if value is None else f"of type {type(value).__name__}"


def _bad(reason: str) -> BadInput:
    return BadInput(f"not a canonical graph: {reason}", hint=f"docs/database.md describes {GRAPH_FORMAT}")
