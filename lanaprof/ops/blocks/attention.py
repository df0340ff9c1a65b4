"""Blocks that mix pixels by attention or pooling: branches behind a layer norm, each added to its input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import (
    ACTIVATION_MODULES,
    AverageShrink,
    ChannelNorm,
    conv_norm,
    start_last,
    start_norms,
)
from lanaprof.ops.families.shapes import OUTLOOK, find_window, head_channels, round_channels, strides_of
from lanaprof.ops.family import Shape

__all__ = ["GlobalAttention", "OutlookAttention", "PoolMixer", "WindowAttention"]


class _Mlp(nn.Module):
    """Layer norm and two pointwise convolutions."""

    def __init__(self, channels: int, hidden: int, act: str) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = nn.Conv2d(channels, hidden, 1)
        self.act = ACTIVATION_MODULES[act]()
        self.last = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x."""
        result: Tensor = self.last(self.act(self.first(self.norm(x))))
        return result


class _RelativeBias(nn.Module):
    """One learned number per head and distance of two pixels of a window."""

    index: Tensor

    def __init__(self, window: tuple[int, int], heads: int) -> None:
        super().__init__()
        high, wide = window
        self.table = nn.Parameter(torch.zeros(heads, (2 * high - 1) * (2 * wide - 1)))
        rows, columns = (
            axis.flatten() for axis in torch.meshgrid(torch.arange(high), torch.arange(wide), indexing="ij")
        )
        down = rows[:, None] - rows[None, :] + high - 1
        right = columns[:, None] - columns[None, :] + wide - 1
        self.register_buffer("index", down * (2 * wide - 1) + right, persistent=False)

    def forward(self) -> Tensor:
        """Return (heads, pixels, pixels)."""
        return self.table[:, self.index]

    def fused(self) -> nn.Module:
        """Return the same numbers, looked up."""
        return _FixedBias(self.forward().detach().clone())


class _FixedBias(nn.Module):
    """Numbers per head and pair of pixels, as deployed."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self) -> Tensor:
        """Return (heads, pixels, pixels)."""
        return self.values


class _Attention(nn.Module):
    """Layer norm and multi-head attention inside the windows that tile the map."""

    def __init__(self, shape: Shape, window: tuple[int, int], *, heads: int, head: int) -> None:
        super().__init__()
        channels, high, wide = shape
        self.shape = shape
        self.window = window
        self.tiles = (high // window[0], wide // window[1])
        self.heads = heads
        self.head = head
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * heads * head)
        self.bias = _RelativeBias(window, heads)
        self.last = nn.Linear(heads * head, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x, (N, C, H, W)."""
        # all sizes but the batch are numbers, not x.shape: no shape is left to run time
        channels, high, wide = self.shape
        (down, right), (tall, broad) = self.tiles, self.window
        pixels = tall * broad
        tiled = x.reshape(-1, channels, down, tall, right, broad).permute(0, 2, 4, 3, 5, 1)
        inside = self.norm(tiled.reshape(-1, pixels, channels))
        query, key, value = (
            part.reshape(-1, pixels, self.heads, self.head).transpose(1, 2)
            for part in torch.split(
                self.qkv(inside), [self.heads * self.head] * 3, -1
            )  # chunk asks for the shape
        )
        scores = query * self.head**-0.5 @ key.transpose(-2, -1) + self.bias()
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, pixels, self.heads * self.head)
        untiled = self.last(mixed).reshape(-1, down, right, tall, broad, channels).permute(0, 5, 1, 3, 2, 4)
        result: Tensor = untiled.reshape(-1, channels, high, wide)
        return result


class _Outlook(nn.Module):
    """Layer norm and outlook attention: every pixel decides how the pixels around it are mixed.

    The neighbourhoods are gathered and added back by convolutions with fixed ones and zeros, which every exporter and
    runtime knows, where ``fold`` is known to few.
    """

    pick: Tensor

    def __init__(self, shape: Shape, *, stride: int, heads: int, head: int) -> None:
        super().__init__()
        channels, high, wide = shape
        inner, kernel, around = heads * head, OUTLOOK, OUTLOOK * OUTLOOK
        self.shape = shape
        self.grid = (-(-high // stride), -(-wide // stride))
        self.stride = stride
        self.heads = heads
        self.head = head
        self.norm = ChannelNorm(channels)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True)
        self.weigh = nn.Conv2d(channels, heads * around * around, 1)
        self.last = nn.Conv2d(inner, channels, 1)
        pick = torch.eye(around).reshape(around, 1, kernel, kernel).repeat(inner, 1, 1, 1)
        self.register_buffer("pick", pick, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x, (N, C, H, W)."""
        (_, high, wide), (down, right) = self.shape, self.grid
        inner, around, pixels = self.heads * self.head, OUTLOOK**2, down * right
        padding, stride = OUTLOOK // 2, self.stride
        x = self.norm(x)
        value = nn.functional.conv2d(
            self.value(x), self.pick, stride=stride, padding=padding, groups=inner
        ).reshape(-1, self.heads, self.head, around, pixels)
        scores = self.weigh(self.pool(x)) * self.head**-0.5
        weights = scores.reshape(-1, self.heads, around, around, pixels).permute(0, 1, 4, 2, 3).softmax(-1)
        mixed = (weights @ value.permute(0, 1, 4, 3, 2)).permute(0, 1, 4, 3, 2)
        begins = [(size - 1) * stride - 2 * padding + OUTLOOK for size in self.grid]
        spread = nn.functional.conv_transpose2d(
            mixed.reshape(-1, inner * around, down, right), self.pick, stride=stride, padding=padding,
            output_padding=(high - begins[0], wide - begins[1]), groups=inner,
        )  # fmt: skip
        result: Tensor = self.last(spread)
        return result


class _PoolDifference(nn.Module):
    """The average of a pixel's neighbourhood less the pixel, behind a layer norm."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.pool = nn.AvgPool2d(kernel, 1, kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to x."""
        x = self.norm(x)
        result: Tensor = self.pool(x) - x
        return result


class _Stack(nn.Module):
    """Branches added to their input one after another; before them a projection where shapes differ."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, branches: list[nn.Module], *, out: str
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if input_shape != output_shape:
            stride = strides_of(input_shape, output_shape)
            if stride != (1, 1):
                layers.append(AverageShrink(stride))
            layers.append(conv_norm(input_shape[0], output_shape[0], kernel=1))
        self.project = nn.Sequential(*layers)
        self.branches = nn.ModuleList(branches)
        self.out = ACTIVATION_MODULES[out]()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, *output_shape)."""
        x = self.project(x)
        for branch in self.branches:
            x = x + branch(x)
        result: Tensor = self.out(x)
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Start the projection at y, then let each branch add a share of what is still missing."""
        with torch.no_grad():
            norms = [child for child in self.project.modules() if isinstance(child, nn.BatchNorm2d)]
            start_norms(norms, y, share)
            x = self.project(x)
            for branch in self.branches:
                last = getattr(branch, "last", None)
                if isinstance(last, nn.Linear | nn.Conv2d):
                    start_last(last, branch(x), y - x, share)
                x = x + branch(x)


def _mlps(shape: Shape, expand: float, act: str) -> list[nn.Module]:
    return [_Mlp(shape[0], round_channels(shape[0] * expand), act)] if expand else []


class WindowAttention(_Stack):
    """Attention inside windows that tile the map, then an MLP where wanted."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        window: int,
        heads: int,
        width: float,
        expand: float,
        act: str,
        out: str,
    ) -> None:
        sides = [find_window(size, window) for size in output_shape[1:]]
        if None in sides:
            raise ValueError(f"no window tiles {output_shape}")
        head = head_channels(output_shape[0], width, heads)
        attention = _Attention(output_shape, (sides[0] or 1, sides[1] or 1), heads=heads, head=head)
        branches = [attention, *_mlps(output_shape, expand, act)]
        super().__init__(input_shape, output_shape, branches, out=out)


class GlobalAttention(_Stack):
    """Attention among all pixels, then an MLP where wanted."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        heads: int,
        width: float,
        expand: float,
        act: str,
        out: str,
    ) -> None:
        head = head_channels(output_shape[0], width, heads)
        whole = (output_shape[1], output_shape[2])
        branches = [
            _Attention(output_shape, whole, heads=heads, head=head),
            *_mlps(output_shape, expand, act),
        ]
        super().__init__(input_shape, output_shape, branches, out=out)


class OutlookAttention(_Stack):
    """Outlook attention, then an MLP where wanted."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        stride: int,
        heads: int,
        width: float,
        expand: float,
        act: str,
        out: str,
    ) -> None:
        head = head_channels(output_shape[0], width, heads)
        outlook = _Outlook(output_shape, stride=stride, heads=heads, head=head)
        super().__init__(input_shape, output_shape, [outlook, *_mlps(output_shape, expand, act)], out=out)


class PoolMixer(_Stack):
    """Pooling in attention's place, then an MLP where wanted."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, kernel: int, expand: float, act: str, out: str
    ) -> None:
        branches = [_PoolDifference(output_shape[0], kernel), *_mlps(output_shape, expand, act)]
        super().__init__(input_shape, output_shape, branches, out=out)
