"""Batch norm's running statistics, taken anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.errors import BadInput

__all__ = ["reestimate_batch_norm"]


def reestimate_batch_norm(module: nn.Module, batches: Iterable[Any], *, count: int = 12) -> int:
    """Take the running statistics of every batch norm anew, in place, and return how many there are.

    An assembled network needs this: each layer was trained on the teacher's activations and now gets other
    candidates' ones; docs/distilling.md has figures. The statistics are plain averages over the batches;
    weights, momentum and modes stay as they were. Do this before scoring a combination, fine-tuning it or
    fusing it.

    Args:
        module: changed in place.
        batches: unlabelled tensors (batch, ...) or pairs of which the first is one; on any device.
        count: at most so many are used.

    Raises:
        BadInput: there is batch norm but no batch.
    """
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    if not norms:
        return 0
    modes = [(part, part.training) for part in module.modules()]
    momenta = [norm.momentum for norm in norms]
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    used = 0
    try:
        module.eval()  # dropout stays off: only batch norm sees the batch's own statistics
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch then keeps the plain average
            norm.train()
        with torch.no_grad():
            for batch in itertools.islice(batches, count):
                x = batch if isinstance(batch, Tensor) else batch[0]
                module(x.to(device))
                used += 1
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for part, training in modes:
            part.training = training
    if not used:
        raise BadInput(
            "there are no batches to take batch norm's statistics from", hint="give at least one batch"
        )
    return len(norms)
