"""What the modules of several families are put together from."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.families import find_strides
from lanaprof.ops.family import Shape

__all__ = ["ACTIVATION_MODULES", "Residual", "SqueezeExcite", "conv_norm", "folded", "strides_between"]

ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hswish": nn.Hardswish,
    "gelu": nn.GELU,
    "none": nn.Identity,
}


def strides_between(input_shape: Shape, output_shape: Shape) -> tuple[int, int]:
    """Return the strides (height, width) between two shapes.

    Raises:
        ValueError: there are none; a family's ``applies`` says so beforehand.
    """
    strides = find_strides(input_shape, output_shape)
    if strides is None:
        raise ValueError(f"no stride turns {input_shape} into {output_shape}")
    return strides


def conv_norm(
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
        target = y - x if self.residual else y
        last = [child for child in self.body.modules() if isinstance(child, nn.BatchNorm2d)][-1]
        with torch.no_grad():
            deviation, mean = torch.std_mean(target, dim=(0, 2, 3))
            last.weight.copy_(share * deviation)
            last.bias.copy_(mean)


def folded(weight: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight (out, in, k, k) and bias (out,) in float64 of a convolution followed by a batch norm."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = norm.bias.double() - norm.running_mean.double() * scale
        return weight.double() * scale[:, None, None, None], shift
