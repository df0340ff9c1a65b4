"""The files of spaces and architectures."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lanaprof.errors import BadArchitecture, BadProject
from lanaprof.space.architecture import Architecture
from lanaprof.space.places import REPAIR, Layer, Space, Span, find_twice

__all__ = [
    "ARCHITECTURE_FORMAT",
    "SPACE_FORMAT",
    "architecture_from_json",
    "architecture_to_json",
    "load_architecture",
    "load_space",
    "save_architecture",
    "save_space",
    "space_from_json",
    "space_to_json",
]

SPACE_FORMAT = "lanaprof-space/1"
ARCHITECTURE_FORMAT = "lanaprof-architecture/1"


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
    _check_format(data, SPACE_FORMAT, where, BadProject, REPAIR)
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
        raise BadProject(f"{path} is no JSON: {error}", hint=REPAIR) from error
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
    twice = find_twice([name for name, _ in pairs])
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
        raise BadProject(f"{where} lacks {key!r}", hint=REPAIR)
    return entry[key]


def _text(entry: Any, key: str, where: str) -> str:
    value = _get(entry, key, where)
    if not isinstance(value, str):
        raise BadProject(f"{where}: {key!r} is no text", hint=REPAIR)
    return value


def _whole(entry: Any, key: str, where: str) -> int:
    value = _get(entry, key, where)
    if type(value) is not int or value < 0:
        raise BadProject(f"{where}: {key!r} is no whole number", hint=REPAIR)
    return value


def _shape(entry: Any, key: str, where: str) -> tuple[int, ...]:
    value = _get(entry, key, where)
    if not isinstance(value, list) or not value or any(type(size) is not int or size < 1 for size in value):
        raise BadProject(f"{where}: {key!r} is no list of sizes", hint=REPAIR)
    return tuple(value)


def _texts(entry: Any, key: str, where: str) -> list[str]:
    value = _get(entry, key, where)
    if not isinstance(value, list) or any(not isinstance(text, str) for text in value):
        raise BadProject(f"{where}: {key!r} is no list of texts", hint=REPAIR)
    return value


def _entries(entry: Any, key: str, where: str) -> list[Any]:
    value = _get(entry, key, where)
    if not isinstance(value, list):
        raise BadProject(f"{where}: {key!r} is no list", hint=REPAIR)
    return value
