"""How good a finalist is: its divergence from the teacher, as assembled and after a short fine-tune."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.digest import digest
from lanaprof.flows.finalists import Quality
from lanaprof.flows.learning import find_trained_candidates, load_project_data
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.students import build_student

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.distill import DataSource, FinetuneRecipe, TrainedCandidate
    from lanaprof.distill.remembering import TeacherOutputs
    from lanaprof.teachers import Teacher

__all__ = ["ProjectJudge", "open_judge"]

_FOLDER = "finalists"
_FORMAT = "lanaprof-finalist/1"
_VERSION = 2  # raise it when the same question gets another answer


@dataclass(eq=False)
class ProjectJudge:
    """Judges networks of a project on its held-out data.

    Made by :func:`open_judge`. What was found out is kept under ``.lanaprof/finalists``, keyed by the teacher, the
    candidates' weights, the data and the recipe: whoever asks again reads it.

    Attributes:
        project: whose networks.
        data: what they are judged on.
        recipe: of the short fine-tune; its batches, seed and number of held-out images serve the judging, too.
        tell: told what the user should know.
    """

    project: Project
    data: DataSource
    recipe: FinetuneRecipe
    tell: Callable[[str], None] = lambda _text: None

    def check(self) -> None:
        """Try the teacher on two images, so that what cannot be judged is said before anything is timed.

        Raises:
            UserError: it gives no logits.
        """
        from lanaprof.distill.runtime import Runtime

        x = self.data.batch("heldout", range(min(2, self.data.heldout_count)))[0]
        self._outputs.logits(Runtime.here().send(x), None)

    def assembled(self, choices: Choices) -> Quality:
        """Return how good the network of trained candidates is, batch norm re-estimated unless that harms it."""
        recipe = self.recipe
        how = {
            "batch_size": recipe.batch_size,
            "seed": recipe.seed,
            "heldout_images": recipe.heldout_images,
        }
        return self._kept("assembled", choices, how, lambda _key: self._judge_assembled(choices))

    def tuned(self, choices: Choices, advance: Callable[[float], None]) -> Quality:
        """Return how good it is after the short fine-tune."""
        how = asdict(self.recipe)
        return self._kept("tuned", choices, how, lambda key: self._judge_tuned(choices, key, advance))

    @cached_property
    def _teacher(self) -> Teacher:
        return self.project.load_teacher()

    @cached_property
    def _outputs(self) -> TeacherOutputs:
        from lanaprof.distill.remembering import TeacherOutputs
        from lanaprof.distill.runtime import Runtime

        return TeacherOutputs(self._teacher.module, Runtime.here())

    @cached_property
    def _trained(self) -> dict[tuple[str, str], TrainedCandidate]:
        return find_trained_candidates(self.project)

    def _judge_assembled(self, choices: Choices) -> Quality:
        from lanaprof.distill import reestimate_batch_norm
        from lanaprof.distill.finetuning import BATCH_NORM_BATCHES
        from lanaprof.distill.runtime import Runtime

        student = Runtime.here().place(self._student(choices))
        as_it_came = self._quality(student)
        batches = self.data.batches("train", self.recipe.batch_size, seed=self.recipe.seed)
        reestimate_batch_norm(student, (x for x, _ in batches), count=BATCH_NORM_BATCHES)
        batches.close()
        return min(as_it_came, self._quality(student), key=lambda quality: quality.kl)

    def _judge_tuned(self, choices: Choices, key: str, advance: Callable[[float], None]) -> Quality:
        from lanaprof.distill import finetune

        student = self._student(choices)
        folder = self.project.state / _FOLDER / "tuning" / key
        finetune(
            student,
            self._teacher,
            self.data,
            recipe=self.recipe,
            folder=folder,
            progress=lambda p: advance(p.done / p.total),
            outputs=self._outputs,
        )
        quality = self._quality(student)
        shutil.rmtree(folder, ignore_errors=True)  # checkpoints of a network that is not kept
        return quality

    def _student(self, choices: Choices) -> nn.Module:
        built = build_student(self.project, choices, teacher=self._teacher, finetuned=False)
        if built.untrained:
            self.tell(
                f"finalists with layers that are not trained ({', '.join(built.untrained)}) are judged with random "
                "weights there; train them: lanaprof distill"
            )
        return built.module

    def _quality(self, student: nn.Module) -> Quality:
        from lanaprof.distill.evaluation import kl_on
        from lanaprof.distill.runtime import Runtime

        runtime = Runtime.here()
        batches = self.data.iter_heldout(self.recipe.batch_size, self.recipe.heldout_images)
        sent = ((runtime.send(x), y) for x, y in batches)
        student = runtime.place(student).eval()
        return Quality(tuple(kl_on(student, sent, lambda n, x: self._outputs.logits(x, ("judged", n)))))

    def _kept(
        self, stage: str, choices: Choices, how: dict[str, Any], judge: Callable[[str], Quality]
    ) -> Quality:
        """Return what is known, or find it out and keep it."""
        from lanaprof.distill import weights_text
        from lanaprof.distill.finetuning import FINETUNE_VERSION

        pairs = self.project.space.named(choices)
        found = [self._trained.get((layer, weights_text(operation))) for layer, operation in pairs]
        about = {
            "stage": stage,
            "teacher": self.project.weights_digest,
            "structure": self.project.facts["structure"],
            "choices": list(choices),
            "weights": [entry.digest if entry is not None else "" for entry in found],
            "initial_seed": self.project.config.seed,
            "data": self.data.digest,
            "how": how,
            "versions": [_VERSION, FINETUNE_VERSION],
        }
        key = digest(about)
        path = self.project.state / _FOLDER / "judged" / f"{key}.json"
        known = _read(path)
        if known is not None:
            return known
        quality = judge(key)
        numbers = [value if math.isfinite(value) else None for value in quality.per_image]
        write_json(path, {"format": _FORMAT, "about": about, "kl_per_image": numbers})
        return quality


def open_judge(
    project: Project, *, steps: int, batch_size: int, tell: Callable[[str], None] = lambda _text: None
) -> ProjectJudge:
    """Return the judge of a project's finalists.

    Args:
        project: whose networks.
        steps: of the short fine-tune.
        batch_size: of all its batches.
        tell: told what the user should know.

    Raises:
        BadProject: there is no data to judge by.
        BadInput: it cannot be read, or a recipe of such numbers trains nothing.
    """
    from lanaprof.distill import FinetuneRecipe

    recipe = FinetuneRecipe(steps=steps, batch_size=batch_size, evaluations=1, seed=project.config.seed)
    return ProjectJudge(project, load_project_data(project), recipe, tell)


def _read(path: Path) -> Quality | None:
    """Return a kept judgement; None where there is none that can be read: judging again costs only time."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["format"] != _FORMAT:
            return None
        numbers = [math.inf if value is None else float(value) for value in kept["kl_per_image"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Quality(tuple(numbers)) if numbers else None
