"""Make a cheaper block out of the teacher's own: it starts with the teacher's weights, not from nothing."""

from __future__ import annotations

import copy
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lanaprof.digest import digest
from lanaprof.errors import UnknownOperation
from lanaprof.ops.blocks.parts import ACTIVATION_MODULES
from lanaprof.ops.slimming.classes import Room
from lanaprof.ops.slimming.cutting import classes_kept, cut, rank_classes
from lanaprof.ops.slimming.swaps import (
    crop_kernels,
    find_activations,
    find_gates,
    replace_parts,
    silence,
)
from lanaprof.ops.slimming.tracing import Trace, trace_channels

__all__ = ["Slim"]

_BATCH = 2  # with one sample a dimension of size 1 could be anything

Shape = tuple[int, ...]


class _CannotSlimError(Exception):
    """Why a block cannot be slimmed."""


@dataclass(frozen=True, slots=True)
class _Changes:
    """What is asked of a block, as in the operation's text."""

    width: float
    kernel: int
    se: str
    act: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is to be done to a layer; it depends on no weight's value.

    Attributes:
        sizes: the digest of what it will be, its weights' values left out.
        gates: the squeeze-and-excitation modules to replace.
        activations: the activations to replace.
        trace: of the channels, after the parts are replaced; None where all channels stay.
        counts: how many classes of channels stay in each of the trace's rooms.
    """

    sizes: str
    gates: tuple[str, ...]
    activations: tuple[str, ...]
    trace: Trace | None
    counts: tuple[int, ...]


class Slim:
    """Makes slim blocks; calling it returns a torch.nn.Module, a changed copy of the layer.

    Args:
        layer: the teacher's; it stays as it is.
        input_shape: of one sample.
        output_shape: of one sample.
        width: share of the inner channels to keep, the most important ones.
        kernel: larger kernels are cropped to this size; 0 keeps them.
        se: ``keep`` or ``drop`` squeeze-and-excitation.
        act: ``own``, or what replaces the activations inside.

    Raises:
        UnknownOperation: the layer cannot be slimmed so; the message says why.
    """

    def __new__(  # type: ignore[misc]
        cls, layer: nn.Module, input_shape: Shape, output_shape: Shape, **parameters: Any
    ) -> nn.Module:
        """Return the slim block in training mode; its class is the layer's."""
        changes = _Changes(**parameters)
        plan = _get_plan(layer, input_shape, output_shape, changes)
        return _slimmed(layer, plan, changes)

    @staticmethod
    def why_not(layer: nn.Module, input_shape: Shape, output_shape: Shape, **parameters: Any) -> str | None:
        """Return why a layer cannot be slimmed so, or None where it can; weights' values do not matter."""
        try:
            _planned(layer, input_shape, output_shape, _Changes(**parameters))
        except _CannotSlimError as error:
            return str(error)
        return None

    @staticmethod
    def sizes(layer: nn.Module, input_shape: Shape, output_shape: Shape, **parameters: Any) -> str:
        """Return the digest of the block's parts and shapes: where it is equal, so is what is deployed.

        Raises:
            UnknownOperation: the layer cannot be slimmed so.
        """
        return _get_plan(layer, input_shape, output_shape, _Changes(**parameters)).sizes


def _get_plan(layer: nn.Module, input_shape: Shape, output_shape: Shape, changes: _Changes) -> _Plan:
    try:
        return _planned(layer, input_shape, output_shape, changes)
    except _CannotSlimError as error:
        raise UnknownOperation(
            f"{type(layer).__name__} cannot be slimmed so: {error}",
            hint="choose another operation for this layer",
        ) from error


# Plans by layer: a space asks for each slim block several times (does it fit, is it new, how large is it, build
# it), and following the channels is what takes the time.
_PLANS: WeakKeyDictionary[nn.Module, dict[Hashable, _Plan | str]] = WeakKeyDictionary()


def _planned(layer: nn.Module, input_shape: Shape, output_shape: Shape, changes: _Changes) -> _Plan:
    """Return what is to be done.

    Raises:
        _CannotSlimError: it cannot be done, or a part of it would change nothing.
    """
    now = tuple((name, type(child)) for name, child in layer.named_modules())
    shapes = tuple((name, value.shape) for name, value in layer.state_dict(keep_vars=True).items())
    key = (now, shapes, tuple(input_shape), tuple(output_shape), changes)
    known = _PLANS.setdefault(layer, {})
    if key not in known:
        try:
            known[key] = _planned_anew(layer, input_shape, output_shape, changes)
        except _CannotSlimError as error:
            known[key] = str(error)
    found = known[key]
    if isinstance(found, str):
        raise _CannotSlimError(found)
    return found


def _planned_anew(layer: nn.Module, input_shape: Shape, output_shape: Shape, changes: _Changes) -> _Plan:
    try:
        return _planned_with(_without_values(layer), input_shape, output_shape, changes)
    except _CannotSlimError:
        raise
    except Exception as without_values:  # whatever the block's code, or torch without values, may raise
        try:
            return _planned_with(copy.deepcopy(layer).cpu(), input_shape, output_shape, changes)
        except _CannotSlimError:
            raise
        except Exception as error:
            raise _CannotSlimError(f"it cannot be run by itself ({_short(error)})") from without_values


def _planned_with(made: nn.Module, input_shape: Shape, output_shape: Shape, changes: _Changes) -> _Plan:
    """Return the plan found by doing it to a copy of the layer."""
    made.eval()
    x = torch.zeros(_BATCH, *input_shape, device=_device(made))
    with torch.no_grad():
        gates = find_gates(made) if changes.se == "drop" else ()
        if changes.se == "drop" and not gates:
            raise _CannotSlimError("it has no squeeze-and-excitation of its own to drop")
        replace_parts(made, gates, nn.Identity)
        activations: tuple[str, ...] = ()
        if changes.act != "own":
            activations = find_activations(made, changes.act, lambda: made(x))
            if not activations:
                raise _CannotSlimError(f"it has no activation inside that is not {changes.act} already")
            replace_parts(made, activations, ACTIVATION_MODULES[changes.act])
        if changes.kernel and not crop_kernels(made, changes.kernel):
            raise _CannotSlimError(f"it has no kernel larger than {changes.kernel} that can be cropped")
    trace: Trace | None = None
    counts: tuple[int, ...] = ()
    if changes.width < 1:
        trace = trace_channels(made, x)
        counts = _counts(trace, changes.width)
        rooms = zip(trace.rooms, counts, strict=True)
        cut(made, trace, {root for room, count in rooms for root in room.classes[:count]})
    _expect_output(made, x, output_shape)
    shapes = [[name, list(value.shape)] for name, value in made.state_dict().items()]
    sizes = digest([shapes, sorted(gates), sorted(activations), changes.act])
    return _Plan(sizes, gates, activations, trace, counts)


def _counts(trace: Trace, width: float) -> tuple[int, ...]:
    """Return how many classes of channels stay in each room."""
    if not trace.rooms:
        reason = "; ".join(trace.reasons) or "all its channels are its input's or its output's"
        raise _CannotSlimError(f"no channels inside it can be dropped: {reason}")
    places = [_places(trace, room) for room in trace.rooms]
    everywhere = max((use.places for use in trace.uses), default=1)
    counts = tuple(classes_kept(room, width) for room in trace.rooms)
    less = [count < len(room.classes) for room, count in zip(trace.rooms, counts, strict=True)]
    if everywhere > 1 and not any(place > 1 for place in places):
        raise _CannotSlimError(
            "only its squeeze-and-excitation could be narrower, which saves next to nothing"
        )
    if not any(change and (place > 1 or everywhere == 1) for change, place in zip(less, places, strict=True)):
        raise _CannotSlimError(f"it is too narrow: rounded, {width:g} of its channels are all of them")
    return counts


def _places(trace: Trace, room: Room) -> int:
    """Return the most pixels or tokens at which a room's channels stand."""
    classes = set(room.classes)
    return max(
        (use.places for use in trace.uses if not classes.isdisjoint(trace.roots[use.ids].tolist())), default=1
    )


def _slimmed(layer: nn.Module, plan: _Plan, changes: _Changes) -> nn.Module:
    """Do to a copy of the layer what is planned, its most important channels kept."""
    made = copy.deepcopy(layer).eval()
    with torch.no_grad():
        replace_parts(made, plan.gates, nn.Identity)
        if plan.activations:
            replace_parts(made, plan.activations, ACTIVATION_MODULES[changes.act])
        if changes.kernel:
            crop_kernels(made, changes.kernel)
    if plan.trace is not None:
        importance = rank_classes(made, plan.trace)
        kept: set[int] = set()
        for room, count in zip(plan.trace.rooms, plan.counts, strict=True):
            kept.update(sorted(room.classes, key=lambda root: (-importance[root], root))[:count])
        cut(made, plan.trace, kept)
    silence(made)
    return made.requires_grad_(True).train()


def _expect_output(made: nn.Module, x: Tensor, output_shape: Shape) -> None:
    """Run the block as it will be: sizes written into its code show here."""
    try:
        with torch.no_grad():
            outputs = [out for out in tree_leaves(made(x)) if isinstance(out, Tensor)]
    except Exception as error:  # whatever the block's code raises
        raise _CannotSlimError(f"its code counts on its sizes ({_short(error)})") from error
    if not outputs or tuple(outputs[0].shape) != (x.shape[0], *output_shape):
        shape = tuple(outputs[0].shape[1:]) if outputs else "nothing"
        raise _CannotSlimError(f"it would give {shape} instead of {tuple(output_shape)}")


def _without_values(layer: nn.Module) -> nn.Module:
    """Return a copy whose parameters and buffers have shapes only."""
    memo: dict[int, Any] = {}
    for parameter in layer.parameters():
        memo[id(parameter)] = nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False)
    for buffer in layer.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(layer, memo)


def _device(module: nn.Module) -> torch.device:
    for value in (*module.parameters(), *module.buffers()):
        return value.device
    return torch.device("cpu")


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:120]}" if lines else type(error).__name__
