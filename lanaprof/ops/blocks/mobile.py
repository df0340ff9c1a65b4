"""Blocks around depthwise convolutions and cheap mixing of channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import (
    ACTIVATION_MODULES,
    AverageShrink,
    ChannelNorm,
    Residual,
    SqueezeExcite,
    conv_norm,
    start_norms,
)
from lanaprof.ops.families.shapes import eca_kernel, round_channels, strides_of
from lanaprof.ops.family import Shape

__all__ = ["ConvNeXt", "EfficientChannelAttention", "Ghost", "Partial", "Shuffle", "UniversalInverted"]


class UniversalInverted(Residual):
    """Two pointwise convolutions with depthwise ones before and between them, each where wanted."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        start: int,
        middle: int,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        layers: list[nn.Module] = []
        if start:
            first = (1, 1) if middle else stride
            layers.append(conv_norm(channels, channels, kernel=start, stride=first, groups=channels))
        layers.append(conv_norm(channels, hidden, kernel=1, act=act))
        if middle:
            layers.append(conv_norm(hidden, hidden, kernel=middle, stride=stride, groups=hidden, act=act))
        layers.append(conv_norm(hidden, output_shape[0], kernel=1))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class _ChannelGate(nn.Module):
    """Channels scaled by a gate computed from the means of a few neighbouring channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = eca_kernel(channels)
        self.conv = nn.Conv2d(1, 1, (size, 1), padding=(size // 2, 0), bias=False)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return x, gated; (N, C, H, W) both ways."""
        means = x.mean((2, 3), keepdim=True).transpose(1, 2)  # (N, 1, C, 1): channels become a line of pixels
        gate: Tensor = self.gate(self.conv(means)).transpose(1, 2)
        return x * gate


class EfficientChannelAttention(Residual):
    """Inverted residual with ECA's gate behind the depthwise convolution."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        kernel: int,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        body = nn.Sequential(
            conv_norm(channels, hidden, kernel=1, act=act),
            conv_norm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden, act=act),
            _ChannelGate(hidden),
            conv_norm(hidden, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class _GhostModule(nn.Module):
    """A pointwise convolution for a part of the channels, a depthwise one of these for the others."""

    def __init__(self, inputs: int, outputs: int, *, ratio: int, kernel: int, act: str) -> None:
        super().__init__()
        primary = outputs // ratio
        self.primary = conv_norm(inputs, primary, kernel=1, act=act)
        self.cheap = conv_norm(primary, outputs - primary, kernel=kernel, groups=primary, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, H, W)."""
        first = self.primary(x)
        return torch.cat((first, self.cheap(first)), 1)


class Ghost(Residual):
    """Two ghost modules; between them a depthwise convolution where the block strides."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        ratio: int,
        kernel: int,
        se: float,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        layers: list[nn.Module] = [_GhostModule(channels, hidden, ratio=ratio, kernel=kernel, act=act)]
        if stride != (1, 1):
            layers.append(conv_norm(hidden, hidden, kernel=3, stride=stride, groups=hidden))
        if se:
            layers.append(SqueezeExcite(hidden, round_channels(channels * se)))
        layers.append(_GhostModule(hidden, output_shape[0], ratio=ratio, kernel=kernel, act="none"))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Scale and shift the two batch norms that end the body; see lanaprof.ops.match_output."""
        norms = [child for child in self.body.modules() if isinstance(child, nn.BatchNorm2d)][-2:]
        start_norms(norms, y - x if self.residual else y, share)


class _PartialConv(nn.Module):
    """A full convolution of the first channels; the others pass, averaged where it strides."""

    def __init__(self, channels: int, touched: int, *, kernel: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.sizes = [touched, channels - touched]
        self.conv = nn.Conv2d(touched, touched, kernel, stride, kernel // 2, bias=False)
        self.shrink = AverageShrink(stride) if stride != (1, 1) else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, C, H / stride, W / stride)."""
        touched, rest = torch.split(x, self.sizes, 1)
        return torch.cat((self.conv(touched), self.shrink(rest)), 1)


class Partial(Residual):
    """FasterNet's block: partial convolution, then an inverted pair of pointwise ones."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        share: float,
        kernel: int,
        expand: float,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        body = nn.Sequential(
            _PartialConv(channels, round_channels(channels * share), kernel=kernel, stride=stride),
            conv_norm(channels, hidden, kernel=1, act=act),
            conv_norm(hidden, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class _ChannelShuffle(nn.Module):
    """Channels dealt out anew, so that every group of the next convolution sees all groups of the last."""

    def __init__(self, shape: Shape, groups: int) -> None:
        super().__init__()
        self.shape = shape
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Return x with its channels reordered."""
        channels, high, wide = self.shape  # numbers, not x.shape: no shape is left to run time
        dealt = x.reshape(-1, self.groups, channels // self.groups, high, wide).transpose(1, 2)
        return dealt.reshape(-1, channels, high, wide)


class Shuffle(Residual):
    """ShuffleNet's unit: grouped pointwise, shuffle, depthwise, grouped pointwise."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        width: float,
        groups: int,
        kernel: int,
        act: str,
        out: str,
    ) -> None:
        hidden, stride = round_channels(output_shape[0] * width), strides_of(input_shape, output_shape)
        layers: list[nn.Module] = [conv_norm(input_shape[0], hidden, kernel=1, groups=groups, act=act)]
        if groups > 1:
            layers.append(_ChannelShuffle((hidden, *input_shape[1:]), groups))
        layers.append(conv_norm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden))
        layers.append(conv_norm(hidden, output_shape[0], kernel=1, groups=groups))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class ConvNeXt(Residual):
    """Depthwise convolution, norm, two pointwise convolutions; batch norm in the layer scale's place.

    ConvNeXt's layer scale starts each block near the identity; here ``match_output`` starts the last batch
    norm, which costs nothing when it is deployed.
    """

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        kernel: int,
        norm: str,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride, layered = strides_of(input_shape, output_shape), norm == "layer"
        depthwise = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=layered)
        body = nn.Sequential(
            depthwise,
            ChannelNorm(channels) if layered else nn.BatchNorm2d(channels),
            nn.Conv2d(channels, hidden, 1),
            ACTIVATION_MODULES[act](),
            conv_norm(hidden, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)
