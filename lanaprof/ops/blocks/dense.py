"""Full convolutions made cheaper: low rank, dilation, split attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import AverageShrink, Residual, conv_norm
from lanaprof.ops.families.shapes import round_channels, split_gate_channels, strides_of
from lanaprof.ops.family import Shape

__all__ = ["Dilated", "LowRank", "SplitAttention"]


class LowRank(Residual):
    """Two thin convolutions whose product is one of low rank; nothing but batch norm between."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, rank: float, form: str, out: str
    ) -> None:
        middle, outputs = round_channels(output_shape[0] * rank), output_shape[0]
        high, wide = strides_of(input_shape, output_shape)
        if form == "point":
            first = conv_norm(input_shape[0], middle, kernel=kernel, stride=(high, wide))
            second = conv_norm(middle, outputs, kernel=1)
        else:
            first = conv_norm(input_shape[0], middle, kernel=(kernel, 1), stride=(high, 1))
            second = conv_norm(middle, outputs, kernel=(1, kernel), stride=(1, wide))
        super().__init__(nn.Sequential(first, second), residual=input_shape == output_shape, out=out)


class Dilated(Residual):
    """Pointwise, dilated and pointwise convolution; the middle one strides."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        width: float,
        kernel: int,
        dilation: int,
        groups: int,
        act: str,
        out: str,
    ) -> None:
        middle = round_channels(output_shape[0] * width)
        body = nn.Sequential(
            conv_norm(input_shape[0], middle, kernel=1, act=act),
            conv_norm(
                middle,
                middle,
                kernel=kernel,
                stride=strides_of(input_shape, output_shape),
                groups=groups,
                dilation=dilation,
                act=act,
            ),
            conv_norm(middle, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class _SplitConv(nn.Module):
    """A convolution that gives several splits, and their sum weighed by a gate from the splits' means."""

    def __init__(self, channels: int, *, kernel: int, radix: int, groups: int, act: str) -> None:
        super().__init__()
        self.radix = radix
        self.channels = channels
        self.conv = conv_norm(channels, channels * radix, kernel=kernel, groups=groups * radix, act=act)
        inner = split_gate_channels(channels, radix)
        self.reduce = nn.Conv2d(channels, inner, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(inner, channels * radix, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, channels, H, W) as x is."""
        splits: Tensor = self.conv(x)
        if self.radix == 1:
            gate = torch.sigmoid(self._gate(splits))
            return splits * gate
        parts = torch.split(splits, [self.channels] * self.radix, 1)  # chunk leaves the shape to run time
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        weights = self._gate(total).reshape(-1, self.radix, self.channels, 1, 1).softmax(1)
        summed: Tensor = parts[0] * weights[:, 0]
        for number, part in enumerate(parts[1:], start=1):
            summed = summed + part * weights[:, number]
        return summed

    def _gate(self, total: Tensor) -> Tensor:
        # a mean, not AdaptiveAvgPool2d: both of PyTorch's exporters write it as the same node
        gate: Tensor = self.expand(self.act(self.reduce(total.mean((2, 3), keepdim=True))))
        return gate


class SplitAttention(Residual):
    """ResNeSt's bottleneck; as there, an average pooling after the split convolution strides."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        width: float,
        radix: int,
        groups: int,
        kernel: int,
        act: str,
        out: str,
    ) -> None:
        middle = round_channels(output_shape[0] * width)
        stride = strides_of(input_shape, output_shape)
        body = nn.Sequential(
            conv_norm(input_shape[0], middle, kernel=1, act=act),
            _SplitConv(middle, kernel=kernel, radix=radix, groups=groups, act=act),
            AverageShrink(stride) if stride != (1, 1) else nn.Identity(),
            conv_norm(middle, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)
