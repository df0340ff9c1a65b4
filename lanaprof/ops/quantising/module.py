"""A module in int8 or fp8: trained, judged and exported as the same thing."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from lanaprof.errors import UnsupportedOperator
from lanaprof.ops.quantising.float8 import round_to_float8
from lanaprof.ops.quantising.folding import fold_batch_norms
from lanaprof.ops.quantising.following import Rounding
from lanaprof.ops.quantising.grids import Grid
from lanaprof.ops.quantising.ranges import METHODS, Observed, Scale, choose_scale

__all__ = ["Quantised", "ValueRounding", "WeightRounding", "find_quantised"]

_UNCALIBRATED = Scale(0.02, 0)  # until real values were seen: a range of 5 behind a ReLU
_WEIGHT_HIGH = 127  # symmetric: −128 stays unused, so that a kernel may negate
_LEAST_SCALE = 1e-12  # of a channel whose weights are 0
_AGREEMENT = 1e-3  # largest difference that folding may make, relative to the largest output


class ValueRounding(nn.Module):
    """Rounds activations to a grid with one scale; gradients pass where nothing is cut off."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.low, self.high, self.is_float = grid.low, grid.high, grid.is_float
        self.register_buffer("scale", torch.tensor(_UNCALIBRATED.scale))
        self.register_buffer("zero_point", torch.tensor(_UNCALIBRATED.zero_point, dtype=torch.int32))

    def set(self, scale: Scale) -> None:
        """Take another scale."""
        self.scale.fill_(scale.scale)
        self.zero_point.fill_(scale.zero_point)

    def forward(self, x: Tensor) -> Tensor:
        """Return x as the grid's numbers stand for it."""
        if self.is_float:
            return round_to_float8(x, self.scale)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, self.low, self.high)


class WeightRounding(nn.Module):
    """Rounds a weight to int8, or fp8 beside activations in it, with a scale for every output channel."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, weight: Tensor, axis: int, grid: Grid) -> None:
        super().__init__()
        self.axis, self.is_float = axis, grid.is_float
        high = grid.high if grid.is_float else _WEIGHT_HIGH
        others = [dim for dim in range(weight.dim()) if dim != axis]
        largest = weight.detach().abs().amax(others).float()
        self.register_buffer("scale", (largest / high).clamp_min(_LEAST_SCALE))
        self.register_buffer("zero_point", torch.zeros(len(largest), dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight as its numbers stand for it."""
        if self.is_float:
            return round_to_float8(weight, self.scale, self.axis)
        return torch.fake_quantize_per_channel_affine(
            weight, self.scale, self.zero_point, self.axis, -_WEIGHT_HIGH - 1, _WEIGHT_HIGH
        )


class Quantised(nn.Module):
    """A module computed in int8 or fp8, as a runtime would: weights and activations are rounded, sums are not.

    Exported, every rounding is a pair of QuantizeLinear and DequantizeLinear, from which runtimes make their kernels.
    Batch norms are folded. What there is no kernel for stays in float32 (:mod:`following` has the rules).

    Args:
        module: in its deployed form and eval mode; copied.
        grid: of the activations.
        x: an input, to see what is computed; any values.

    Raises:
        UnsupportedOperator: its batch norms cannot be folded, or its steps differ from run to run.
    """

    def __init__(self, module: nn.Module, grid: Grid, x: Tensor) -> None:
        super().__init__()
        self.body = copy.deepcopy(module).eval()
        self.grid = grid
        self.values = nn.ModuleList()
        self.weights = nn.ModuleList()
        with torch.no_grad():
            wanted = self.body(x.clone())
            self._folded = fold_batch_norms(self.body, x.clone())
            given = self.body(x.clone())
            if isinstance(wanted, Tensor) and not _agree(wanted, given):
                raise UnsupportedOperator("its batch norms cannot be folded into its convolutions")
            x = x.clone()  # it may be changed in place
            run = Rounding(_Laying(self), x)
            with run:
                result = self.body(x)
            run.finish(result)
        self.input_place, self.output_place = run.input_place, run.output_place

    def forward(self, x: Tensor) -> Any:
        """Return what the module gives, rounded inside."""
        run = Rounding(_Applying(self), x)
        with run:
            result = self.body(x)
        return run.finish(result)

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation inside: what is dropped at random would change what there is to round."""
        super().train(mode)
        self.body.eval()
        return self

    def observe(self, x: Tensor, seen: list[Observed]) -> Any:
        """Compute in float32, note the values that are to be rounded, and return what comes out.

        Args:
            x: a batch of inputs.
            seen: one for each of ``values``.
        """
        x = x.clone()  # it may be changed in place
        run = Rounding(_Observing(self, seen), x)
        with run:
            result = self.body(x)
        return run.finish(result)

    def calibrate(
        self, seen: Sequence[Observed], *, border: tuple[Observed, Observed], method: str = METHODS[0]
    ) -> None:
        """Set every scale by what was seen.

        Args:
            seen: of each, as :meth:`observe` noted it.
            border: what was seen of the input and of the output of the layer it stands in: neighbours in int8 then
                agree on their scale, and nothing is converted between them.
            method: of choosing scales.
        """
        places = list(seen)
        for place, known in zip((self.input_place, self.output_place), border, strict=True):
            if place is not None:
                places[place] = known
        for rounding, observed in zip(self.values, places, strict=True):
            assert isinstance(rounding, ValueRounding)
            rounding.set(choose_scale(observed, self.grid, method))

    def scales(self) -> dict[str, Tensor]:
        """Return all scales by name, as :meth:`load_scales` takes them."""
        return {
            name: value.detach().cpu().contiguous()
            for name, value in self.state_dict().items()
            if name.startswith(("values.", "weights."))
        }

    def load_scales(self, scales: Mapping[str, Tensor]) -> None:
        """Take scales that were kept.

        Raises:
            UnsupportedOperator: they are another module's.
        """
        own = self.scales()
        if scales.keys() != own.keys() or any(scales[name].shape != own[name].shape for name in own):
            raise UnsupportedOperator("the scales that were kept are another module's")
        self.load_state_dict(dict(scales), strict=False)

    def is_folded(self, running_mean: Any) -> bool:
        """Say whether a running mean is that of a batch norm without work."""
        return any(self.body.get_submodule(name).running_mean is running_mean for name in self._folded)


class _Applying:
    """Rounds by the module's scales."""

    def __init__(self, owner: Quantised) -> None:
        self._owner = owner
        self.joins_activations = owner.grid.joins_activations

    def value(self, place: int, x: Tensor) -> Tensor:
        rounded: Tensor = self._owner.values[place](x)
        return rounded

    def weight(self, place: int, x: Tensor, axis: int) -> Tensor:
        del axis
        rounded: Tensor = self._owner.weights[place](x)
        return rounded

    def is_folded(self, running_mean: Any) -> bool:
        return self._owner.is_folded(running_mean)


class _Laying(_Applying):
    """Makes the places as they are met; nothing is rounded."""

    def value(self, place: int, x: Tensor) -> Tensor:
        if place == len(self._owner.values):
            self._owner.values.append(ValueRounding(self._owner.grid).to(x.device))
        return x.clone()  # another tensor than the value, as a rounded one is

    def weight(self, place: int, x: Tensor, axis: int) -> Tensor:
        assert place == len(self._owner.weights)
        self._owner.weights.append(WeightRounding(x, axis, self._owner.grid))
        return x


class _Observing(_Applying):
    """Notes what would be rounded."""

    def __init__(self, owner: Quantised, seen: list[Observed]) -> None:
        super().__init__(owner)
        self._seen = seen

    def value(self, place: int, x: Tensor) -> Tensor:
        self._seen[place].add(x)
        return x.clone()

    def weight(self, place: int, x: Tensor, axis: int) -> Tensor:
        del place, axis
        return x


def find_quantised(module: nn.Module) -> dict[str, Quantised]:
    """Return the parts of a network that are computed in int8 or fp8, by name."""
    return {name: part for name, part in module.named_modules() if isinstance(part, Quantised)}


def _agree(wanted: Tensor, given: Any) -> bool:
    largest = float(wanted.abs().max()) or 1.0
    return isinstance(given, Tensor) and float((wanted - given).abs().max()) <= _AGREEMENT * largest
