"""Modules of operations on tokens: (N, T, D) to (N, T, D), each x + last(body(norm(x))).

Attention is written as products and a softmax with constant shapes: no fused node that an exporter or a runtime
may not know, and nothing of the shape is computed at run time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lanaprof.ops.blocks.parts import ACTIVATION_MODULES
from lanaprof.ops.families import round_channels
from lanaprof.ops.family import Shape
from lanaprof.ops.token_shapes import hidden_tokens, kept_rank

__all__ = [
    "AttentionBody",
    "ChannelScale",
    "TokenAttention",
    "TokenBlock",
    "TokenExternal",
    "TokenGatedMlp",
    "TokenLinear",
    "TokenLinearAttention",
    "TokenMixer",
    "TokenMlp",
    "TokenResidual",
    "TokenSpatialGate",
]

NORM_EPS = 1e-6  # as vision transformers have it


class ChannelScale(nn.Module):
    """Every channel times a number plus a number (LayerScale: Touvron et al., arXiv 2103.17239)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Return x, scaled and shifted; (N, T, D) both ways."""
        return x * self.weight + self.bias


class TokenResidual(nn.Module):
    """x + last(body(norm(x))).

    Args:
        width: D, channels of the tokens.
        body: takes (N, T, D), gives (N, T, H).
        last: linear in the channels, H to D: a linear layer or, where H is D, a scale.
    """

    def __init__(self, width: int, body: nn.Module, last: nn.Linear | ChannelScale) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.body = body
        self.last = last

    def added(self, x: Tensor) -> Tensor:
        """Return what is added to x, (N, T, D)."""
        result: Tensor = self.last(self.body(self.norm(x)))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D)."""
        return x + self.added(x)

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Scale and shift the last linear map; see lanaprof.ops.match_output."""
        with torch.no_grad():
            own_deviation, own_mean = torch.std_mean(self.added(x), dim=(0, 1))
            deviation, mean = torch.std_mean(y - x, dim=(0, 1))
            factor = share * deviation / own_deviation.clamp_min(1e-6)  # no division by a dead channel's 0
            weight, bias = self.last.weight, self.last.bias
            assert bias is not None
            weight.mul_(factor.reshape(-1, *(1 for _ in weight.shape[1:])))
            bias.copy_(bias * factor + mean - own_mean * factor)


class TokenMlp(TokenResidual):
    """Two linear layers, every token for itself."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, expand: float, act: str) -> None:
        del output_shape
        width = input_shape[1]
        hidden = round_channels(width * expand)
        body = nn.Sequential(nn.Linear(width, hidden), ACTIVATION_MODULES[act]())
        super().__init__(width, body, nn.Linear(hidden, width))


class _Gated(nn.Module):
    """Half of a linear layer's outputs, activated, times the other half."""

    def __init__(self, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.hidden = hidden
        self.both = nn.Linear(width, 2 * hidden)
        self.act = ACTIVATION_MODULES[act]()

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, H)."""
        gate, value = self.both(x).split(self.hidden, -1)
        result: Tensor = self.act(gate) * value
        return result


class TokenGatedMlp(TokenResidual):
    """An MLP whose hidden values are gated."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, expand: float, act: str) -> None:
        del output_shape
        width = input_shape[1]
        hidden = round_channels(width * expand)
        super().__init__(width, _Gated(width, hidden, act), nn.Linear(hidden, width))


class TokenLinear(TokenResidual):
    """One linear map of the channels, or two through fewer."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, rank: float) -> None:
        del output_shape
        width = input_shape[1]
        if not rank:
            super().__init__(width, nn.Identity(), nn.Linear(width, width))
            return
        kept = kept_rank(width, rank)
        super().__init__(width, nn.Linear(width, kept, bias=False), nn.Linear(kept, width))


class AttentionBody(nn.Module):
    """Attention of every token to all, ``kv`` groups of heads sharing keys and values."""

    def __init__(self, tokens: int, width: int, *, heads: int, dim: int, kv: int) -> None:
        super().__init__()
        self.tokens, self.heads, self.dim, self.kv = tokens, heads, dim, kv or heads
        self.qkv = nn.Linear(width, (heads + 2 * self.kv) * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, heads · dim)."""
        shared = self.heads // self.kv
        sizes = [self.heads * self.dim, self.kv * self.dim, self.kv * self.dim]
        q, k, v = self.qkv(x).split(sizes, -1)
        # the heads of a group are further rows of one product: keys and values are never repeated
        q = q.reshape(-1, self.tokens, self.kv, shared, self.dim).permute(0, 2, 3, 1, 4)
        q = q.reshape(-1, self.kv, shared * self.tokens, self.dim) * self.dim**-0.5
        k = k.reshape(-1, self.tokens, self.kv, self.dim).permute(0, 2, 3, 1)
        v = v.reshape(-1, self.tokens, self.kv, self.dim).transpose(1, 2)
        seen = (q @ k).softmax(-1) @ v
        seen = seen.reshape(-1, self.kv, shared, self.tokens, self.dim).permute(0, 3, 1, 2, 4)
        result: Tensor = seen.reshape(-1, self.tokens, self.heads * self.dim)
        return result


class TokenAttention(TokenResidual):
    """Attention with fewer or narrower heads than the teacher's."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, heads: int, dim: int, kv: int) -> None:
        del output_shape
        tokens, width = input_shape
        body = AttentionBody(tokens, width, heads=heads, dim=dim, kv=kv)
        super().__init__(width, body, nn.Linear(heads * dim, width))


class _LinearAttention(nn.Module):
    """Keys are summed up into one small matrix per head: cost grows with T, not with its square."""

    def __init__(self, tokens: int, width: int, *, heads: int, dim: int) -> None:
        super().__init__()
        self.tokens, self.heads, self.dim = tokens, heads, dim
        self.qkv = nn.Linear(width, 3 * heads * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, heads · dim)."""
        q, k, v = (
            part.reshape(-1, self.tokens, self.heads, self.dim).transpose(1, 2)
            for part in self.qkv(x).split(self.heads * self.dim, -1)
        )
        seen = q.softmax(-1) @ (k.softmax(-2).transpose(-2, -1) @ v)
        result: Tensor = seen.transpose(1, 2).reshape(-1, self.tokens, self.heads * self.dim)
        return result


class TokenLinearAttention(TokenResidual):
    """Attention whose softmaxes are taken of queries and keys apart."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, heads: int, dim: int) -> None:
        del output_shape
        tokens, width = input_shape
        body = _LinearAttention(tokens, width, heads=heads, dim=dim)
        super().__init__(width, body, nn.Linear(heads * dim, width))


class _External(nn.Module):
    """How much each token is like each of the learnt ones."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.keys = nn.Linear(width, size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, size), over the tokens and then over the learnt ones of sum 1."""
        likeness: Tensor = self.keys(x).softmax(1)
        return likeness / (likeness.sum(-1, keepdim=True) + 1e-9)


class TokenExternal(TokenResidual):
    """Attention to learnt keys and values that are the same for all images."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, size: int) -> None:
        del output_shape
        width = input_shape[1]
        super().__init__(width, _External(width, size), nn.Linear(size, width))


class _AcrossTokens(nn.Module):
    """A body for (N, D, T), the tokens last, so that linear layers mix tokens."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D)."""
        mixed: Tensor = self.body(x.transpose(1, 2)).transpose(1, 2)
        return mixed


class TokenMixer(TokenResidual):
    """Linear layers across the tokens, the same for all channels."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, expand: float, act: str) -> None:
        del output_shape
        tokens, width = input_shape
        body: nn.Module = nn.Linear(tokens, tokens)
        if expand:
            hidden = hidden_tokens(tokens, expand)
            body = nn.Sequential(
                nn.Linear(tokens, hidden), ACTIVATION_MODULES[act](), nn.Linear(hidden, tokens)
            )
        super().__init__(width, _AcrossTokens(body), ChannelScale(width))


class _SpatialGate(nn.Module):
    """An MLP's hidden values, half of them mixed across the tokens and multiplied with the other half."""

    def __init__(self, tokens: int, width: int, hidden: int, act: str) -> None:
        super().__init__()
        self.hidden = hidden
        self.both = nn.Linear(width, 2 * hidden)
        self.act = ACTIVATION_MODULES[act]()
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        mix = nn.Linear(tokens, tokens)
        nn.init.normal_(mix.weight, std=1e-2 / tokens)  # with the next line: a gate of about 1 at birth
        nn.init.ones_(mix.bias)
        self.mix = _AcrossTokens(mix)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, H)."""
        value, gate = self.act(self.both(x)).split(self.hidden, -1)
        result: Tensor = value * self.mix(self.norm(gate))
        return result


class TokenSpatialGate(TokenResidual):
    """An MLP gated by what a linear layer across the tokens says."""

    def __init__(self, input_shape: Shape, output_shape: Shape, *, expand: float, act: str) -> None:
        del output_shape
        tokens, width = input_shape
        hidden = round_channels(width * expand)
        super().__init__(width, _SpatialGate(tokens, width, hidden, act), nn.Linear(hidden, width))


class TokenBlock(nn.Module):
    """A whole transformer block: attention, then MLP."""

    def __init__(
        self,
        input_shape: Shape,
        output_shape: Shape,
        *,
        heads: int,
        dim: int,
        kv: int,
        expand: float,
        act: str,
    ) -> None:
        super().__init__()
        self.attention = TokenAttention(input_shape, output_shape, heads=heads, dim=dim, kv=kv)
        self.mlp = TokenMlp(input_shape, output_shape, expand=expand, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D)."""
        result: Tensor = self.mlp(self.attention(x))
        return result

    def match_output(self, x: Tensor, y: Tensor, share: float) -> None:
        """Let attention add half of what is to be added, the MLP the rest; see lanaprof.ops.match_output."""
        self.attention.match_output(x, x + (y - x) / 2, share)
        with torch.no_grad():
            between = self.attention(x)
        self.mlp.match_output(between, y, share)
