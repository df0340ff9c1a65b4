"""How good is a network: against labels, against the teacher, or both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.distill.data import Batch
from lanaprof.distill.runtime import Runtime
from lanaprof.errors import BadInput, UserError

__all__ = ["Evaluation", "agreement_per_image", "class_logits", "evaluate", "kl_on", "kl_per_image"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A network's quality on some samples.

    Attributes:
        images: how many samples.
        accuracy: share named rightly; None without labels.
        loss: mean cross entropy to the labels, in nats; None without labels.
        agreement: share named as the teacher does; None without a teacher.
        kl: mean Kullback-Leibler divergence from the teacher's distribution, in nats; None without a teacher.
    """

    images: int
    accuracy: float | None
    loss: float | None
    agreement: float | None
    kl: float | None


def evaluate(
    module: nn.Module,
    batches: Iterable[Batch],
    *,
    teacher: nn.Module | None = None,
    teacher_logits: Callable[[int, Tensor], Tensor] | None = None,
) -> Evaluation:
    """Return how good a classifier is; both networks run in eval mode and keep the mode they had.

    Args:
        module: gives logits (batch, classes) or (batch, classes, ...).
        batches: pairs of x and labels or None, such as ``DataSource.iter_split("test")``.
        teacher: to compare with.
        teacher_logits: instead of the teacher, gives its logits on batch number n, which it gets.

    Raises:
        BadInput: there are no batches.
        UserError: the network gives no logits.
    """
    sums = {"accuracy": 0.0, "loss": 0.0, "agreement": 0.0, "kl": 0.0}
    images, labelled = 0, True
    ask = teacher_logits if teacher_logits is not None or teacher is None else partial(_asked, teacher)
    runtime = Runtime.here()
    device = next((parameter.device for parameter in module.parameters()), runtime.device)
    modes = [(part, part.training) for network in (module, teacher) if network for part in network.modules()]
    try:
        module.eval()
        if teacher is not None:
            teacher.eval()
        with torch.no_grad():
            for number, (x, y) in enumerate(batches):
                x_here = x.to(device)
                logits = class_logits(module(x_here))
                images += len(x)
                if ask is not None:
                    wanted = ask(number, x_here)
                    sums["kl"] += kl_per_image(wanted, logits).sum().item()
                    sums["agreement"] += agreement_per_image(wanted, logits).sum().item()
                labelled = labelled and y is not None
                if y is not None:
                    target = y.to(device)
                    sums["loss"] += nn.functional.cross_entropy(logits, target, reduction="sum").item()
                    sums["accuracy"] += (logits.argmax(1) == target).float().sum().item()
    finally:
        for part, training in modes:
            part.training = training
    if not images:
        raise BadInput("there is nothing to evaluate on: no batches", hint="give at least one sample")
    known = {
        "accuracy": labelled,
        "loss": labelled,
        "agreement": ask is not None,
        "kl": ask is not None,
    }
    values = {name: total / images if known[name] else None for name, total in sums.items()}
    return Evaluation(images=images, **values)


def kl_on(
    module: nn.Module, batches: Iterable[Batch], teacher_logits: Callable[[int, Tensor], Tensor]
) -> list[float]:
    """Return KL(teacher ‖ network) in nats of every image.

    Args:
        module: in eval mode, where the batches lie.
        batches: pairs of which the first is x.
        teacher_logits: gives the teacher's on batch number n, which it gets.

    Raises:
        BadInput: there are no batches.
        UserError: the network gives no logits.
    """
    found: list[float] = []
    with torch.no_grad():
        for number, (x, _) in enumerate(batches):
            divergence = kl_per_image(teacher_logits(number, x), class_logits(module(x)))
            found += divergence.double().tolist()
    if not found:
        raise BadInput("there is nothing to evaluate on: no batches", hint="give at least one sample")
    return found


def _asked(teacher: nn.Module, _number: int, x: Tensor) -> Tensor:
    return class_logits(teacher(x))


def class_logits(output: Any) -> Tensor:
    """Return a network's output as float32 logits (batch, classes, ...).

    Raises:
        UserError: it is no tensor of at least two classes.
    """
    if not isinstance(output, Tensor) or output.ndim < 2 or output.shape[1] < 2:
        what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise UserError(
            f"the network gives {what}, not logits (batch, classes) of at least two classes",
            hint="judge it by your own function: --metric package.module:function",
        )
    return output.float()


def kl_per_image(teacher_logits: Tensor, logits: Tensor) -> Tensor:
    """Return (batch,) the divergence KL(teacher ‖ network) in nats, mean over positions if there are any."""
    wanted = torch.log_softmax(teacher_logits, 1)
    divergence = (wanted.exp() * (wanted - torch.log_softmax(logits, 1))).sum(1)
    return divergence.flatten(1).mean(1) if divergence.ndim > 1 else divergence


def agreement_per_image(teacher_logits: Tensor, logits: Tensor) -> Tensor:
    """Return (batch,) the share of positions where both name the same class: 0 or 1 for plain classifiers."""
    same = (teacher_logits.argmax(1) == logits.argmax(1)).float()
    return same.flatten(1).mean(1) if same.ndim > 1 else same
