"""Batch norm's running statistics, taken anew."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.errors import BadInput

__all__ = ["BatchNorms", "RunningStatistics", "find_batch_norms", "reestimate_batch_norm"]

BatchNorms = Mapping[str, nn.modules.batchnorm._BatchNorm]  # by name, those that keep running statistics


def find_batch_norms(module: nn.Module, prefix: str = "") -> dict[str, nn.modules.batchnorm._BatchNorm]:
    """Return a module's batch norms that keep running statistics, by name in order, each name after a prefix."""
    return {
        f"{prefix}.{name}" if prefix and name else prefix or name: part
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    }


class RunningStatistics:
    """One network's running statistics, kept beside the modules: many networks may share the same ones.

    While they are lent, the batch norms use these buffers and no others; the modules' own are not touched.
    """

    def __init__(self) -> None:
        self._own: dict[str, tuple[Tensor, Tensor, Tensor]] = {}  # mean, variance, batches seen

    @contextmanager
    def lent(self, norms: BatchNorms, *, learning: bool) -> Iterator[None]:
        """Let batch norms use these statistics.

        Args:
            norms: the same names each time; nobody else may use the modules meanwhile.
            learning: average over what flows, as ``reestimate_batch_norm`` does; else use what was learnt.
        """
        kept = [
            (
                norm,
                norm.running_mean,
                norm.running_var,
                norm.num_batches_tracked,
                norm.momentum,
                norm.training,
            )
            for norm in norms.values()
        ]
        try:
            for name, norm in norms.items():
                assert norm.running_mean is not None
                assert norm.running_var is not None
                assert norm.num_batches_tracked is not None
                if name not in self._own:
                    self._own[name] = (
                        torch.zeros_like(norm.running_mean),
                        torch.ones_like(norm.running_var),
                        torch.zeros_like(norm.num_batches_tracked),
                    )
                norm.running_mean, norm.running_var, norm.num_batches_tracked = self._own[name]
                norm.momentum = None  # torch then keeps the plain average
                norm.training = learning
            yield
        finally:
            for norm, mean, variance, batches, momentum, training in kept:
                norm.running_mean, norm.running_var, norm.num_batches_tracked = mean, variance, batches
                norm.momentum, norm.training = momentum, training


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
    norms = list(find_batch_norms(module).values())
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
