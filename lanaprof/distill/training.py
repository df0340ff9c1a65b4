"""One step of training, and what it aims at."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lanaprof.distill.runtime import Runtime
from lanaprof.errors import BadInput

__all__ = [
    "Curve",
    "autograd_step",
    "cosine_rate",
    "frozen_copy",
    "loss_curve",
    "normalised_error",
    "output_power",
]

Curve = tuple[tuple[int, float], ...]  # (step, mean loss since the last point)

CURVE_POINTS = 24  # enough for a small chart, a few hundred bytes in a file
WARM_UP_SHARE = 0.05  # of the steps: batch norm and Adam's moments start from nothing


def autograd_step(loss: Tensor, optimizer: torch.optim.Optimizer, *, max_norm: float) -> None:
    """Clear old gradients, compute new ones, clip their norm, step."""
    optimizer.zero_grad(set_to_none=True)
    torch.autograd.backward(loss)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()


def frozen_copy(module: nn.Module, runtime: Runtime) -> nn.Module:
    """Return a copy of the teacher that is never trained, in eval mode, where training runs."""
    return runtime.place(copy.deepcopy(module)).eval().requires_grad_(False)


def output_power(target: Tensor) -> Tensor:
    """Return the mean square of what a layer gives, never 0: a layer that is always zero must not divide by it."""
    return target.float().square().mean().clamp_min(1e-12)


def normalised_error(output: Tensor, target: Tensor, power: Tensor) -> Tensor:
    """Return the mean squared error over the target's power: 0 is perfect, a constant 0 scores 1.

    Args:
        output: of the candidate.
        target: of the teacher's layer, of the same shape.
        power: ``output_power(target)``, which all candidates of the layer share.

    Raises:
        BadInput: the shapes differ.
    """
    if output.shape != target.shape:
        raise BadInput(
            f"a candidate gives {tuple(output.shape)} where the teacher gives {tuple(target.shape)}",
            hint="its operation family breaks its promise: leave it out",
        )
    return nn.functional.mse_loss(output, target) / power


def loss_curve(losses: Sequence[float] | NDArray[np.float64], *, points: int = CURVE_POINTS) -> Curve:
    """Return the course of the losses in at most ``points`` points: the steps done, the mean since the last point.

    >>> loss_curve([4.0, 2.0, 1.0, 0.5], points=2)
    ((2, 3.0), (4, 0.75))
    """
    count = len(losses)
    ends = sorted({round(count * (point + 1) / points) for point in range(points)} - {0})
    starts = [0, *ends[:-1]]
    means = (float(np.mean(losses[start:end])) for start, end in zip(starts, ends, strict=True))
    return tuple((end, float(f"{mean:.5g}")) for end, mean in zip(ends, means, strict=True))


def cosine_rate(step: int, steps: int, highest: float, *, warm_up_share: float = WARM_UP_SHARE) -> float:
    """Return the learning rate of a step: linear warm-up, then a cosine down to zero.

    >>> [round(cosine_rate(step, 100, 1.0), 2) for step in (0, 4, 52, 99)]
    [0.2, 1.0, 0.5, 0.0]
    """
    warm_up = max(1, round(steps * warm_up_share))
    if step < warm_up:
        return highest * (step + 1) / warm_up
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warm_up + 0.5) / max(1, steps - warm_up)))
