"""What layers inside a network give, for a loss that compares student and teacher before their outputs, too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lanaprof.distill.training import normalised_error, output_power
from lanaprof.space import Choices, Space

__all__ = ["LayerOutputs", "feature_error", "stage_ends"]


def stage_ends(space: Space, choices: Choices) -> tuple[str, ...]:
    """Return the last layer of each stretch of layers whose outputs have one shape.

    There the teacher's stages end: few places, each with all that the stage learnt. Inside of what a span covers
    a network has nothing to compare.

    Args:
        space: with the teacher's layers.
        choices: of the network.
    """
    layers = space.layers
    inside = {name for place, _ in space.parts(choices) for name in space.covered(place.name)[:-1]}
    return tuple(
        layer.name
        for layer, following in zip(layers, [*layers[1:], None], strict=True)
        if (following is None or following.output_shape != layer.output_shape) and layer.name not in inside
    )


class LayerOutputs:
    """Records what named submodules give in a forward pass, gradients included.

    Args:
        root: hooked until :meth:`close`.
        names: of submodules that give a tensor.
    """

    def __init__(self, root: nn.Module, names: Iterable[str]) -> None:
        self._found: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = [
            root.get_submodule(name).register_forward_hook(self._keeper(name)) for name in names
        ]

    def take(self) -> dict[str, Tensor]:
        """Return what was recorded since the last call, by name, and forget it."""
        found = dict(self._found)
        self._found.clear()
        return found

    def close(self) -> None:
        """Remove the hooks and forget."""
        for handle in self._handles:
            handle.remove()
        self._found.clear()

    def _keeper(self, name: str) -> Any:
        def keep(_module: nn.Module, _arguments: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                # a copy: what follows may be an in-place ReLU or addition
                self._found[name] = output.clone()

        return keep


def feature_error(given: dict[str, Tensor], wanted: dict[str, Tensor]) -> Tensor:
    """Return the normalised error of each layer's output to the teacher's, mean over the layers both recorded.

    0 is perfect, outputs of zero everywhere give 1; without common layers it is 0.
    """
    errors = []
    for name in given.keys() & wanted.keys():
        target = wanted[name].float()
        errors.append(normalised_error(given[name].float(), target, output_power(target)))
    return torch.stack(errors).mean() if errors else torch.zeros(())
