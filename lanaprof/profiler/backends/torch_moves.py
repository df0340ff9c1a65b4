"""ONNX operators that move data, in torch; :mod:`.torch_ops` has the others and the table of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn import functional

from lanaprof.profiler.backends.torch_view import KINDS, NodeView, NotTranslated, torch_pads

__all__ = ["MOVES"]

_CODES: Mapping[int, str] = {  # of TensorProto.DataType
    1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64",
    16: "bfloat16",
}  # fmt: skip


def _reshaped(node: NodeView, x: Any, *_shape: Any) -> Any:
    return x.reshape(node.output_shape)


def _transpose(node: NodeView, x: Any) -> Any:
    return x.permute(tuple(node.get("perm", range(len(node.shape(0)))[::-1])))


def _concat(node: NodeView, *tensors: Any) -> Any:
    return torch.cat(tensors, dim=node.axis(0))


def _split(node: NodeView, x: Any, _sizes: Any = None) -> Any:
    axis = node.axis(0)
    parts = torch.split(x, [described["shape"][axis] for described in node.outputs], dim=axis)
    return parts if len(node.outputs) > 1 else parts[0]


def _slice(node: NodeView, x: Any, *_bounds: Any) -> Any:
    starts, ends = node.whole_numbers(1), node.whole_numbers(2)
    axes = node.whole_numbers(3) or list(range(len(starts)))
    steps = node.whole_numbers(4) or [1] * len(starts)
    if min(steps) < 1:
        raise NotTranslated("Slice that goes backwards")
    where = [slice(None)] * len(node.shape(0))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        where[axis] = slice(start, end, step)
    return x[tuple(where)]


def _gather(node: NodeView, x: Any, index: Any) -> Any:
    axis = node.axis(0) % len(node.shape(0))
    described = node.inputs[1]
    if "value" in described and not described["shape"]:
        return x.select(axis, int(described["value"]))
    return x[(*[slice(None)] * axis, index)]


def _expand(node: NodeView, x: Any, _shape: Any) -> Any:
    return x.expand(node.output_shape)


def _tile(node: NodeView, x: Any, _repeats: Any) -> Any:
    return x.repeat(node.whole_numbers(1))


def _pad(node: NodeView, x: Any, _pads: Any, _value: Any = None, _axes: Any = None) -> Any:
    pads, rank = node.whole_numbers(1), len(node.shape(0))
    axes = node.whole_numbers(3) or list(range(rank))
    begins, ends = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        begins[axis], ends[axis] = pads[place], pads[place + len(axes)]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(
        node.get("mode", "constant")
    )
    if mode is None:
        raise NotTranslated(f"Pad with mode={node.attributes['mode']!r}")
    if mode != "constant":  # torch has these for images only, without their batch and channels
        begins, ends = begins[2:], ends[2:]
        return functional.pad(x, torch_pads(begins, ends), mode=mode)
    fill = float(node.value(2)) if node.has(2) else 0.0
    return functional.pad(x, torch_pads(begins, ends), value=fill)


def _resize(node: NodeView, x: Any, *_given: Any) -> Any:
    node.only(antialias=0, exclude_outside=0, keep_aspect_ratio_policy="stretch")
    kind, place = node.get("mode", "nearest"), node.get("coordinate_transformation_mode", "half_pixel")
    size = node.output_shape[2:]
    rounded = node.get("nearest_mode", "round_prefer_floor")
    if kind == "nearest" and (place, rounded) == ("asymmetric", "floor"):
        return functional.interpolate(x, size=size, mode="nearest")
    smooth = {
        ("linear", 3): "linear",
        ("linear", 4): "bilinear",
        ("linear", 5): "trilinear",
        ("cubic", 4): "bicubic",
    }
    mode = smooth.get((kind, len(node.shape(0))))
    if mode is None or place not in ("half_pixel", "pytorch_half_pixel", "align_corners"):
        raise NotTranslated(f"Resize with mode={kind!r}, {place!r}, {rounded!r}")
    if kind == "cubic":
        node.only(cubic_coeff_a=-0.75)
    return functional.interpolate(x, size=size, mode=mode, align_corners=place == "align_corners")


def _depth_to_space(node: NodeView, x: Any) -> Any:
    side = node.attributes["blocksize"]
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, side)
    batch, channels, height, width = node.shape(0)
    apart = x.reshape(batch, side, side, channels // side**2, height, width)
    return apart.permute(0, 3, 4, 1, 5, 2).reshape(node.output_shape)


def _space_to_depth(node: NodeView, x: Any) -> Any:
    side = node.attributes["blocksize"]
    batch, channels, height, width = node.shape(0)
    apart = x.reshape(batch, channels, height // side, side, width // side, side)
    return apart.permute(0, 3, 5, 1, 2, 4).reshape(node.output_shape)


def _cast(node: NodeView, x: Any) -> Any:
    code = node.attributes["to"]
    if code not in _CODES:
        raise NotTranslated(f"Cast to type {code}")
    return x.to(KINDS[_CODES[code]])


MOVES: Mapping[str, Callable[..., Any]] = {
    "Cast": _cast,
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _reshaped,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshaped,
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _reshaped,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshaped,
}
