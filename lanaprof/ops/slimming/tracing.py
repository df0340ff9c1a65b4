"""Follow the channels of a block through one forward pass: which weights hold which of them.

Every tensor gets a number per channel for each of its dimensions, or None for a dimension that stays as it is
(samples, pixels, tokens). A convolution or linear layer makes new channels, everything else keeps or joins
them; what is not understood fixes the channels it touches. The coupling of channels is that of dependency
graphs (Fang et al., DepGraph, arXiv 2301.12900).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from lanaprof.ops.slimming.calls import Call, function_name
from lanaprof.ops.slimming.classes import Ids, Room
from lanaprof.ops.slimming.rules import apply_rule
from lanaprof.ops.slimming.tracking import Marks, Tracker, Use

__all__ = ["Trace", "trace_channels"]

_ACTIVATION = re.compile(r"(?i)swish|mish|silu|gelu|relu|sigmoid|tanh|drop")


@dataclass(frozen=True, slots=True)
class Trace:
    """What a forward pass showed.

    Attributes:
        weights: parameters and buffers by name, with the channels along each dimension.
        inputs: weights of convolutions, with the channels the convolution is given.
        heads: attention modules by name, with their heads.
        uses: weights that make, scale or take channels.
        roots: the class of every number.
        rooms: where channels may be dropped.
        reasons: why channels elsewhere cannot, in words.
    """

    weights: Mapping[str, Marks]
    inputs: Mapping[str, Ids | None]
    heads: Mapping[str, Ids]
    uses: tuple[Use, ...]
    roots: Ids
    fixed: NDArray[np.bool_]
    rooms: tuple[Room, ...]
    reasons: tuple[str, ...]


def trace_channels(module: nn.Module, x: Tensor) -> Trace:
    """Run a block once and return where its channels went.

    Args:
        module: in eval mode; it is not changed.
        x: its input, two samples or more. The values do not matter: on torch's meta device nothing is computed.
    """
    tracker = Tracker(module)
    tracker.put(x, (None,) * x.dim())
    handles = [handle for name, child in module.named_modules() for handle in _watch(tracker, name, child)]
    try:
        with torch.no_grad(), _Following(tracker):
            result = module(x)
    finally:
        for handle in handles:
            handle.remove()
    for out in tree_leaves(result):
        if isinstance(out, Tensor):
            tracker.fix(out)
    roots, fixed, rooms = tracker.classes.resolve()
    return Trace(
        tracker.weights,
        tracker.inputs,
        tracker.heads,
        tuple(tracker.uses),
        roots,
        fixed,
        rooms,
        tuple(tracker.classes.reasons),
    )


class _Following(TorchFunctionMode):
    """Tells the tracker of every torch function that is called."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        apply_rule(self._tracker, Call(function_name(func), args, kwargs or {}, result))
        return result


def _watch(tracker: Tracker, name: str, module: nn.Module) -> list[RemovableHandle]:
    """Note which attention is being run, and what came out of modules whose inside cannot be followed."""
    heads = getattr(module, "num_heads", None)

    def before(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        del inputs
        if isinstance(heads, int):
            tracker.open_heads.append((name, heads))

    def after(child: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(heads, int):
            tracker.open_heads.remove((name, heads))
        given = [x for x in inputs if isinstance(x, Tensor)]
        for out in tree_leaves(output):
            if not isinstance(out, Tensor) or tracker.is_known(out) or not given:
                continue
            own = type(child).__name__
            if len(given) == 1 and given[0].shape == out.shape and _ACTIVATION.search(own):
                tracker.put(out, tracker.marks(given[0]))  # written as an autograd function of its own
                continue
            for x in given:
                tracker.fix(x, f"its channels pass through {own}, which cannot be followed")
            tracker.put(out, (None,) * out.dim())

    return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
