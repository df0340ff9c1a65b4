"""A canonical graph in float32 → the same in 16 bits, its inputs and outputs still float32. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from lanaprof.profiler.canonical import Graph, graph_from_draft
from lanaprof.profiler.draft import Draft, Node, append_graph
from lanaprof.profiler.normalising import normalise

__all__ = ["NARROWED", "narrowed_graph"]

NARROWED: Mapping[str, str] = {"fp16": "float16", "bf16": "bfloat16"}
_WIDE = "float32"
_KEPT: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2)}  # inputs that are float32 whatever the data are


def narrowed_graph(graph: Mapping[str, Any], precision: str) -> Graph:
    """Return the graph of an operator computed in 16 bits, as exporting the module at that precision gives it.

    Weights, and values on the way, are of the narrow type; inputs are cast to it and outputs back, which neighbours of
    the same type spare each other (:mod:`lanaprof.profiler.roundings`).

    Args:
        graph: canonical, in float32.
        precision: one of NARROWED.
    """
    import onnx  # heavy; makes its small floats known to numpy

    kind = NARROWED[precision]
    codes = {name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in (kind, _WIDE)}
    inputs = [f"in{index}" for index in range(len(graph["inputs"]))]
    outputs = [f"out{index}" for index in range(len(graph["outputs"]))]
    types = {
        name: (described["type"], tuple(described["shape"]))
        for name, described in zip(inputs, graph["inputs"], strict=True)
    }
    draft = Draft(inputs, outputs, [], {}, types)
    append_graph(draft, graph, "op", (tuple(inputs), tuple(outputs)))
    wide = {name for name, (given, _) in draft.types.items() if given == _WIDE}
    before = [
        Node("Cast", "", {"to": codes[kind]}, [name], [f"{name}//narrow"]) for name in inputs if name in wide
    ]
    behind = [
        Node("Cast", "", {"to": codes[_WIDE]}, [f"{name}//narrow"], [name])
        for name in outputs
        if name in wide
    ]
    renamed = {name: f"{name}//narrow" for name in wide}
    for node in draft.nodes:
        for position, name in enumerate(node.inputs):
            constant = draft.constants.get(name)
            if constant is not None and constant.dtype == _WIDE and position not in _KEPT.get(node.op, ()):
                draft.constants[name] = constant.astype(kind)
        if node.op == "Cast" and node.attributes.get("to") == codes[_WIDE]:
            node.attributes = {**node.attributes, "to": codes[kind]}
        node.inputs = [renamed.get(name, name) for name in node.inputs]
        node.outputs = [renamed.get(name, name) for name in node.outputs]
    draft.types.update({f"{name}//narrow": (kind, draft.types[name][1]) for name in wide})
    draft.nodes = [*before, *draft.nodes, *behind]
    normalise(draft)
    return graph_from_draft(draft)
