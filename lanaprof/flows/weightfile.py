"""Whether the file of the teacher's weights is still the one the project was made with. Needs no torch."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from lanaprof.config import PRETRAINED, ProjectConfig

__all__ = ["describe_file", "describe_state", "init_command", "is_described"]

_OPTIONS = {  # keys of lanaprof.toml whose option of init is not named alike
    "layers": "--layers", "precisions": "--precision", "devices": "--device", "costs": "--cost",
}  # fmt: skip


def describe_file(path: Path) -> dict[str, Any]:
    """Return what a weights file is known by again: size in bytes, time of change in nanoseconds, SHA-256."""
    found = path.stat()
    return {"size": found.st_size, "changed_ns": found.st_mtime_ns, "sha256": _sha256(path)}


def is_described(path: Path, known: Mapping[str, Any]) -> bool:
    """Say whether a file is the one described; it is read only where its time of change is another.

    Raises:
        OSError: it cannot be read.
    """
    found = path.stat()
    if found.st_size != known.get("size"):
        return False
    return found.st_mtime_ns == known.get("changed_ns") or _sha256(path) == known.get("sha256")


def describe_state(folder: Path, weights: str, known: Mapping[str, Any] | None) -> str:
    """Return what is wrong with a project's weights file, for people; empty when nothing is.

    Args:
        folder: the project's.
        weights: as lanaprof.toml names them: a path from the folder, ``pretrained`` or nothing.
        known: as :func:`describe_file` found it when the project was made; None when nobody noted it.
    """
    if not weights or weights == PRETRAINED:
        return ""
    path = folder / weights
    try:
        if known is None:
            path.stat()
            return ""
        return "" if is_described(path, known) else f"the weights {weights} have changed since"
    except FileNotFoundError:
        return f"the weights {weights} are gone"
    except OSError as error:
        return f"the weights {weights} cannot be read: {error.strerror or error}"


def init_command(config: ProjectConfig) -> str:
    """Return what makes the project of a configuration anew.

    >>> init_command(ProjectConfig(teacher="timm:resnet18", devices=("cpu", "cpu,threads=2"), seed=3))
    'lanaprof init --force --teacher timm:resnet18 --device cpu --device cpu,threads=2 --seed 3'
    """
    words = ["lanaprof", "init", "--force"]
    for field in fields(ProjectConfig):
        value = getattr(config, field.name)
        if value == field.default or field.name == "policy":  # the policy is no option of init
            continue
        for each in value if isinstance(value, tuple) else (value,):
            words += [_OPTIONS.get(field.name, f"--{field.name}"), str(each)]
    return shlex.join(words)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
