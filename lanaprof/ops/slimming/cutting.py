"""Drop channels from a block: how many, which, and the weights without them."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lanaprof.ops.families import round_channels
from lanaprof.ops.slimming.classes import Ids, Room
from lanaprof.ops.slimming.tracing import Trace
from lanaprof.ops.slimming.tracking import Use

__all__ = ["classes_kept", "cut", "rank_classes"]

_ROUNDED_FROM = 16  # channels; fewer, as in squeeze-and-excitation, are counted one by one


def classes_kept(room: Room, width: float) -> int:
    """Return how many of a room's classes stay: ``width`` of them, and channels in multiples of 8.

    >>> [classes_kept(Room(tuple(range(n)), n), 0.5) for n in (6, 16, 36, 144)]
    [3, 8, 16, 72]
    >>> classes_kept(Room((0, 1, 2), 576), 0.5)
    2
    """
    count, each = len(room.classes), room.channels / len(room.classes)
    wanted = width * room.channels
    if room.channels >= _ROUNDED_FROM and each < 8:
        wanted = round_channels(wanted)
    return min(count, max(1, int(wanted / each + 0.5)))


def rank_classes(module: nn.Module, trace: Trace) -> dict[int, float]:
    """Return how much each class of channels that may be dropped matters, as a logarithm.

    It is the product of the norms along the channels' way: of the weights that make them (Li et al., arXiv
    1608.08710), of batch norm's scale over its deviation, of depthwise weights, and of the weights that take
    them; making and taking together are Puzzle's contribution of a channel (arXiv 2411.19146, appendix A)
    without the data. What computes gates from means over all pixels does not count.

    Args:
        module: the block, with weights.
        trace: of the same block.
    """
    state: Mapping[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    wide = np.zeros(len(trace.roots), dtype=bool)  # by class: is there more than one place anywhere?
    for use in trace.uses:
        if use.places > 1:
            wide[trace.roots[use.ids]] = True
    total = np.zeros(len(trace.roots))
    for use in trace.uses:
        roots = trace.roots[use.ids]
        squares = np.bincount(roots, weights=_squares(state, use), minlength=len(trace.roots))
        counts = use.places > 1
        touched = np.unique(roots)
        touched = touched[counts | ~wide[touched]]
        with np.errstate(divide="ignore"):  # a channel of zeros matters nothing: minus infinity
            total[touched] += 0.5 * np.log(squares[touched])
    return {root: float(total[root]) for room in trace.rooms for root in room.classes}


def _squares(state: Mapping[str, Tensor], use: Use) -> NDArray[np.float64]:
    """Return the squared norm of a weight's part of each channel."""
    weight = state[use.weight].detach().double().cpu().square()
    others = [dim for dim in range(weight.dim()) if dim != use.dim]
    squares = weight.sum(others) if others else weight
    if use.variance:
        squares = squares / (state[use.variance].detach().double().cpu() + use.eps)
    found: NDArray[np.float64] = squares.numpy()
    return found


def cut(module: nn.Module, trace: Trace, kept: Collection[int]) -> None:
    """Drop all channels of a block's rooms but those of the classes kept; the block is changed in place.

    Args:
        module: the block of the trace, or a copy of it.
        trace: says which weights hold which channels.
        kept: classes out of the trace's rooms.
    """
    stays = np.ones(len(trace.roots), dtype=bool)
    for room in trace.rooms:
        stays[list(room.classes)] = False
    stays[list(kept)] = True
    stays = stays[trace.roots]
    changed: set[str] = set()
    for name, marks in trace.weights.items():
        for dim, ids in enumerate(marks):
            if ids is not None and not stays[ids].all():
                _select(module, name, dim, np.flatnonzero(stays[ids]))
                changed.add(name.rpartition(".")[0])
    for name in changed:
        _resize(module.get_submodule(name))
    for weight, ids in trace.inputs.items():
        if weight and ids is not None and not stays[ids].all():
            convolution = module.get_submodule(weight.rpartition(".")[0])
            if isinstance(convolution, nn.modules.conv._ConvNd):
                convolution.in_channels = int(stays[ids].sum())
                convolution.groups = convolution.in_channels // convolution.weight.shape[1]
    for name, ids in trace.heads.items():
        if not stays[ids].all():
            _set_heads(module.get_submodule(name), int(stays[ids].sum()))


def _select(module: nn.Module, name: str, dim: int, places: Ids) -> None:
    owner_name, _, own_name = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    old = getattr(owner, own_name)
    index = torch.from_numpy(places).to(old.device)
    with torch.no_grad():
        new = old.detach().index_select(dim, index)
    if isinstance(old, nn.Parameter):
        owner._parameters[own_name] = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        owner._buffers[own_name] = new


def _resize(module: nn.Module) -> None:
    """Make a module's sizes those of its weights."""
    if isinstance(module, nn.modules.conv._ConvNd):
        module.out_channels = module.weight.shape[0]
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.modules.batchnorm._BatchNorm):
        vector = module.weight if module.weight is not None else module.running_mean
        if vector is not None:
            module.num_features = vector.shape[0]
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = module.weight.shape[0]


def _set_heads(module: nn.Module, heads: int) -> None:
    """Tell an attention module how many heads are left; each is as wide as before."""
    before = int(getattr(module, "num_heads"))  # noqa: B009 - no attribute of every module
    for name in ("attn_dim", "all_head_dim", "inner_dim"):
        size = getattr(module, name, None)
        if isinstance(size, int):
            setattr(module, name, size // before * heads)
    setattr(module, "num_heads", heads)  # noqa: B010 - as above
