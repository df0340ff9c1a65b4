"""The modules of the families that come with lanaprof.

Each takes (N, *input_shape) and gives (N, *output_shape). They are made of convolutions, batch norm,
activations, means over the pixels and additions only, so that every exporter and runtime knows them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.families import find_strides, round_channels
from lanaprof.ops.family import Shape

__all__ = ["Basic", "Bottleneck", "Conv", "DepthwiseSeparable", "FusedMBConv", "MBConv", "RepVGG", "Skip"]

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hswish": nn.Hardswish,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def _strides(input_shape: Shape, output_shape: Shape) -> tuple[int, int]:
    strides = find_strides(input_shape, output_shape)
    if strides is None:
        raise ValueError(f"no stride turns {input_shape} into {output_shape}")
    return strides


def _conv_norm(
    inputs: int,
    outputs: int,
    *,
    kernel: int,
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    act: str = "none",
) -> nn.Sequential:
    """Return convolution, batch norm and activation; padded so that only the stride changes the size."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if act != "none":
        layers.append(_ACTIVATIONS[act]())
    return nn.Sequential(*layers)


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate computed from their means (Hu et al., arXiv 1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, squeezed, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(squeezed, channels, 1)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return x, gated; (N, C, H, W) both ways."""
        # a mean, not AdaptiveAvgPool2d: both of PyTorch's exporters write it as the same node
        means = x.mean((2, 3), keepdim=True)
        gate: Tensor = self.gate(self.expand(self.act(self.reduce(means))))
        return x * gate


class _Residual(nn.Module):
    """A body with the input added where the shapes are equal, then an activation."""

    def __init__(self, body: nn.Module, *, residual: bool, out: str) -> None:
        super().__init__()
        self.body = body
        self.residual = residual
        self.out = _ACTIVATIONS[out]()

    def forward(self, x: Tensor) -> Tensor:
        """Return out(body(x) + x), or out(body(x)) where the shapes differ."""
        y = self.body(x)
        result: Tensor = self.out(y + x if self.residual else y)
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Scale and shift the body's last batch norm; see lanaprof.ops.match_output."""
        target = y - x if self.residual else y
        last = [child for child in self.body.modules() if isinstance(child, nn.BatchNorm2d)][-1]
        with torch.no_grad():
            deviation, mean = torch.std_mean(target, dim=(0, 2, 3))
            last.weight.copy_(share * deviation)
            last.bias.copy_(mean)


class Skip(nn.Identity):
    """The identity between equal shapes."""

    def __init__(self, input_shape: Shape, output_shape: Shape) -> None:
        super().__init__()
        if input_shape != output_shape:
            raise ValueError(f"the identity cannot turn {input_shape} into {output_shape}")


class Conv(_Residual):
    """One convolution, batch norm, addition, activation."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, groups: int, act: str
    ) -> None:
        body = _conv_norm(
            input_shape[0],
            output_shape[0],
            kernel=kernel,
            stride=_strides(input_shape, output_shape),
            groups=groups,
        )
        super().__init__(body, residual=input_shape == output_shape, out=act)


class DepthwiseSeparable(_Residual):
    """A depthwise convolution that mixes pixels, then a pointwise one that mixes channels."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str, out: str) -> None:
        channels, stride = input_shape[0], _strides(input_shape, output_shape)
        body = nn.Sequential(
            _conv_norm(channels, channels, kernel=kernel, stride=stride, groups=channels, act=act),
            _conv_norm(channels, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class MBConv(_Residual):
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
        stride = _strides(input_shape, output_shape)
        layers: list[nn.Module] = [
            _conv_norm(channels, hidden, kernel=1, act=act),
            _conv_norm(hidden, hidden, kernel=kernel, stride=stride, groups=hidden, act=act),
        ]
        if se:
            layers.append(SqueezeExcite(hidden, round_channels(channels * se)))
        layers.append(_conv_norm(hidden, output_shape[0], kernel=1))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class FusedMBConv(_Residual):
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
        stride = _strides(input_shape, output_shape)
        layers: list[nn.Module] = [_conv_norm(channels, hidden, kernel=kernel, stride=stride, act=act)]
        if se:
            layers.append(SqueezeExcite(hidden, round_channels(channels * se)))
        layers.append(_conv_norm(hidden, output_shape[0], kernel=1))
        super().__init__(nn.Sequential(*layers), residual=input_shape == output_shape, out=out)


class Basic(_Residual):
    """Two full convolutions; the first one strides."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, width: float, act: str, out: str
    ) -> None:
        middle = round_channels(output_shape[0] * width)
        stride = _strides(input_shape, output_shape)
        body = nn.Sequential(
            _conv_norm(input_shape[0], middle, kernel=kernel, stride=stride, act=act),
            _conv_norm(middle, output_shape[0], kernel=kernel),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class Bottleneck(_Residual):
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
        stride = _strides(input_shape, output_shape)
        body = nn.Sequential(
            _conv_norm(input_shape[0], middle, kernel=1, act=act),
            _conv_norm(middle, middle, kernel=kernel, stride=stride, groups=groups, act=act),
            _conv_norm(middle, output_shape[0], kernel=1),
        )
        super().__init__(body, residual=input_shape == output_shape, out=out)


class RepVGG(nn.Module):
    """Branches of 3×3, 1×1 and (where shapes are equal) identity, each with batch norm, summed."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str) -> None:
        super().__init__()
        inputs, outputs = input_shape[0], output_shape[0]
        stride = _strides(input_shape, output_shape)
        self.full = _conv_norm(inputs, outputs, kernel=kernel, stride=stride)
        self.point = _conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.identity = nn.BatchNorm2d(inputs) if input_shape == output_shape else None
        self.act = _ACTIVATIONS[act]()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of the branches."""
        y = self.full(x) + self.point(x)
        if self.identity is not None:
            y = y + self.identity(x)
        result: Tensor = self.act(y)
        return result

    def fused(self) -> nn.Module:
        """Return one convolution and the activation that compute the same, in eval mode.

        Sums in double precision: three roundings less in the weights that are deployed.
        """
        full, point = self.full[0], self.point[0]
        assert isinstance(full, nn.Conv2d)
        assert isinstance(point, nn.Conv2d)
        weight, bias = _folded(full.weight, self.full[1])
        point_weight, point_bias = _folded(point.weight, self.point[1])
        centre = full.weight.shape[2] // 2
        weight[:, :, centre : centre + 1, centre : centre + 1] += point_weight
        bias += point_bias
        if self.identity is not None:
            channels = torch.arange(full.in_channels, device=weight.device)
            one = torch.zeros_like(weight)
            one[channels, channels, centre, centre] = 1
            identity_weight, identity_bias = _folded(one, self.identity)
            weight += identity_weight
            bias += identity_bias
        stride, padding = full.stride, full.padding
        assert not isinstance(padding, str)
        merged = nn.Conv2d(
            full.in_channels, full.out_channels, centre * 2 + 1, (stride[0], stride[1]), padding[0]
        )
        merged = merged.to(device=full.weight.device, dtype=full.weight.dtype)
        with torch.no_grad():
            merged.weight.copy_(weight)
            assert merged.bias is not None
            merged.bias.copy_(bias)
        return nn.Sequential(merged, self.act).eval()


def _folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (out, in, k, k) and bias (out,) in float64 of a convolution followed by a batch norm."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = norm.bias.double() - norm.running_mean.double() * scale
        return weight.double() * scale[:, None, None, None], shift
