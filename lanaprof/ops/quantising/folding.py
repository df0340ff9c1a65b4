"""Evaluated batch norm folded into the convolution before it, whatever module it is part of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lanaprof.ops.slimming.calls import function_name

__all__ = ["fold_batch_norms"]

_CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")


def fold_batch_norms(module: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Fold, in place, every batch norm that alone follows a convolution; return the names of those left without work.

    Their statistics and weights become neutral. Who runs the module may leave them out.

    Args:
        module: in eval mode.
        x: an input, to see what follows what.
    """
    owners = {
        id(part.running_mean): (name, part)
        for name, part in module.named_modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None
    }
    holders = {
        id(getattr(part, "weight", None)): part for part in module.modules() if hasattr(part, "weight")
    }
    with torch.no_grad(), _Pairing() as pairing:
        module(x)
    folded = []
    for kernel, mean in pairing.pairs():
        holder, owner = holders.get(id(kernel)), owners.get(id(mean))
        if holder is not None and owner is not None:
            _fold(holder, owner[1])
            folded.append(owner[0])
    return tuple(folded)


def _fold(holder: nn.Module, norm: nn.modules.batchnorm._BatchNorm) -> None:
    mean, variance = norm.running_mean, norm.running_var
    assert mean is not None
    assert variance is not None
    kernel = holder.weight
    assert isinstance(kernel, Tensor)
    with torch.no_grad():
        factor = (variance.double() + norm.eps).rsqrt()
        factor = factor * norm.weight.double() if norm.weight is not None else factor
        shift = norm.bias.double() if norm.bias is not None else torch.zeros_like(factor)
        before = holder.bias.double() if isinstance(holder.bias, Tensor) else torch.zeros_like(factor)
        bias = shift + (before - mean.double()) * factor
        kernel.mul_(factor.reshape(-1, *(1 for _ in kernel.shape[1:])).to(kernel.dtype))
        holder.bias = nn.Parameter(bias.to(kernel.dtype), requires_grad=kernel.requires_grad)
        mean.zero_()
        variance.fill_(1.0 - norm.eps)  # which is added to it
        for parameter, value in ((norm.weight, 1.0), (norm.bias, 0.0)):
            if parameter is not None:
                parameter.fill_(value)
                parameter.requires_grad_(False)


class _Pairing(TorchFunctionMode):
    """Sees which batch norm reads which convolution's result."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Tensor, Tensor]] = {}  # id of a result → the result, the kernel
        self._read: dict[int, int] = {}  # id of a result → how often it is read
        self._kept: list[Tensor] = []  # so that no id comes twice
        self._norms: list[tuple[int, Tensor]] = []
        self._kernels: list[int] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        name = function_name(func)
        result = func(*args, **(kwargs or {}))
        if not isinstance(result, Tensor):
            return result  # a shape, say: nothing is computed from the values
        self._kept.append(result)
        for value in (*args, *(kwargs or {}).values()):
            if isinstance(value, Tensor):
                self._read[id(value)] = self._read.get(id(value), 0) + 1
        if name == "batch_norm" and id(args[0]) in self._made and isinstance(args[1], Tensor):
            self._norms.append((id(args[0]), args[1]))
        elif name in _CONVOLUTIONS and len(args) > 1 and isinstance(args[1], nn.Parameter):
            self._made[id(result)] = (result, args[1])
            self._kernels.append(id(args[1]))
        return result

    def pairs(self) -> list[tuple[Tensor, Tensor]]:
        """Return (kernel, running mean) of what can be folded: each used once, nothing else reads what is between."""
        means = [id(mean) for _, mean in self._norms]
        return [
            (self._made[made][1], mean)
            for made, mean in self._norms
            if self._read[made] == 1
            and means.count(id(mean)) == 1
            and self._kernels.count(id(self._made[made][1])) == 1
        ]
