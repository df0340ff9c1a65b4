"""How a student is fine-tuned, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass

from lanaprof.distill.evaluation import Evaluation
from lanaprof.distill.runtime import PRECISIONS
from lanaprof.errors import BadInput

__all__ = ["FinetuneRecipe", "FinetuneResult", "Point"]


@dataclass(frozen=True, slots=True)
class FinetuneRecipe:
    """How a student is fine-tuned.

    Attributes:
        epochs: passes over the training data; parts of one are fine. ``steps`` wins when given.
        steps: batches, or None.
        batch_size: samples in a batch, at least 2.
        learning_rate: of AdamW at its highest; warm-up, then a cosine to zero.
        weight_decay: of AdamW.
        temperature: both networks' logits are divided by it; the divergence is multiplied by its square.
        alpha: the share of the cross entropy to the labels in the loss, where there are labels.
        evaluations: how often the held-out data is looked at; the best moment is kept.
        heldout_images: at most so many of them.
        augment: flip and shift images.
        seed: of order and augmentation.
        ema: judge and keep an exponential moving average of the weights, not the weights of one moment.
        feature_layers: where the student's layers are compared with the teacher's; the names exist in both. None for
            the output alone.
        features: the share of this comparison in the loss, where ``feature_layers`` names any.
        precision: ``fp32``, ``bf16`` (mixed: weights and their updates stay in float32), or ``auto``: bf16 on a GPU
            that has it, else fp32.
    """

    epochs: float = 2.0
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    temperature: float = 2.0
    alpha: float = 0.1
    evaluations: int = 4
    heldout_images: int = 2048
    augment: bool = True
    seed: int = 0
    ema: bool = True
    feature_layers: tuple[str, ...] = ()
    features: float = 0.5
    precision: str = "auto"

    def __post_init__(self) -> None:
        steps_fine = self.steps is None or self.steps >= 1
        if not (self.epochs > 0 and steps_fine and self.batch_size >= 2 and self.learning_rate > 0):
            raise BadInput(
                f"cannot fine-tune for {self.epochs} epochs or {self.steps} steps of {self.batch_size} samples "
                f"at learning rate {self.learning_rate}",
                hint="more than 0 epochs, at least 1 step and 2 samples, a learning rate above 0",
            )
        if not (self.temperature > 0 and 0 <= self.alpha <= 1 and self.evaluations >= 1):
            raise BadInput(
                f"temperature {self.temperature}, alpha {self.alpha}, evaluations {self.evaluations} "
                "make no loss",
                hint="a temperature above 0, alpha between 0 and 1, at least 1 evaluation",
            )
        if not 0 <= self.features < 1:
            raise BadInput(
                f"features cannot be {self.features} of the loss",
                hint="a share of 0 or more, below 1: --features 0.5",
            )
        if self.precision not in PRECISIONS:
            raise BadInput(
                f"cannot train in {self.precision!r}", hint=f"choose one of {', '.join(PRECISIONS)}"
            )

    def step_count(self, train_count: int) -> int:
        """Return how many batches this means for so many training samples."""
        if self.steps is not None:
            return self.steps
        return max(1, round(self.epochs * train_count / self.batch_size))


@dataclass(frozen=True, slots=True)
class Point:
    """The student at one moment: after ``step`` batches, as it would be kept, on held-out data.

    ``train_loss`` is the mean since the point before; None at the first.
    """

    step: int
    train_loss: float | None
    heldout: Evaluation


@dataclass(frozen=True, slots=True)
class FinetuneResult:
    """What became of the student.

    Attributes:
        before: on held-out data, as it came.
        reestimated: after batch norm was re-estimated, before the first step.
        kept_statistics: that made it worse, so the statistics it came with were kept through all of the training.
        best: at the best moment, whose weights the student now has.
        history: every look at the held-out data, in order; at first as the training began.
        steps: batches trained.
        weights_digest: of the student's final weights.
        reused: the result was there already; nothing was trained.
    """

    before: Evaluation
    reestimated: Evaluation
    kept_statistics: bool
    best: Evaluation
    history: tuple[Point, ...]
    steps: int
    weights_digest: str
    reused: bool
