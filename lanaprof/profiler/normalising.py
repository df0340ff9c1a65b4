"""The steps that take a draft to canonical form.

Each step removes one freedom that exporters use differently and runtimes do not care about.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lanaprof.profiler.draft import Draft, Node, attribute_value
from lanaprof.profiler.prepare import OPSET, OPSET_FP8
from lanaprof.profiler.roundings import join_roundings

__all__ = ["normalise"]

_NO_WORK = frozenset({"Identity", "Dropout"})  # at inference
_VIEWS = frozenset({"Flatten", "Squeeze", "Unsqueeze", "Reshape"})  # one copy-free Reshape
_HAS_BIAS = frozenset({"Conv", "ConvTranspose", "Gemm"})


def normalise(draft: Draft) -> None:
    """Run every step, in place."""
    for step in (
        _drop_idle_nodes,
        _join_roundings,
        _fold_batch_norms,
        _fold_pads,
        _respell,
        _add_biases,
        _drop_dead_nodes,
    ):
        step(draft)


def _join_roundings(draft: Draft) -> None:
    """What is converted twice is not; then nobody else must seem to read what lies between."""
    if join_roundings(draft):
        _drop_dead_nodes(draft)


def _drop_idle_nodes(draft: Draft) -> None:
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


def _fold_batch_norms(draft: Draft) -> None:
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
        consumers[source.outputs[0]] = consumers.get(node.outputs[0], [])  # a second batch norm may follow
        folded.add(index)
    draft.nodes = [node for index, node in enumerate(draft.nodes) if index not in folded]


def _fold_pads(draft: Draft) -> None:
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


def _zero_padding(draft: Draft, pad: Node) -> list[int]:
    """Return the amounts of a Pad that adds constant zeros on all axes, else an empty list."""
    sources = [*pad.inputs, "", "", ""]
    amounts = draft.constants.get(sources[1])
    value = draft.constants.get(sources[2]) if sources[2] else None
    if amounts is None or sources[3] or pad.attributes.get("mode", "constant") != "constant":
        return []
    if sources[2] and (value is None or value.any()):
        return []
    return [int(amount) for amount in amounts]


def _respell(draft: Draft) -> None:
    """What two exporters spell differently, and every runtime does alike, gets one spelling."""
    kept: list[Node] = []
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


def _axes(draft: Draft, node: Node, rank: int) -> tuple[int, ...] | None:
    if len(node.inputs) > 1 and node.inputs[1]:
        constant = draft.constants.get(node.inputs[1])
        if constant is None:
            return None
        axes = [int(axis) for axis in constant.reshape(-1)]
    else:
        axes = list(node.attributes.get("axes", range(rank)))
    return tuple(sorted(axis % rank for axis in axes)) if rank else None


def _without_defaults(draft: Draft, node: Node) -> dict[str, Any]:
    """Drop the attributes that only repeat what the specification or the weights' shape says."""
    import onnx

    attributes = dict(node.attributes)
    try:
        # Of these the later opset knows an attribute more, for floats of 8 bits.
        opset = OPSET_FP8 if node.op in ("Cast", "QuantizeLinear") else OPSET
        schema = onnx.defs.get_schema(node.op, opset, node.domain)
    except onnx.defs.SchemaError:
        return attributes
    for name, described in schema.attributes.items():
        default = described.default_value
        if name in attributes and default.type and attributes[name] == attribute_value(default):
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


def _add_biases(draft: Draft) -> None:
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


def _drop_dead_nodes(draft: Draft) -> None:
    needed = set(draft.outputs)
    kept = []
    for node in reversed(draft.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(name for name in node.inputs if name)
    draft.nodes = kept[::-1]
