"""Blocks that are trained wide and deployed as one convolution (or two): structural reparameterisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import (
    ACTIVATION_MODULES,
    conv_norm,
    folded,
    identity_weight,
    merged_conv,
    start_norms,
)
from lanaprof.ops.families.shapes import round_channels, strides_of
from lanaprof.ops.family import Shape

__all__ = ["CollapsibleLinear", "DiverseBranch", "MobileOne", "RepVGG"]


class RepVGG(nn.Module):
    """Branches of 3×3, 1×1 and (where shapes are equal) identity, each with batch norm, summed."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str) -> None:
        super().__init__()
        inputs, outputs = input_shape[0], output_shape[0]
        stride = strides_of(input_shape, output_shape)
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
            one = identity_weight(self.identity, 1, centre * 2 + 1)
            identity_shift = folded(one, self.identity)
            weight += identity_shift[0]
            bias += identity_shift[1]
        merged = merged_conv(weight, bias, (full.stride[0], full.stride[1]), 1)
        merged = merged.to(device=full.weight.device, dtype=full.weight.dtype)
        return nn.Sequential(merged, self.act).eval()


class _Branches(nn.Module):
    """Branches of equal output whose sum is one convolution, and the activation after it.

    Zeros are padded onto the branches' *input* (a pointwise convolution pads, the k×k one behind it does not):
    padded between two convolutions they would stand where a merged one sees the first one's shift.
    """

    def __init__(
        self,
        branches: list[nn.Module],
        shapes: tuple[Shape, Shape],
        *,
        kernel: int,
        groups: int = 1,
        act: str = "none",
    ) -> None:
        super().__init__()
        self.kernel = kernel
        self.groups = groups
        self.strides = strides_of(*shapes)
        self.branches = nn.ModuleList(branches)
        self.identity = nn.BatchNorm2d(shapes[0][0]) if shapes[0] == shapes[1] else None
        self.act = ACTIVATION_MODULES[act]()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated sum of the branches."""
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total + branch(x)
        if self.identity is not None:
            total = total + self.identity(x)
        result: Tensor = self.act(total)
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Let the identity give x, and the branches, each as much as any other, what is missing.

        See lanaprof.ops.match_output.
        """
        with torch.no_grad():
            if self.identity is not None:
                deviation, mean = torch.std_mean(x, dim=(0, 2, 3))
                self.identity.weight.copy_(deviation)
                self.identity.bias.copy_(mean)
        lasts = [_last_norm(branch) for branch in self.branches]
        _start_sum(lasts, y - x if self.identity is not None else y, share)

    def fused(self) -> nn.Module:
        """Return one convolution and the activation that compute the same, in eval mode.

        Sums in double precision: some roundings less in the weights that are deployed.
        """
        parts = [_merged(branch, self.kernel) for branch in self.branches]
        if self.identity is not None:
            weight = identity_weight(self.identity, self.groups, self.kernel)
            parts.append(folded(weight, self.identity))
        weight = torch.stack([weight for weight, _ in parts]).sum(0)
        bias = torch.stack([bias for _, bias in parts]).sum(0)
        merged = merged_conv(weight, bias, self.strides, self.groups)
        merged = merged.to(device=weight.device, dtype=next(self.parameters()).dtype)
        return nn.Sequential(merged, self.act).eval()


def _last_norm(branch: nn.Module) -> nn.BatchNorm2d:
    return [child for child in branch.modules() if isinstance(child, nn.BatchNorm2d)][-1]


def _start_sum(norms: list[nn.BatchNorm2d], target: Tensor, share: float) -> None:
    """Give batch norms whose outputs are added the target's mean and a share of its deviation, each alike."""
    for norm in norms:
        start_norms([norm], target, share / math.sqrt(len(norms)))
        with torch.no_grad():
            norm.bias.div_(len(norms))


def _merged(branch: nn.Module, size: int) -> tuple[Tensor, Tensor]:
    """Return kernel (out, in / groups, size, size) and bias (out,) in float64 of a branch.

    Args:
        branch: a Sequential of convolutions and batch norms, average pooling among them; only the first
            convolution of a branch may pad.
        size: of the kernel; smaller ones are put into its centre.
    """
    assert isinstance(branch, nn.Sequential)
    weight, bias = None, None
    for part in branch:
        if isinstance(part, nn.Conv2d):
            own = part.weight.detach().double()
            if weight is None:
                weight, bias = own, torch.zeros(len(own), dtype=own.dtype, device=own.device)
            else:  # the earlier ones are pointwise, or this one is
                assert bias is not None
                bias = own.sum((2, 3)) @ bias
                weight = (
                    torch.einsum("og,gixy->oixy", own[:, :, 0, 0], weight)
                    if own.shape[2] == 1
                    else torch.einsum("ogxy,gi->oixy", own, weight[:, :, 0, 0])
                )
        elif isinstance(part, nn.BatchNorm2d):
            assert weight is not None
            assert bias is not None
            assert part.running_var is not None
            weight, shift = folded(weight, part)
            scale = part.weight.detach().double() / torch.sqrt(part.running_var.double() + part.eps)
            bias = bias * scale + shift
        elif isinstance(part, nn.AvgPool2d):
            assert weight is not None
            weight = weight.expand(-1, -1, size, size) / size**2
    assert weight is not None
    assert bias is not None
    rest = (size - weight.shape[2]) // 2
    return nn.functional.pad(weight, (rest, rest, rest, rest)), bias


def _bare(inputs: int, outputs: int, size: int, *, stride: tuple[int, int] = (1, 1), pad: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, pad, bias=False)


class DiverseBranch(_Branches):
    """Branches k×k, 1×1, 1×1–k×k, 1×1–average and, where shapes are equal, identity, summed."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int, act: str) -> None:
        inputs, outputs, pad = input_shape[0], output_shape[0], kernel // 2
        stride = strides_of(input_shape, output_shape)
        branches: list[nn.Module] = [
            conv_norm(inputs, outputs, kernel=kernel, stride=stride),
            conv_norm(inputs, outputs, kernel=1, stride=stride),
            nn.Sequential(
                _bare(inputs, inputs, 1, pad=pad),
                nn.BatchNorm2d(inputs),
                _bare(inputs, outputs, kernel, stride=stride, pad=0),
                nn.BatchNorm2d(outputs),
            ),
            nn.Sequential(
                _bare(inputs, outputs, 1, pad=pad),
                nn.BatchNorm2d(outputs),
                nn.AvgPool2d(kernel, stride),
                nn.BatchNorm2d(outputs),
            ),
        ]
        super().__init__(branches, (input_shape, output_shape), kernel=kernel, act=act)


class CollapsibleLinear(_Branches):
    """1×1, k×k and 1×1 convolution without activations between; more weights to learn one convolution with."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, expand: float, kernel: int, act: str
    ) -> None:
        inputs, outputs = input_shape[0], output_shape[0]
        hidden, stride = round_channels(inputs * expand), strides_of(input_shape, output_shape)
        branch = nn.Sequential(
            _bare(inputs, hidden, 1, pad=kernel // 2),
            _bare(hidden, hidden, kernel, stride=stride, pad=0),
            _bare(hidden, outputs, 1, pad=0),
            nn.BatchNorm2d(outputs),
        )
        super().__init__([branch], (input_shape, output_shape), kernel=kernel, act=act)


class MobileOne(nn.Sequential):
    """A depthwise and a pointwise convolution, each the sum of several branches while it is trained."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        kernel: int,
        branches: int,
        act: str,
        out: str,
    ) -> None:
        inputs, outputs = input_shape[0], output_shape[0]
        stride, middle = strides_of(input_shape, output_shape), (inputs, *output_shape[1:])
        depthwise: list[nn.Module] = [
            conv_norm(inputs, inputs, kernel=size, stride=stride, groups=inputs)
            for size in (*[kernel] * branches, 1)
        ]
        pointwise: list[nn.Module] = [conv_norm(inputs, outputs, kernel=1) for _ in range(branches)]
        super().__init__(
            _Branches(depthwise, (input_shape, middle), kernel=kernel, groups=inputs, act=act),
            _Branches(pointwise, (middle, output_shape), kernel=1, act=out),
        )

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Start the pointwise part; its identity is no way round the block, but a branch as any other."""
        del x
        last = self[1]
        assert isinstance(last, _Branches)
        lasts = [_last_norm(branch) for branch in last.branches]
        _start_sum(lasts + ([last.identity] if last.identity is not None else []), y, share)
