"""What training and exporting left in a project's folder, read without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lanaprof.flows.project import Project
from lanaprof.flows.students import read_exports, student_path
from lanaprof.lut import Selection
from lanaprof.ops import parse_operation
from lanaprof.space import Architecture

__all__ = [
    "Curve",
    "Trained",
    "curve_from",
    "exported_files",
    "read_evaluations",
    "read_history",
    "student_file",
    "trained_candidates",
    "training_seconds",
    "without_precision",
]


Curve = tuple[tuple[int, float], ...]  # (step, mean error since the last point)

_LONGEST_HEADER = 100_000_000  # bytes; as the format's own reader has it


@dataclass(frozen=True, slots=True)
class Trained:
    """One trained candidate, as its file says.

    Attributes:
        digest: of its weights.
        error: mean squared error over the output's power at the end of its training.
        written_s: when, in seconds since 1970.
        steps: how many it was trained for.
        curve: (step, mean error since the last point); empty in files of older versions.
    """

    digest: str
    error: float
    written_s: float
    steps: int = 0
    curve: Curve = ()


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
    for path in sorted(folder.glob("*/*.safetensors")):
        try:
            described = json.loads(_metadata(path)["lanaprof"])
            entry = Trained(
                described["digest"],
                float(described["error"]),
                path.stat().st_mtime,
                int(described.get("steps", 0)),
                curve_from(described.get("curve", ())),
            )
            yield (described["layer"], described["operation"]), entry
        except (OSError, ValueError, KeyError, TypeError):
            continue


def _metadata(path: Path) -> dict[str, str]:
    """Return the texts in the header of a safetensors file: its length in 8 bytes, then JSON."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"{path} has no header of safetensors")
        header = json.loads(file.read(length))
    found: dict[str, str] = header["__metadata__"]
    return found


def curve_from(value: Any) -> Curve:
    """Return a curve from its JSON, a list of [step, error]."""
    return tuple((int(step), float(error)) for step, error in value)


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
    return {
        name: stage for name, stage in _read_tuning(project, selection).items() if isinstance(stage, dict)
    }


def read_history(project: Project, selection: Selection) -> tuple[dict[str, float | None], ...]:
    """Return the fine-tuning's looks at held-out data: ``step``, ``train_loss`` and what an evaluation holds."""
    found = _read_tuning(project, selection).get("history")
    return tuple(point for point in found if isinstance(point, dict)) if isinstance(found, list) else ()


def _read_tuning(project: Project, selection: Selection) -> dict[str, Any]:
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
