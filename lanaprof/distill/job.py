"""The work of distilling: a group of candidates trained step by step, saved and resumed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lanaprof.digest import digest
from lanaprof.distill.dropped import DroppedCandidate, DroppedFile
from lanaprof.distill.parts import part_file
from lanaprof.distill.runtime import (
    Ledger,
    Limits,
    Pace,
    Runtime,
    crew,
    load_checkpoint,
    write_whole,
)
from lanaprof.distill.stopping import Referee, SpaceCosts, rung_steps, standing_at
from lanaprof.distill.student import Student, final_error
from lanaprof.distill.taps import Tap, Taps
from lanaprof.distill.training import cosine_rate, frozen_copy, loss_curve, normalised_error, output_power
from lanaprof.distill.weights import (
    Recipe,
    TrainedCandidate,
    build_candidate,
    candidate_path,
    distill_key,
    save_candidate,
    weights_text,
)
from lanaprof.errors import UserError
from lanaprof.ops import SKIP, TEACHER
from lanaprof.teachers import own_module

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["Job", "Name"]

BYTES_PER_PARAMETER = 16  # weight, gradient and Adam's two moments, float32
_CHECKPOINT_FORMAT = "lanaprof-distilling/3"

Name = tuple[str, str]  # (layer, weights_text of the operation)


@dataclass(slots=True)
class Group:
    """Candidates that are trained together.

    Attributes:
        students: those still in training.
        skips: layer → the error of ``skip`` at every step, where that is a rival; 0 where nobody asks.
    """

    students: dict[Name, Student]
    skips: dict[str, Tensor]


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
        self.dropped = DroppedFile(folder / self.key, part)
        self._space = space
        self._data = data
        self._folder = folder
        self._limits = limits
        self._runtime = Runtime.here(recipe.precision)
        self._teacher = frozen_copy(teacher.module, self._runtime)
        self._checkpoint = part_file(folder / self.key, "checkpoint", part, ".pt")
        self._referee: Referee | None = None
        self._sizes: dict[Name, int] = {}

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

    def trainable(self, wanted: Mapping[str, Sequence[str]]) -> list[Name]:
        """Return the wanted candidates that have parameters, each once, in the space's order."""
        for layer_name in wanted:
            self._space.get_layer(layer_name)
        texts = {
            layer.name: dict.fromkeys(weights_text(one) for one in wanted.get(layer.name, ()))
            for layer in self._space.places
        }
        names = [(layer, text) for layer, own in texts.items() for text in own if text != TEACHER]
        return [name for name in names if self.weight_bytes(name)]

    def weight_bytes(self, name: Name) -> int:
        """Return the size of a candidate's parameters in float32."""
        if name not in self._sizes:
            self._sizes[name] = 4 * sum(parameter.numel() for parameter in self._build(name).parameters())
        return self._sizes[name]

    def memory_bytes(self, name: Name) -> int:
        """Return what a candidate in training takes besides its activations."""
        return self.weight_bytes(name) // 4 * BYTES_PER_PARAMETER

    def grouped(self, names: Sequence[Name]) -> list[list[Name]]:
        """Return the candidates in groups that fit into the memory allowed, at least one in each.

        Layers stay whole where they fit: candidates are compared within their layer.
        """
        groups: list[list[Name]] = []
        free = 0
        for layer in dict.fromkeys(layer for layer, _ in names):
            own = [name for name in names if name[0] == layer]
            whole = sum(self.memory_bytes(name) for name in own)
            if not groups or whole > free:
                groups.append([])
                free = self._limits.bytes_allowed
            for name in own:
                if self.memory_bytes(name) > free and groups[-1]:
                    groups.append([])
                    free = self._limits.bytes_allowed
                groups[-1].append(name)
                free -= self.memory_bytes(name)
        return groups

    def stop_early(self, costs: SpaceCosts, finished: Iterable[TrainedCandidate]) -> None:
        """From now on give up candidates that cost no less than better ones of their layer.

        Args:
            costs: of the candidates.
            finished: trained by earlier calls: rivals, too.
        """
        standings = {(one.layer, one.operation): dict(one.rungs) for one in finished}
        self._referee = Referee(costs, self.recipe.steps, standings)

    def train(self, names: Sequence[Name], ledger: Ledger) -> tuple[list[Name], list[Name]]:
        """Train a group from where its checkpoint stands and write its weights.

        Returns: those that diverged, and those given up.
        """
        group = self._group(names)
        step, steps = self._restore(group), self.recipe.steps
        ledger.spare(step * len(names))
        stopped: list[Name] = []
        taps = self._taps(names)
        pace = Pace(self._limits.checkpoint_s)
        batches = self._data.batches("train", self.recipe.batch_size, seed=self.recipe.seed, start_step=step)
        with crew(self._runtime) as workers:
            while step < steps and group.students:
                self._step(group, taps, next(batches)[0], step, workers=workers)
                step += 1
                ledger.work(len(group.students))
                given_up = self._give_up(group, step)
                if given_up:
                    stopped += given_up
                    ledger.spare(len(given_up) * (steps - step))
                    taps = self._taps(group.students)  # layers without students need none
                if step < steps:
                    pace.save_if_due(lambda at=step: self._save(group, at))  # type: ignore[misc]
                ledger.tell()
        batches.close()
        diverged = self._finish(group.students)
        self._checkpoint.unlink(missing_ok=True)
        return diverged, stopped

    def _give_up(self, group: Group, step: int) -> list[Name]:
        """Take those that need no more training out of the group, write down why, and return them."""
        if self._referee is None or not self._referee.is_rung(step):
            return []
        standings = {
            name: standing_at(student.losses(step), step) for name, student in group.students.items()
        }
        for layer, losses in group.skips.items():
            standings[layer, SKIP] = standing_at(losses[:step].cpu().numpy(), step)
        verdicts = self._referee.judge(step, standings)
        self.dropped.add(
            DroppedCandidate(
                layer=verdict.name[0],
                operation=verdict.name[1],
                step=step,
                error=verdict.standing.error,
                rival=verdict.rival,
                rival_error=verdict.rival_standing.error,
                curve=loss_curve(group.students[verdict.name].losses(step)),
            )
            for verdict in verdicts
        )
        for verdict in verdicts:
            del group.students[verdict.name]
        return [verdict.name for verdict in verdicts]

    def time_steps(self, names: Sequence[Name]) -> tuple[float, dict[Name, float]]:
        """Return the seconds of one teacher pass, and of one step of each of these candidates, beside each other."""
        group, taps = self._group(names), self._taps(names)
        indices = [index % self._data.train_count for index in range(self.recipe.batch_size)]
        x = self._data.batch("train", indices)[0]
        teacher_s = step_s = 0.0
        with crew(self._runtime) as workers:
            for _ in range(2):  # the first pass allocates and chooses kernels; the second counts
                began_s = time.monotonic()
                with self._runtime.autocast():
                    taps.run(self._runtime.send(x))
                teacher_s = time.monotonic() - began_s
                self._step(group, taps, x, 0, workers=workers)
                step_s = time.monotonic() - began_s - 2 * teacher_s
        own_s = {name: student.last_s for name, student in group.students.items()}
        beside = max(0.0, step_s) / sum(own_s.values())  # several workers: less than the sum
        return teacher_s, {name: seconds * beside for name, seconds in own_s.items()}

    def _build(self, name: Name) -> nn.Module:
        layer = self._space.get_layer(name[0])
        return build_candidate(
            name[0],
            name[1],
            (layer.input_shape, layer.output_shape),
            seed=self.recipe.seed,
            teacher=own_module(self._teacher, self._space.covered(name[0])),
        )

    def _group(self, names: Sequence[Name]) -> Group:
        students = {
            name: Student(
                self._build(name),
                self.recipe,
                self._runtime,
                self._space.get_layer(name[0]).input_shape,
            )
            for name in names
        }
        referee = self._referee
        rivals = [layer for layer, _ in names if referee is not None and referee.offers_skip(layer)]
        skips = {layer: torch.zeros(self.recipe.steps, device=self._runtime.device) for layer in rivals}
        return Group(students, skips)

    def _taps(self, names: Iterable[Name]) -> Taps:
        return Taps(self._teacher, dict.fromkeys(layer for layer, _ in names))

    def _step(
        self, group: Group, taps: Taps, x: Tensor, step: int, *, workers: ThreadPoolExecutor | None
    ) -> None:
        with self._runtime.autocast():
            _, flowed = taps.run(self._runtime.send(x))
        powers = {layer: output_power(tap.output) for layer, tap in flowed.items()}
        for layer, tap in flowed.items():
            self._check_shape(layer, tap)
            if layer in group.skips and self._referee is not None and self._referee.is_fresh(step):
                error = normalised_error(tap.input.float(), tap.output.float(), powers[layer])
                group.skips[layer][step] = error
        rate = cosine_rate(step, self.recipe.steps, self.recipe.learning_rate)

        def learn(name: Name) -> None:
            began_s = time.monotonic()
            group.students[name].learn(flowed[name[0]], powers[name[0]], step=step, rate=rate)
            group.students[name].last_s = time.monotonic() - began_s

        # the slowest first, so that no worker is left alone with one at the end
        together = sorted(
            (name for name, student in group.students.items() if not student.draws),
            key=lambda name: -group.students[name].last_s,
        )
        if workers is None:
            for name in together:
                learn(name)
        else:
            for _ in workers.map(learn, together):
                pass
        for name in (name for name, student in group.students.items() if student.draws):
            # the same numbers whoever stands beside it; torch has one source of them for all threads
            torch.manual_seed(int(digest([self.recipe.seed, step])[:15], 16))
            learn(name)

    def _check_shape(self, layer: str, tap: Tap) -> None:
        given, expected = tuple(tap.output.shape[1:]), tuple(self._space.get_layer(layer).output_shape)
        if given != expected:
            raise UserError(
                f"the layer {layer} gives {given}, the space says {expected}",
                hint="make the space anew: lanaprof init --force",
            )

    def _restore(self, group: Group) -> int:
        found = load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _CHECKPOINT_FORMAT:
            return 0
        states = dict(zip((tuple(name) for name in found["names"]), found["states"], strict=True))
        if not set(group.students) <= set(states) or not set(group.skips) <= set(found["skips"]):
            return 0
        for name, student in group.students.items():
            student.restore(states[name])
        for layer, errors in group.skips.items():
            errors.copy_(found["skips"][layer])
        return int(found["step"])

    def _save(self, group: Group, step: int) -> None:
        content = {
            "format": _CHECKPOINT_FORMAT,
            "step": step,
            "names": [list(name) for name in group.students],
            "states": [student.state() for student in group.students.values()],
            "skips": group.skips,
        }
        write_whole(self._checkpoint, lambda target: torch.save(content, target))

    def _finish(self, students: Mapping[Name, Student]) -> list[Name]:
        diverged = []
        rungs = rung_steps(self.recipe.steps)
        for (layer, text), student in students.items():
            losses = student.losses(self.recipe.steps)
            error = final_error(losses)
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
                rungs=tuple((rung, standing_at(losses, rung)) for rung in rungs),
            )
        # whoever was given up for one that came to nothing deserves another chance
        self.dropped.remove(lambda one: (one.layer, one.rival) in diverged)
        return diverged
