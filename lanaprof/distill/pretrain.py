"""Layer-wise distillation: every candidate learns to do what the teacher's layer does, on its input."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.distill.job import Job, Name
from lanaprof.distill.parts import check_part, hold_part
from lanaprof.distill.runtime import (
    Limits,
    ProgressCallback,
    keep_random_state,
)
from lanaprof.distill.weights import (
    Recipe,
    TrainedCandidate,
    build_candidate,
    find_trained,
    weights_text,
)
from lanaprof.ops import TEACHER

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["DistillPlan", "DistillResult", "distill", "plan"]


@dataclass(frozen=True, slots=True)
class DistillResult:
    """What a call of ``distill`` leaves behind.

    Attributes:
        key: the folder's name under which the weights lie; ``find_trained`` and ``load_candidate`` take it.
        candidates: all wanted ones that have weights, new and old, in the space's order.
        trained: how many were trained by this call.
        reused: how many were there already.
        diverged: layer and operation of those whose loss became infinite; they have no weights.
        seconds: how long the call took.
    """

    key: str
    candidates: tuple[TrainedCandidate, ...]
    trained: int
    reused: int
    diverged: tuple[tuple[str, str], ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class DistillPlan:
    """What ``distill`` would do.

    Attributes:
        key: as in DistillResult.
        train: layer and operation of every candidate to train.
        reused: how many need no training any more.
        steps: of each.
        turns: in how many groups they are trained, one after another, for want of memory.
        weight_bytes: what their weights take on disk.
        seconds: estimated by timing some of them here; 0 where nothing is left to train.
    """

    key: str
    train: tuple[tuple[str, str], ...]
    reused: int
    steps: int
    turns: int
    weight_bytes: int
    seconds: float


def distill(  # noqa: PLR0913 - one door: what is trained, how, where, and who is told
    teacher: Teacher,
    space: Space,
    data: DataSource,
    *,
    wanted: Mapping[str, Sequence[str]],
    recipe: Recipe | None = None,
    folder: Path,
    limits: Limits | None = None,
    part: str = "",
    progress: ProgressCallback | None = None,
) -> DistillResult:
    """Train the wanted candidates that have no weights yet, and return where all of them lie.

    Per batch the teacher runs once, without gradients; every candidate is trained on what the teacher's layer
    got, to give what it gave. Loss: mean squared error over the output's power, as in Puzzle
    (arXiv 2411.19146); candidates trained each by itself as in LANA (arXiv 2107.10624). AdamW with a cosine.

    Killed at any moment, the next call goes on from the last checkpoint and ends with the same weights, bit
    for bit, on the same machine with the same number of threads. A candidate's weights depend on neither the
    other candidates nor the order they are named in.

    Args:
        teacher: the network; its module is used in eval mode and left as it is.
        space: of the teacher.
        data: its ``train`` split is used, without labels.
        wanted: operations by layer; ``teacher``, and what has no parameters, needs no training.
        recipe: default: ``Recipe()``.
        folder: of all weights, such as ``.lanaprof/weights``.
        limits: default: ``Limits()``.
        part: names this call's checkpoint. Processes that train different candidates in one folder at the same
            time need different names; the call that goes on with a part's work must name it, too.
        progress: called after every step.

    Raises:
        BadArchitecture: a layer is not in the space.
        UnknownOperation: an operation does not exist or does not fit its layer.
        UserError: a layer's output is not what the space says, or another process works on the same part.
        StoreError: the folder cannot be written.
    """
    began_s = time.monotonic()
    check_part(part)
    job = Job(teacher, space, data, recipe or Recipe(), folder, limits or Limits(), part)
    names = _trainable(teacher, space, wanted, seed=job.recipe.seed)
    todo = _untrained(names, folder, job.key)
    diverged: list[Name] = []
    if todo:
        with hold_part(folder / job.key, part), keep_random_state():
            todo = _untrained(names, folder, job.key)  # the last holder may have finished some
            diverged = _train_all(job, todo, progress)
    found = find_trained(folder, job.key)
    return DistillResult(
        key=job.key,
        candidates=tuple(found[name] for name in names if name in found),
        trained=len(todo) - len(diverged),
        reused=len(names) - len(todo),
        diverged=tuple(diverged),
        seconds=time.monotonic() - began_s,
    )


def _untrained(names: Sequence[Name], folder: Path, key: str) -> list[Name]:
    before = find_trained(folder, key)
    return [name for name in names if name not in before]


def _train_all(job: Job, todo: Sequence[Name], progress: ProgressCallback | None) -> list[Name]:
    """Train these, first those an interrupted call had begun, and return those that diverged."""
    job.describe()
    diverged: list[Name] = []
    first = job.resumed(todo)
    groups = [first] if first else []
    groups += job.grouped([name for name in todo if name not in set(first)])
    done = 0
    for group in groups:
        diverged += job.train(group, done=done, total=len(todo), progress=progress)
        done += len(group)
    return diverged


def plan(
    teacher: Teacher,
    space: Space,
    data: DataSource,
    *,
    wanted: Mapping[str, Sequence[str]],
    recipe: Recipe | None = None,
    folder: Path,
    limits: Limits | None = None,
) -> DistillPlan:
    """Return what ``distill`` would train and an estimate of its time, from a few steps timed here.

    Arguments and errors are those of ``distill``. Writes nothing.
    """
    job = Job(teacher, space, data, recipe or Recipe(), folder, limits or Limits())
    names = _trainable(teacher, space, wanted, seed=job.recipe.seed)
    todo = _untrained(names, folder, job.key)
    groups = job.grouped(todo)
    with keep_random_state():
        return DistillPlan(
            key=job.key,
            train=tuple(todo),
            reused=len(names) - len(todo),
            steps=job.recipe.steps,
            turns=len(groups),
            weight_bytes=sum(job.weight_bytes(name) for name in todo),
            seconds=job.estimate_seconds(todo, turns=len(groups)),
        )


def _trainable(
    teacher: Teacher, space: Space, wanted: Mapping[str, Sequence[str]], *, seed: int
) -> list[Name]:
    """Return the wanted candidates that have parameters, each once, in the space's order."""
    for name in wanted:
        space.get_layer(name)
    names: list[Name] = []
    for layer in space.layers:
        texts = dict.fromkeys(weights_text(operation) for operation in wanted.get(layer.name, ()))
        for text in texts:
            if text == TEACHER:
                continue
            shapes, own = (layer.input_shape, layer.output_shape), teacher.module.get_submodule(layer.name)
            module = build_candidate(layer.name, text, shapes, seed=seed, teacher=own)
            if any(True for _ in module.parameters()):
                names.append((layer.name, text))
    return names
