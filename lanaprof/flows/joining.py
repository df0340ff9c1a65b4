"""What neighbours of one lower precision spare each other: a conversion to float32 and back. No torch, no onnx.

An operator in int8 or 16 bits takes and gives float32 and is measured so. In a network the conversions between two of
them are joined (``profiler/roundings.py``), which no sum over single operators knows of. How many bytes are joined is
known of every architecture before it is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.profiler.circuit import Circuit, joined_steps

__all__ = ["JOINED_FEATURES", "Border", "Ends", "Joints", "find_ends", "joints_of"]

JOINED_FEATURES = ("joined_bytes", "joined")  # behind those of every network
_ROUNDS, _CAST = "QuantizeLinear", "Cast"
_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Ends:
    """The types that an operator converts its input to at once, and its output from at last; empty for float32."""

    takes: str = ""
    gives: str = ""


def find_ends(graph: Mapping[str, Any]) -> Ends:
    """Return the ends of an operator of one input and one output, from its canonical graph."""
    readers = [node for node in graph["nodes"] if "i0" in node["inputs"]]
    takes = {node["outputs"][0]["type"] if node["op"] in (_ROUNDS, _CAST) else "" for node in readers}
    gives = ""
    output = graph["outputs"][0]
    if output.startswith("n"):
        last = graph["nodes"][int(output[1:].split(".")[0])]
        if last["op"] in ("DequantizeLinear", _CAST) and last["inputs"][0].startswith("n"):
            node, slot = last["inputs"][0][1:].split(".")
            gives = graph["nodes"][int(node)]["outputs"][int(slot)]["type"]
    return Ends(takes.pop() if len(takes) == 1 else "", gives)


@dataclass(frozen=True, slots=True)
class Joints:
    """Where the layers of a network meet, and the ends of the operators that may stand in them.

    Attributes:
        circuit: how the layers are wired.
        ends: operator key → its ends; those in float32 may be left out.
    """

    circuit: Circuit
    ends: Mapping[str, Ends]

    def features(self, chosen: Mapping[str, str]) -> tuple[float, ...]:
        """Return what is joined in a network, as JOINED_FEATURES names it; nothing where no operator has such ends.

        Args:
            chosen: layer or ``first..last`` → operator key; "" where it is skipped.
        """
        if not self.ends:
            return ()
        sizes = {name: math.prod(shape) * _FLOAT_BYTES for name, _, shape in self.circuit.buffers}
        given: dict[str, str] = {}  # buffer → the type that its values came from
        total = count = 0
        for step in joined_steps(self.circuit, chosen):
            if not step.layer:
                continue
            source, target = step.inputs[0], step.outputs[0]
            key = chosen[step.layer]
            if not key:
                given[target] = given.get(source, "")
                continue
            ends = self.ends.get(key, Ends())
            if ends.takes and ends.takes == given.get(source):
                total += sizes[source]
                count += 1
            given[target] = ends.gives
        return (float(total), float(count))

    def borders(self, first: Sequence[str], second: Sequence[str], layers: tuple[str, str]) -> list[Border]:
        """Return where the operators of two layers are joined; nothing where the layers do not meet.

        Args:
            first: operator keys that may stand in the first layer; "" where it is skipped.
            second: likewise.
            layers: their names.
        """
        steps = {step.layer: step for step in self.circuit.steps if step.layer}
        source = steps[layers[0]].outputs[0]
        if steps[layers[1]].inputs[0] != source:
            return []
        size = next(math.prod(shape) for name, _, shape in self.circuit.buffers if name == source)
        gives = [self.ends.get(key, Ends()).gives for key in first]
        takes = [self.ends.get(key, Ends()).takes for key in second]
        return [
            Border(place, other, (float(size * _FLOAT_BYTES), 1.0))
            for place, given in enumerate(gives)
            for other, taken in enumerate(takes)
            if given and given == taken
        ]


@dataclass(frozen=True, slots=True)
class Border:
    """Two candidates, by their places in their layers, and what is joined between them as JOINED_FEATURES names it."""

    first: int
    second: int
    features: tuple[float, float]


def joints_of(circuit: Circuit | None, graphs: Iterable[tuple[str, Mapping[str, Any]]]) -> Joints | None:
    """Return the joints of a circuit for these operators, given by key; None where nothing can be joined."""
    ends = {key: found for key, graph in graphs if (found := find_ends(graph)) != Ends()}
    return Joints(circuit, ends) if circuit is not None and ends else None
