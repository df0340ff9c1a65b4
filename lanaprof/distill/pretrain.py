"""Layer-wise distillation: every candidate learns to do what the teacher's layer does, on its input."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.distill.dropped import DroppedCandidate, find_dropped, still_dropped
from lanaprof.distill.job import Job, Name
from lanaprof.distill.parts import check_part, hold_part
from lanaprof.distill.runtime import Ledger, Limits, ProgressCallback, keep_random_state
from lanaprof.distill.stopping import SpaceCosts
from lanaprof.distill.weights import Recipe, TrainedCandidate, find_trained

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["DistillPlan", "DistillResult", "LayerPlan", "distill", "plan"]

TIMED_CANDIDATES = 24  # of a plan, at least two of each layer: enough for a mean


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
        stopped: wanted ones that were given up, by this call or an earlier one: another candidate of the layer costs
            no more and leads clearly.
        stopped_now: how many of them by this call.
    """

    key: str
    candidates: tuple[TrainedCandidate, ...]
    trained: int
    reused: int
    diverged: tuple[tuple[str, str], ...]
    seconds: float
    stopped: tuple[DroppedCandidate, ...] = ()
    stopped_now: int = 0


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What ``distill`` would do in one layer.

    Attributes:
        name: the layer's.
        train: how many candidates are to be trained.
        reused: how many are trained already.
        stopped: how many an earlier call gave up.
        weight_bytes: what the weights to train take on disk.
        memory_bytes: what training them together takes: weights, gradients, moments.
        seconds: estimated, the teacher's share left out; where early stops end some, it is less.
    """

    name: str
    train: int
    reused: int
    stopped: int
    weight_bytes: int
    memory_bytes: int
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
        seconds: estimated by timing some of them here; 0 where nothing is left to train. Early stops spare some.
        stopped: how many an earlier call gave up.
        layers: the same by layer, those with wanted candidates.
    """

    key: str
    train: tuple[tuple[str, str], ...]
    reused: int
    steps: int
    turns: int
    weight_bytes: int
    seconds: float
    stopped: int
    layers: tuple[LayerPlan, ...]


def distill(  # noqa: PLR0913 - one door: what is trained, how, where, and who is told
    teacher: Teacher,
    space: Space,
    data: DataSource,
    *,
    wanted: Mapping[str, Sequence[str]],
    recipe: Recipe | None = None,
    folder: Path,
    limits: Limits | None = None,
    costs: SpaceCosts | None = None,
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
        costs: layer → operation → (low, high) of every cost that may be budgeted, for the candidates whose costs
            are known, ``teacher`` and ``skip`` included. With them, candidates are given up early that cost no less
            than a clearly better one of their layer; what is left has the same weights. None: all are trained.
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
    names = job.trainable(wanted)
    diverged, stopped_now, trained = _train_left(job, part, names, folder, costs, progress)
    found = find_trained(folder, job.key)
    candidates = tuple(found[name] for name in names if name in found)
    dropped = _dropped(job, names, folder, costs)
    return DistillResult(
        key=job.key,
        candidates=candidates,
        trained=trained,
        reused=len(candidates) - trained,
        diverged=tuple(diverged),
        seconds=time.monotonic() - began_s,
        stopped=tuple(dropped.values()),
        stopped_now=stopped_now,
    )


def _dropped(
    job: Job, names: Sequence[Name], folder: Path, costs: SpaceCosts | None
) -> dict[Name, DroppedCandidate]:
    """Return those of ``names`` that were given up, for reasons that hold."""
    if costs is None:
        return {}
    trained, dropped = find_trained(folder, job.key), find_dropped(folder, job.key)
    return {
        name: dropped[name]
        for name in names
        if name in dropped and name not in trained and still_dropped(dropped[name], costs)
    }


def _left(job: Job, names: Sequence[Name], folder: Path, costs: SpaceCosts | None) -> list[Name]:
    """Return those of ``names`` that are to be trained."""
    trained, dropped = find_trained(folder, job.key), _dropped(job, names, folder, costs)
    return [name for name in names if name not in trained and name not in dropped]


def _train_left(
    job: Job,
    part: str,
    names: Sequence[Name],
    folder: Path,
    costs: SpaceCosts | None,
    progress: ProgressCallback | None,
) -> tuple[list[Name], int, int]:
    """Train what is left of ``names``, alone at this part of the work.

    Returns: those that diverged, how many were given up, and how many were trained.
    """
    if not _left(job, names, folder, costs):
        return [], 0, 0
    with hold_part(folder / job.key, part), keep_random_state():
        todo = _left(job, names, folder, costs)  # the last holder may have finished some
        job.describe()
        if costs is not None:
            job.stop_early(costs, find_trained(folder, job.key).values())
        diverged, stopped = _train_all(job, todo, progress)
    return diverged, stopped, len(todo) - len(diverged) - stopped


def _train_all(job: Job, todo: Sequence[Name], progress: ProgressCallback | None) -> tuple[list[Name], int]:
    """Train these, first those an interrupted call had begun.

    Returns: those that diverged, and how many were given up.
    """
    diverged: list[Name] = []
    stopped = 0
    first = job.resumed(todo)
    groups = [first] if first else []
    groups += job.grouped([name for name in todo if name not in set(first)])
    ledger = Ledger(len(todo), job.recipe.steps, progress)
    for group in groups:
        lost, given_up = job.train(group, ledger)
        diverged += lost
        stopped += len(given_up)
    return diverged, stopped


def plan(
    teacher: Teacher,
    space: Space,
    data: DataSource,
    *,
    wanted: Mapping[str, Sequence[str]],
    recipe: Recipe | None = None,
    folder: Path,
    limits: Limits | None = None,
    costs: SpaceCosts | None = None,
) -> DistillPlan:
    """Return what ``distill`` would train and an estimate of its time, from a few steps timed here.

    Arguments and errors are those of ``distill``. Writes nothing.
    """
    job = Job(teacher, space, data, recipe or Recipe(), folder, limits or Limits())
    names = job.trainable(wanted)
    todo, dropped = _left(job, names, folder, costs), _dropped(job, names, folder, costs)
    groups = job.grouped(todo)
    with keep_random_state():
        teacher_s, step_s = job.time_steps(_sample(todo)) if todo else (0.0, {})
    layers = [
        _layer_plan(job, layer.name, names, todo=todo, dropped=dropped, step_s=step_s)
        for layer in space.places
        if layer.name in wanted
    ]
    return DistillPlan(
        key=job.key,
        train=tuple(todo),
        reused=len(names) - len(todo) - len(dropped),
        steps=job.recipe.steps,
        turns=len(groups),
        weight_bytes=sum(job.weight_bytes(name) for name in todo),
        seconds=teacher_s * len(groups) * job.recipe.steps + sum(layer.seconds for layer in layers),
        stopped=len(dropped),
        layers=tuple(layers),
    )


def _sample(names: Sequence[Name]) -> list[Name]:
    """Return some candidates of every layer, spread over the layer's order, to be timed."""
    layers = dict.fromkeys(layer for layer, _ in names)
    each = max(2, TIMED_CANDIDATES // len(layers))
    chosen: list[Name] = []
    for layer in layers:
        own = [name for name in names if name[0] == layer]
        chosen += own[:: math.ceil(len(own) / each)]
    return chosen


def _layer_plan(
    job: Job,
    layer: str,
    names: Sequence[Name],
    *,
    todo: Sequence[Name],
    dropped: Mapping[Name, DroppedCandidate],
    step_s: Mapping[Name, float],
) -> LayerPlan:
    own = [name for name in todo if name[0] == layer]
    timed = [seconds for name, seconds in step_s.items() if name[0] == layer]
    stopped = sum(1 for name in dropped if name[0] == layer)
    return LayerPlan(
        name=layer,
        train=len(own),
        reused=sum(1 for name in names if name[0] == layer) - len(own) - stopped,
        stopped=stopped,
        weight_bytes=sum(job.weight_bytes(name) for name in own),
        memory_bytes=sum(job.memory_bytes(name) for name in own),
        seconds=job.recipe.steps * len(own) * sum(timed) / len(timed) if timed else 0.0,
    )
