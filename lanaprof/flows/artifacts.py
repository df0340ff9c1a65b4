"""What training and exporting left in a project's folder, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from lanaprof.flows.project import Project
from lanaprof.flows.students import read_exports, student_path
from lanaprof.lut import Selection
from lanaprof.ops import parse_operation
from lanaprof.space import Architecture

__all__ = [
    "Trained",
    "exported_files",
    "read_evaluations",
    "student_file",
    "trained_candidates",
    "training_seconds",
    "without_precision",
]


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained candidate, as its file says: the digest of its weights and its last training error."""

    digest: str
    error: float
    written_s: float


def trained_candidates(project: Project) -> dict[tuple[str, str], Trained]:
    """Return what the last recipe trained, by layer and operation without its precision.

    Reads the headers of the weight files only; a file that cannot be read counts as not there.
    """
    try:
        about = json.loads((project.state / "distill.json").read_text(encoding="utf-8"))
        folder = project.state / "weights" / str(about["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return _begun_candidates(project)
    return dict(_trained_in(folder))


def _begun_candidates(project: Project) -> dict[tuple[str, str], Trained]:
    """Return the candidates of a first ``distill`` that was interrupted: those of the newest folder."""
    folders = [path for path in (project.state / "weights").glob("*") if path.is_dir()]
    newest = max(folders, key=lambda path: path.stat().st_mtime, default=None)
    return dict(_trained_in(newest)) if newest is not None else {}


def _trained_in(folder: Path) -> Iterator[tuple[tuple[str, str], Trained]]:
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            with safe_open(path, framework="numpy") as file:
                described = json.loads((file.metadata() or {})["lanaprof"])
            entry = Trained(described["digest"], float(described["error"]), path.stat().st_mtime)
            yield (described["layer"], described["operation"]), entry
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue


def without_precision(operation: str) -> str:
    """Return the text that trained weights are kept under."""
    return replace(parse_operation(operation), precision="").text


def training_seconds(project: Project, trained: Mapping[tuple[str, str], Trained], left: int) -> float | None:
    """Return how long the rest takes at the pace of what is trained; None before anything is."""
    starts = [path.stat().st_mtime for path in (project.state / "weights").glob("*/about.json")]
    times = [entry.written_s for entry in trained.values()]
    if not starts or not times or max(times) <= max(starts):
        return None
    return round((max(times) - max(starts)) / len(times) * left, 1)


def read_evaluations(project: Project, selection: Selection) -> dict[str, dict[str, float | None]]:
    """Return the fine-tuning's evaluations by stage (assembled, reestimated, finetuned); empty when there are none."""
    try:
        found = json.loads(student_file(project, selection).with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def student_file(project: Project, selection: Selection) -> Path:
    """Return where a selection's fine-tuned weights lie or would lie."""
    return student_path(project, Architecture("", selection.choices).complete(project.space))


def exported_files(project: Project, *, since: str = "") -> tuple[str, ...]:
    """Return the networks that were exported: .onnx, .pt2 and folders with a student, sorted by name.

    Those in the project's folder, and those that ``export`` noted elsewhere.

    Args:
        project: whose networks.
        since: only those written at or after this UTC time; what is older was exported from something else.
    """
    begin_s = datetime.fromisoformat(since).timestamp() if since else 0.0
    found = [(path.name, path) for path in project.folder.iterdir() if path.suffix in (".onnx", ".pt2")]
    found += [(f"{path.parent.name}/", path) for path in project.folder.glob("*/student.json")]
    inside = {path.resolve() for _, path in found}
    noted = [Path(text) for text in read_exports(project) if Path(text).exists()]
    found += [(str(path), path) for path in noted if not inside & {path, path / "student.json"}]
    return tuple(sorted(name for name, path in found if path.stat().st_mtime >= begin_s))
