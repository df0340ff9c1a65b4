"""Layer-wise distillation: every candidate learns to do what the teacher's layer does, on its input."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lanaprof.digest import digest
from lanaprof.distill.runtime import (
    Limits,
    Pace,
    Progress,
    ProgressCallback,
    Runtime,
    keep_random_state,
    load_checkpoint,
    write_whole,
)
from lanaprof.distill.taps import Tap, Taps
from lanaprof.distill.training import autograd_step, cosine_rate, frozen_copy, normalised_error
from lanaprof.distill.weights import (
    Recipe,
    TrainedCandidate,
    build_candidate,
    candidate_path,
    distill_key,
    find_trained,
    save_candidate,
    weights_text,
)
from lanaprof.errors import UserError
from lanaprof.ops import TEACHER

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["DistillPlan", "DistillResult", "distill", "plan"]

TAIL_SHARE = 0.1  # of the steps: their mean loss is the candidate's error
GRADIENT_NORM = 1.0  # clipped above; the normalised loss starts near 1
BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments, float32
TIMED_CANDIDATES = 24  # of the plan: enough for a mean over families and layers
_CHECKPOINT_FORMAT = "lanaprof-distilling/1"

_Name = tuple[str, str]  # (layer, weights_text of the operation)


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


def distill(
    teacher: Teacher,
    space: Space,
    data: DataSource,
    *,
    wanted: Mapping[str, Sequence[str]],
    recipe: Recipe | None = None,
    folder: Path,
    limits: Limits | None = None,
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
        progress: called after every step.

    Raises:
        BadArchitecture: a layer is not in the space.
        UnknownOperation: an operation does not exist or does not fit its layer.
        UserError: a layer's output is not what the space says.
        StoreError: the folder cannot be written.
    """
    began_s = time.monotonic()
    job = _Job(teacher, space, data, recipe or Recipe(), folder, limits or Limits())
    names = _trainable(space, wanted, seed=job.recipe.seed)
    before = find_trained(folder, job.key)
    todo = [name for name in names if name not in before]
    diverged: list[_Name] = []
    if todo:
        job.describe()
    with keep_random_state():
        first = job.resumed(todo)
        groups = [first] if first else []
        groups += job.grouped([name for name in todo if name not in set(first)])
        done = 0
        for group in groups:
            diverged += job.train(group, done=done, total=len(todo), progress=progress)
            done += len(group)
    found = find_trained(folder, job.key)
    return DistillResult(
        key=job.key,
        candidates=tuple(found[name] for name in names if name in found),
        trained=len(todo) - len(diverged),
        reused=len(names) - len(todo),
        diverged=tuple(diverged),
        seconds=time.monotonic() - began_s,
    )


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
    job = _Job(teacher, space, data, recipe or Recipe(), folder, limits or Limits())
    names = _trainable(space, wanted, seed=job.recipe.seed)
    before = find_trained(folder, job.key)
    todo = [name for name in names if name not in before]
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


def _trainable(space: Space, wanted: Mapping[str, Sequence[str]], *, seed: int) -> list[_Name]:
    """Return the wanted candidates that have parameters, each once, in the space's order."""
    for name in wanted:
        space.get_layer(name)
    names: list[_Name] = []
    for layer in space.layers:
        texts = dict.fromkeys(weights_text(operation) for operation in wanted.get(layer.name, ()))
        for text in texts:
            shapes = (layer.input_shape, layer.output_shape)
            if text != TEACHER and any(
                True for _ in build_candidate(layer.name, text, shapes, seed=seed).parameters()
            ):
                names.append((layer.name, text))
    return names


class _Student:
    """One candidate in training."""

    def __init__(self, module: nn.Module, recipe: Recipe, runtime: Runtime) -> None:
        self.module = runtime.place(module).train()
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.copies_input = False  # for those that would overwrite what their neighbours get, too
        self.tail = torch.zeros((), dtype=torch.float64)  # sum of the last losses; NaN tells of divergence

    def state(self) -> dict[str, Any]:
        """Return all that training depends on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tail": self.tail,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.tail = state["tail"]


class _Job:
    """One teacher, space, data and recipe: what all groups of candidates share."""

    def __init__(
        self,
        teacher: Teacher,
        space: Space,
        data: DataSource,
        recipe: Recipe,
        folder: Path,
        limits: Limits,
    ) -> None:
        self.recipe = recipe
        self.key = distill_key(teacher.weights_digest, data.digest, recipe)
        self._space = space
        self._data = data
        self._folder = folder
        self._limits = limits
        self._runtime = Runtime.here()
        self._teacher = frozen_copy(teacher.module, self._runtime)
        self._checkpoint = folder / self.key / "checkpoint.pt"
        self._tail_steps = max(1, math.ceil(recipe.steps * TAIL_SHARE))

    def describe(self) -> None:
        """Write for people what the folder's key stands for; a folder that cannot be written shows here."""
        about = {
            "teacher": self._space.teacher,
            "data": self._data.spec,
            "preprocessing": self._data.preprocessing,
            "train_count": self._data.train_count,
            "recipe": asdict(self.recipe),
        }
        text = json.dumps(about, indent=2)
        write_whole(self._folder / self.key / "about.json", lambda target: target.write_text(f"{text}\n"))

    def resumed(self, todo: Sequence[_Name]) -> list[_Name]:
        """Return those of ``todo`` an interrupted call had begun."""
        found = load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _CHECKPOINT_FORMAT:
            return []
        begun = {tuple(name) for name in found["names"]}
        return [name for name in todo if name in begun]

    def grouped(self, names: Sequence[_Name]) -> list[list[_Name]]:
        """Return the candidates in groups that fit into the memory allowed, at least one in each."""
        groups: list[list[_Name]] = []
        used = 0
        for name in names:
            needed = self.weight_bytes(name) // 4 * BYTES_PER_PARAMETER
            if not groups or used + needed > self._limits.bytes_allowed:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += needed
        return groups

    def weight_bytes(self, name: _Name) -> int:
        """Return the size of a candidate's parameters in float32."""
        return 4 * sum(parameter.numel() for parameter in self._build(name).parameters())

    def train(
        self, names: Sequence[_Name], *, done: int, total: int, progress: ProgressCallback | None
    ) -> list[_Name]:
        """Train a group from where its checkpoint stands, write its weights, return those that diverged."""
        students = {name: self._student(name) for name in names}
        step = self._restore(students)
        taps = self._taps(names)
        pace = Pace(self._limits.checkpoint_s)
        first, steps = step, self.recipe.steps
        batches = self._data.batches("train", self.recipe.batch_size, seed=self.recipe.seed, start_step=step)
        while step < steps:
            self._step(students, taps, next(batches)[0], step)
            step += 1
            if step < steps:
                pace.save_if_due(lambda at=step: self._save(students, at))  # type: ignore[misc]
            if progress is not None:
                left = pace.seconds_left((step - first) * len(names), (steps - first) * len(names))
                rest = (total - done - len(names)) / len(names) * (steps / max(1, steps - first))
                progress(
                    Progress(
                        f"distilling {total} candidates",
                        done * steps + step * len(names),
                        total * steps,
                        None if left is None else left + rest * (left + pace.seconds_spent),
                    )
                )
        batches.close()
        diverged = self._finish(students)
        self._checkpoint.unlink(missing_ok=True)
        return diverged

    def estimate_seconds(self, names: Sequence[_Name], *, turns: int) -> float:
        """Return the time training would take, from one timed step of up to TIMED_CANDIDATES of them."""
        if not names:
            return 0.0
        stride = max(1, len(names) // TIMED_CANDIDATES)
        sample = list(names[::stride])
        taps = self._taps(sample)
        x = self._data.batch(
            "train", [index % self._data.train_count for index in range(self.recipe.batch_size)]
        )[0]
        teacher_s = students_s = 0.0
        students = {name: self._student(name) for name in sample}
        for _ in range(2):  # the first pass allocates and chooses kernels; the second counts
            began_s = time.monotonic()
            _, flowed = taps.run(self._runtime.send(x))
            teacher_s = time.monotonic() - began_s
            for name, student in students.items():
                self._train_one(student, flowed[name[0]], 0)
            students_s = time.monotonic() - began_s - teacher_s
        return self.recipe.steps * (teacher_s * turns + students_s * len(names) / len(sample))

    def _build(self, name: _Name) -> nn.Module:
        layer = self._space.get_layer(name[0])
        return build_candidate(
            name[0], name[1], (layer.input_shape, layer.output_shape), seed=self.recipe.seed
        )

    def _student(self, name: _Name) -> _Student:
        student = _Student(self._build(name), self.recipe, self._runtime)
        x = self._runtime.send(torch.zeros(2, *self._space.get_layer(name[0]).input_shape))
        with torch.no_grad():
            student.module.eval()(x)
        student.module.train()
        student.copies_input = x._version > 0
        return student

    def _taps(self, names: Sequence[_Name]) -> Taps:
        return Taps(self._teacher, dict.fromkeys(layer for layer, _ in names))

    def _step(self, students: Mapping[_Name, _Student], taps: Taps, x: Tensor, step: int) -> None:
        with self._runtime.autocast():
            _, flowed = taps.run(self._runtime.send(x))
        for layer, tap in flowed.items():
            expected = self._space.get_layer(layer).output_shape
            if tuple(tap.output.shape[1:]) != tuple(expected):
                given = tuple(tap.output.shape[1:])
                raise UserError(
                    f"the layer {layer} gives {given}, the space says {tuple(expected)}",
                    hint="make the space anew: lanaprof init --force",
                )
        for name, student in students.items():
            # every candidate draws the same numbers (dropout) whoever stands beside it
            torch.manual_seed(int(digest([self.recipe.seed, step])[:15], 16))
            self._train_one(student, flowed[name[0]], step)

    def _train_one(self, student: _Student, tap: Tap, step: int) -> None:
        for group in student.optimizer.param_groups:
            group["lr"] = cosine_rate(step, self.recipe.steps, self.recipe.learning_rate)
        with self._runtime.autocast():
            output = student.module(tap.input.clone() if student.copies_input else tap.input)
        loss = normalised_error(output.float(), tap.output.float())
        autograd_step(loss, student.optimizer, max_norm=GRADIENT_NORM)
        if step >= self.recipe.steps - self._tail_steps:
            student.tail = student.tail + loss.detach().double().to(student.tail.device)

    def _restore(self, students: Mapping[_Name, _Student]) -> int:
        found = load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _CHECKPOINT_FORMAT:
            return 0
        states = dict(zip((tuple(name) for name in found["names"]), found["states"], strict=True))
        if not set(students) <= set(states):
            return 0
        for name, student in students.items():
            student.restore(states[name])
        return int(found["step"])

    def _save(self, students: Mapping[_Name, _Student], step: int) -> None:
        content = {
            "format": _CHECKPOINT_FORMAT,
            "step": step,
            "names": [list(name) for name in students],
            "states": [student.state() for student in students.values()],
        }
        write_whole(self._checkpoint, lambda target: torch.save(content, target))

    def _finish(self, students: Mapping[_Name, _Student]) -> list[_Name]:
        diverged = []
        for (layer, text), student in students.items():
            error = student.tail.item() / self._tail_steps
            if not math.isfinite(error):
                diverged.append((layer, text))
                continue
            save_candidate(
                candidate_path(self._folder, self.key, layer, text),
                student.module,
                layer=layer,
                operation=text,
                error=error,
                steps=self.recipe.steps,
            )
        return diverged
