"""The families of operations on tokens, (T, D) to the same: where each fits, what it costs. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lanaprof.ops.families import round_channels
from lanaprof.ops.family import ACTIVATIONS, Family, Parameter, Shape
from lanaprof.ops.pieces import Piece, total_macs
from lanaprof.ops.token_shapes import find_grid, hidden_tokens, kept_rank

__all__ = ["TOKEN_FAMILIES"]

_TOKENS = "lanaprof.ops.blocks.tokens"
_GRIDS = "lanaprof.ops.blocks.token_grids"

_Pieces = Callable[[Shape, Shape, Mapping[str, Any]], tuple[Piece, ...]]
_Steps = Callable[[int, int, Mapping[str, Any]], "list[Piece]"]  # of T, D and the parameters
_Reason = Callable[[Shape, Mapping[str, Any]], "str | None"]


def _linear(rows: int, inputs: int, outputs: int, *, bias: bool = True) -> Piece:
    return Piece("linear", (rows, inputs, outputs, int(bias)), rows * inputs * outputs)


def _act(name: str, *sizes: int) -> list[Piece]:
    return [] if name == "none" else [Piece(name, sizes)]


def _scale(tokens: int, width: int) -> Piece:
    return Piece("scale", (tokens, width), tokens * width)


def _attend(tokens: int, seen: int, heads: int, dim: int, kv: int) -> Piece:
    return Piece("attend", (tokens, seen, heads, dim, kv), 2 * tokens * seen * heads * dim)


def _grid(tokens: int) -> tuple[int, int]:
    grid = find_grid(tokens)
    assert grid is not None  # applies said so
    return grid


def _depthwise(tokens: int, channels: int, kernel: int) -> Piece:
    side, _ = _grid(tokens)
    return Piece("depthwise", (side, channels, kernel), side * side * channels * kernel**2)


def _mlp(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    hidden = round_channels(width * p["expand"])
    return [
        _linear(tokens, width, hidden),
        *_act(p["act"], tokens, hidden),
        _linear(tokens, hidden, width),
    ]


def _gated(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    hidden = round_channels(width * p["expand"])
    return [
        _linear(tokens, width, 2 * hidden),
        Piece("gate", (tokens, hidden, p["act"])),
        _linear(tokens, hidden, width),
    ]


def _one_linear(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    if not p["rank"]:
        return [_linear(tokens, width, width)]
    kept = kept_rank(width, p["rank"])
    return [_linear(tokens, width, kept, bias=False), _linear(tokens, kept, width)]


def _attention(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    heads, dim, kv = p["heads"], p["dim"], p["kv"] or p["heads"]
    return [
        _linear(tokens, width, (heads + 2 * kv) * dim),
        _attend(tokens, tokens, heads, dim, kv),
        _linear(tokens, heads * dim, width),
    ]


def _linear_attention(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    heads, dim = p["heads"], p["dim"]
    return [
        _linear(tokens, width, 3 * heads * dim),
        Piece("summed_keys", (tokens, heads, dim), 2 * tokens * heads * dim * dim),
        _linear(tokens, heads * dim, width),
    ]


def _external(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    size = p["size"]
    return [
        _linear(tokens, width, size, bias=False),
        Piece("twice_normed", (tokens, size)),
        _linear(tokens, size, width),
    ]


def _mixer(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    if not p["expand"]:
        return [Piece("across"), _linear(width, tokens, tokens), _scale(tokens, width)]
    hidden = hidden_tokens(tokens, p["expand"])
    return [
        Piece("across"),
        _linear(width, tokens, hidden),
        *_act(p["act"], width, hidden),
        _linear(width, hidden, tokens),
        _scale(tokens, width),
    ]


def _spatial_gate(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    hidden = round_channels(width * p["expand"])
    return [
        _linear(tokens, width, 2 * hidden),
        *_act(p["act"], tokens, 2 * hidden),
        Piece("across"),
        _linear(hidden, tokens, tokens),
        _linear(tokens, hidden, width),
    ]


def _block(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    return [*_attention(tokens, width, p), Piece("add"), *_mlp(tokens, width, p)]


def _conv(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    return [_depthwise(tokens, width, p["kernel"]), _linear(tokens, width, width)]


def _conv_mlp(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    first, *rest = _mlp(tokens, width, p)
    return [first, _depthwise(tokens, round_channels(width * p["expand"]), p["kernel"]), *rest]


def _pool(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    return [Piece("average", (tokens, width, p["kernel"])), _scale(tokens, width)]


def _window(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    side, _ = _grid(tokens)
    heads, dim, kv = p["heads"], p["dim"], p["kv"] or p["heads"]
    return [
        _linear(side * side, width, (heads + 2 * kv) * dim),
        _attend(side * side, p["window"] ** 2, heads, dim, kv),
        _linear(tokens, heads * dim, width),
    ]


def _reduced(tokens: int, width: int, p: Mapping[str, Any]) -> list[Piece]:
    side, prefix = _grid(tokens)
    heads, dim, seen = p["heads"], p["dim"], (side // p["reduce"]) ** 2 + prefix
    return [
        Piece("average", (side, p["reduce"])),
        _linear(tokens, width, heads * dim),
        _linear(seen, width, 2 * heads * dim),
        _attend(tokens, seen, heads, dim, heads),
        _linear(tokens, heads * dim, width),
    ]


def _on_grid(shape: Shape, p: Mapping[str, Any]) -> str | None:
    del p
    if find_grid(shape[0]) is None:
        return f"{shape[0]} tokens are no square, with or without a class token"
    return None


def _shared_heads(shape: Shape, p: Mapping[str, Any]) -> str | None:
    del shape
    if p["kv"] and p["heads"] % p["kv"]:
        return f"{p['kv']} heads of keys do not divide {p['heads']} heads"
    return None


def _dividing(name: str) -> _Reason:
    def reason(shape: Shape, p: Mapping[str, Any]) -> str | None:
        none = _on_grid(shape, p)
        if none is not None:
            return none
        side, _ = _grid(shape[0])
        if side % p[name]:
            return f"{name} {p[name]} does not divide the grid's side, {side}"
        return _shared_heads(shape, p) if "kv" in p else None

    return reason


def _number(name: str, default: float, low: float, high: float, meaning: str) -> Parameter:
    return Parameter(name, default, low=low, high=high, help=meaning)


_ACT = Parameter("act", "gelu", allowed=ACTIVATIONS, help="activation inside")
_HEADS = _number("heads", 4, 1, 64, "heads of the queries")
_DIM = _number("dim", 32, 1, 256, "channels of a head")
_KV = _number("kv", 0, 0, 64, "heads of keys and values, shared by groups of the queries'; 0: one for each")
_KERNEL = Parameter("kernel", 3, allowed=(3, 5, 7), help="size of the spatial kernel")
_HIDDEN = "hidden channels over the tokens' channels, rounded to 8"


def _expand(default: float) -> Parameter:
    return _number("expand", default, 0.0625, 16, _HIDDEN)


def _family(
    name: str,
    parameters: tuple[Parameter, ...],
    module: str,
    *,
    steps: _Steps,
    source: str,
    summary: str,
    reason: _Reason | None = None,
) -> Family:
    """Return a family on tokens whose costs follow from its steps."""

    def applies(input_shape: Shape, output_shape: Shape, p: Mapping[str, Any]) -> str | None:
        if len(input_shape) != 2 or len(output_shape) != 2:
            return f"it needs tokens (T, D), not {input_shape} to {output_shape}"
        if input_shape != output_shape:
            return f"it keeps the tokens' shape and cannot turn {input_shape} into {output_shape}"
        return None if reason is None else reason(input_shape, p)

    def pieces(input_shape: Shape, output_shape: Shape, p: Mapping[str, Any]) -> tuple[Piece, ...]:
        del output_shape
        tokens, width = input_shape
        return (Piece("norm", (tokens, width)), *steps(tokens, width, p), Piece("add"))

    def macs(input_shape: Shape, output_shape: Shape, p: Mapping[str, Any]) -> int:
        return total_macs(pieces(input_shape, output_shape, p))

    return Family(
        name=name,
        parameters=parameters,
        module=module,
        source=source,
        summary=summary,
        applies=applies,
        macs=macs,
        dense=not module.startswith(_GRIDS) or steps not in (_conv, _conv_mlp),
        pieces=pieces,
    )


TOKEN_FAMILIES: tuple[Family, ...] = (
    _family(
        "token_mlp",
        (_expand(4.0), _ACT),
        f"{_TOKENS}:TokenMlp",
        steps=_mlp,
        source="Vaswani et al., arXiv 1706.03762; Dosovitskiy et al., ViT, arXiv 2010.11929",
        summary="tokens: two linear layers, every token for itself",
    ),
    _family(
        "token_gated_mlp",
        (_expand(2.0), _ACT),
        f"{_TOKENS}:TokenGatedMlp",
        steps=_gated,
        source="Shazeer, GLU Variants, arXiv 2002.05202",
        summary="tokens: an MLP whose hidden values are gated",
    ),
    _family(
        "token_linear",
        (_number("rank", 0.0, 0, 1, "channels between two maps over the tokens' channels; 0: one map"),),
        f"{_TOKENS}:TokenLinear",
        steps=_one_linear,
        source="Bercovich et al., Puzzle, arXiv 2411.19146 (a linear layer for attention or MLP)",
        summary="tokens: one linear map of the channels, or two through fewer",
    ),
    _family(
        "token_attention",
        (_HEADS, _DIM, _KV),
        f"{_TOKENS}:TokenAttention",
        steps=_attention,
        source="Vaswani et al., arXiv 1706.03762; Ainslie et al., grouped queries, arXiv 2305.13245 (kv); "
        "Shazeer, multi-query, arXiv 1911.02150 (kv=1)",
        summary="tokens: attention of every token to all",
        reason=_shared_heads,
    ),
    _family(
        "token_linear_attention",
        (_HEADS, _DIM),
        f"{_TOKENS}:TokenLinearAttention",
        steps=_linear_attention,
        source="Shen et al., Efficient Attention, arXiv 1812.01243",
        summary="tokens: attention whose cost is linear in the tokens, softmaxes of queries and keys apart",
    ),
    _family(
        "token_external",
        (_number("size", 64, 4, 4096, "learnt keys"),),
        f"{_TOKENS}:TokenExternal",
        steps=_external,
        source="Guo et al., External Attention, arXiv 2105.02358",
        summary="tokens: attention to learnt keys and values, the same for all images",
    ),
    _family(
        "token_mixer",
        (
            _number("expand", 0.5, 0, 4, "hidden size over the number of tokens; 0: one linear layer"),
            _ACT,
        ),
        f"{_TOKENS}:TokenMixer",
        steps=_mixer,
        source="Tolstikhin et al., MLP-Mixer, arXiv 2105.01601; Touvron et al., ResMLP, arXiv 2105.03404 "
        "(expand=0)",
        summary="tokens: linear layers across the tokens, the same for all channels",
    ),
    _family(
        "token_spatial_gate",
        (_expand(1.0), _ACT),
        f"{_TOKENS}:TokenSpatialGate",
        steps=_spatial_gate,
        source="Liu et al., gMLP, arXiv 2105.08050",
        summary="tokens: an MLP gated by a linear layer across the tokens",
    ),
    _family(
        "token_block",
        (_HEADS, _DIM, _KV, _expand(2.0), _ACT),
        f"{_TOKENS}:TokenBlock",
        steps=_block,
        source="Dosovitskiy et al., ViT, arXiv 2010.11929",
        summary="tokens: a whole transformer block, attention and then an MLP",
        reason=_shared_heads,
    ),
    _family(
        "token_conv",
        (_KERNEL,),
        f"{_GRIDS}:TokenConv",
        steps=_conv,
        source="Trockman and Kolter, ConvMixer, arXiv 2201.09792; Chu et al., arXiv 2102.10882 (class token)",
        summary="tokens on a square grid: a depthwise convolution, then a linear layer",
        reason=_on_grid,
    ),
    _family(
        "token_conv_mlp",
        (_expand(2.0), _KERNEL, _ACT),
        f"{_GRIDS}:TokenConvMlp",
        steps=_conv_mlp,
        source="Wang et al., PVT v2, arXiv 2106.13797; Yuan et al., CeiT, arXiv 2103.11816 (class token)",
        summary="tokens on a square grid: an MLP with a depthwise convolution of its hidden values",
        reason=_on_grid,
    ),
    _family(
        "token_pool",
        (_KERNEL,),
        f"{_GRIDS}:TokenPool",
        steps=_pool,
        source="Yu et al., PoolFormer, arXiv 2111.11418",
        summary="tokens on a square grid: neighbours averaged, a scale for every channel",
        reason=_on_grid,
    ),
    _family(
        "token_window",
        (_number("window", 7, 2, 64, "side of a window; divides the grid's"), _HEADS, _DIM, _KV),
        f"{_GRIDS}:TokenWindow",
        steps=_window,
        source="Liu et al., Swin, arXiv 2103.14030 (windows not shifted)",
        summary="tokens on a square grid: attention within square windows",
        reason=_dividing("window"),
    ),
    _family(
        "token_reduced_attention",
        (_number("reduce", 2, 2, 64, "side of the patches averaged; divides the grid's"), _HEADS, _DIM),
        f"{_GRIDS}:TokenReducedAttention",
        steps=_reduced,
        source="Wang et al., PVT, arXiv 2102.12122, and PVT v2, arXiv 2106.13797 (averages)",
        summary="tokens on a square grid: attention to keys and values averaged over patches",
        reason=_dividing("reduce"),
    ),
)
