"""Canonical graph → runnable ONNX model with seeded random weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanaprof.profiler.draft import is_float
from lanaprof.profiler.prepare import is_fp8

if TYPE_CHECKING:
    import onnx

__all__ = ["model_from_graph"]

Array = npt.NDArray[Any]

_MOVES = ("MaxPool", "Reshape", "Transpose", "Slice", "Pad")  # with one output; values as they were
_SCALE = 0.0205  # of activations in int8: standard normal ones fit into 256 of it
_INT8_DEVIATION = 32.0  # of weights in int8, before what is too large is cut off
_BLOCK = 8191  # numbers drawn once; a prime, so that no row or channel repeats its neighbour


def model_from_graph(graph: Mapping[str, Any], *, seed: int = 0) -> onnx.ModelProto:
    """Return a runnable ONNX model of a canonical graph, with seeded, realistic random weights.

    Weights keep the power of what goes through (He et al., arXiv 1502.01852), so that activations neither overflow
    nor become denormal at the end of a deep network. Inputs are named ``x0, x1, …`` and outputs ``y0, y1, …``.
    """
    import onnx
    from onnx import helper, numpy_helper

    generator = np.random.default_rng(seed)
    names: dict[str, str] = {f"i{index}": f"x{index}" for index in range(len(graph["inputs"]))}
    outputs = {reference: f"y{index}" for index, reference in enumerate(graph["outputs"])}
    roles = _constant_roles(graph["nodes"])
    rounding = _rounding_constants(graph, generator)
    initial = []
    for index, constant in enumerate(graph["constants"]):
        array = rounding.get(index)
        if array is None:
            array = _constant_value(constant, roles.get(index, ("", 0)), generator)
        initial.append(numpy_helper.from_array(array, f"c{index}"))
        names[f"c{index}"] = f"c{index}"
    nodes = []
    domains = {""}
    for index, node in enumerate(graph["nodes"]):
        results = []
        for slot, described in enumerate(node["outputs"]):
            reference = f"n{index}.{slot}"
            names[reference] = outputs.get(reference, reference) if described["type"] else ""
            results.append(names[reference])
        sources = [names[name] if name else "" for name in node["inputs"]]
        attributes = {name: _attribute_back(value) for name, value in node["attributes"].items()}
        domain = node.get("domain", "")
        domains.add(domain)
        nodes.append(helper.make_node(node["op"], sources, results, domain=domain, **attributes))
    typed = {
        f"n{i}.{slot}": out
        for i, node in enumerate(graph["nodes"])
        for slot, out in enumerate(node["outputs"])
    }
    return helper.make_model(
        helper.make_graph(
            nodes,
            "operator",
            [_value_info(f"x{index}", described) for index, described in enumerate(graph["inputs"])],
            [_value_info(names[reference], typed[reference]) for reference in graph["outputs"]],
            initializer=initial,
        ),
        opset_imports=[helper.make_opsetid(d, graph["opset"] if not d else 1) for d in sorted(domains)],
        ir_version=min(onnx.IR_VERSION, 10),  # ONNX Runtime lags behind the newest
        producer_name="lanaprof",
    )


def _value_info(name: str, described: Mapping[str, Any]) -> onnx.ValueInfoProto:
    from onnx import helper

    element = helper.np_dtype_to_tensor_dtype(np.dtype(described["type"]))
    return helper.make_tensor_value_info(name, element, described["shape"])


def _attribute_back(value: Any) -> Any:
    from onnx import numpy_helper

    if isinstance(value, Mapping):
        array = np.asarray(value["value"], dtype=value["type"]).reshape(value["shape"])
        return numpy_helper.from_array(array)
    return value


def _constant_roles(nodes: Sequence[Mapping[str, Any]]) -> dict[int, tuple[str, int]]:
    return {
        int(name[1:]): (node["op"], position)
        for node in nodes
        for position, name in enumerate(node["inputs"])
        if name.startswith("c")
    }


def _constant_value(
    constant: Mapping[str, Any], role: tuple[str, int], generator: np.random.Generator
) -> Array:
    dtype, shape = np.dtype(constant["type"]), tuple(constant["shape"])
    if "value" in constant:
        return np.asarray(constant["value"], dtype=dtype).reshape(shape)
    op, position = role
    if not is_float(dtype) or is_fp8(constant["type"]):
        return np.zeros(shape, dtype=dtype)  # zero points
    if (op, position) == ("BatchNormalization", 4) or (  # a variance, or scales
        op in ("Mul", "Div", "BatchNormalization", "LayerNormalization") and position == 1
    ):
        return _filled(_blocks()[1].astype(dtype), shape, generator)
    deviation = 0.1
    if op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and position == 1:
        fan_in = max(1, math.prod(shape) // max(1, shape[0] if op != "MatMul" else shape[-1]))
        deviation = math.sqrt(2 / fan_in)
    return _filled((_blocks()[0] * np.float32(deviation)).astype(dtype), shape, generator)


def _rounding_constants(graph: Mapping[str, Any], generator: np.random.Generator) -> dict[int, Array]:
    """Return the constants of all roundings: runtimes look at these values when they choose kernels.

    What is rounded and what turns it back have one scale, and so have values that were only moved in between. Any two
    others differ, so that a runtime joins what the graph has joined and nothing else. All scales stay below 6 / 255:
    a clipping at 6, behind which trained scales lie, is then part of the rounding.
    """
    found: dict[int, Array] = {}
    scales: dict[str, float] = {}  # value → its scale
    turned: set[str] = set()  # values right behind whole numbers
    for number, node in enumerate(graph["nodes"]):
        source = node["inputs"][0] if node["inputs"] else ""
        if node["op"] not in ("QuantizeLinear", "DequantizeLinear"):
            if node["op"] in _MOVES and source in scales:
                scales[f"n{number}.0"] = scales[source]
            continue
        weight = _constant_of(graph, source)
        fresh = _SCALE * (1 + number % 1024 / 8192)
        # Rounded once more behind a rounding: were it by the same scale, it would not be in the graph.
        is_second = node["op"] == "QuantizeLinear" and source in turned
        scale = fresh if is_second else scales.setdefault(source, fresh)
        scales[f"n{number}.0"] = scale
        if node["op"] == "DequantizeLinear":
            turned.add(f"n{number}.0")
        for name in node["inputs"][1:2]:
            constant = _constant_of(graph, name)
            if constant is None:
                continue
            if weight is not None:  # keeps the power of what goes through, as weights in float32 do
                fan_in = max(1, math.prod(weight["shape"]) // max(1, math.prod(constant["shape"])))
                scale = math.sqrt(2 / fan_in) / _INT8_DEVIATION
            found[int(name[1:])] = np.full(constant["shape"], scale, dtype=constant["type"])
        if weight is not None and "value" not in weight:
            kind, shape = np.dtype(weight["type"]), tuple(weight["shape"])
            values = _filled(_blocks()[0] * np.float32(_INT8_DEVIATION), shape, generator)
            ends = (0, 255) if kind == np.uint8 else (-127, 127)
            found[int(source[1:])] = np.clip(np.round(values), *ends).astype(kind)
    return found


def _constant_of(graph: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    """Return the constant that a name means; None where it is computed."""
    constant: Mapping[str, Any] | None = graph["constants"][int(name[1:])] if name.startswith("c") else None
    return constant


@cache
def _blocks() -> tuple[Array, Array]:
    """Return the numbers all weights are made of: standard normal ones, and even ones from 0.5 to 1.5."""
    generator = np.random.default_rng(0)
    return (
        generator.standard_normal(_BLOCK, dtype=np.float32),
        generator.uniform(0.5, 1.5, _BLOCK).astype(np.float32),
    )


def _filled(block: Array, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Return an array of a block's numbers over and over, from a random one on.

    Drawing each anew would take longer than all the rest of a build.
    """
    size, first = math.prod(shape), int(generator.integers(_BLOCK))
    block = np.concatenate([block[first:], block[:first]])
    whole = size // _BLOCK * _BLOCK
    values = np.empty(size, dtype=block.dtype)
    values[:whole].reshape(-1, _BLOCK)[:] = block
    values[whole:] = block[: size - whole]
    return values.reshape(shape)
