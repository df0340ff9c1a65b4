"""What the modules of several families are put together from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = [
    "ACTIVATION_MODULES",
    "AverageShrink",
    "ChannelNorm",
    "Residual",
    "SqueezeExcite",
    "conv_norm",
    "folded",
    "identity_weight",
    "merged_conv",
    "start_last",
    "start_norms",
]

ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hswish": nn.Hardswish,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def conv_norm(
    inputs: int,
    outputs: int,
    *,
    kernel: int | tuple[int, int],
    stride: tuple[int, int] = (1, 1),
    groups: int = 1,
    dilation: int = 1,
    act: str = "none",
) -> nn.Sequential:
    """Return convolution, batch norm and activation; padded so that only the stride changes the size."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (high // 2), dilation * (wide // 2))
    layers: list[nn.Module] = [
        nn.Conv2d(
            inputs, outputs, (high, wide), stride, padding, dilation=dilation, groups=groups, bias=False
        ),
        nn.BatchNorm2d(outputs),
    ]
    if act != "none":
        layers.append(ACTIVATION_MODULES[act]())
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


class Residual(nn.Module):
    """A body with the input added where the shapes are equal, then an activation."""

    def __init__(self, body: nn.Module, *, residual: bool, out: str) -> None:
        super().__init__()
        self.body = body
        self.residual = residual
        self.out = ACTIVATION_MODULES[out]()

    def forward(self, x: Tensor) -> Tensor:
        """Return out(body(x) + x), or out(body(x)) where the shapes differ."""
        y = self.body(x)
        result: Tensor = self.out(y + x if self.residual else y)
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Scale and shift the body's last batch norm; see lanaprof.ops.match_output."""
        last = [child for child in self.body.modules() if isinstance(child, nn.BatchNorm2d)][-1]
        start_norms([last], y - x if self.residual else y, share)


def folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (out, in, k, k) and bias (out,) in float64 of a convolution followed by a batch norm."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = norm.bias.double() - norm.running_mean.double() * scale
        return weight.double() * scale[:, None, None, None], shift


class AverageShrink(nn.AvgPool2d):
    """Average pooling that strides as convolutions do: ceil(size / stride), borders not counted in."""

    def __init__(self, strides: tuple[int, int]) -> None:
        high, wide = strides
        super().__init__((2 * high - 1, 2 * wide - 1), strides, (high - 1, wide - 1), count_include_pad=False)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every pixel; (N, C, H, W) both ways."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x with each pixel's channels normalised."""
        result: Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return result


def start_norms(norms: Sequence[nn.BatchNorm2d], target: Tensor, share: float) -> None:
    """Give batch norms whose outputs are concatenated the target's mean and a share of its deviation.

    Args:
        norms: their channels, one after another, are the target's.
        target: (N, C, H, W).
        share: of the standard deviation.
    """
    with torch.no_grad():
        deviation, mean = torch.std_mean(target, dim=(0, 2, 3))
        first = 0
        for norm in norms:
            last = first + norm.num_features
            norm.weight.copy_(share * deviation[first:last])
            norm.bias.copy_(mean[first:last])
            first = last


def start_last(last: nn.Linear | nn.Conv2d, got: Tensor, target: Tensor, share: float) -> None:
    """Rescale a branch's last linear map so that the branch gives the target's mean and a share of its deviation.

    Args:
        last: ends the branch; without groups, with a bias.
        got: what the branch gives now, (N, C, H, W).
        target: what it shall give, the same shape.
        share: of the standard deviation.
    """
    with torch.no_grad():
        deviation, mean = torch.std_mean(target, dim=(0, 2, 3))
        own_deviation, own_mean = torch.std_mean(got, dim=(0, 2, 3))
        scale = share * deviation / own_deviation.clamp_min(1e-6)
        assert last.bias is not None
        last.weight.mul_(scale.reshape(-1, *(1 for _ in last.weight.shape[1:])))
        last.bias.copy_((last.bias - own_mean) * scale + mean)


def merged_conv(weight: Tensor, bias: Tensor, strides: tuple[int, int], groups: int) -> nn.Conv2d:
    """Return a convolution of given weight (out, in / groups, k, k) and bias (out,), padded by k // 2."""
    outputs, inputs, size, _ = weight.shape
    merged = nn.Conv2d(inputs * groups, outputs, size, strides, size // 2, groups=groups)
    with torch.no_grad():
        merged.weight.copy_(weight)
        assert merged.bias is not None
        merged.bias.copy_(bias)
    return merged


def identity_weight(norm: nn.BatchNorm2d, groups: int, size: int) -> Tensor:
    """Return the kernel (channels, channels / groups, size, size) in float64 that gives a norm's input back."""
    count = norm.num_features
    channels = torch.arange(count, device=norm.weight.device)
    inputs = count // groups
    weight = torch.zeros(count, inputs, size, size, dtype=torch.float64, device=norm.weight.device)
    weight[channels, channels % inputs, size // 2, size // 2] = 1
    return weight
