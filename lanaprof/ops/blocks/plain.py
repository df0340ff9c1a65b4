"""The blocks of the great convolutional networks."""

from __future__ import annotations

from torch import nn

from lanaprof.ops.blocks.parts import Residual, SqueezeExcite, conv_norm
from lanaprof.ops.families.shapes import round_channels, strides_of
from lanaprof.ops.family import Shape

__all__ = ["Basic", "Bottleneck", "Conv", "DepthwiseSeparable", "FusedMBConv", "MBConv", "Skip"]


class Skip(nn.Identity):
    """The identity between equal shapes."""

    def __init__(self, input_shape: Shape, output_shape: Shape) -> None:
        super().__init__()
        if input_shape != output_shape:
            raise ValueError(f"the identity cannot turn {input_shape} into {output_shape}")


class Conv(Residual):
    """One convolution, batch norm, addition, activation."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, groups: int, act: str
    ) -> None:
        body = conv_norm(
            input_shape[0],
            output_shape[0],
            kernel=kernel,
            stride=strides_of(input_shape, output_shape),
            groups=groups,
        )
        super().__init__(body, residual=input_shape == output_shape, out=act)


class DepthwiseSeparable(Residual):
    """A depthwise convolution that mixes pixels, then a pointwise one that mixes channels."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str, out: str) -> None:
        channels, stride = input_shape[0], strides_of(input_shape, output_shape)
        body = nn.Sequential(
            conv_norm(channels, channels, kernel=kernel, stride=stride, groups=channels, act=act),
            conv_norm(channels, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class MBConv(Residual):
    """Inverted residual; unlike in MobileNetV2 the expanding convolution stays at ``expand=1``."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        kernel: int,
        se: float,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        layers: list[nn.Module] = [
            conv_norm(channels, hidden, kernel=1, act=act),
            conv_norm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden, act=act),
        ]
        if se:
            layers.append(SqueezeExcite(hidden, round_channels(channels * se)))
        layers.append(conv_norm(hidden, output_shape[0], kernel=1))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class FusedMBConv(Residual):
    """Inverted residual whose expanding and depthwise convolutions are one full convolution."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        expand: float,
        kernel: int,
        se: float,
        act: str,
        out: str,
    ) -> None:
        channels, hidden = input_shape[0], round_channels(input_shape[0] * expand)
        stride = strides_of(input_shape, output_shape)
        layers: list[nn.Module] = [conv_norm(channels, hidden, kernel=kernel, stride=stride, act=act)]
        if se:
            layers.append(SqueezeExcite(hidden, round_channels(channels * se)))
        layers.append(conv_norm(hidden, output_shape[0], kernel=1))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class Basic(Residual):
    """Two full convolutions; the first one strides."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, width: float, act: str, out: str
    ) -> None:
        middle = round_channels(output_shape[0] * width)
        stride = strides_of(input_shape, output_shape)
        body = nn.Sequential(
            conv_norm(input_shape[0], middle, kernel=kernel, stride=stride, act=act),
            conv_norm(middle, output_shape[0], kernel=kernel),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class Bottleneck(Residual):
    """Pointwise, full (or grouped) and pointwise convolution; the middle one strides."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        width: float,
        kernel: int,
        groups: int,
        act: str,
        out: str,
    ) -> None:
        middle = round_channels(output_shape[0] * width)
        stride = strides_of(input_shape, output_shape)
        body = nn.Sequential(
            conv_norm(input_shape[0], middle, kernel=1, act=act),
            conv_norm(middle, middle, kernel=kernel, stride=stride, groups=groups, act=act),
            conv_norm(middle, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)
