"""What the comparison of benchmarks/lana.py is made on: a trained teacher, its data, and the teacher scaled down."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import HERE, command

from lanaprof.errors import BadInput

__all__ = ["TASKS", "Task", "find_task", "make_project"]

EXAMPLES = HERE.parent / "examples"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A teacher, what it is taught from, and how much its students are trained.

    Attributes:
        files: copied into the project's folder.
        teacher: as after ``--teacher``.
        size: as after ``--input``.
        data: as after ``--data``; ``{images}`` stands for the folder given by ``--images``.
        test: data spec of what students are judged on; empty for the data's own test split.
        scaled: names of networks like the teacher but smaller → arguments of ``factory``, uniform in width and depth.
        factory: ``module:function`` that makes those.
        layers: as after ``--layers``; empty for those found by themselves.
        trainer: of ``files``, trains the teacher with ``--images FOLDER``; empty where it comes trained.
        distill_steps, distill_batch: of every candidate.
        tune_steps, tune_batch, learning_rate: of every network.
        fresh_learning_rate: instead, of networks that begin with fresh weights; None for the same.
        images: held-out images that scores rest on.
        scoring: further options of ``lanaprof score``.
    """

    files: tuple[Path, ...]
    teacher: str
    size: str
    data: str
    test: str = ""
    scaled: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    factory: str = ""
    layers: str = ""
    trainer: str = ""
    distill_steps: int
    distill_batch: int
    tune_steps: int
    tune_batch: int
    learning_rate: float = 2e-3
    fresh_learning_rate: float | None = None
    images: int = 1024
    scoring: tuple[str, ...] = ()


def _residual(depths: tuple[int, ...], widths: tuple[float, ...]) -> dict[str, dict[str, Any]]:
    return {
        f"width {width:g}, depth {depth}": {"width": width, "depth": depth}
        for depth in depths
        for width in widths
    }


_WIDTHS = (1.0, 0.92, 0.84, 0.75, 0.67, 0.59, 0.5, 0.42, 0.34)
TASKS = {
    "fashion_mnist": Task(
        files=(
            EXAMPLES / "fashion_mnist" / "teacher.py",
            EXAMPLES / "fashion_mnist" / "teacher.safetensors",
            HERE / "lana_scaled.py",
        ),
        teacher="teacher:teacher",
        size="1x28x28",
        data="fashion-mnist",
        factory="lana_scaled:residual",
        scaled=_residual((3, 2, 1), _WIDTHS),
        distill_steps=100,
        distill_batch=64,
        tune_steps=500,
        tune_batch=128,
        images=768,
    ),
    "cifar10": Task(
        files=(
            EXAMPLES / "fashion_mnist" / "teacher.py",
            HERE / "cifar10_teacher.py",
        ),
        teacher="cifar10_teacher:teacher",
        size="3x32x32",
        data="imagefolder:{images}/train",
        test="imagefolder:{images}/test",
        factory="cifar10_teacher:network",
        scaled=_residual((3, 2, 1), _WIDTHS),
        trainer="cifar10_teacher.py",
        distill_steps=100,
        distill_batch=64,
        tune_steps=500,
        tune_batch=128,
        images=768,
    ),
    "lite0": Task(
        files=(EXAMPLES / "efficientnet_lite0" / "teacher.py", HERE / "lana_scaled.py"),
        teacher="teacher:teacher",
        size="3x224x224",
        data="imagefolder:{images}/train",
        test="imagefolder:{images}/test",
        factory="lana_scaled:lite",
        scaled=_residual((1,), (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)),
        distill_steps=40,
        distill_batch=16,
        tune_steps=100,
        tune_batch=16,
        learning_rate=1e-4,  # few photographs: larger steps forget what the teacher learnt from a million
        fresh_learning_rate=2e-3,
        images=64,
        scoring=("--batch-norm", "keep"),  # four batches of large photographs per candidate would take hours
    ),
}
QUICK = Task(
    files=(HERE / "tiny_teacher.py", HERE / "lana_scaled.py"),
    teacher="tiny_teacher:network",
    size="1x12x12",
    layers="1.*",
    data="lana_scaled:quick_data",
    test="lana_scaled:quick_data",
    factory="lana_scaled:tiny",
    scaled={"width 0.5": {"width": 0.5}},
    distill_steps=2,
    distill_batch=8,
    tune_steps=3,
    tune_batch=8,
    images=16,
)


def find_task(name: str, *, quick: bool) -> Task:
    """Return a task.

    Raises:
        BadInput: there is none of this name; lists them.
    """
    if quick:
        return QUICK
    if name not in TASKS:
        raise BadInput(f"there is no task {name!r}", hint=f"known: {', '.join(TASKS)}")
    return TASKS[name]


def make_project(folder: Path, task: Task, *, ops: str, images: Path | None) -> None:
    """Make the task's project unless it is there.

    Raises:
        BadInput: it needs photographs and none are given.
    """
    if (folder / "lanaprof.toml").exists():
        return
    if "{images}" in task.data and images is None:
        raise BadInput("this task needs photographs", hint="--images FOLDER with the folders train and test")
    folder.mkdir(parents=True, exist_ok=True)
    for path in task.files:
        shutil.copyfile(path, folder / path.name)
    if task.trainer:
        subprocess.run([sys.executable, task.trainer, "--images", str(images)], cwd=folder, check=True)
    data = task.data.format(images=images)
    asked = ("--teacher", task.teacher, "--input", task.size, "--data", data, "--device", "cpu")
    layers = ("--layers", task.layers) if task.layers else ()
    command(folder, "init", *asked, "--ops", ops, *layers)
