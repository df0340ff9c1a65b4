"""The work of distilling: a group of candidates trained step by step, saved and resumed."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lanaprof.digest import digest
from lanaprof.distill.parts import part_file
from lanaprof.distill.runtime import (
    Limits,
    Pace,
    Progress,
    ProgressCallback,
    Runtime,
    crew,
    load_checkpoint,
    write_whole,
)
from lanaprof.distill.taps import Tap, Taps
from lanaprof.distill.training import (
    autograd_step,
    cosine_rate,
    frozen_copy,
    loss_curve,
    normalised_error,
)
from lanaprof.distill.weights import Recipe, build_candidate, candidate_path, distill_key, save_candidate
from lanaprof.errors import UserError
from lanaprof.ops import match_output

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["Job", "Name"]

TAIL_SHARE = 0.1  # of the steps: their mean loss is the candidate's error
GRADIENT_NORM = 1.0  # clipped above; the normalised loss starts near 1
BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments, float32
TIMED_CANDIDATES = 24  # of the plan: enough for a mean over families and layers
_CHECKPOINT_FORMAT = "lanaprof-distilling/2"

Name = tuple[str, str]  # (layer, weights_text of the operation)


class Student:
    """One candidate in training."""

    def __init__(self, module: nn.Module, recipe: Recipe, runtime: Runtime) -> None:
        self.module = runtime.place(module).train()
        self.optimizer = torch.optim.AdamW(
            self.module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True
        )
        self.copies_input = False  # for those that would overwrite what their neighbours get, too
        self.draws = False  # random numbers, such as dropout's
        self.last_s = 0.0  # of its last step
        # of every step, filled as it goes; on the device, so that noting one waits for nothing
        self.losses = torch.zeros(recipe.steps, device=runtime.device)

    def state(self) -> dict[str, Any]:
        """Return all that training depends on."""
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "losses": self.losses,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``state`` returned."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.losses.copy_(state["losses"])


class Job:
    """One teacher, space, data and recipe: what all groups of candidates share."""

    def __init__(
        self,
        teacher: Teacher,
        space: Space,
        data: DataSource,
        recipe: Recipe,
        folder: Path,
        limits: Limits,
        part: str = "",
    ) -> None:
        self.recipe = recipe
        self.key = distill_key(teacher.weights_digest, data.digest, recipe)
        self._space = space
        self._data = data
        self._folder = folder
        self._limits = limits
        self._runtime = Runtime.here()
        self._teacher = frozen_copy(teacher.module, self._runtime)
        self._checkpoint = part_file(folder / self.key, "checkpoint", part, ".pt")
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

    def resumed(self, todo: Sequence[Name]) -> list[Name]:
        """Return those of ``todo`` an interrupted call had begun."""
        found = load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _CHECKPOINT_FORMAT:
            return []
        begun = {tuple(name) for name in found["names"]}
        return [name for name in todo if name in begun]

    def grouped(self, names: Sequence[Name]) -> list[list[Name]]:
        """Return the candidates in groups that fit into the memory allowed, at least one in each."""
        groups: list[list[Name]] = []
        used = 0
        for name in names:
            needed = self.weight_bytes(name) // 4 * BYTES_PER_PARAMETER
            if not groups or used + needed > self._limits.bytes_allowed:
                groups.append([])
                used = 0
            groups[-1].append(name)
            used += needed
        return groups

    def weight_bytes(self, name: Name) -> int:
        """Return the size of a candidate's parameters in float32."""
        return 4 * sum(parameter.numel() for parameter in self._build(name).parameters())

    def train(
        self, names: Sequence[Name], *, done: int, total: int, progress: ProgressCallback | None
    ) -> list[Name]:
        """Train a group from where its checkpoint stands, write its weights, return those that diverged."""
        students = {name: self._student(name) for name in names}
        step = self._restore(students)
        taps = self._taps(names)
        pace = Pace(self._limits.checkpoint_s)
        first, steps = step, self.recipe.steps
        batches = self._data.batches("train", self.recipe.batch_size, seed=self.recipe.seed, start_step=step)
        with crew(self._runtime) as workers:
            while step < steps:
                self._step(students, taps, next(batches)[0], step, workers=workers)
                step += 1
                if step < steps:
                    pace.save_if_due(lambda at=step: self._save(students, at))  # type: ignore[misc]
                if progress is not None:
                    waiting = (total - done - len(names)) * steps  # candidate steps of later turns
                    left = pace.seconds_left(
                        (step - first) * len(names), (steps - first) * len(names) + waiting
                    )
                    progress(
                        Progress(
                            f"distilling {total} candidates",
                            done * steps + step * len(names),
                            total * steps,
                            left,
                        )
                    )
        batches.close()
        diverged = self._finish(students)
        self._checkpoint.unlink(missing_ok=True)
        return diverged

    def estimate_seconds(self, names: Sequence[Name], *, turns: int) -> float:
        """Return the time training would take, from one timed step of up to TIMED_CANDIDATES of them."""
        if not names:
            return 0.0
        stride = max(1, len(names) // TIMED_CANDIDATES)
        sample = list(names[::stride])
        taps = self._taps(sample)
        students = {name: self._student(name) for name in sample}
        indices = [index % self._data.train_count for index in range(self.recipe.batch_size)]
        x = self._data.batch("train", indices)[0]
        teacher_s = step_s = 0.0
        with crew(self._runtime) as workers:
            for _ in range(2):  # the first pass allocates and chooses kernels; the second counts
                began_s = time.monotonic()
                taps.run(self._runtime.send(x))
                teacher_s = time.monotonic() - began_s
                self._step(students, taps, x, 0, workers=workers)
                step_s = time.monotonic() - began_s - teacher_s
        students_s = max(0.0, step_s - teacher_s) * len(names) / len(sample)
        return self.recipe.steps * (teacher_s * turns + students_s)

    def _build(self, name: Name) -> nn.Module:
        layer = self._space.get_layer(name[0])
        return build_candidate(
            name[0],
            name[1],
            (layer.input_shape, layer.output_shape),
            seed=self.recipe.seed,
            teacher=self._teacher.get_submodule(name[0]),
        )

    def _student(self, name: Name) -> Student:
        student = Student(self._build(name), self.recipe, self._runtime)
        x = self._runtime.send(torch.zeros(2, *self._space.get_layer(name[0]).input_shape))
        before, version = torch.get_rng_state(), x._version
        with torch.no_grad():
            copy.deepcopy(student.module)(x)  # a copy: batch norm would note these zeros
        student.draws = not torch.equal(torch.get_rng_state(), before)
        student.copies_input = x._version != version
        return student

    def _taps(self, names: Sequence[Name]) -> Taps:
        return Taps(self._teacher, dict.fromkeys(layer for layer, _ in names))

    def _step(
        self,
        students: Mapping[Name, Student],
        taps: Taps,
        x: Tensor,
        step: int,
        *,
        workers: ThreadPoolExecutor | None,
    ) -> None:
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

        def learn(name: Name) -> None:
            began_s = time.monotonic()
            self._train_one(students[name], flowed[name[0]], step)
            students[name].last_s = time.monotonic() - began_s

        # the slowest first, so that no worker is left alone with one at the end
        together = sorted(
            (name for name in students if not students[name].draws), key=lambda name: -students[name].last_s
        )
        if workers is None:
            for name in together:
                learn(name)
        else:
            for _ in workers.map(learn, together):
                pass
        for name in (name for name in students if students[name].draws):
            # the same numbers whoever stands beside it; torch has one source of them for all threads
            torch.manual_seed(int(digest([self.recipe.seed, step])[:15], 16))
            learn(name)

    def _train_one(self, student: Student, tap: Tap, step: int) -> None:
        for group in student.optimizer.param_groups:
            group["lr"] = cosine_rate(step, self.recipe.steps, self.recipe.learning_rate)
        given = tap.input.clone() if student.copies_input else tap.input
        if step == 0:
            match_output(student.module, given, tap.output)
        with self._runtime.autocast():
            output = student.module(given)
        loss = normalised_error(output.float(), tap.output.float())
        autograd_step(loss, student.optimizer, max_norm=GRADIENT_NORM)
        student.losses[step] = loss.detach()

    def _restore(self, students: Mapping[Name, Student]) -> int:
        found = load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _CHECKPOINT_FORMAT:
            return 0
        states = dict(zip((tuple(name) for name in found["names"]), found["states"], strict=True))
        if not set(students) <= set(states):
            return 0
        for name, student in students.items():
            student.restore(states[name])
        return int(found["step"])

    def _save(self, students: Mapping[Name, Student], step: int) -> None:
        content = {
            "format": _CHECKPOINT_FORMAT,
            "step": step,
            "names": [list(name) for name in students],
            "states": [student.state() for student in students.values()],
        }
        write_whole(self._checkpoint, lambda target: torch.save(content, target))

    def _finish(self, students: Mapping[Name, Student]) -> list[Name]:
        diverged = []
        for (layer, text), student in students.items():
            losses = student.losses.double().cpu().numpy()
            error = float(losses[-self._tail_steps :].mean())
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
                curve=loss_curve(losses),
            )
        return diverged
