"""An exponential moving average of a network's weights: it is what the weights settle around, without their noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["average_decay", "move_average"]

HORIZON_SHARE = 0.02  # of the steps that the average looks back on: docs/distilling.md has figures
_WARM_UP = 10.0  # early on the average looks back on a tenth of what there was


def average_decay(step: int, steps: int) -> float:
    """Return what the average keeps of itself after step ``step`` (from 0) of ``steps``.

    As in TensorFlow's ``ExponentialMovingAverage(num_updates)``: a long average may not remember the beginning.

    >>> [round(average_decay(step, 5000), 3) for step in (0, 90, 4999)]
    [0.1, 0.91, 0.99]
    """
    longest = 1 - 1 / max(1.0, steps * HORIZON_SHARE)
    return min(longest, (1 + step) / (_WARM_UP + step))


def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Move the average's parameters towards the network's: ``decay`` of the old, the rest of the new.

    Buffers are copied: statistics of batch norm do not average to those of the averaged weights and are to be taken
    anew before the average is used.
    """
    with torch.no_grad():
        own: list[Tensor] = list(average.parameters())
        new: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(own, new, 1 - decay)
        for buffer, value in zip(average.buffers(), network.buffers(), strict=True):
            buffer.copy_(value)
