"""init: find the teacher's layers and write the project."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.config import PRETRAINED, PROJECT_FILE, ProjectConfig, known_devices, parse_device, write_config
from lanaprof.errors import BadInput, BadProject
from lanaprof.flows.prechecks import check_data, check_teacher
from lanaprof.flows.project import _SPACE_FILE, _TEACHER_FILE, STATE_FOLDER, Project, write_json
from lanaprof.flows.selecting import SIZE_COSTS
from lanaprof.flows.weightfile import describe_file
from lanaprof.ops import names_function
from lanaprof.space import save_space

if TYPE_CHECKING:
    from lanaprof.teachers import Teacher

__all__ = ["OFFERED_PRECISIONS", "init_project"]

OFFERED_PRECISIONS = ("int8", "fp8", "fp16", "bf16")


def _check(config: ProjectConfig, folder: Path) -> None:
    """Refuse what cannot be meant, before anything heavy is loaded.

    Raises:
        UserError: an unknown device, cost or precision, a devices.yaml or weights that cannot be read.
    """
    for text in config.devices:
        parse_device(text, folder)
    _check_costs(config, folder)
    _check_precisions(config)
    known_devices(folder)
    _ = config.input_shape  # refuses what is none
    weights = config.weights if config.weights in ("", PRETRAINED) else Path(config.weights).absolute()
    check_teacher(config.teacher, weights, config.ops)
    check_data(config.data, folder)


def _check_data(config: ProjectConfig, teacher: Teacher, folder: Path) -> None:
    """Refuse data that cannot be read, or are of another shape than the teacher takes."""
    from lanaprof.distill import load_data  # imports torch

    load_data(
        config.data,
        input_shape=teacher.input_shape,
        preprocessing=dict(teacher.preprocessing) or None,
        seed=config.seed,
        search_path=folder,
    )


def _check_costs(config: ProjectConfig, folder: Path) -> None:
    """Refuse costs that nothing can be budgeted by.

    Raises:
        BadInput: neither a latency on a known device nor a size.
    """
    for cost in config.costs:
        name, at, device = cost.partition("@")
        if name == "latency_s" and at:
            parse_device(device, folder)
        elif cost not in SIZE_COSTS:
            raise BadInput(
                f"unknown cost {cost!r}; known: latency_s@DEVICE, {', '.join(SIZE_COSTS)}",
                hint="--cost latency_s@cpu --cost params",
            )


def _check_precisions(config: ProjectConfig) -> None:
    """Refuse precisions that nothing can be built at.

    Raises:
        BadInput: another than those of OFFERED_PRECISIONS.
    """
    for precision in config.precisions:
        if precision not in OFFERED_PRECISIONS:
            raise BadInput(
                f"operations cannot be offered at precision {precision!r}",
                hint=f"--precision {' or '.join(OFFERED_PRECISIONS)}",
            )


def init_project(
    folder: Path,
    config: ProjectConfig,
    *,
    force: bool = False,
    tell: Callable[[str], None] = lambda _text: None,
) -> Project:
    """Write lanaprof.toml and the space, and return the project.

    Args:
        folder: the project's; made when absent.
        config: as the options say.
        force: replace a project that is there; its database and weights stay.
        tell: told which layers cannot be replaced together, and why.

    Raises:
        BadProject: there is one already, or the folder cannot be written.
        UserError: teacher, weights, layers or operations cannot be found.
    """
    if (folder / PROJECT_FILE).exists() and not force:
        raise BadProject(
            f"{folder} already holds a project", hint="use another folder, or --force to replace it"
        )
    _check(config, folder)
    from lanaprof.teachers import find_layers, load_teacher, make_space, structure_digest  # imports torch

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadProject(f"{folder} cannot be made: {error.strerror or error}") from error
    weights: Path | str | None = config.weights or None
    if weights is not None and weights != PRETRAINED:
        weights = Path(weights).absolute()
        config = replace(config, weights=os.path.relpath(weights, folder))
    teacher = load_teacher(
        config.teacher, weights=weights, input_shape=config.input_shape, seed=config.seed, search_path=folder
    )
    if config.data:
        _check_data(config, teacher, folder)
    ops = config.ops
    if ops not in ("quick", "lana") and not names_function(ops):
        path = Path(ops).absolute()
        config = replace(config, ops=os.path.relpath(path, folder))
        ops = str(path)
    found = find_layers(teacher, config.layers or None)
    space = make_space(teacher, found, ops, precisions=config.precisions, search_path=folder, tell=tell)
    space = replace(space, teacher=config.teacher)
    facts = {
        "weights": teacher.weights,
        "weights_digest": teacher.weights_digest,
        "weights_file": describe_file(weights) if isinstance(weights, Path) else None,
        "seeded": teacher.seeded,
        "structure": structure_digest(teacher.module),
        "preprocessing": dict(teacher.preprocessing),
        "input_shape": list(teacher.input_shape),
    }
    write_json(folder / STATE_FOLDER / _TEACHER_FILE, facts)
    try:
        save_space(space, folder / _SPACE_FILE)
    except OSError as error:
        raise BadProject(f"{folder} cannot be written: {error.strerror or error}") from error
    write_config(folder, config)
    return Project(folder, config, space, facts)
