"""What flows through the teacher: inputs and outputs of named submodules, and suffixes computed alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lanaprof.distill.batchnorm import BatchNorms, RunningStatistics, find_batch_norms
from lanaprof.errors import UserError
from lanaprof.space import place_ends

__all__ = ["Replay", "Tap", "Taps"]


@dataclass(frozen=True, slots=True)
class Tap:
    """What went into a submodule and what came out, as they were at that moment."""

    input: Tensor
    output: Tensor


class Taps:
    """Records the input and output of named submodules during forward passes without gradients.

    A module behind or inside a tapped one may change a tensor in place (``ReLU(inplace=True)``). Torch counts
    such changes; where one is seen the tensor is copied from then on, and the pass is repeated.

    Args:
        root: run in the mode it is in; meant to be in eval mode.
        names: of submodules called once per pass, with a tensor first and a tensor out; ``first..last`` is what goes
            into the first and comes out of the last of several.
    """

    def __init__(self, root: nn.Module, names: Iterable[str]) -> None:
        self._root = root
        self._names = tuple(names)
        self._copied: set[tuple[str, str]] = set()  # (name, "input" or "output")
        self._seen: dict[tuple[str, str], tuple[Tensor, int]] = {}

    def run(self, x: Tensor) -> tuple[Any, dict[str, Tap]]:
        """Return the root's output and what went through every tap.

        Raises:
            UserError: a submodule was not called, or gives no tensor.
        """
        handles = []
        try:
            for name in self._names:
                first, last = (self._root.get_submodule(end) for end in place_ends(name))
                handles.append(first.register_forward_pre_hook(self._before(name)))
                handles.append(last.register_forward_hook(self._after(name)))
            while True:
                self._seen.clear()
                with torch.no_grad():
                    result = self._root(x)
                changed = {key for key, (tensor, version) in self._seen.items() if tensor._version != version}
                if not changed - self._copied:
                    break
                self._copied |= changed
        finally:
            for handle in handles:
                handle.remove()
        taps = {}
        for name in self._names:
            if (name, "output") not in self._seen:
                raise UserError(
                    f"the layer {name} was not called in the teacher's forward pass, or gave no tensor",
                    hint="name other layers with --layers",
                )
            taps[name] = Tap(self._seen[name, "input"][0], self._seen[name, "output"][0])
        self._seen.clear()  # the caller decides how long the tensors live
        return result, taps

    def is_changed(self, name: str) -> bool:
        """Return whether something behind a submodule was seen changing its output in place."""
        return (name, "output") in self._copied

    def _before(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            self._keep((name, "input"), arguments[0] if arguments else None)

        return hook

    def _after(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
            self._keep((name, "output"), output)

        return hook

    def _keep(self, key: tuple[str, str], value: Any) -> None:
        if isinstance(value, Tensor):
            kept = value.detach().clone() if key in self._copied else value
            self._seen[key] = (kept, kept._version)


class Replay:
    """Runs the network with one layer replaced, computing only what comes after it.

    Everything that ran before the layer is replayed from a recorded pass: the other layers and, where they
    are modules, stem and glue. What is left of the prefix is glue written as functions. After ``record``,
    as many threads may call ``run`` at once as there are copies.

    Args:
        root: copied; run in eval mode.
        layers: names of the layers that may be replaced.
        sample: a small batch, to see in which order the modules are called.
        copies: how many networks to keep.
    """

    def __init__(self, root: nn.Module, layers: Sequence[str], *, sample: Tensor, copies: int = 1) -> None:
        self._roots: SimpleQueue[tuple[nn.Module, BatchNorms]] = SimpleQueue()
        for _ in range(copies):
            own = copy.deepcopy(root).eval()
            self._roots.put((own, find_batch_norms(own)))
        self._recording_root = copy.deepcopy(root).eval()
        called = _call_order(self._recording_root, _pieces(self._recording_root, set(layers)), sample)
        self._order = {name: place for place, name in enumerate(called)}
        missing = [name for name in layers if name not in self._order]
        if missing:
            raise UserError(
                f"the layer {missing[0]} is not called exactly once with a tensor coming out",
                hint="name other layers with --layers",
            )
        norms = find_batch_norms(self._recording_root)
        self._norms_behind = {layer: _outside(norms, called[: self._order[layer] + 1]) for layer in layers}
        self._statistics_bytes = {  # mean and variance, float32
            layer: sum(8 * norms[name].num_features for name in names)
            for layer, names in self._norms_behind.items()
        }
        self._taps = Taps(self._recording_root, called)
        self._x = sample
        self._recorded: dict[str, Tap] = {}
        self.record(sample)

    @property
    def recorded_bytes(self) -> int:
        """What the recorded batch takes in memory, at most."""
        kept = [tensor for tap in self._recorded.values() for tensor in (tap.input, tap.output)]
        return sum({id(tensor): tensor.numel() * tensor.element_size() for tensor in kept}.values())

    def record(self, x: Tensor) -> Any:
        """Run the whole network on a batch, keep what flowed, and return its output."""
        self._x = x
        result, self._recorded = self._taps.run(x)
        return result

    def statistics_bytes(self, layer: str) -> int:
        """Return what the running statistics of all batch norms behind a layer, or a run's last, take in memory."""
        return self._statistics_bytes[place_ends(layer)[1]]

    def run(
        self,
        layer: str,
        replacement: nn.Module,
        *,
        statistics: RunningStatistics | None = None,
        learning: bool = False,
        whole: bool = False,
    ) -> Any:
        """Return the network's output on the recorded batch with ``replacement`` standing in ``layer``.

        Args:
            layer: where; in place of several layers for ``first..last``.
            replacement: used by no other thread meanwhile.
            statistics: what batch norms behind the layer use instead of their own; None for their own.
            learning: let these statistics learn from this batch.
            whole: they are for the replacement's own batch norms, too.
        """
        first, last = place_ends(layer)
        root, known = self._roots.get()
        patched: list[nn.Module] = []
        lending = ExitStack()
        try:
            if statistics is not None:
                norms = {name: known[name] for name in self._norms_behind[last]}
                own = find_batch_norms(replacement, layer) if whole else {}
                lending.enter_context(statistics.lent(norms | own, learning=learning))
            for name, place in self._order.items():
                if place <= self._order[last]:
                    module = root.get_submodule(name)
                    # on the instance: nn.Module calls self.forward, and code that reads the module's
                    # attributes still finds them
                    if name == first:
                        module.__dict__["forward"] = _on_a_copy(replacement)
                    elif place > self._order[first]:
                        module.__dict__["forward"] = _passing
                    else:
                        recorded = self._recorded[name].output
                        module.__dict__["forward"] = _returning(recorded, copied=self._taps.is_changed(name))
                    patched.append(module)
            with torch.no_grad():
                return root(self._x.clone())
        finally:
            for module in patched:
                del module.__dict__["forward"]
            lending.close()
            self._roots.put((root, known))


def _outside(names: Iterable[str], pieces: Sequence[str]) -> tuple[str, ...]:
    """Return those names of submodules that lie in none of the pieces."""
    return tuple(
        name for name in names if not any(name == piece or name.startswith(f"{piece}.") for piece in pieces)
    )


def _on_a_copy(module: nn.Module) -> Callable[[Tensor], Any]:
    """Return the module for a copy of its input: it may overwrite it, or return it to glue that does."""
    return lambda x: module(x.clone())


def _passing(x: Tensor) -> Tensor:
    """Return what the span before gives: the layers behind its first have no part of their own."""
    return x


def _returning(value: Tensor, *, copied: bool) -> Callable[..., Tensor]:
    return lambda *_arguments, **_named: value.clone() if copied else value


def _pieces(root: nn.Module, layers: set[str]) -> Mapping[str, tuple[str, ...]]:
    """Return the largest submodules that hold no layer, and the layers: each with its descendants' names."""
    holders = {name.rpartition(".")[0] for name in layers}
    for name in tuple(holders):
        parts = name.split(".")
        holders |= {".".join(parts[:length]) for length in range(len(parts))}
    pieces: dict[str, tuple[str, ...]] = {}
    for name, module in root.named_modules():
        inside = any(name.startswith(f"{layer}.") for layer in layers)
        if name and not inside and name not in holders:
            pieces[name] = tuple(f"{name}.{child}" for child, _ in module.named_modules() if child)
    return pieces


def _call_order(root: nn.Module, pieces: Mapping[str, tuple[str, ...]], sample: Tensor) -> tuple[str, ...]:
    """Return the pieces called exactly once with a tensor out, in order; of nested ones the outermost."""
    ended: list[str] = []
    tensor_out: dict[str, bool] = {}
    handles: list[RemovableHandle] = []

    def hook(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def note(_module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            ended.append(name)
            tensor_out[name] = (
                isinstance(output, Tensor) and bool(arguments) and isinstance(arguments[0], Tensor)
            )

        return note

    try:
        handles += [root.get_submodule(name).register_forward_hook(hook(name)) for name in pieces]
        with torch.no_grad():
            root(sample)
    finally:
        for handle in handles:
            handle.remove()
    usable = [name for name in ended if ended.count(name) == 1 and tensor_out[name]]
    covered = {child for name in usable for child in pieces[name]}
    return tuple(name for name in usable if name not in covered)
