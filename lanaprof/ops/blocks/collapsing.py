"""Blocks that are trained wide and deployed as one convolution (or two): structural reparameterisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import ACTIVATION_MODULES, conv_norm, folded, strides_between
from lanaprof.ops.family import Shape

__all__ = ["RepVGG"]


class RepVGG(nn.Module):
    """Branches of 3×3, 1×1 and (where shapes are equal) identity, each with batch norm, summed."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str) -> None:
        super().__init__()
        inputs, outputs = input_shape[0], output_shape[0]
        stride = strides_between(input_shape, output_shape)
        self.full = conv_norm(inputs, outputs, kernel=kernel, stride=stride)
        self.point = conv_norm(inputs, outputs, kernel=1, stride=stride)
        self.identity = nn.BatchNorm2d(inputs) if input_shape == output_shape else None
        self.act = ACTIVATION_MODULES[act]()

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
        weight, bias = folded(full.weight, self.full[1])
        point_weight, point_bias = folded(point.weight, self.point[1])
        centre = full.weight.shape[2] // 2
        weight[:, :, centre : centre + 1, centre : centre + 1] += point_weight
        bias += point_bias
        if self.identity is not None:
            channels = torch.arange(full.in_channels, device=weight.device)
            one = torch.zeros_like(weight)
            one[channels, channels, centre, centre] = 1
            identity_weight, identity_bias = folded(one, self.identity)
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
