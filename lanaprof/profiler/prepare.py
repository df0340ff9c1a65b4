"""Any ONNX model → one with static shapes, our opset, no functions, no constant arithmetic, all shapes known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lanaprof.errors import UnsupportedOperator

if TYPE_CHECKING:
    import onnx

__all__ = ["OPSET", "OPSET_FP8", "fold_constants", "is_fp8", "prepared_model"]

OPSET = 18  # both of torch's exporters write it
OPSET_FP8 = 19  # the first that knows floats of 8 bits; for models that have some

Array = npt.NDArray[Any]

# A weight in int8 stays one: its rounding is computed ahead of time, its way back into float32 is the runtime's affair.
_NEVER_FOLDED = frozenset(
    {"Constant", "DequantizeLinear", "RandomNormal", "RandomUniform", "If", "Loop", "Scan"}
)
_WEIGHED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})  # by their inputs behind the first
_LARGE_WEIGHT = 512  # elements: smaller ones are not worth the bookkeeping
_LARGEST_FOLDED = 10**8  # elements: beyond it folding would cost more memory than it saves work


def prepared_model(
    model: onnx.ModelProto, *, batch: int | None = None
) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a copy of a model with everything static spelled out, and the weights it was spared.

    Args:
        model: an ONNX model of any opset our version converter knows.
        batch: what an open first dimension of an input is set to; None refuses it.

    Returns:
        The model, large weights among its inputs, and these weights by name: a zero in their type and shape.

    Raises:
        UnsupportedOperator: open shapes, shapes that cannot be inferred, an opset that cannot be converted.
    """
    from onnx import inliner, shape_inference, version_converter

    if len(model.functions):
        model = inliner.inline_local_functions(model)
    model, weights = _without_weights(model)
    _fix_inputs(model, batch)
    version = {entry.domain: entry.version for entry in model.opset_import}.get("", OPSET)
    wanted = OPSET_FP8 if _has_fp8(model.graph) else OPSET
    if version != wanted:
        try:
            model = version_converter.convert_version(model, wanted)
        except Exception as error:  # the converter raises plain RuntimeErrors from C++
            raise UnsupportedOperator(f"opset {version} cannot be converted to {wanted}: {error}") from error
    # Recorded shapes may contradict what inference finds once the inputs are fixed.
    for output in model.graph.output:
        if output.type.tensor_type.HasField("shape"):
            output.type.tensor_type.ClearField("shape")
    while True:
        del model.graph.value_info[:]
        try:
            model = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        except Exception as error:  # onnx raises InferenceError and ValueError, both from C++
            raise UnsupportedOperator(f"shapes cannot be inferred: {error}") from error
        if not fold_constants(model):
            return model, weights


def is_fp8(kind: str) -> bool:
    """Say whether a type's name is that of floats of 8 bits."""
    return kind.startswith("float8")


def _has_fp8(graph: onnx.GraphProto) -> bool:
    """Say whether a constant, or a conversion's result, is in 8-bit floats: there is no other way to come by them."""
    from onnx import TensorProto

    kinds = {code for name, code in TensorProto.DataType.items() if name.startswith("FLOAT8")}
    given = {tensor.data_type for tensor in graph.initializer}
    given |= {value.type.tensor_type.elem_type for value in graph.input}
    for node in graph.node:
        given |= {attribute.t.data_type for attribute in node.attribute if attribute.HasField("t")}
        given |= {attribute.i for attribute in node.attribute if attribute.name == "to"}
    return not kinds.isdisjoint(given)


def _without_weights(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return a copy of a model in which large weights are inputs: each inference copies the whole model twice."""
    from onnx import GraphProto, ModelProto, helper

    heavy = _weight_names(model.graph)
    graph = GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.sparse_initializer.extend(model.graph.sparse_initializer)
    weights = {}
    for tensor in model.graph.initializer:
        if tensor.name not in heavy:
            graph.initializer.append(tensor)
            continue
        kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        weights[tensor.name] = np.broadcast_to(np.zeros((), dtype=kind), tuple(tensor.dims))
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    light = ModelProto(ir_version=model.ir_version, graph=graph)
    light.opset_import.extend(model.opset_import)
    return light, weights


def _weight_names(graph: onnx.GraphProto) -> set[str]:
    """Return the large constants that only ever weigh data: nothing is computed from them ahead of time."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    inputs = {value.name for value in graph.input}  # old models name their constants here, too
    data = inputs.difference(tensor.name for tensor in graph.initializer)
    heavy = {
        tensor.name
        for tensor in graph.initializer
        if tensor.data_type in floats
        and math.prod(tensor.dims) >= _LARGE_WEIGHT
        and tensor.name not in inputs
    }
    for node in graph.node:  # topological order
        fed = not data.isdisjoint(node.input)
        if fed:
            data.update(node.output)
        for position, name in enumerate(node.input):
            if name in heavy and not (position and node.op_type in _WEIGHED and node.input[0] in data):
                heavy.discard(name)
    return heavy.difference(value.name for value in graph.output)


def _fix_inputs(model: onnx.ModelProto, batch: int | None) -> None:
    initial = {constant.name for constant in model.graph.initializer}
    for value in model.graph.input:
        if value.name in initial:
            continue
        for position, dimension in enumerate(value.type.tensor_type.shape.dim):
            if dimension.dim_value > 0:
                continue
            if position == 0 and batch is not None:
                dimension.dim_value = batch
            else:
                raise UnsupportedOperator(
                    f"input {value.name!r} leaves dimension {position} open; only static shapes can be timed",
                    hint="export the model with fixed shapes",
                )


def fold_constants(model: onnx.ModelProto) -> bool:
    """Compute, in place, what depends on no input (padding arithmetic, shapes); say whether anything did."""
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    outputs = {value.name for value in graph.output}
    shapes = {v.name: v.type.tensor_type.shape.dim for v in [*graph.input, *graph.value_info]}
    folded = []
    for node in graph.node:
        if (
            node.op_type in _NEVER_FOLDED
            or node.domain not in ("", "ai.onnx")
            or outputs.intersection(node.output)
        ):
            continue
        if node.op_type == "Shape" and node.input[0] in shapes:
            dims = shapes[node.input[0]]
            if all(d.HasField("dim_value") for d in dims):
                constants[node.input[0] + "//dims"] = np.empty([d.dim_value for d in dims], dtype=np.bool_)
                stand_in = helper.make_node("Shape", [node.input[0] + "//dims"], list(node.output))
                stand_in.attribute.extend(node.attribute)
                constants.update(_evaluated(stand_in, constants))
                folded.append(node)
            continue
        if node.input and all(not name or name in constants for name in node.input):
            if node.op_type == "Identity":
                constants[node.output[0]] = constants[node.input[0]]
            elif sum(constants[name].size for name in node.input if name) > _LARGEST_FOLDED:
                continue
            else:
                constants.update(_evaluated(node, constants))
            folded.append(node)
    for node in folded:
        graph.node.remove(node)
        graph.initializer.extend(
            numpy_helper.from_array(constants[name], name) for name in node.output if name
        )
    return bool(folded)


def _evaluated(node: onnx.NodeProto, constants: dict[str, Array]) -> dict[str, Array]:
    from onnx import helper
    from onnx.reference import ReferenceEvaluator

    sources = [name for name in dict.fromkeys(node.input) if name]
    graph = helper.make_graph(
        [node],
        "constants",
        [_described(name, constants[name]) for name in sources],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    fp8 = any(is_fp8(str(constants[name].dtype)) for name in sources)
    opset = helper.make_opsetid("", OPSET_FP8 if fp8 else OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    results = ReferenceEvaluator(model).run(None, {name: constants[name] for name in sources})
    return {name: np.asarray(value) for name, value in zip(node.output, results, strict=True)}


def _described(name: str, array: Array) -> onnx.ValueInfoProto:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
