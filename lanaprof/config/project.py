"""lanaprof.toml: what a project is made of."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lanaprof.errors import BadProject

__all__ = [
    "PRETRAINED",
    "PROJECT_FILE",
    "ProjectConfig",
    "input_shape_from_text",
    "read_config",
    "write_config",
]

PROJECT_FILE = "lanaprof.toml"
PRETRAINED = "pretrained"  # as weights: ask the source
_TEXTS = ("teacher", "weights", "input", "ops", "data", "database", "team", "policy")
_LISTS = ("layers", "precisions", "devices", "costs")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectConfig:
    """The content of lanaprof.toml.

    Attributes:
        teacher: text that names the teacher.
        weights: file or ``pretrained``; empty for seeded random weights.
        input: shape of one sample as ``3x224x224``; empty for the teacher's own.
        layers: globs over submodules; empty finds them.
        ops: ``quick``, ``lana``, a file of operations or ``pkg.module:function``.
        precisions: at which every operation is offered once more, such as ``int8``.
        data: data spec; empty until distilling needs one.
        devices: device texts, the first is the default.
        database: path or URL; empty for lanaprof.db in the project's folder.
        team: whose measurements; empty for ``local``.
        policy: which of several measurements of one thing counts; empty for own host, then own team, then the newest.
        costs: what may be budgeted; empty for latency on the devices.
        seed: of every random choice.
    """

    teacher: str
    weights: str = ""
    input: str = ""
    layers: tuple[str, ...] = ()
    ops: str = "quick"
    precisions: tuple[str, ...] = ()
    data: str = ""
    devices: tuple[str, ...] = ()
    database: str = ""
    team: str = ""
    policy: str = ""
    costs: tuple[str, ...] = ()
    seed: int = 0

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Return the shape of one sample, or None for the teacher's own."""
        return input_shape_from_text(self.input) if self.input else None


def input_shape_from_text(text: str) -> tuple[int, ...]:
    """Return the shape in a text such as ``3x224x224``.

    Raises:
        BadProject: not whole numbers from 1 on, joined by x.

    >>> input_shape_from_text("3x224x224")
    (3, 224, 224)
    """
    try:
        shape = tuple(int(part) for part in text.lower().split("x"))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise BadProject(
            f"input {text!r} is not a shape of one sample", hint="write it like --input 3x224x224"
        )
    return shape


def read_config(folder: Path) -> ProjectConfig:
    """Return the folder's lanaprof.toml.

    Raises:
        BadProject: there is none, or it cannot be read as one.
    """
    path = folder / PROJECT_FILE
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadProject(
            f"there is no {PROJECT_FILE} in {folder}",
            hint="make a project: lanaprof init --teacher timm:resnet18",
        ) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadProject(f"{path} cannot be read: {error}", hint="correct it by hand") from error
    known = [field.name for field in fields(ProjectConfig)]
    for name in document:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
            raise BadProject(f"{path}: unknown key {name!r}{guess}")
    return ProjectConfig(
        **{name: _checked(path, name, value) for name, value in _with_teacher(path, document).items()}
    )


def _with_teacher(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    if not document.get("teacher"):
        raise BadProject(f"{path} names no teacher", hint='add: teacher = "timm:resnet18"')
    return document


def _checked(path: Path, name: str, value: Any) -> Any:
    if name in _TEXTS and isinstance(value, str):
        return value
    if name in _LISTS and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if name == "seed" and isinstance(value, int) and not isinstance(value, bool):
        return value
    kind = "a text" if name in _TEXTS else "a whole number" if name == "seed" else "a list of texts"
    raise BadProject(f"{path}: {name} must be {kind}, not {value!r}")


def write_config(folder: Path, config: ProjectConfig) -> None:
    """Write lanaprof.toml; keys at their default are left out."""
    lines = ["# A lanaprof project. Options on the command line and environment variables come first."]
    for field in fields(ProjectConfig):
        value = getattr(config, field.name)
        if field.name != "teacher" and value == field.default:
            continue
        # A JSON text, number or list of texts is TOML too.
        plain = list(value) if isinstance(value, tuple) else value
        lines.append(f"{field.name} = {json.dumps(plain, ensure_ascii=False)}")
    path = folder / PROJECT_FILE
    temporary = folder / f".{PROJECT_FILE}.{os.getpid()}"
    try:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise BadProject(f"{path} cannot be written: {error.strerror or error}") from error
