"""Transformer blocks made of two halves, attention and MLP, so that each half is a layer of its own.

A block computes x + attention(norm(x)) and then x + mlp(norm(x)). As one layer both would be kept or replaced
together; apart, either may be skipped, narrowed or exchanged for the other kind, which is where most of the
speed of pruned transformers comes from (Puzzle, arXiv 2411.19146).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

__all__ = ["AttentionHalf", "MlpHalf", "SplitBlock", "split_blocks"]


class _Half(nn.Module):
    """x + drop(scale(function(norm(x)))), tokens (N, T, D) both ways."""

    def __init__(self, norm: nn.Module, function: nn.Module, scale: nn.Module, drop: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.function = function
        self.scale = scale
        self.drop = drop  # of whole branches or of values, while training only

    def forward(self, x: Tensor) -> Tensor:
        """Return x with the branch added."""
        added: Tensor = self.drop(self.scale(self.function(self.norm(x))))
        return x + added


class AttentionHalf(_Half):
    """The first half of a transformer block: every token looks at all others."""

    def attention_macs(self, tokens: int) -> int:
        """Return the multiply-accumulates of the two products of attention, which no linear layer performs."""
        return 2 * tokens * tokens * int(getattr(self.function, "attn_dim", 0))


class MlpHalf(_Half):
    """The second half of a transformer block: every token for itself."""


class SplitBlock(nn.Sequential):
    """A transformer block of two children, ``attention`` and ``mlp``."""

    def __init__(self, attention: AttentionHalf, mlp: MlpHalf) -> None:
        super().__init__()
        self.attention = attention
        self.mlp = mlp


class _SelfAttention(nn.Module):
    """torch's multi-head attention of one input, written as products and a softmax.

    torch's own fast path in eval mode is one node that no exporter knows.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        assert attention.in_proj_weight is not None  # keys and values as wide as the tokens
        self.num_heads = attention.num_heads
        self.head_dim = attention.head_dim
        self.attn_dim = attention.embed_dim
        # no memory and no random numbers: the weights are the old one's
        self.qkv = nn.Linear(self.attn_dim, 3 * self.attn_dim, device="meta")
        self.qkv.weight, self.qkv.bias = attention.in_proj_weight, attention.in_proj_bias
        self.drop = nn.Dropout(attention.dropout)
        self.proj = attention.out_proj

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D) for (N, T, D)."""
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        weights = self.drop((q * self.head_dim**-0.5 @ k.transpose(-2, -1)).softmax(-1))
        # as wide as the heads are together: a copy may have fewer of them
        joined = (weights @ v).transpose(1, 2).reshape(batch, tokens, self.attn_dim)
        attended: Tensor = self.proj(joined)
        return attended


def split_blocks(module: nn.Module, input_shape: tuple[int, ...]) -> int:
    """Replace the transformer blocks of timm and torchvision in place by split ones; return how many.

    Outputs stay what they were, in training, too: timm's bit for bit, torchvision's up to rounding. The weights
    are the blocks' own under other names (``blocks.0.attn.qkv`` becomes ``blocks.0.attention.function.qkv``),
    so load weights first. Blocks that are called with more than the tokens, such as a mask, stay whole.

    Args:
        module: a network that takes (N, *input_shape).
        input_shape: (C, H, W).
    """
    targets = {name: child for name, child in module.named_modules() if name and _kind(child)}
    if not targets:
        return 0
    plain: dict[str, bool] = {}
    handles = [_watch_calls(child, name, plain) for name, child in targets.items()]
    try:
        with torch.no_grad():
            module(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    replaced = 0
    for name, child in targets.items():
        if plain.get(name):
            parent_name, _, own_name = name.rpartition(".")
            split = _split_timm(child) if _kind(child) == "timm" else _split_torchvision(child)
            setattr(module.get_submodule(parent_name), own_name, split.train(child.training))
            replaced += 1
    return replaced


def _kind(child: nn.Module) -> str:
    """Return the library whose block this is; a subclass may compute something else and is none."""
    kind = type(child)
    if kind.__module__ == "timm.models.vision_transformer" and kind.__name__ == "Block":
        return "timm"
    if kind.__module__ == "torchvision.models.vision_transformer" and kind.__name__ == "EncoderBlock":
        return "torchvision"
    return ""


def _watch_calls(child: nn.Module, name: str, plain: dict[str, bool]) -> RemovableHandle:
    def watch(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        plain[name] = plain.get(name, True) and len(inputs) == 1 and not named

    return child.register_forward_pre_hook(watch, with_kwargs=True)


def _split_timm(block: Any) -> SplitBlock:
    return SplitBlock(
        AttentionHalf(block.norm1, block.attn, block.ls1, block.drop_path1),
        MlpHalf(block.norm2, block.mlp, block.ls2, block.drop_path2),
    )


def _split_torchvision(block: Any) -> SplitBlock:
    attention = _SelfAttention(block.self_attention)
    return SplitBlock(
        AttentionHalf(block.ln_1, attention, nn.Identity(), block.dropout),
        MlpHalf(block.ln_2, block.mlp, nn.Identity(), nn.Identity()),
    )
