"""Modules of operations that see tokens as an image: (N, T, D) to (N, T, D), T = side² or side² + 1.

The first token of side² + 1, a class token, lies beside the image: it stays as it is and gets added what the
image gives on average, so that it goes on learning what is in the image.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import ACTIVATION_MODULES
from lanaprof.ops.blocks.tokens import AttentionBody, ChannelScale, TokenResidual
from lanaprof.ops.families import round_channels
from lanaprof.ops.family import Shape
from lanaprof.ops.token_shapes import find_grid

__all__ = ["TokenConv", "TokenConvMlp", "TokenPool", "TokenReducedAttention", "TokenWindow"]


def _grid_of(tokens: int) -> tuple[int, int]:
    grid = find_grid(tokens)
    if grid is None:  # the families' applies says so beforehand
        raise ValueError(f"{tokens} tokens are no square")
    return grid


class _OnImage(nn.Module):
    """A function of images (N, D, side, side) to the same size, for tokens.

    Args:
        tokens: T.
        width: D.
        function: gives images of as many channels as it takes.
        prefix_is_mean: a class token becomes the mean of the function's tokens; else it stays.
    """

    def __init__(self, tokens: int, width: int, function: nn.Module, *, prefix_is_mean: bool) -> None:
        super().__init__()
        self.side, self.prefix = _grid_of(tokens)
        self.width = width
        self.function = function
        self.prefix_is_mean = prefix_is_mean

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D)."""
        grid = x[:, self.prefix :] if self.prefix else x
        image = self.function(grid.transpose(1, 2).reshape(-1, self.width, self.side, self.side))
        made: Tensor = image.reshape(-1, self.width, self.side * self.side).transpose(1, 2)
        if not self.prefix:
            return made
        first = made.mean(1, keepdim=True) if self.prefix_is_mean else x[:, :1]
        return torch.cat([first, made], 1)


def _depthwise(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, 1, kernel // 2, groups=channels)


class TokenConv(TokenResidual):
    """A depthwise convolution mixes neighbours, a linear layer the channels."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int) -> None:
        del output_shape
        tokens, width = input_shape
        body = _OnImage(tokens, width, _depthwise(width, kernel), prefix_is_mean=True)
        super().__init__(width, body, nn.Linear(width, width))


class TokenConvMlp(TokenResidual):
    """An MLP with a depthwise convolution of its hidden values."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, expand: float, kernel: int, act: str
    ) -> None:
        del output_shape
        tokens, width = input_shape
        hidden = round_channels(width * expand)
        body = nn.Sequential(
            nn.Linear(width, hidden),
            _OnImage(tokens, hidden, _depthwise(hidden, kernel), prefix_is_mean=False),
            ACTIVATION_MODULES[act](),
        )
        super().__init__(width, body, nn.Linear(hidden, width))


class _PoolDifference(nn.Module):
    """How much the neighbours differ from a pixel on average."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel, 1, kernel // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, D, side, side)."""
        pooled: Tensor = self.pool(x)
        return pooled - x


class TokenPool(TokenResidual):
    """Neighbours are averaged; nothing is learnt but a scale of every channel."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, kernel: int) -> None:
        del output_shape
        tokens, width = input_shape
        body = _OnImage(tokens, width, _PoolDifference(kernel), prefix_is_mean=True)
        super().__init__(width, body, ChannelScale(width))


class _WindowAttention(nn.Module):
    """Attention within square windows of the image."""

    def __init__(self, tokens: int, width: int, *, window: int, heads: int, dim: int, kv: int) -> None:
        super().__init__()
        self.side, self.prefix = _grid_of(tokens)
        self.width, self.window, self.inner = width, window, heads * dim
        self.attention = AttentionBody(window * window, width, heads=heads, dim=dim, kv=kv)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, heads · dim)."""
        count, window = self.side // self.window, self.window
        grid = x[:, self.prefix :] if self.prefix else x
        cut = grid.reshape(-1, count, window, count, window, self.width).transpose(2, 3)
        seen = self.attention(cut.reshape(-1, window * window, self.width))
        seen = seen.reshape(-1, count, count, window, window, self.inner).transpose(2, 3)
        made: Tensor = seen.reshape(-1, self.side * self.side, self.inner)
        return torch.cat([made.mean(1, keepdim=True), made], 1) if self.prefix else made


class TokenWindow(TokenResidual):
    """Attention of every token to those of its window."""

    def __init__(
        self, input_shape: Shape, output_shape: Shape, *, window: int, heads: int, dim: int, kv: int
    ) -> None:
        del output_shape
        tokens, width = input_shape
        body = _WindowAttention(tokens, width, window=window, heads=heads, dim=dim, kv=kv)
        super().__init__(width, body, nn.Linear(heads * dim, width))


class _ReducedAttention(nn.Module):
    """Attention of all tokens to the averages of square patches, and to the class token."""

    def __init__(self, tokens: int, width: int, *, reduce: int, heads: int, dim: int) -> None:
        super().__init__()
        self.tokens, self.width, self.heads, self.dim = tokens, width, heads, dim
        self.side, self.prefix = _grid_of(tokens)
        self.pool = nn.AvgPool2d(reduce)
        self.seen = (self.side // reduce) ** 2 + self.prefix
        self.q = nn.Linear(width, heads * dim)
        self.kv = nn.Linear(width, 2 * heads * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, heads · dim)."""
        grid = x[:, self.prefix :] if self.prefix else x
        pooled = self.pool(grid.transpose(1, 2).reshape(-1, self.width, self.side, self.side))
        fewer = pooled.reshape(-1, self.width, self.seen - self.prefix).transpose(1, 2)
        if self.prefix:
            fewer = torch.cat([x[:, :1], fewer], 1)
        q = self.q(x).reshape(-1, self.tokens, self.heads, self.dim).transpose(1, 2) * self.dim**-0.5
        k, v = (
            part.reshape(-1, self.seen, self.heads, self.dim).transpose(1, 2)
            for part in self.kv(fewer).split(self.heads * self.dim, -1)
        )
        seen = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        result: Tensor = seen.transpose(1, 2).reshape(-1, self.tokens, self.heads * self.dim)
        return result


class TokenReducedAttention(TokenResidual):
    """Attention to fewer keys and values, averaged over patches."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, reduce: int, heads: int, dim: int) -> None:
        del output_shape
        tokens, width = input_shape
        body = _ReducedAttention(tokens, width, reduce=reduce, heads=heads, dim=dim)
        super().__init__(width, body, nn.Linear(heads * dim, width))
