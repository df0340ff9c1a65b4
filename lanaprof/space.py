"""The space (layers × candidates) and the architecture (one candidate per layer): plain data, no torch."""

from __future__ import annotations

import difflib
import json
import math
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lanaprof.digest import digest
from lanaprof.errors import BadArchitecture, BadProject, UnknownOperation
from lanaprof.ops import GENERATOR_VERSION, TEACHER, get_family, parse_operation
from lanaprof.ops.quantising import QUANTISED

__all__ = [
    "ARCHITECTURE_FORMAT",
    "SPACE_FORMAT",
    "Architecture",
    "Choices",
    "Layer",
    "Space",
    "Span",
    "architecture_from_json",
    "architecture_to_json",
    "load_architecture",
    "load_space",
    "place_ends",
    "place_name",
    "random_architecture",
    "recipe",
    "save_architecture",
    "save_space",
    "space_from_json",
    "space_to_json",
]

SPACE_FORMAT = "lanaprof-space/1"
ARCHITECTURE_FORMAT = "lanaprof-architecture/1"

Choices = tuple[
    str, ...
]  # one operation per layer, in the space's order; "" in a layer that a span before it covers

_COVERED = ""
_SPAN_SHARE = (
    0.25  # of random architectures have a span where one may stand: layers' own candidates stay the rule
)


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
                raise BadProject(f"the first candidate of {layer.name!r} is not {TEACHER}", hint=_REPAIR)
            twice = _find_twice(layer.candidates)
            if twice is not None:
                raise BadProject(f"the layer {layer.name!r} has the candidate {twice!r} twice", hint=_REPAIR)
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
        if len(choices) != len(self.layers) or choices[:1] == (_COVERED,):
            raise BadArchitecture(
                f"{len(choices)} choices do not fit {len(self.layers)} layers", hint="one per layer"
            )
        found: list[tuple[Layer, str]] = []
        number = 0
        while number < len(choices):
            end = number + 1
            while end < len(choices) and choices[end] == _COVERED:
                end += 1
            layer = self.layers[number]
            if end > number + 1:
                layer = self.get_layer(place_name(layer.name, self.layers[end - 1].name))
            found.append((layer, choices[number]))
            number = end
        return tuple(found)

    def named(self, choices: Choices) -> tuple[tuple[str, str], ...]:
        """Return a network's choices as architecture files hold them: (layer or ``first..last``, operation)."""
        if _COVERED not in choices:  # most networks, and millions of them in a search
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


@dataclass(frozen=True, slots=True)
class Architecture:
    """One candidate per layer; layers not named keep the teacher's.

    Args:
        teacher: the text that names the teacher; empty fits every teacher.
        choices: (layer, operation), each layer once; (``first..last``, operation) for a span.
    """

    teacher: str
    choices: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Check that each layer is named once."""
        twice = _find_twice([layer for layer, _ in self.choices])
        if twice is not None:
            raise BadArchitecture(
                f"the architecture names the layer {twice!r} twice", hint="keep one of them"
            )

    def complete(self, space: Space) -> Choices:
        """Return the candidate of every layer of the space, in its order; "" in a layer that a span covers.

        Raises:
            BadArchitecture: another teacher, a layer that does not exist, an operation that is no candidate of its
                layer, or two choices for one layer.
        """
        if self.teacher and self.teacher != space.teacher:
            raise BadArchitecture(
                f"the architecture is for the teacher {self.teacher!r}, the space for {space.teacher!r}",
                hint="use the architecture in its own project",
            )
        chosen: dict[str, str] = {}
        holders: dict[str, str] = {}
        for name, text in self.choices:
            layer = _place_of_choice(space, name)
            operation = _canonical(text)
            if operation not in layer.candidates:
                raise BadArchitecture(
                    f"{text!r} is no candidate of the {'run' if layer in space.runs else 'layer'} {name!r}",
                    hint=f"its candidates: {', '.join(layer.candidates)}",
                )
            first, *others = space.covered(name)
            for one in (first, *others):
                if holders.setdefault(one, name) != name:
                    raise BadArchitecture(
                        f"the choices {holders[one]!r} and {name!r} both hold the layer {one!r}",
                        hint="keep one of them",
                    )
            chosen |= {first: operation, **dict.fromkeys(others, _COVERED)}
        return tuple(chosen.get(layer.name, TEACHER) for layer in space.layers)


_REPAIR = "write the space anew: lanaprof init --force"


def _described_runs(layers: Sequence[Layer], spans: Sequence[Span]) -> tuple[Layer, ...]:
    """Return the runs that spans stand for, in the order of their first layers, shorter ones first."""
    places = {layer.name: number for number, layer in enumerate(layers)}
    candidates: dict[tuple[int, int], list[str]] = {}
    for span in spans:
        for name in (span.first, span.last):
            if name not in places:
                raise BadProject(f"a span names {name!r}, which is no layer of the space", hint=_REPAIR)
        ends = places[span.first], places[span.last]
        if ends[0] >= ends[1]:
            raise BadProject(
                f"the span {span.key!r} does not cover two or more consecutive layers, first before last",
                hint=_REPAIR,
            )
        own = candidates.setdefault(ends, [])
        if span.name == TEACHER or span.name in own:
            raise BadProject(f"{span.name!r} cannot be a candidate of the span {span.key!r}", hint=_REPAIR)
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


def _place_of_choice(space: Space, name: str) -> Layer:
    layer = space.find_layer(name)
    if layer is None and ".." in name:
        known = ", ".join(run.name for run in space.runs)
        raise BadArchitecture(
            f"the choice {name!r} spans several layers, which this space has no candidates for",
            hint=f"its spans: {known}" if known else "name one layer per choice",
        )
    return layer or space.get_layer(name)


def _find_twice(names: Sequence[str]) -> str | None:
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


def _canonical(text: str) -> str:
    """Return the canonical text, or the text itself where a plug-in that knows it is missing."""
    try:
        return parse_operation(text).text
    except UnknownOperation:
        return text


def recipe(layer: Layer, operation: str, *, batch: int, precision: str, grid: str = "") -> str:
    """Return the digest of all that decides which operator a candidate exports to.

    Args:
        layer: where the operation stands.
        operation: its text.
        batch: samples per run.
        precision: the device's; an operation's own precision comes before it.
        grid: of activations, where the precision is int8.

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


def random_architecture(
    space: Space, rng: random.Random, allowed: Mapping[str, Sequence[str]] | None = None
) -> Architecture:
    """Return an architecture with each layer's candidate drawn evenly, now and then a span in place of several.

    Args:
        space: where to draw from.
        rng: the source of randomness; equal states give equal architectures.
        allowed: layer or ``first..last`` → the candidates to draw from; those not named draw from all of theirs.

    Raises:
        BadArchitecture: ``allowed`` names a layer that does not exist, or nothing for one.
    """
    allowed = allowed or {}
    for name, operations in allowed.items():
        place = space.get_layer(name)
        if not operations and place not in space.runs:
            raise BadArchitecture(
                f"no candidate of the layer {name!r} is allowed", hint="allow at least teacher"
            )
    chosen = {
        layer.name: rng.choice(tuple(allowed.get(layer.name, layer.candidates))) for layer in space.layers
    }
    for run in rng.sample(space.runs, len(space.runs)):  # draws nothing where there are none
        own = tuple(allowed.get(run.name, run.candidates))
        covered = space.covered(run.name)
        if own and rng.random() < _SPAN_SHARE and all(name in chosen for name in covered):
            for name in covered:
                del chosen[name]
            chosen[run.name] = rng.choice(own)
    return Architecture(space.teacher, tuple(chosen.items()))


def space_to_json(space: Space) -> dict[str, Any]:
    """Return the space as it stands in its file."""
    return {
        "format": SPACE_FORMAT,
        "teacher": space.teacher,
        "input_shape": list(space.input_shape),
        "layers": [
            {
                "name": layer.name,
                "input_shape": list(layer.input_shape),
                "output_shape": list(layer.output_shape),
                "params": layer.params,
                "structure": layer.structure,
                "candidates": list(layer.candidates),
            }
            for layer in space.layers
        ],
        "spans": [{"first": span.first, "last": span.last, "name": span.name} for span in space.spans],
    }


def space_from_json(data: Any, *, where: str = "the space") -> Space:
    """Return the space that a parsed JSON document describes.

    Raises:
        BadProject: another format, a missing key, or a value of the wrong kind; the message names it.
    """
    _check_format(data, SPACE_FORMAT, where, BadProject, _REPAIR)
    layers = tuple(
        Layer(
            name=_text(entry, "name", f"{where}: layer {number}"),
            input_shape=_shape(entry, "input_shape", f"{where}: layer {number}"),
            output_shape=_shape(entry, "output_shape", f"{where}: layer {number}"),
            params=_whole(entry, "params", f"{where}: layer {number}"),
            structure=_text(entry, "structure", f"{where}: layer {number}"),
            candidates=tuple(_texts(entry, "candidates", f"{where}: layer {number}")),
        )
        for number, entry in enumerate(_entries(data, "layers", where))
    )
    spans = tuple(
        Span(_text(entry, "first", where), _text(entry, "last", where), _text(entry, "name", where))
        for entry in (_entries(data, "spans", where) if "spans" in data else [])
    )
    return Space(_text(data, "teacher", where), _shape(data, "input_shape", where), layers, spans)


def save_space(space: Space, path: str | Path) -> None:
    """Write the space's file; a reader sees the old one or the new one, never a part."""
    _write(space_to_json(space), Path(path))


def load_space(path: str | Path) -> Space:
    """Return the space in a file.

    Raises:
        BadProject: no such file, no JSON, or not a space.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadProject(
            f"the space {path} cannot be read: {error.strerror or error}",
            hint="make a project: lanaprof init --teacher T",
        ) from error
    except ValueError as error:
        raise BadProject(f"{path} is no JSON: {error}", hint=_REPAIR) from error
    return space_from_json(data, where=str(path))


def architecture_to_json(architecture: Architecture) -> dict[str, Any]:
    """Return the architecture as it stands in its file."""
    return {
        "format": ARCHITECTURE_FORMAT,
        "teacher": architecture.teacher,
        "choices": dict(architecture.choices),
    }


def architecture_from_json(data: Any, *, where: str = "the architecture") -> Architecture:
    """Return the architecture that a parsed JSON document describes; no space is needed.

    Raises:
        BadArchitecture: another format, or choices that are no texts.
    """
    hint = f'write {{"format": "{ARCHITECTURE_FORMAT}", "choices": {{"<layer>": "<operation>"}}}}'
    _check_format(data, ARCHITECTURE_FORMAT, where, BadArchitecture, hint)
    teacher, choices = data.get("teacher", ""), data.get("choices")
    if not isinstance(teacher, str):
        raise BadArchitecture(f"{where}: teacher is no text", hint=hint)
    if not isinstance(choices, Mapping):
        raise BadArchitecture(f"{where}: choices is missing or no object", hint=hint)
    for layer, operation in choices.items():
        if not isinstance(operation, str):
            raise BadArchitecture(f"{where}: the choice for {layer!r} is no text", hint=hint)
    return Architecture(teacher, tuple(choices.items()))


def save_architecture(architecture: Architecture, path: str | Path) -> None:
    """Write the architecture's file; a reader sees the old one or the new one, never a part."""
    _write(architecture_to_json(architecture), Path(path))


def load_architecture(source: str | Path | Mapping[str, Any]) -> Architecture:
    """Return the architecture in a file, or in a document read already.

    Raises:
        BadArchitecture: no such file, no JSON, a layer named twice, or not an architecture.
    """
    if isinstance(source, Mapping):
        return architecture_from_json(source)
    try:
        data = json.loads(Path(source).read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except OSError as error:
        raise BadArchitecture(
            f"the architecture {source} cannot be read: {error.strerror or error}",
            hint="name an architecture file, as select and solve write them",
        ) from error
    except ValueError as error:
        raise BadArchitecture(f"{source} is no JSON: {error}", hint="name an architecture file") from error
    return architecture_from_json(data, where=str(source))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a key that stands twice: JSON would silently keep the last."""
    twice = _find_twice([name for name, _ in pairs])
    if twice is not None:
        raise ValueError(f"the key {twice!r} stands twice")
    return dict(pairs)


def _write(document: dict[str, Any], path: Path) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1, ensure_ascii=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _check_format(
    data: Any, wanted: str, where: str, error: type[BadProject] | type[BadArchitecture], hint: str
) -> None:
    if not isinstance(data, Mapping):
        raise error(f"{where} is no JSON object", hint=hint)
    found = data.get("format")
    if found == wanted:
        return
    kind, _, version = wanted.partition("/")
    if isinstance(found, str) and found.startswith(f"{kind}/"):
        raise error(
            f"{where} has the format {found!r}; this lanaprof reads {wanted!r}", hint=f"use version {version}"
        )
    raise error(f"{where} has the format {found!r} instead of {wanted!r}", hint=hint)


def _get(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, Mapping) or key not in entry:
        raise BadProject(f"{where} lacks {key!r}", hint=_REPAIR)
    return entry[key]


def _text(entry: Any, key: str, where: str) -> str:
    value = _get(entry, key, where)
    if not isinstance(value, str):
        raise BadProject(f"{where}: {key!r} is no text", hint=_REPAIR)
    return value


def _whole(entry: Any, key: str, where: str) -> int:
    value = _get(entry, key, where)
    if type(value) is not int or value < 0:
        raise BadProject(f"{where}: {key!r} is no whole number", hint=_REPAIR)
    return value


def _shape(entry: Any, key: str, where: str) -> tuple[int, ...]:
    value = _get(entry, key, where)
    if not isinstance(value, list) or not value or any(type(size) is not int or size < 1 for size in value):
        raise BadProject(f"{where}: {key!r} is no list of sizes", hint=_REPAIR)
    return tuple(value)


def _texts(entry: Any, key: str, where: str) -> list[str]:
    value = _get(entry, key, where)
    if not isinstance(value, list) or any(not isinstance(text, str) for text in value):
        raise BadProject(f"{where}: {key!r} is no list of texts", hint=_REPAIR)
    return value


def _entries(entry: Any, key: str, where: str) -> list[Any]:
    value = _get(entry, key, where)
    if not isinstance(value, list):
        raise BadProject(f"{where}: {key!r} is no list", hint=_REPAIR)
    return value
