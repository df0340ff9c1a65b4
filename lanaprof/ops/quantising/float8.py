"""Rounding to floats of 8 bits: 4 of exponent, 3 of mantissa, no infinities (arXiv 2209.05433); ends are 448."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lanaprof.ops.quantising.grids import FP8_HIGH

__all__ = ["round_to_float8"]


def round_to_float8(x: Tensor, scale: Tensor, axis: int | None = None) -> Tensor:
    """Return x as scaled floats of 8 bits stand for it, in its own type; gradients pass where nothing is cut off.

    Exported to ONNX it is a QuantizeLinear and a DequantizeLinear, which take such floats from opset 19 on.

    Args:
        x: any values.
        scale: of all of them, or (size of the axis,), one for every index of the axis.
        axis: which one that is.
    """
    if torch.compiler.is_exporting():  # programs keep arithmetic, and no functions of ours
        return _rounded(x, _spread(scale, x, axis))
    result: Tensor = _Rounding.apply(x, scale, axis)
    return result


def _spread(scale: Tensor, x: Tensor, axis: int | None) -> Tensor:
    return scale if axis is None else scale.reshape([-1 if dim == axis else 1 for dim in range(x.dim())])


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    numbers = (x / scale).clamp(-FP8_HIGH, FP8_HIGH)  # torch makes a NaN of what is larger
    return (numbers.to(torch.float8_e4m3fn).to(scale.dtype) * scale).to(x.dtype)


class _Rounding(torch.autograd.Function):
    """The rounding, its gradient and its ONNX."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, axis: int | None) -> Tensor:
        scale = _spread(scale, x, axis)
        ctx.save_for_backward((x / scale).abs() <= FP8_HIGH)
        return _rounded(x, scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        """Let gradients pass where nothing is cut off."""
        (kept,) = ctx.saved_tensors
        return gradients[0] * kept, None, None

    @staticmethod
    def symbolic(graph: Any, x: Any, scale: Any, axis: int | None) -> Any:
        """Tell the exporter what to write."""
        shape = () if axis is None else (x.type().sizes()[axis],)
        zero = graph.op("Constant", value_t=torch.zeros(shape, dtype=torch.float8_e4m3fn))
        given = {} if axis is None else {"axis_i": axis}
        numbers = graph.op("QuantizeLinear", x, scale, zero, **given)
        numbers.setType(x.type().with_dtype(torch.float8_e4m3fn))
        back = graph.op("DequantizeLinear", numbers, scale, zero, **given)
        back.setType(x.type())
        return back
