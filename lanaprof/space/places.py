"""The layers of a teacher, the runs of them that one candidate may replace, and all their candidates: the space."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lanaprof.digest import digest
from lanaprof.errors import BadArchitecture, BadProject
from lanaprof.ops import GENERATOR_VERSION, TEACHER, get_family, parse_operation
from lanaprof.ops.quantising import QUANTISED

__all__ = [
    "COVERED",
    "REPAIR",
    "Choices",
    "Layer",
    "Space",
    "Span",
    "find_twice",
    "place_ends",
    "place_name",
    "recipe",
]

Choices = tuple[
    str, ...
]  # one operation per layer, in the space's order; COVERED behind a span's first layer

COVERED = ""
REPAIR = "write the space anew: lanaprof init --force"


@dataclass(frozen=True, slots=True)
class Layer:
    """A replaceable piece of the teacher.

    Args:
        name: the submodule's name in the teacher.
        input_shape: of one sample, (C, H, W) or (T, D).
        output_shape: of one sample.
        params: number of the teacher's parameters in this layer.
        structure: digest of the teacher's module, its weights' values left out.
        candidates: canonical texts of operations, ``teacher`` first.
    """

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    params: int
    structure: str
    candidates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """One candidate for several consecutive layers, from ``first`` to ``last``, both included."""

    first: str
    last: str
    name: str

    @property
    def key(self) -> str:
        """What stands for these layers in choices: ``first..last``."""
        return place_name(self.first, self.last)


def place_name(first: str, last: str) -> str:
    """Return the name under which several consecutive layers are one place; of one layer its own.

    >>> place_name("blocks.2.1", "blocks.2.3")
    'blocks.2.1..blocks.2.3'
    """
    return first if first == last else f"{first}..{last}"


def place_ends(name: str) -> tuple[str, str]:
    """Return the first and the last layer of a place; no submodule's name holds two dots in a row.

    >>> place_ends("blocks.2.1..blocks.2.3"), place_ends("blocks.0")
    (('blocks.2.1', 'blocks.2.3'), ('blocks.0', 'blocks.0'))
    """
    first, dots, last = name.partition("..")
    return first, last if dots else first


@dataclass(frozen=True, slots=True)
class Space:
    """All layers with their candidates, in the order the teacher runs them.

    Args:
        teacher: the text that names the teacher, such as ``timm:resnet18``.
        input_shape: of one sample at the teacher's input.
        layers: at least one; names are unique.
        spans: candidates that replace several layers.

    Attributes:
        runs: the layers that spans stand for, each run described as one layer: named ``first..last``, with the input
            of its first, the output of its last, and the spans as its candidates (``teacher`` is none of them).
    """

    teacher: str
    input_shape: tuple[int, ...]
    layers: tuple[Layer, ...]
    spans: tuple[Span, ...] = ()
    runs: tuple[Layer, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check that the parts hold together."""
        names = [layer.name for layer in self.layers]
        if not names:
            raise BadProject("the space has no layers", hint="name some: lanaprof init --layers GLOB")
        for name in names:
            if names.count(name) > 1:
                raise BadProject(
                    f"the space names the layer {name!r} twice", hint="run: lanaprof init --force"
                )
        for layer in self.layers:
            if layer.candidates[:1] != (TEACHER,):
                raise BadProject(f"the first candidate of {layer.name!r} is not {TEACHER}", hint=REPAIR)
            twice = find_twice(layer.candidates)
            if twice is not None:
                raise BadProject(f"the layer {layer.name!r} has the candidate {twice!r} twice", hint=REPAIR)
        object.__setattr__(self, "runs", _described_runs(self.layers, self.spans))

    @property
    def places(self) -> tuple[Layer, ...]:
        """Wherever a candidate may stand: the layers, then the runs of layers that spans stand for."""
        return (*self.layers, *self.runs)

    @property
    def candidate_count(self) -> int:
        """Number of candidates over all layers."""
        return sum(len(layer.candidates) for layer in self.layers)

    @property
    def log10_size(self) -> float:
        """Decimal logarithm of the number of architectures (spans not counted)."""
        return sum(math.log10(len(layer.candidates)) for layer in self.layers)

    def find_layer(self, name: str) -> Layer | None:
        """Return a layer, or the run of layers ``first..last``, by its name, or None."""
        return next((layer for layer in self.places if layer.name == name), None)

    def covered(self, name: str) -> tuple[str, ...]:
        """Return the layers of a place: of a layer itself.

        Raises:
            BadArchitecture: there is no such place.
        """
        first, last = place_ends(self.get_layer(name).name)
        if first == last:
            return (name,)
        names = [layer.name for layer in self.layers]
        return tuple(names[names.index(first) : names.index(last) + 1])

    def parts(self, choices: Choices) -> tuple[tuple[Layer, str], ...]:
        """Return what a network consists of: each place that something stands in, with its operation, in order.

        Args:
            choices: one operation per layer; a span's stands in its first layer, "" in those that it covers.

        Raises:
            BadArchitecture: a span that the space does not have, or another number of layers.
        """
        if len(choices) != len(self.layers) or choices[:1] == (COVERED,):
            raise BadArchitecture(
                f"{len(choices)} choices do not fit {len(self.layers)} layers", hint="one per layer"
            )
        found: list[tuple[Layer, str]] = []
        number = 0
        while number < len(choices):
            end = number + 1
            while end < len(choices) and choices[end] == COVERED:
                end += 1
            layer = self.layers[number]
            if end > number + 1:
                layer = self.get_layer(place_name(layer.name, self.layers[end - 1].name))
            found.append((layer, choices[number]))
            number = end
        return tuple(found)

    def named(self, choices: Choices) -> tuple[tuple[str, str], ...]:
        """Return a network's choices as architecture files hold them: (layer or ``first..last``, operation)."""
        if COVERED not in choices:  # most networks, and millions of them in a search
            return tuple(zip([layer.name for layer in self.layers], choices, strict=True))
        return tuple((layer.name, operation) for layer, operation in self.parts(choices))

    def get_layer(self, name: str) -> Layer:
        """Return a layer, or the run of layers ``first..last``, by its name.

        Raises:
            BadArchitecture: there is none; the message lists close names.
        """
        layer = self.find_layer(name)
        if layer is None:
            raise BadArchitecture(f"there is no layer {name!r} in the space", hint=_close(name, self))
        return layer

    def relay_digest(self, batch: int, *, precision: str = "fp32") -> str:
        """Return the digest of the context in which relay measurements of this space are taken.

        It covers the layers' shapes, the batch and the type: they say which buffers an operator reads and
        writes and how much its neighbours leave in the caches. Candidates, names and the teacher are left
        out on purpose: random architectures average over the candidates, and adding one must not make the
        measurements of all others worthless. So two spaces over the same layers share their measurements.
        """
        shapes = [[list(layer.input_shape), list(layer.output_shape)] for layer in self.layers]
        return digest({"relay": 2, "shapes": shapes, "batch": batch, "precision": precision})


def _described_runs(layers: Sequence[Layer], spans: Sequence[Span]) -> tuple[Layer, ...]:
    """Return the runs that spans stand for, in the order of their first layers, shorter ones first."""
    places = {layer.name: number for number, layer in enumerate(layers)}
    candidates: dict[tuple[int, int], list[str]] = {}
    for span in spans:
        for name in (span.first, span.last):
            if name not in places:
                raise BadProject(f"a span names {name!r}, which is no layer of the space", hint=REPAIR)
        ends = places[span.first], places[span.last]
        if ends[0] >= ends[1]:
            raise BadProject(
                f"the span {span.key!r} does not cover two or more consecutive layers, first before last",
                hint=REPAIR,
            )
        own = candidates.setdefault(ends, [])
        if span.name == TEACHER or span.name in own:
            raise BadProject(f"{span.name!r} cannot be a candidate of the span {span.key!r}", hint=REPAIR)
        own.append(span.name)
    runs = []
    for (first, last), operations in sorted(candidates.items()):
        inside = layers[first : last + 1]
        runs.append(
            Layer(
                name=place_name(inside[0].name, inside[-1].name),
                input_shape=inside[0].input_shape,
                output_shape=inside[-1].output_shape,
                params=sum(layer.params for layer in inside),
                structure=digest([layer.structure for layer in inside]),
                candidates=tuple(operations),
            )
        )
    return tuple(runs)


def find_twice(names: Sequence[str]) -> str | None:
    """Return the first name that stands twice, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _close(name: str, space: Space) -> str:
    names = [layer.name for layer in space.layers]
    close = difflib.get_close_matches(name, names, n=3)
    shown = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"did you mean {' or '.join(close)}?" if close else f"its layers: {shown}"


def recipe(layer: Layer, operation: str, *, batch: int, precision: str, grid: str = "") -> str:
    """Return the digest of all that decides which operator a candidate exports to.

    Args:
        layer: where the operation stands.
        operation: its text.
        batch: samples per run.
        precision: the device's; an operation's own precision comes before it.
        grid: of activations, where the precision is int8 or fp8.

    Raises:
        UnknownOperation: no registered family provides the operation.
    """
    parsed = parse_operation(operation)
    family = get_family(parsed.family)
    what: Any = layer.structure if parsed.family == TEACHER else dict(parsed.parameters)
    if family.needs_teacher:
        what = [layer.structure, what]  # another layer's copy is another operator
    precision = parsed.precision or precision
    return digest(
        {
            "family": parsed.family,
            "family_version": family.version,
            "what": what,
            "input": list(layer.input_shape),
            "output": list(layer.output_shape),
            "batch": batch,
            "precision": f"{precision} {grid}".rstrip() if precision in QUANTISED else precision,
            "generator": GENERATOR_VERSION,
        }
    )
