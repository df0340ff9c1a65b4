"""A module in 16 bits: its weights stay in float32 for training and are cast where they are used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from lanaprof.ops.quantising.folding import fold_batch_norms
from lanaprof.ops.slimming.calls import function_name

__all__ = ["HALVES", "HalfPrecision"]

HALVES: Mapping[str, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


class HalfPrecision(nn.Module):
    """A module computed in 16 bits between borders in float32.

    Args:
        module: in its deployed form and eval mode; copied.
        precision: one of HALVES.
        x: an input, to see what is computed; any values.
    """

    def __init__(self, module: nn.Module, precision: str, x: Tensor) -> None:
        super().__init__()
        self.body = copy.deepcopy(module).eval()
        self.precision = precision
        with torch.no_grad():
            self._folded = fold_batch_norms(self.body, x.clone())

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation inside: batch norms are folded."""
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x: Tensor) -> Any:
        """Return what the module gives, in the input's type."""
        kind = HALVES[self.precision]
        narrow = x.to(kind)
        with _Narrowing(kind, [self.body.get_submodule(name).running_mean for name in self._folded]):
            result = self.body(narrow)
        return result.to(x.dtype) if isinstance(result, Tensor) else result


class _Narrowing(TorchFunctionMode):
    """Casts whatever float32 a function is given, weights above all; leaves out batch norms without work."""

    def __init__(self, kind: torch.dtype, idle: Sequence[Any]) -> None:
        super().__init__()
        self._kind = kind
        self._idle = {id(mean) for mean in idle}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if function_name(func) == "batch_norm" and id(args[1]) in self._idle:
            return args[0]
        args, kwargs = tree_map(self._narrowed, (args, kwargs or {}))
        return func(*args, **kwargs)

    def _narrowed(self, value: Any) -> Any:
        is_wide = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(self._kind) if is_wide else value
