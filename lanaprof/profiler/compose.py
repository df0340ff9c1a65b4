"""A whole network's canonical graph from the graphs of its pieces; no torch, no export.

The circuit says which piece reads and writes which buffer. The pieces' nodes are put one behind the other, their
values named by these buffers, and the whole is brought into canonical form once more: what an exporter does
across the border of two pieces (a padding folded into the next convolution, say) is then done here, too. So the
result is the graph, hence the key, that exporting the whole network gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lanaprof.errors import UnsupportedOperator
from lanaprof.profiler.canonical import Graph, graph_from_draft
from lanaprof.profiler.circuit import Circuit, joined_steps
from lanaprof.profiler.draft import Draft, Node, append_graph
from lanaprof.profiler.normalising import normalise
from lanaprof.profiler.roundings import join_roundings

__all__ = ["composed_graph"]


def composed_graph(
    circuit: Circuit, graphs: Mapping[str, Mapping[str, Any]], chosen: Mapping[str, str]
) -> Graph:
    """Return the canonical graph of a whole network.

    Args:
        circuit: how the pieces are wired.
        graphs: operator key → canonical graph, of every piece.
        chosen: layer, or ``first..last`` for a span, → operator key; "" where it is skipped.

    Raises:
        UnsupportedOperator: the circuit has no steps, or not exactly one input and one output.
    """
    import onnx  # noqa: F401  (heavy; makes its small floats known to numpy)

    source, target = _ends(circuit)
    types = {name: (kind, shape) for name, kind, shape in circuit.buffers}
    draft = Draft([source], [target], [], {}, dict(types))
    for number, step in enumerate(joined_steps(circuit, chosen)):
        key = chosen[step.layer] if step.layer else step.operator
        if key:
            append_graph(draft, graphs[key], f"p{number}", (step.inputs, step.outputs))
        else:
            draft.nodes.append(Node("Identity", "", {}, list(step.inputs), list(step.outputs)))
    join_roundings(draft)
    _join_transposes(draft)
    normalise(draft)
    return graph_from_draft(draft)


def _join_transposes(draft: Draft) -> None:
    """Make one transpose of two that meet at a border, none where they undo each other, as the exporter does.

    Not a step of the canonical form: the exporter has done so within each piece, and a user's file that holds
    two in a row runs both.
    """
    producer: dict[str, Node] = {}
    for node in draft.nodes:
        before = producer.get(node.inputs[0]) if node.inputs else None
        if node.op == "Identity" and before is not None:
            producer[node.outputs[0]] = before  # a skipped layer between them
        if node.op != "Transpose" or node.domain:
            continue
        order = node.attributes.get("perm")
        if order is None:  # without it the axes are reversed
            order = list(range(len(draft.types[node.outputs[0]][1])))[::-1]
        if before is not None:
            order = [before.attributes["perm"][axis] for axis in order]
            node.inputs = list(before.inputs)
        if order == sorted(order):
            node.op, node.attributes = "Identity", {}
        else:
            node.attributes = {"perm": order}
            producer[node.outputs[0]] = node


def _ends(circuit: Circuit) -> tuple[str, str]:
    """Return the buffer nobody writes and the one nobody reads."""
    written = {name for step in circuit.steps for name in step.outputs}
    read = {name for step in circuit.steps for name in step.inputs}
    if len(read - written) != 1 or len(written - read) != 1:
        raise UnsupportedOperator(
            f"a network with {len(read - written)} inputs and {len(written - read)} outputs cannot be composed"
        )
    return (read - written).pop(), (written - read).pop()
