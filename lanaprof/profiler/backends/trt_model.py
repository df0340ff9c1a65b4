"""Canonical graph → ONNX as a version of TensorRT reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.backends.base import onnx_bytes
from lanaprof.profiler.gpu.support import opset_limit

__all__ = ["baseline_graph", "kinds_of", "model_for"]

_LONGEST_MESSAGE = 400
_COMMUTATIVE = frozenset({"Add", "Mul"})
_LACKED_BY_8 = frozenset({"bfloat16", "float8_e4m3fn"})  # as types of ONNX models; both came with 9
_OLD_OPSET = 17  # what the parser of TensorRT 8.6 reads


def model_for(graph: Mapping[str, Any], *, seed: int, tensorrt_version: str) -> bytes:
    """Return a canonical graph as a serialized ONNX model that a version of TensorRT can read.

    Raises:
        UnsupportedOperator: it cannot be said in an opset that the version's parser knows.
        BackendError: the graph is none.
    """
    wanted = _constants_last(graph)
    if graph["opset"] <= opset_limit(tensorrt_version):
        return onnx_bytes(wanted, seed=seed)
    import onnx  # heavy; only TensorRT 8 comes here

    lacked = sorted(_LACKED_BY_8 & kinds_of(graph))
    if lacked:
        raise UnsupportedOperator(f"TensorRT {tensorrt_version} has no {lacked[0]}; 10 and newer have it")
    model = onnx_bytes(_at_opset_17(wanted, tensorrt_version), seed=seed)
    try:
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    except Exception as error:  # onnx raises ValidationError and InferenceError, the latter from C++
        reason = " ".join(str(error).split())[:_LONGEST_MESSAGE]
        raise _too_new(tensorrt_version, reason) from error
    return model


def kinds_of(graph: Mapping[str, Any]) -> frozenset[str]:
    """Return the types of all values in a canonical graph."""
    written = [value for node in graph["nodes"] for value in node["outputs"]]
    values = [*graph["inputs"], *graph["constants"], *written]
    return frozenset(value["type"] for value in values if value["type"])


def baseline_graph(kind: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return a canonical graph that computes nothing: what an engine costs that only hands its input on."""
    tensor = {"type": kind, "shape": list(shape)}
    return {
        "format": "lanaprof-graph/1",
        "opset": 18,
        "inputs": [tensor],
        "constants": [],
        "nodes": [{"op": "Identity", "attributes": {}, "inputs": ["i0"], "outputs": [dict(tensor)]}],
        "outputs": ["n0.0"],
    }


def _constants_last(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return the graph with the constants of sums and products behind what they are added to.

    Canonical graphs order both by digests. NVIDIA's fusion of attention fails or crashes on a scale of queries or keys
    that stands before them (seen in TensorRT-RTX 1.7.1); exporters write it behind.
    """
    nodes = [
        {**node, "inputs": node["inputs"][::-1]}
        if node["op"] in _COMMUTATIVE
        and not node.get("domain")
        and [name[:1] == "c" for name in node["inputs"]] == [True, False]
        else node
        for node in graph["nodes"]
    ]
    return {**graph, "nodes": nodes}


def _at_opset_17(graph: Mapping[str, Any], tensorrt_version: str) -> dict[str, Any]:
    """Return the graph with its nodes as opset 17 writes them.

    onnx's own converter knows no way back for Split, whose two spellings mean the same.

    Raises:
        UnsupportedOperator: a node means something that opset 17 has no word for.
    """
    from onnx import defs

    nodes = []
    for node in graph["nodes"]:
        op, attributes, inputs = node["op"], dict(node["attributes"]), list(node["inputs"])
        if node.get("domain"):
            raise _too_new(tensorrt_version, f"{op} is of the domain {node['domain']!r}")
        try:
            is_new = defs.get_schema(op, graph["opset"], "").since_version > _OLD_OPSET
        except defs.SchemaError:
            is_new = False  # no operator of ONNX: the parser says so, by name
        if op == "Split":
            attributes.pop("num_outputs", None)  # which are to be counted; sizes are given or equal in both
        elif op.startswith("Reduce") and is_new:
            axes = graph["constants"][int(inputs[1][1:])].get("value") if inputs[1:] and inputs[1] else None
            if attributes.pop("noop_with_empty_axes", 0) and axes is None:
                raise _too_new(tensorrt_version, f"{op} without axes")
            if axes is not None:
                attributes["axes"] = axes
            inputs = inputs[:1]
        elif op == "Pad" and is_new and len(inputs) > 3:
            raise _too_new(tensorrt_version, "Pad of some axes")
        elif is_new and op != "Pad":
            raise _too_new(tensorrt_version, f"{op} is newer, or means something newer")
        nodes.append({**node, "attributes": attributes, "inputs": inputs})
    return {**graph, "opset": _OLD_OPSET, "nodes": nodes}


def _too_new(tensorrt_version: str, reason: str) -> UnsupportedOperator:
    return UnsupportedOperator(
        f"TensorRT {tensorrt_version} reads ONNX up to opset {_OLD_OPSET}, which cannot say this operator: {reason}"
    )
