"""What each torch function does to channels; a function without a rule here fixes all it touches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from lanaprof.ops.slimming.calls import Call
from lanaprof.ops.slimming.classes import Ids
from lanaprof.ops.slimming.layer_rules import LAYER_RULES
from lanaprof.ops.slimming.reshaping import merge_or_split
from lanaprof.ops.slimming.tracking import Tracker

__all__ = ["apply_rule"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENTWISE = _words(
    "add sub subtract mul multiply div divide true_divide truediv neg negative abs exp log sqrt rsqrt square pow "
    "reciprocal clamp clip clamp_min clamp_max maximum minimum where lerp addcmul addcdiv relu relu6 leaky_relu "
    "elu selu celu gelu silu mish softplus softsign sigmoid logsigmoid hardsigmoid hardswish hardtanh tanh erf "
    "dropout dropout1d dropout2d alpha_dropout feature_dropout clone contiguous detach to type type_as float "
    "half double bfloat16 zeros_like ones_like empty_like full_like rand_like randn_like prelu copy threshold "
    "normalize nan_to_num"
)
_POOLS = _words(
    "avg_pool2d max_pool2d adaptive_avg_pool2d adaptive_max_pool2d lp_pool2d interpolate upsample"
)
_REDUCING = {  # name → the arguments' names
    **dict.fromkeys(("mean", "sum", "amax", "amin", "std", "var", "logsumexp"), ("input", "dim", "keepdim")),
    "norm": ("input", "p", "dim", "keepdim"),
}
_RESHAPING = _words("reshape view flatten unflatten squeeze unsqueeze view_as reshape_as ravel")


def apply_rule(tracker: Tracker, call: Call) -> None:
    """Note the marks of a call's results."""
    if not call.outputs:
        return
    rule = _RULES.get(call.name)
    if rule is None and call.name in _ELEMENTWISE:
        rule = _elementwise
    elif rule is None and call.name in _POOLS:
        rule = _pool
    elif rule is None and call.name in _REDUCING:
        rule = _reduce
    elif rule is None and call.name in _RESHAPING:
        rule = _reshape
    if rule is None or not rule(tracker, call):
        for x in call.inputs:
            tracker.fix(x, f"its channels pass through {call.name}")
        for x in call.outputs:
            tracker.put(x, (None,) * x.dim())


# --------------------------------------------------------------- rules: False where they do not know, either


def _elementwise(tracker: Tracker, call: Call) -> bool:
    tracker.put(call.result, tracker.broadcast(call.inputs, call.result.shape))
    return True


def _pool(tracker: Tracker, call: Call) -> bool:
    first = tracker.marks(call.inputs[0])
    for x in call.outputs:
        tracker.put(x, (*first[:2], *(None for _ in x.shape[2:])))
    return True


def _reduce(tracker: Tracker, call: Call) -> bool:
    given = call.given(" ".join(_REDUCING[call.name]))
    x, out = call.inputs[0], call.result
    if not isinstance(out, Tensor) or given.get("dim") is None:
        return isinstance(out, Tensor) and out.dim() == 0
    dims = given["dim"] if isinstance(given["dim"], Sequence) else [given["dim"]]
    gone = {dim % x.dim() for dim in dims}
    marks = tracker.marks(x)
    if out.dim() == x.dim():
        tracker.put(out, [None if dim in gone else own for dim, own in enumerate(marks)])
    else:
        tracker.put(out, [own for dim, own in enumerate(marks) if dim not in gone])
    return True


def _reshape(tracker: Tracker, call: Call) -> bool:
    x, out = call.inputs[0], call.result
    marks = merge_or_split(tracker, tracker.marks(x), tuple(x.shape), tuple(out.shape))
    if marks is not None:
        tracker.put(out, marks)
    return marks is not None


def _permute(tracker: Tracker, call: Call) -> bool:
    x, out = call.inputs[0], call.result
    marks = tracker.marks(x)
    rest = call.args[1:] if not call.kwargs else (call.kwargs.get("dims"),)
    dims = rest[0] if len(rest) == 1 and isinstance(rest[0], Sequence) else rest
    if len(dims) != x.dim() or not all(isinstance(dim, int) for dim in dims):
        return False
    tracker.put(out, [marks[dim] for dim in dims])
    return True


def _transpose(tracker: Tracker, call: Call) -> bool:
    given = call.given("input dim0 dim1")
    x = call.inputs[0]
    marks = list(tracker.marks(x))
    first, second = given.get("dim0"), given.get("dim1")
    if not isinstance(first, int) or not isinstance(second, int):
        return False
    marks[first], marks[second] = marks[second], marks[first]
    tracker.put(call.result, marks)
    return True


def _softmax(tracker: Tracker, call: Call) -> bool:
    dim = call.given("input dim").get("dim")
    x = call.inputs[0]
    if not isinstance(dim, int):
        return False
    own = tracker.marks(x)[dim]
    if own is not None:
        tracker.classes.fix(own, "its channels compete in a softmax")
    tracker.put(call.result, tracker.marks(x))
    return True


def _expand(tracker: Tracker, call: Call) -> bool:
    tracker.put(call.result, tracker.broadcast(call.inputs[:1], call.result.shape))
    return True


def _pad(tracker: Tracker, call: Call) -> bool:
    x = call.inputs[0]
    kept = [
        own if size == before else None
        for own, size, before in zip(tracker.marks(x), call.result.shape, x.shape, strict=True)
    ]
    for own, still in zip(tracker.marks(x), kept, strict=True):
        if own is not None and still is None:
            tracker.classes.fix(own, "its channels are padded")
    tracker.put(call.result, kept)
    return True


def _cat(tracker: Tracker, call: Call) -> bool:
    given = call.given("tensors dim")
    tensors, dim = list(given["tensors"]), given.get("dim", given.get("axis", 0))
    out = call.result
    if any(x.dim() != out.dim() for x in tensors):
        return False  # an empty tensor, which torch.cat passes over
    dim %= out.dim()
    parts = []
    for x in tensors:
        own = tracker.marks(x)[dim]
        if own is None:
            own = tracker.classes.number(x.shape[dim])
            tracker.classes.fix(own)
        parts.append(own)
    marks = [
        tracker.join([tracker.marks(x)[place] for x in tensors]) for place in range(out.dim()) if place != dim
    ]
    tracker.put(out, [*marks[:dim], np.concatenate(parts), *marks[dim:]])
    return True


def _pieces(tracker: Tracker, call: Call) -> bool:
    """Follow chunk, split and tensor_split: consecutive pieces along one dimension."""
    dim = call.given("input size dim").get("dim", 0)
    x = call.inputs[0]
    marks, start = tracker.marks(x), 0
    for piece in call.outputs:
        size = piece.shape[dim]
        own = marks[dim]
        cut = list(marks)
        cut[dim] = None if own is None else own[start : start + size]
        tracker.put(piece, cut)
        start += size
    return bool(start == x.shape[dim])


def _unbind(tracker: Tracker, call: Call) -> bool:
    dim = call.given("input dim").get("dim", 0)
    x = call.inputs[0]
    marks = list(tracker.marks(x))
    if marks[dim] is not None:
        return False
    del marks[dim]
    for piece in call.outputs:
        tracker.put(piece, marks)
    return True


def _getitem(tracker: Tracker, call: Call) -> bool:
    """Follow x[:, 0], x[..., a:b] and the like."""
    x, index = call.args[0], call.args[1]
    index = index if isinstance(index, tuple) else (index,)
    if not all(one is None or one is Ellipsis or isinstance(one, int | slice) for one in index):
        return False
    taken = sum(1 for one in index if one is not None and one is not Ellipsis)
    marks = list(tracker.marks(x))
    found: list[Ids | None] = []
    for one in (*index, *(() if Ellipsis in index else (Ellipsis,))):
        if one is None:
            found.append(None)
        elif one is Ellipsis:
            while len(marks) > max(0, taken):
                found.append(marks.pop(0))
        else:
            taken -= 1
            own = marks.pop(0)
            if isinstance(one, slice):
                found.append(None if own is None else own[one])
            elif own is not None:
                return False
    tracker.put(call.result, found)
    return True


def _matmul(tracker: Tracker, call: Call) -> bool:
    left, right = call.inputs[:2]
    if left.dim() < 2 or right.dim() < 2:
        return False
    a, b, out = tracker.marks(left), tracker.marks(right), call.result
    tracker.join([a[-1], b[-2]])
    leading: list[Ids | None] = []
    for place in range(out.dim(), 2, -1):
        parts = [
            marks[-place]
            for x, marks in ((left, a), (right, b))
            if x.dim() >= place and x.shape[-place] == out.shape[-place]
        ]
        leading.append(tracker.join(parts))
    tracker.put(out, [*leading, a[-2], b[-1]])
    return True


def _attention(tracker: Tracker, call: Call) -> bool:
    given = call.given("query key value attn_mask dropout_p is_causal")
    query, key, value = given["query"], given["key"], given["value"]
    if given.get("attn_mask") is not None or not query.dim() == key.dim() == value.dim():
        return False
    q, k, v = tracker.marks(query), tracker.marks(key), tracker.marks(value)
    leading = [tracker.join(parts) for parts in zip(q[:-2], k[:-2], v[:-2], strict=True)]
    tracker.join([q[-1], k[-1]])
    tracker.put(call.result, [*leading, q[-2], v[-1]])
    return True


_RULES: dict[str, Callable[[Tracker, Call], bool]] = {
    **LAYER_RULES,
    "matmul": _matmul,
    "bmm": _matmul,
    "scaled_dot_product_attention": _attention,
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "expand": _expand,
    "expand_as": _expand,
    "pad": _pad,
    "cat": _cat,
    "concat": _cat,
    "chunk": _pieces,
    "split": _pieces,
    "tensor_split": _pieces,
    "unbind": _unbind,
    "getitem": _getitem,
}
