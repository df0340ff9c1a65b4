"""From the values an activation takes to the scale and zero point that stand for them best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lanaprof.ops.quantising.grids import Grid

__all__ = ["METHODS", "Observed", "Scale", "choose_scale"]

METHODS = ("mse", "percentile", "max")  # the first is the default
_SAMPLED = 8192  # values of a batch that are looked at, evenly spread; its ends are those of all
_BINS = 2048
_PERCENTILE = 99.99
_SHARES = np.linspace(0.2, 1.0, 81)  # of the whole range
_LEAST_SCALE = 1e-8  # of an activation that is 0 everywhere

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Scale:
    """What one number stands for: value = scale × (number − zero point)."""

    scale: float
    zero_point: int


@dataclass(slots=True)
class Observed:
    """What was seen of an activation."""

    low: float = 0.0
    high: float = 0.0
    parts: list[NDArray[np.float32]] = field(default_factory=list)

    def add(self, x: Tensor) -> None:
        """Look at a batch's values; which of them depends on their number alone."""
        flat = x.detach().reshape(-1)
        ends = flat.aminmax()
        self.low, self.high = min(self.low, float(ends.min)), max(self.high, float(ends.max))
        stride = (
            max(1, flat.numel() // _SAMPLED) | 1
        )  # odd: a power of two would meet few channels or columns
        self.parts.append(flat[::stride].float().cpu().numpy())


def choose_scale(seen: Observed, grid: Grid, method: str = METHODS[0]) -> Scale:
    """Return the scale for an activation, on the whole range or a part of it; zero stays exact.

    A few values far out cost all others precision. ``mse`` cuts where the mean squared error of all is least,
    ``percentile`` one in 10,000 off, ``max`` nothing.

    Args:
        seen: values of several batches.
        grid: what they are rounded to.
        method: one of METHODS.
    """
    values = np.concatenate(seen.parts) if seen.parts else np.zeros(1, np.float32)
    low, high = seen.low, seen.high
    if method == "percentile":
        low = min(0.0, float(np.percentile(values, 100 - _PERCENTILE)))
        high = max(0.0, float(np.percentile(values, _PERCENTILE)))
    if method != "mse" or high - low < _LEAST_SCALE:
        return _spanning(low, high, grid)
    counts, edges = np.histogram(values, bins=_BINS, range=(low, high))
    centres = (edges[1:] + edges[:-1]) / 2
    tried = [_spanning(low * share, high * share, grid) for share in _SHARES]
    errors = [_error(centres, counts, scale, grid) for scale in tried]
    return tried[int(np.argmin(errors))]


def _spanning(low: float, high: float, grid: Grid) -> Scale:
    if grid.symmetric:
        return Scale(max(-low, high, _LEAST_SCALE) / grid.high, 0)
    scale = max(high - low, _LEAST_SCALE) / (grid.high - grid.low)
    return Scale(scale, int(np.clip(round(grid.low - low / scale), grid.low, grid.high)))


def _error(centres: Floats, counts: NDArray[np.int64], scale: Scale, grid: Grid) -> float:
    numbers = centres / scale.scale
    if grid.is_float:
        numbers = np.clip(numbers, grid.low, grid.high)
        numbers = torch.from_numpy(numbers).to(torch.float8_e4m3fn).double().numpy()
    else:
        numbers = np.clip(np.round(numbers) + scale.zero_point, grid.low, grid.high)
    return float(np.sum(counts * (centres - (numbers - scale.zero_point) * scale.scale) ** 2))
