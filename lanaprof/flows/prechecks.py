"""What can be refused before anything heavy is loaded, measured or trained: places, names, what a project lacks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from lanaprof.config import PRETRAINED
from lanaprof.distill.names import DATA_SPECS, METRICS
from lanaprof.errors import BadInput, BadProject, UnknownTeacher
from lanaprof.flows.project import Project
from lanaprof.ops import names_function, read_operations

__all__ = [
    "STUDENT_KINDS",
    "check_data",
    "check_has_data",
    "check_learnable",
    "check_metric",
    "check_out",
    "check_teacher",
    "student_kind",
]

STUDENT_KINDS = {".onnx": "onnx", ".pt2": "pt2", "": "folder"}  # by the ending of --out


def student_kind(out: Path) -> str:
    """Return what an export to this place is: ``onnx``, ``pt2`` or ``folder``.

    Raises:
        BadInput: another ending.
    """
    kind = STUDENT_KINDS.get(out.suffix)
    if kind is None:
        raise BadInput(
            f"cannot tell a format from {out.name!r}", hint="end it in .onnx or .pt2, or name a folder"
        )
    return kind


def check_out(path: Path | None, *, option: str = "--out", is_folder: bool = False) -> None:
    """Refuse a place where nothing can be written.

    Args:
        path: of the file or folder; None is no place, and fine.
        option: that names it.
        is_folder: whether a folder may be there already.

    Raises:
        BadInput: its folder is absent or read-only, or something else is there.
    """
    if path is None:
        return
    parent = path.parent
    if not parent.is_dir():
        raise BadInput(
            f"{path} cannot be written: {os.strerror(errno.ENOENT)}", hint=f"mkdir -p {parent.resolve()}"
        )
    if path.is_dir() and not is_folder:
        reason = errno.EISDIR
    elif path.exists():
        reason = 0 if os.access(path, os.W_OK) else errno.EACCES
    else:
        reason = 0 if os.access(parent, os.W_OK) else errno.EACCES
    if reason:
        raise BadInput(f"{path} cannot be written: {os.strerror(reason)}", hint=f"choose another {option}")


def check_teacher(text: str, weights: str | Path | None, ops: str) -> None:
    """Refuse a teacher, weights or operations that cannot be found.

    Raises:
        UnknownTeacher: the text names no source, or there is no such file of weights.
        UserError: the file of operations cannot be read.
    """
    if ":" not in text:
        raise UnknownTeacher(
            f"{text!r} is no teacher",
            hint="a TEACHER is timm:NAME, torchvision:NAME or package.module:factory",
        )
    if weights and weights != PRETRAINED and not Path(weights).is_file():
        raise UnknownTeacher(
            f"there are no weights at {weights}", hint="name a .safetensors, .pt or .pth file"
        )
    if ops not in ("quick", "lana") and not names_function(ops):
        read_operations(ops)


def check_data(spec: str, folder: Path) -> None:
    """Refuse a data spec that names no source, or a folder of images that is not there.

    Args:
        spec: of the user; empty is none, and fine.
        folder: the project's: relative paths are looked for there first.

    Raises:
        BadInput: it is none of them.
    """
    kind, colon, rest = spec.partition(":")
    if not spec or spec in DATA_SPECS or kind == "torchvision":
        return
    if kind == "imagefolder":
        if not rest or not any((place / Path(rest).expanduser()).is_dir() for place in (folder, Path.cwd())):
            raise BadInput(
                f"{spec!r}: there is no folder {rest}" if rest else f"{spec!r} names no folder",
                hint="give a folder of images: imagefolder:PATH",
            )
    elif not colon or not kind.replace(".", "_").isidentifier() or not rest.isidentifier():
        raise BadInput(
            f"{spec!r} is no data spec; known are {', '.join(DATA_SPECS)}", hint="give one of these"
        )


def check_metric(metric: str) -> None:
    """Refuse a metric that is neither known nor a function of the user's.

    Raises:
        BadInput: it is neither.
    """
    if metric not in METRICS and ":" not in metric:
        raise BadInput(
            f"there is no metric {metric!r}; known are {', '.join(METRICS)}",
            hint="use one of these, or package.module:function",
        )


def check_learnable(project: Project) -> None:
    """Refuse a project whose candidates have nothing to learn from.

    Raises:
        BadProject: the teacher has seeded random weights, or lanaprof.toml names no data.
        BadInput: these are not there.
    """
    if project.facts.get("seeded"):
        raise BadProject(
            "the teacher has seeded random weights; there is nothing to learn from it",
            hint="make the project with trained weights: lanaprof init --force --weights FILE",
        )
    check_has_data(project)
    check_data(project.config.data, project.folder)


def check_has_data(project: Project) -> None:
    """Refuse a project that names no data.

    Raises:
        BadProject: lanaprof.toml has none.
    """
    if not project.config.data:
        raise BadProject(
            "this project names no data to learn from",
            hint='add to lanaprof.toml: data = "imagefolder:PATH" (no labels needed)',
        )
