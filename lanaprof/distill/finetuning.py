"""Fine-tuning a whole student: distillation from the teacher's output, with labels where there are any."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import allow_mutation_on_saved_tensors

from lanaprof.digest import digest
from lanaprof.distill.augmenting import augment
from lanaprof.distill.averaging import average_decay, move_average
from lanaprof.distill.batchnorm import find_batch_norms, reestimate_batch_norm
from lanaprof.distill.evaluation import Evaluation, class_logits, evaluate
from lanaprof.distill.features import LayerOutputs, feature_error
from lanaprof.distill.remembering import TeacherOutputs
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
from lanaprof.distill.training import autograd_step, cosine_rate
from lanaprof.distill.tuning import FinetuneRecipe, FinetuneResult, Point
from lanaprof.teachers import Teacher, state_digest

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource

__all__ = ["distillation_loss", "finetune"]

FINETUNE_VERSION = 3  # raise it when the same recipe gives other weights
BATCH_NORM_BATCHES = 12
GRADIENT_NORM = 5.0  # clipped above: the first steps after assembly are rough
_FORMAT = "lanaprof-finetuning/3"


def finetune(
    student: nn.Module,
    teacher: Teacher,
    data: DataSource,
    *,
    recipe: FinetuneRecipe | None = None,
    folder: Path | None = None,
    limits: Limits | None = None,
    progress: ProgressCallback | None = None,
    outputs: TeacherOutputs | None = None,
) -> FinetuneResult:
    """Fine-tune a student in place to give the teacher's outputs, and leave its best weights in it.

    Batch norm is re-estimated first, unless the network was better on held-out data as it came: then its statistics
    stay through all of the training. Loss: (1 − alpha) · T² · KL(teacher ‖ student) at temperature T (Hinton
    et al., arXiv 1503.02531) + alpha · cross entropy to the labels, without labels the first alone; where the
    recipe names layers, ``features`` of it is the normalised error of their outputs to the teacher's. What is
    judged and kept is an exponential moving average of the weights (``recipe.ema``; Tarvainen and Valpola,
    arXiv 1703.01780), its batch norm re-estimated likewise. The best moment is the one of least such loss (T = 1) on
    held-out data; the ``test`` split is never touched.

    Resumable like ``distill``: the same student, teacher, data and recipe go on from the last checkpoint and
    end with the same weights; a finished run is loaded instead of trained again.

    Args:
        student: an assembled network giving logits; changed in place, left in eval mode.
        teacher: left as it is.
        data: ``train`` is trained on, ``heldout`` decides which moment is kept.
        recipe: default: ``FinetuneRecipe()``.
        folder: for checkpoints and the result; None keeps nothing.
        limits: how often to save.
        progress: called after every step.
        outputs: of the same teacher, shared by several students of one recipe: remembers what all of them need.

    Raises:
        UserError: student or teacher give no logits.
        StoreError: the folder cannot be written.
    """
    with keep_random_state():
        run = _Run(student, teacher, data, recipe or FinetuneRecipe(), folder, limits or Limits(), outputs)
        return run.run(progress)


class _Run:
    """One fine-tuning: its networks, its optimiser and all its state."""

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher,
        data: DataSource,
        recipe: FinetuneRecipe,
        folder: Path | None,
        limits: Limits,
        outputs: TeacherOutputs | None,
    ) -> None:
        self._runtime = Runtime.here(recipe.precision)
        self._student = student
        self._recipe = recipe
        self._data = data
        self._limits = limits
        self._steps = recipe.step_count(data.train_count)
        self._checkpoint: Path | None = None
        if folder is not None:
            parts = {
                "student": [state_digest(student), digest(str(student))],
                "teacher": teacher.weights_digest,
                "data": data.digest,
                "recipe": asdict(recipe),
                "version": FINETUNE_VERSION,
            }
            self._checkpoint = folder / f"{digest(parts)}.pt"
        self._shared = outputs is not None
        self._outputs = outputs or TeacherOutputs(teacher.module, self._runtime)
        self._batches_name = digest(
            [data.digest, recipe.batch_size, recipe.seed, recipe.augment, recipe.precision]
        )
        self._home = next((part.device for part in student.parameters()), torch.device("cpu"))
        self._runtime.place(student)
        self._average = copy.deepcopy(student).eval().requires_grad_(False)
        self._backward_copies = _overwrites_what_gradients_need(student, data, self._runtime)
        self._optimizer = torch.optim.AdamW(
            [parameter for parameter in student.parameters() if parameter.requires_grad],
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self._step = 0
        self._before: Evaluation | None = None
        self._reestimated: Evaluation | None = None
        self._keeps_statistics = False
        self._history: list[Point] = []
        self._best: dict[str, Tensor] = {}
        self._best_loss = math.inf
        self._loss_sum = torch.zeros((), device=self._runtime.device)
        self._losses = 0

    def run(self, progress: ProgressCallback | None) -> FinetuneResult:
        """Start or resume, train to the end, give the student its best weights."""
        reused = self._restore() and self._step == self._steps
        if self._before is None:
            self._settle_batch_norm()
            self._note(None)
        if not reused:
            self._train(progress)
            self._save()
        self._student.load_state_dict(self._best)
        # as it came: safetensors, for one, refuses the layout of convolutions that training is fastest in
        self._student.to(self._home).to(memory_format=torch.contiguous_format).eval()
        best = min(self._history, key=lambda point: self._heldout_loss(point.heldout))
        assert self._before is not None
        assert self._reestimated is not None
        return FinetuneResult(
            before=self._before,
            reestimated=self._reestimated,
            kept_statistics=self._keeps_statistics,
            best=best.heldout,
            history=tuple(self._history),
            steps=self._steps,
            weights_digest=state_digest(self._student),
            reused=reused,
        )

    def _settle_batch_norm(self) -> None:
        """Take batch norm's statistics anew, or leave them where that makes the network worse.

        With few images it does: a pretrained network's statistics come from a thousand times as many.
        """
        as_it_came = {
            name: (copy.deepcopy(norm.running_mean), copy.deepcopy(norm.running_var))
            for name, norm in find_batch_norms(self._student).items()
        }
        self._before = self._look(self._student)
        self._reestimate(self._student)
        self._reestimated = self._look(self._student)
        self._keeps_statistics = self._heldout_loss(self._before) < self._heldout_loss(self._reestimated)
        if self._keeps_statistics:
            for name, norm in find_batch_norms(self._student).items():
                norm.running_mean, norm.running_var = as_it_came[name]

    def _to_training(self) -> None:
        self._student.train()
        if self._keeps_statistics:
            for norm in find_batch_norms(self._student).values():
                norm.eval()

    def _train(self, progress: ProgressCallback | None) -> None:
        names = self._recipe.feature_layers if self._recipe.features > 0 else ()
        self._wanted_features = LayerOutputs(self._outputs.network, names)
        self._given_features = LayerOutputs(self._student, names)
        try:
            self._train_on(progress)
        finally:
            self._wanted_features.close()
            self._given_features.close()

    def _train_on(self, progress: ProgressCallback | None) -> None:
        recipe, first = self._recipe, self._step
        looks = {round(self._steps * (place + 1) / recipe.evaluations) for place in range(recipe.evaluations)}
        batches = self._data.batches(
            "train", recipe.batch_size, seed=recipe.seed, start_step=BATCH_NORM_BATCHES + self._step
        )
        pace = Pace(self._limits.checkpoint_s)
        self._to_training()
        while self._step < self._steps:
            x, y = next(batches)
            self._learn(x, y)
            if recipe.ema:
                move_average(self._average, self._student, average_decay(self._step, self._steps))
            self._step += 1
            if self._step in looks or self._step == self._steps:
                self._note((self._loss_sum / self._losses).item())
                self._loss_sum, self._losses = torch.zeros_like(self._loss_sum), 0
                self._to_training()
            if self._step < self._steps:
                pace.save_if_due(self._save)
            if progress is not None:
                left = pace.seconds_left(self._step - first, self._steps - first)
                progress(Progress("fine-tuning", self._step, self._steps, left))
        batches.close()

    def _learn(self, x_read: Tensor, y_read: Tensor | None) -> None:
        recipe = self._recipe
        x = x_read.to(self._runtime.device)
        if recipe.augment and self._data.images:
            x = augment(x, seed=recipe.seed, step=self._step)
        x = self._runtime.send(x)
        torch.manual_seed(int(digest([recipe.seed, self._step, "dropout"])[:15], 16))
        with ExitStack() as contexts:
            contexts.enter_context(self._runtime.autocast())
            # what layers give is too large to remember, so that pass is needed each time
            is_remembered = self._shared and not recipe.feature_layers
            key = (self._batches_name, self._step) if is_remembered else None
            wanted = self._outputs.logits(x, key)
            if self._backward_copies:
                contexts.enter_context(allow_mutation_on_saved_tensors())
            self._step_from(class_logits(self._student(x)), wanted, y_read)

    def _step_from(self, logits: Tensor, wanted: Tensor, y_read: Tensor | None) -> None:
        recipe = self._recipe
        loss = distillation_loss(logits, wanted, recipe.temperature)
        if y_read is not None:
            labels = y_read.to(self._runtime.device)
            loss = (1 - recipe.alpha) * loss + recipe.alpha * nn.functional.cross_entropy(logits, labels)
        given = self._given_features.take()
        if given:
            error = feature_error(given, self._wanted_features.take())
            loss = (1 - recipe.features) * loss + recipe.features * error
        for group in self._optimizer.param_groups:
            group["lr"] = cosine_rate(self._step, self._steps, recipe.learning_rate)
        autograd_step(loss, self._optimizer, max_norm=GRADIENT_NORM)
        self._loss_sum = self._loss_sum + loss.detach()
        self._losses += 1

    def _reestimate(self, network: nn.Module) -> None:
        batches = self._data.batches("train", self._recipe.batch_size, seed=self._recipe.seed)
        reestimate_batch_norm(network, (self._runtime.send(x) for x, _ in batches), count=BATCH_NORM_BATCHES)
        batches.close()

    def _look(self, network: nn.Module) -> Evaluation:
        batches = self._data.iter_heldout(self._recipe.batch_size, self._recipe.heldout_images)

        def wanted(number: int, x: Tensor) -> Tensor:
            return self._outputs.logits(x, (self._batches_name, "heldout", number))

        return evaluate(network, ((self._runtime.send(x), y) for x, y in batches), teacher_logits=wanted)

    def _note(self, train_loss: float | None) -> None:
        """Judge the weights as they would be kept: averaged, batch norm's statistics their own."""
        if not (self._recipe.ema and self._step):
            move_average(self._average, self._student, 0.0)
        if self._step and not self._keeps_statistics:
            self._reestimate(self._average)
        heldout = self._look(self._average)
        self._history.append(Point(self._step, train_loss, heldout))
        loss = self._heldout_loss(heldout)
        if not self._best or loss < self._best_loss:
            self._best_loss = loss
            state = self._average.state_dict()
            self._best = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _heldout_loss(self, heldout: Evaluation) -> float:
        assert heldout.kl is not None
        kl = heldout.kl if math.isfinite(heldout.kl) else math.inf
        if heldout.loss is None:
            return kl
        return (1 - self._recipe.alpha) * kl + self._recipe.alpha * heldout.loss

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        assert self._before is not None
        assert self._reestimated is not None
        content = {
            "format": _FORMAT,
            "step": self._step,
            "student": self._student.state_dict(),
            "average": self._average.state_dict() if self._step < self._steps else None,
            "optimizer": self._optimizer.state_dict() if self._step < self._steps else None,
            "best": self._best,
            "best_loss": self._best_loss,
            "before": asdict(self._before),
            "reestimated": asdict(self._reestimated),
            "keeps_statistics": self._keeps_statistics,
            "history": [asdict(point) for point in self._history],
            "loss_sum": self._loss_sum,
            "losses": self._losses,
        }
        write_whole(self._checkpoint, lambda target: torch.save(content, target))

    def _restore(self) -> bool:
        found = None if self._checkpoint is None else load_checkpoint(self._checkpoint)
        if found is None or found.get("format") != _FORMAT:
            return False
        self._student.load_state_dict(found["student"])
        if found["optimizer"] is not None:
            self._optimizer.load_state_dict(found["optimizer"])
            self._average.load_state_dict(found["average"])
        self._step = found["step"]
        self._best, self._best_loss = found["best"], found["best_loss"]
        self._before = Evaluation(**found["before"])
        self._reestimated = Evaluation(**found["reestimated"])
        self._keeps_statistics = found["keeps_statistics"]
        self._history = [_point(entry) for entry in found["history"]]
        self._loss_sum, self._losses = found["loss_sum"].to(self._runtime.device), found["losses"]
        return True


def distillation_loss(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Return T² · KL(teacher ‖ student) at temperature T, mean over the batch and any positions."""
    student = torch.log_softmax(logits / temperature, 1)
    wanted = torch.log_softmax(teacher_logits / temperature, 1)
    divergence = nn.functional.kl_div(student, wanted, reduction="none", log_target=True).sum(1)
    return divergence.mean() * temperature**2


def _overwrites_what_gradients_need(student: nn.Module, data: DataSource, runtime: Runtime) -> bool:
    """Return whether the network changes tensors in place that its gradients need.

    The teacher's glue may do so (``ReLU(inplace=True)``, ``+=``) behind a layer whose own last operation does
    not need its output for gradients; a candidate's may. Torch then refuses, unless it keeps copies, which
    costs time. Tried on a copy, so that batch norm's statistics stay out of it.
    """
    tried = copy.deepcopy(student).train()
    x = runtime.send(data.batch("train", range(min(2, data.train_count)))[0])
    try:
        torch.autograd.backward(class_logits(tried(x)).sum())
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        return True
    return False


def _point(entry: Mapping[str, Any]) -> Point:
    return Point(entry["step"], entry["train_loss"], Evaluation(**entry["heldout"]))
