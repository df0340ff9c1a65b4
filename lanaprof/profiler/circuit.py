"""How the pieces of a teacher are wired: its layers, and the segments before, between and behind them.

The relay protocol runs a whole network as a row of sessions, each writing the buffer its successor reads. A
circuit says which piece reads and writes which buffer. It comes from the teacher's *skeleton*: the teacher
exported with a marker node in place of every layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lanaprof.errors import BadProject, UnsupportedOperator
from lanaprof.profiler.canonical import Graph, canonical_graph

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Circuit",
    "Segment",
    "Step",
    "circuit_from_json",
    "circuit_from_skeleton",
    "joined_steps",
    "steps_of",
]

MARKER_DOMAIN = "lanaprof"
FORMAT = "lanaprof-circuit/1"


@dataclass(frozen=True, slots=True)
class Step:
    """One piece in the order of execution.

    Attributes:
        layer: the layer's name, or "" for a segment.
        operator: the segment's operator key, or "" for a layer, whose operator is a choice.
        inputs, outputs: the buffers it reads and writes, by name.
    """

    layer: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Circuit:
    """How the pieces of a teacher make the whole.

    Attributes:
        steps: the pieces in order of execution; none where the teacher cannot be cut.
        buffers: name, type and shape, the batch included.
        network: the operator of the teacher exported as a whole: what its pieces, put together, must give.
    """

    steps: tuple[Step, ...]
    buffers: tuple[tuple[str, str, tuple[int, ...]], ...]
    network: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, read back by :func:`circuit_from_json`."""
        return {
            "format": FORMAT,
            "steps": [
                {
                    "layer": s.layer,
                    "operator": s.operator,
                    "inputs": list(s.inputs),
                    "outputs": list(s.outputs),
                }
                for s in self.steps
            ],
            "buffers": [{"name": n, "type": t, "shape": list(shape)} for n, t, shape in self.buffers],
            "network": self.network,
        }

    @property
    def edges(self) -> frozenset[str]:
        """Return the buffers between layers: what one writes or reads."""
        return frozenset(name for step in self.steps if step.layer for name in (*step.inputs, *step.outputs))

    @property
    def segments(self) -> tuple[str, ...]:
        """Return the operator keys of the segments, in order of execution."""
        return tuple(step.operator for step in self.steps if not step.layer)


def steps_of(circuit: Circuit, place: str) -> tuple[int, ...]:
    """Return the steps of a layer, or of several that follow each other, ``first..last``, by their indices.

    Raises:
        UnsupportedOperator: something else reads or writes what lies between them.
    """
    first, dots, last = place.partition("..")
    number = {step.layer: index for index, step in enumerate(circuit.steps) if step.layer}
    found = [number[first]]
    while dots and circuit.steps[found[-1]].layer != last:
        given = circuit.steps[found[-1]].outputs
        readers = [index for index, step in enumerate(circuit.steps) if set(given) & set(step.inputs)]
        if len(readers) != 1 or not circuit.steps[readers[0]].layer:
            raise UnsupportedOperator(
                f"the layers of {place!r} do not follow each other in the exported teacher"
            )
        found.append(readers[0])
    return tuple(found)


def joined_steps(circuit: Circuit, chosen: Iterable[str]) -> tuple[Step, ...]:
    """Return the steps of a network in which some runs of layers are one piece.

    Args:
        circuit: how the pieces are wired.
        chosen: the places that something stands in: layers, and runs of layers ``first..last``.

    Raises:
        UnsupportedOperator: a run's layers do not follow each other in the circuit.
    """
    steps: dict[int, Step] = dict(enumerate(circuit.steps))
    for place in chosen:
        if ".." in place:
            first, *others = steps_of(circuit, place)
            steps[first] = replace(steps[first], layer=place, outputs=steps[others[-1]].outputs)
            for index in others:
                del steps[index]
    return tuple(steps.values())


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the teacher that belongs to no layer."""

    graph: Graph
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def circuit_from_json(document: Mapping[str, Any]) -> Circuit:
    """Return the circuit written by :meth:`Circuit.to_json`.

    Raises:
        BadProject: not a circuit, or one of another version.
    """
    if document.get("format") != FORMAT:
        raise BadProject(
            f"circuit format {document.get('format')!r} is not {FORMAT!r}", hint="lanaprof measure"
        )
    return Circuit(
        tuple(
            Step(s["layer"], s["operator"], tuple(s["inputs"]), tuple(s["outputs"]))
            for s in document["steps"]
        ),
        tuple((b["name"], b["type"], tuple(b["shape"])) for b in document["buffers"]),
        document.get("network", ""),
    )


def circuit_from_skeleton(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[Sequence[int], Sequence[int]]]
) -> tuple[tuple[Segment | str, ...], dict[str, tuple[str, tuple[int, ...]]], dict[str, tuple[str, str]]]:
    """Cut a skeleton at its layer markers.

    Args:
        model: ONNX with one node of domain ``lanaprof`` per layer, its attribute ``name`` the layer's name.
        shapes: layer name → (input shape, output shape), the batch included.

    Returns:
        The pieces in order of execution (a Segment, or a layer's name), every buffer's type and shape, and
        layer name → (buffer it reads, buffer it writes).

    Raises:
        UnsupportedOperator: a piece has no canonical graph.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    level: dict[str, frozenset[str]] = {v.name: frozenset() for v in graph.input if v.name not in constants}
    depends: list[frozenset[str]] = []
    wires: dict[str, tuple[str, str]] = {}
    for node in graph.node:  # topological order
        before = frozenset().union(*(level.get(name, frozenset()) for name in node.input))
        depends.append(before)
        if node.domain == MARKER_DOMAIN:
            name = next(a.s.decode() for a in node.attribute if a.name == "name")
            wires[name] = (node.input[0], node.output[0])
            before = before | {name}
        for output in node.output:
            level[output] = before
    groups: dict[frozenset[str], list[int]] = {}
    layers: dict[str, frozenset[str]] = {}
    for index, node in enumerate(graph.node):
        if node.domain == MARKER_DOMAIN:
            name = next(a.s.decode() for a in node.attribute if a.name == "name")
            layers[name] = depends[index]
        elif _reaches(node, level, constants):
            groups.setdefault(depends[index], []).append(index)
    buffers: dict[str, tuple[str, tuple[int, ...]]] = {}
    for value in graph.input:
        if value.name not in constants:
            dims = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            buffers[value.name] = ("float32", dims)
    for name, (source, target) in wires.items():
        buffers[source] = ("float32", tuple(shapes[name][0]))
        buffers[target] = ("float32", tuple(shapes[name][1]))
    # A segment needs fewer layers than the layers behind it; a layer follows the segment that feeds it.
    order = sorted(
        [(len(key), 0, key, "") for key in groups] + [(len(k), 1, k, n) for n, k in layers.items()]
    )
    pieces: list[Segment | str] = []
    for _, _, key, layer in order:
        if layer:
            pieces.append(layer)
            continue
        segment = _segment(model, groups[key], buffers, constants)
        if segment is not None:
            pieces.append(segment)
    return tuple(pieces), buffers, wires


def _reaches(node: onnx.NodeProto, level: Mapping[str, frozenset[str]], constants: set[str]) -> bool:
    """Say whether a node computes with data; constant chains are copied into whoever needs them."""
    return any(name in level and name not in constants for name in node.input) and node.op_type != "Constant"


def _segment(
    model: onnx.ModelProto,
    indices: Sequence[int],
    buffers: dict[str, tuple[str, tuple[int, ...]]],
    constants: set[str],
) -> Segment | None:
    import onnx
    from onnx import helper

    graph = model.graph
    inside = {name for index in indices for name in graph.node[index].output}
    constant_nodes = {
        n.output[0]: n for n in graph.node if n.op_type in ("Constant", "Identity") and not _fed(n, buffers)
    }
    nodes = [graph.node[index] for index in indices]
    extra: list[onnx.NodeProto] = []
    needed: list[str] = []
    pending = [name for node in nodes for name in node.input]
    seen: set[str] = set()
    while pending:
        name = pending.pop(0)
        if not name or name in inside or name in seen:
            continue
        seen.add(name)
        if name in constants:
            continue
        if name in constant_nodes and name not in buffers:
            extra.insert(0, constant_nodes[name])
            pending.extend(constant_nodes[name].input)
        else:
            needed.append(name)
    used_elsewhere = {n for i, node in enumerate(graph.node) if i not in set(indices) for n in node.input}
    used_elsewhere.update(value.name for value in graph.output)
    made = [n for index in indices for n in graph.node[index].output if n in used_elsewhere]
    if not made or not needed:
        return None
    missing = [name for name in needed if name not in buffers]
    if missing:
        raise UnsupportedOperator(
            f"the teacher's graph cannot be cut at its layers: {missing[0]!r} has no known shape"
        )
    named = {n for node in [*nodes, *extra] for n in node.input}
    piece = helper.make_model(
        helper.make_graph(
            [*extra, *nodes],
            "segment",
            [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, buffers[n][1]) for n in needed],
            [helper.make_empty_tensor_value_info(name) for name in made],
            initializer=[tensor for tensor in graph.initializer if tensor.name in named],
        ),
        opset_imports=[entry for entry in model.opset_import if entry.domain != MARKER_DOMAIN],
        ir_version=model.ir_version,
    )
    canonical = canonical_graph(piece)
    for name, reference in zip(made, canonical["outputs"], strict=True):
        described = _described(canonical, reference)
        buffers[name] = (described["type"], tuple(described["shape"]))
    return Segment(canonical, tuple(needed), tuple(made))


def _fed(node: onnx.NodeProto, buffers: Mapping[str, object]) -> bool:
    return any(name in buffers for name in node.input)


def _described(graph: Graph, reference: str) -> dict[str, Any]:
    if reference.startswith("i"):
        found: dict[str, Any] = graph["inputs"][int(reference[1:])]
    else:
        node, slot = reference[1:].split(".")
        found = graph["nodes"][int(node)]["outputs"][int(slot)]
    return found
