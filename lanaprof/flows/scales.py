"""Candidates at other precisions than they were trained in; scales of those in int8 and fp8 are kept in the project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.digest import digest
from lanaprof.errors import BadProject, UnknownDevice, UnsupportedOperator
from lanaprof.flows.files import write_whole
from lanaprof.flows.project import Project
from lanaprof.flows.recipes import grid_of
from lanaprof.ops import TEACHER, parse_operation
from lanaprof.ops.quantising import QUANTISED

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.distill import DataSource
    from lanaprof.ops.quantising.module import Quantised
    from lanaprof.teachers import Teacher

__all__ = [
    "device_precision",
    "grid_here",
    "is_quantised",
    "is_teacher_at_precision",
    "modules_at_precision",
    "scales_version",
]

_FOLDER = "scales"

Name = tuple[str, str]  # (layer, operation)


def is_quantised(operation: str) -> bool:
    """Say whether an operation is computed in int8 or fp8, hence has scales."""
    return parse_operation(operation).precision in QUANTISED


def is_teacher_at_precision(operation: str) -> bool:
    """Say whether an operation is the teacher's own layer at another precision, which needs no training."""
    parsed = parse_operation(operation)
    return parsed.family == TEACHER and bool(parsed.precision)


def grid_here(project: Project) -> str:
    """Return the grid of activations in int8 that the project's networks are judged and exported with.

    It is that of the project's first device: a student is what was measured there.
    """
    try:
        return grid_of(project.device(None))
    except UnknownDevice:
        return "uint8"  # a project without a device: that of the CPUs


def device_precision(project: Project) -> str:
    """Return the precision of the project's first device."""
    try:
        return project.device(None).precision
    except UnknownDevice:
        return "fp32"


def scales_version() -> list[Any]:
    """Return what scales depend on beside teacher, data and weights."""
    from lanaprof.distill.calibrating import CALIBRATION_IMAGES, CALIBRATION_VERSION

    return [CALIBRATION_VERSION, CALIBRATION_IMAGES]


def modules_at_precision(
    project: Project,
    trained: Mapping[Name, nn.Module],
    digests: Mapping[Name, str],
    *,
    teacher: Teacher,
    data: DataSource,
) -> dict[Name, nn.Module]:
    """Return trained candidates at the precisions that their operations name; what cannot be built so is left out.

    Those in int8 and fp8 are calibrated on the project's data where that was not done before.

    Args:
        project: whose candidates.
        trained: in float32, by layer and operation.
        digests: of their weights.
        teacher: the project's.
        data: the project's.
    """
    from safetensors.torch import load_file, save

    from lanaprof.distill.calibrating import calibrate_candidates
    from lanaprof.ops import at_precision

    grid = grid_here(project)
    found: dict[Name, nn.Module] = {}
    fresh: dict[Name, Quantised] = {}
    for (layer, operation), module in trained.items():
        shape = project.space.get_layer(layer).input_shape
        try:
            made: Any = at_precision(module, parse_operation(operation).precision, shape, grid=grid)
        except UnsupportedOperator:
            continue
        found[layer, operation] = made
        if is_quantised(operation):
            path = _path(project, (layer, operation), digests[layer, operation], grid=grid, data=data)
            if path.is_file():
                made.load_scales(load_file(path))
            else:
                fresh[layer, operation] = made
    calibrate_candidates(teacher, fresh, data)
    for name, quantised in fresh.items():
        path = _path(project, name, digests[name], grid=grid, data=data)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, save(quantised.scales()))
        except OSError as error:
            raise BadProject(f"{path} cannot be written: {error.strerror or error}") from error
    return found


def _path(project: Project, name: Name, weights: str, *, grid: str, data: DataSource) -> Path:
    """Return where a candidate's scales lie: named by all that they depend on."""
    key = digest(
        {
            "teacher": project.weights_digest,
            "structure": project.facts["structure"],
            "data": data.digest,
            "candidate": [*name, weights],
            "grid": grid,
            "version": scales_version(),
        }
    )
    return project.state / _FOLDER / f"{key}.safetensors"
