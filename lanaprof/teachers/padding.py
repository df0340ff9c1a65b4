"""TensorFlow's "same" padding made static: for one input size it is a constant, not a computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["PaddedConv2d", "make_padding_static"]

_CONVOLUTIONS = ("Conv2dSame", "Conv2dSameExport")  # timm.layers
_POOLS = ("MaxPool2dSame", "AvgPool2dSame")  # timm.layers


class PaddedConv2d(nn.Conv2d):
    """A convolution after constant zero padding (left, right, top, bottom); weights are named as before.

    Exported it is Pad and Conv with constants; runtimes merge the two. With the padding computed from the
    input's size it would be a chain of a dozen nodes that TensorRT and others refuse or run slowly.
    """

    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the padded x."""
        padded = functional.pad(x, self.margins)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Say the margins, too: they are part of the structure."""
        usual: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{usual}, margins={self.margins}"


def make_padding_static(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Replace timm's "same" convolutions and pools in place, for one input shape; return how many.

    Args:
        module: a network that takes (N, *input_shape); its outputs stay bit for bit what they were.
        input_shape: (C, H, W).
    """
    targets = {
        name: child
        for name, child in module.named_modules()
        if type(child).__name__ in (*_CONVOLUTIONS, *_POOLS) and type(child).__module__.startswith("timm.")
    }
    if not targets:
        return 0
    sizes: dict[str, tuple[int, int]] = {}
    handles = [_record_size(child, name, sizes) for name, child in targets.items()]
    try:
        with torch.no_grad():
            module(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    replaced = 0
    for name, child in targets.items():
        if name not in sizes:
            continue  # never called: it stays, as nothing depends on it
        parent_name, _, own_name = name.rpartition(".")
        setattr(module.get_submodule(parent_name), own_name, _static(child, sizes[name]))
        replaced += 1
    return replaced


def _record_size(child: nn.Module, name: str, sizes: dict[str, tuple[int, int]]) -> RemovableHandle:
    def record(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        sizes[name] = (inputs[0].shape[-2], inputs[0].shape[-1])

    return child.register_forward_pre_hook(record)


def _static(child: nn.Module, size: tuple[int, int]) -> nn.Module:
    if isinstance(child, nn.Conv2d):
        return _static_convolution(child, _margins(size, child.kernel_size, child.stride, child.dilation))
    if isinstance(child, nn.MaxPool2d):
        kernel, stride = _pair(child.kernel_size), _pair(child.stride)
        margins = _margins(size, kernel, stride, _pair(child.dilation))
        pad = nn.ConstantPad2d(margins, -math.inf)
        return nn.Sequential(pad, nn.MaxPool2d(kernel, stride, 0, child.dilation, ceil_mode=child.ceil_mode))
    assert isinstance(child, nn.AvgPool2d)
    kernel, stride = _pair(child.kernel_size), _pair(child.stride)
    pad = nn.ConstantPad2d(_margins(size, kernel, stride, (1, 1)), 0.0)
    pool = nn.AvgPool2d(kernel, stride, 0, child.ceil_mode, child.count_include_pad)
    return nn.Sequential(pad, pool)


def _static_convolution(child: nn.Conv2d, margins: tuple[int, int, int, int]) -> nn.Conv2d:
    left, right, top, bottom = margins
    even = left == right and top == bottom
    kernel, stride, dilation = (_pair(value) for value in (child.kernel_size, child.stride, child.dilation))
    kind = nn.Conv2d if even else PaddedConv2d
    made = kind(
        child.in_channels,
        child.out_channels,
        kernel,
        stride,
        (top, left) if even else 0,
        dilation,
        child.groups,
        bias=child.bias is not None,
        device="meta",  # no memory and no random numbers: the weights are the old one's
    )
    made.weight, made.bias = child.weight, child.bias
    if isinstance(made, PaddedConv2d):
        made.margins = margins
    return made.train(child.training)


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _margins(
    size: tuple[int, int], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """Return left, right, top, bottom; the odd pixel goes to the right and the bottom, as in TensorFlow."""
    reach = [(kernel[axis] - 1) * dilation[axis] + 1 for axis in (0, 1)]
    height, width = (
        max((math.ceil(size[axis] / stride[axis]) - 1) * stride[axis] + reach[axis] - size[axis], 0)
        for axis in (0, 1)
    )
    return width // 2, width - width // 2, height // 2, height - height // 2
