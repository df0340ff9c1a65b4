"""What is left of conversions where two pieces of one precision meet.

A piece in int8, fp8 or 16 bits takes and gives float32. Where such pieces are neighbours, what one converts back the
other converts again: nothing of it changes a number, so it goes, in operators, composed networks and exported files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lanaprof.profiler.draft import Array, Draft, Node

if TYPE_CHECKING:
    import onnx

__all__ = ["deployed_model", "join_roundings"]

_HALVES = ("float16", "bfloat16")


def join_roundings(draft: Draft) -> bool:
    """Let who would convert a value once more read it as it was before it was converted back, in place.

    Returns:
        Whether there was one; what is left of it is read by nobody.
    """
    joined = False
    makers = {name: node for node in draft.nodes for name in node.outputs if name}
    for node in draft.nodes:
        before = makers.get(node.inputs[0]) if node.inputs and not node.domain else None
        if before is None or before.domain or node.outputs[0] in draft.outputs:
            continue
        if _undoes(before, node, draft.constants) or _narrows_again(before, node, draft):
            draft.rename(node.outputs[0], before.inputs[0])
            joined = True
    return joined


def _undoes(back: Node, rounding: Node, constants: Mapping[str, Array]) -> bool:
    """Say whether values that come from whole numbers are rounded to the same ones."""
    if (back.op, rounding.op) != (
        "DequantizeLinear",
        "QuantizeLinear",
    ) or back.attributes != rounding.attributes:
        return False
    pairs = [
        (constants.get(a), constants.get(b))
        for a, b in zip(back.inputs[1:], rounding.inputs[1:], strict=False)
    ]
    return len(back.inputs) == len(rounding.inputs) == len(pairs) + 1 and all(
        a is not None and b is not None and a.dtype == b.dtype and np.array_equal(a, b) for a, b in pairs
    )


def _narrows_again(widening: Node, narrowing: Node, draft: Draft) -> bool:
    """Say whether values of 16 bits, widened, are cast back to what they were."""
    if (widening.op, narrowing.op) != ("Cast", "Cast"):
        return False
    kinds = [
        draft.types.get(name, ("", ()))[0]
        for name in (widening.inputs[0], widening.outputs[0], narrowing.outputs[0])
    ]
    return kinds[0] == kinds[2] and kinds[0] in _HALVES and kinds[1] == "float32"


def deployed_model(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an exported network as it is measured: weights in their own type, nothing converted twice, in place.

    Args:
        model: with float32 weights and the nodes that convert them, as exporters write it.
    """
    from lanaprof.profiler.prepare import fold_constants

    while fold_constants(model):
        pass
    _join_in_file(model.graph)
    _drop_unread(model.graph)
    return model


def _join_in_file(graph: onnx.GraphProto) -> None:
    from onnx import numpy_helper

    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    outputs = {value.name for value in graph.output}
    renamed: dict[str, str] = {}
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        before = makers.get(node.input[0]) if node.input else None
        if before is None or (before.op_type, node.op_type) != ("DequantizeLinear", "QuantizeLinear"):
            continue
        same = (
            list(before.attribute) == list(node.attribute)
            and all(
                a in constants
                and b in constants
                and constants[a].dtype == constants[b].dtype  # 0 as a zero point of int8 is not that of fp8
                and np.array_equal(constants[a], constants[b])
                for a, b in zip(before.input[1:], node.input[1:], strict=True)
            )
        )
        if same and node.output[0] not in outputs:
            renamed[node.output[0]] = before.input[0]


def _drop_unread(graph: onnx.GraphProto) -> None:
    read = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if read.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            read.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in read]:
        graph.initializer.remove(tensor)
