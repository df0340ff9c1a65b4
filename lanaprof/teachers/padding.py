"""TensorFlow's "same" padding made static: for one input size it is a constant, not a computation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import handle_torch_function, has_torch_function

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["PaddedConv2d", "constant_pad", "make_padding_static", "padded_conv2d"]

_CONVOLUTIONS = ("Conv2dSame", "Conv2dSameExport")  # timm.layers
_POOLS = ("MaxPool2dSame", "AvgPool2dSame")  # timm.layers


def _is_scripted_export() -> bool:
    """Say whether the TorchScript-based exporter is tracing; torch.export needs no help."""
    return torch.onnx.is_in_onnx_export() and torch._C._get_tracing_state() is not None


class _PaddedConvolution(torch.autograd.Function):
    """Exports as one Conv with uneven pads, as the other exporter's optimiser makes it from Pad and Conv.

    Left to itself the TorchScript-based exporter writes a dozen nodes for the pads of a constant padding.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, owner: PaddedConv2d) -> Tensor:
        del ctx
        return owner.convolve(x, weight, bias)

    @staticmethod
    def symbolic(graph: Any, x: Any, weight: Any, bias: Any, owner: PaddedConv2d) -> Any:
        left, right, top, bottom = owner.margins
        inputs = [x, weight] if owner.bias is None else [x, weight, bias]
        return graph.op(
            "Conv",
            *inputs,
            kernel_shape_i=list(owner.kernel_size),
            strides_i=list(owner.stride),
            dilations_i=list(owner.dilation),
            group_i=owner.groups,
            pads_i=[top, left, bottom, right],
        )


def padded_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, owner: PaddedConv2d) -> Tensor:
    """Return the owner's convolution with these weights; what follows torch's functions follows this one, too."""
    if has_torch_function((x, weight)):
        followed: Tensor = handle_torch_function(padded_conv2d, (x, weight), x, weight, bias, owner)
        return followed
    exported: Tensor = _PaddedConvolution.apply(x, weight, bias, owner)
    return exported


class PaddedConv2d(nn.Conv2d):
    """A convolution after constant zero padding (left, right, top, bottom); weights are named as before."""

    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of the padded x."""
        if _is_scripted_export():
            return padded_conv2d(x, self.weight, self.bias, self)
        return self.convolve(x, self.weight, self.bias)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Return the convolution of the padded x, (N, C, H, W), with these weights."""
        padded = functional.pad(x, self.margins)
        return functional.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Say the margins, too: they are part of the structure."""
        usual: str = super().extra_repr()  # type: ignore[no-untyped-call]
        return f"{usual}, margins={self.margins}"


class _ConstantPad(torch.autograd.Function):
    """Exports as one Pad with constant pads."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, margins: tuple[int, int, int, int], value: float) -> Tensor:
        del ctx
        return functional.pad(x, margins, value=value)

    @staticmethod
    def symbolic(graph: Any, x: Any, margins: tuple[int, int, int, int], value: float) -> Any:
        left, right, top, bottom = margins
        pads = graph.op("Constant", value_t=torch.tensor([0, 0, top, left, 0, 0, bottom, right]))
        filler = graph.op("Constant", value_t=torch.tensor(value))
        return graph.op("Pad", x, pads, filler, mode_s="constant")


def constant_pad(x: Tensor, margins: tuple[int, int, int, int], value: float) -> Tensor:
    """Return x with its margins; what follows torch's functions follows this one, too."""
    if has_torch_function((x,)):
        followed: Tensor = handle_torch_function(constant_pad, (x,), x, margins, value=value)
        return followed
    exported: Tensor = _ConstantPad.apply(x, margins, value)
    return exported


class _Margins(nn.Module):
    """Constant padding of images (left, right, top, bottom)."""

    def __init__(self, margins: tuple[int, int, int, int], value: float) -> None:
        super().__init__()
        self.margins = margins
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its margins."""
        if _is_scripted_export():
            return constant_pad(x, self.margins, self.value)
        return functional.pad(x, self.margins, value=self.value)

    def extra_repr(self) -> str:
        """Say the margins: they are part of the structure."""
        return f"margins={self.margins}, value={self.value}"


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
        pad = _Margins(margins, -math.inf)
        return nn.Sequential(pad, nn.MaxPool2d(kernel, stride, 0, child.dilation, ceil_mode=child.ceil_mode))
    assert isinstance(child, nn.AvgPool2d)
    kernel, stride = _pair(child.kernel_size), _pair(child.stride)
    pad = _Margins(_margins(size, kernel, stride, (1, 1)), 0.0)
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
