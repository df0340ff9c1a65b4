"""ONNX operators in torch, one function each: those that our exporters write, and no others.

Every function takes the node and its inputs, which are tensors or the proxies of a trace; what depends on shapes or
constants is decided when the node is translated, so that what runs is torch's own functions in a row. What ONNX allows
and no network here has raises NotTranslated, which names it.

Meanings are those of https://onnx.ai/onnx/operators at the opset of :mod:`lanaprof.profiler.prepare`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional

from lanaprof.profiler.backends.torch_moves import MOVES
from lanaprof.profiler.backends.torch_view import KINDS, NodeView, NotTranslated

__all__ = ["FUNCTIONS"]

_SIXTH = 1 / 6
_Function = Callable[..., Any]


# ---------------------------------------------------------------------------------------- sums of products


def _conv(node: NodeView, x: Any, weight: Any, bias: Any = None) -> Any:
    dimensions = len(node.shape(1)) - 2
    padding, rest = node.padding(dimensions)
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[dimensions]
    return convolve(
        functional.pad(x, rest) if rest else x,
        weight,
        bias,
        stride=tuple(node.get("strides", [1] * dimensions)),
        padding=padding,
        dilation=tuple(node.get("dilations", [1] * dimensions)),
        groups=node.get("group", 1),
    )


def _conv_transpose(node: NodeView, x: Any, weight: Any, bias: Any = None) -> Any:
    dimensions = len(node.shape(1)) - 2
    padding, rest = node.padding(dimensions)
    if rest or "output_shape" in node.attributes:
        raise NotTranslated("ConvTranspose whose ends are cut unequally")
    convolve: Mapping[int, Any] = {
        1: functional.conv_transpose1d,
        2: functional.conv_transpose2d,
        3: functional.conv_transpose3d,
    }
    return convolve[dimensions](
        x,
        weight,
        bias,
        stride=tuple(node.get("strides", [1] * dimensions)),
        padding=padding,
        output_padding=tuple(node.get("output_padding", [0] * dimensions)),
        groups=node.get("group", 1),
        dilation=tuple(node.get("dilations", [1] * dimensions)),
    )


def _gemm(node: NodeView, x: Any, weight: Any, bias: Any = None) -> Any:
    x = x.t() if node.get("transA", 0) else x
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if node.get("transB", 0) and alpha == beta == 1.0 and (bias is None or len(node.shape(2)) == 1):
        return functional.linear(x, weight, bias)
    product = torch.matmul(x, weight.t() if node.get("transB", 0) else weight)
    product = product if alpha == 1.0 else product * alpha
    return product if bias is None else torch.add(product, bias, alpha=beta)


def _einsum(node: NodeView, *tensors: Any) -> Any:
    return torch.einsum(node.attributes["equation"], *tensors)


# -------------------------------------------------------------------------------------- whole numbers


def _along(node: NodeView, scale: Any, position: int) -> Any:
    """Return a scale or zero point so that it meets its axis."""
    shape = node.shape(position)
    if math.prod(shape) == 1:
        return scale.reshape(())
    rank, axis = len(node.shape(0)), node.axis(1)
    return scale.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def _quantize(node: NodeView, x: Any, scale: Any, zero: Any = None) -> Any:
    kind = node.output_kind
    limits = torch.iinfo(kind)
    whole = torch.round(torch.div(x, _along(node, scale, 1)))  # half to even, as ONNX says
    if zero is not None:
        whole = torch.add(whole, _along(node, zero, 2).to(KINDS[node.inputs[0]["type"]]))
    return torch.clamp(whole, limits.min, limits.max).to(kind)


def _dequantize(node: NodeView, x: Any, scale: Any, zero: Any = None) -> Any:
    kind = node.output_kind
    whole = x.to(kind)
    if zero is not None:
        whole = torch.sub(whole, _along(node, zero, 2).to(kind))
    return torch.mul(whole, _along(node, scale, 1))


# ---------------------------------------------------------------------------------------- means and windows


def _layer_norm(node: NodeView, x: Any, weight: Any, bias: Any = None) -> Any:
    normal = node.shape(0)[node.axis(-1) :]
    return functional.layer_norm(x, normal, weight, bias, node.get("epsilon", 1e-5))


def _batch_norm(node: NodeView, x: Any, weight: Any, bias: Any, mean: Any, variance: Any) -> Any:
    node.only(training_mode=0)
    return functional.batch_norm(x, mean, variance, weight, bias, eps=node.get("epsilon", 1e-5))


def _instance_norm(node: NodeView, x: Any, weight: Any, bias: Any) -> Any:
    return functional.instance_norm(x, weight=weight, bias=bias, eps=node.get("epsilon", 1e-5))


def _pool(node: NodeView, x: Any, functions: Mapping[int, Any], **more: Any) -> Any:
    kernel = tuple(node.attributes["kernel_shape"])
    padding, rest = node.padding(len(kernel))
    if rest:
        raise NotTranslated(f"{node.op} with unequal pads")
    return functions[len(kernel)](
        x,
        kernel,
        stride=tuple(node.get("strides", [1] * len(kernel))),
        padding=padding,
        ceil_mode=bool(node.get("ceil_mode", 0)),
        **more,
    )


def _average_pool(node: NodeView, x: Any) -> Any:
    node.only(dilations=[1] * len(node.attributes["kernel_shape"]))
    functions = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
    return _pool(node, x, functions, count_include_pad=bool(node.get("count_include_pad", 0)))


def _max_pool(node: NodeView, x: Any) -> Any:
    if len(node.outputs) > 1:
        raise NotTranslated("MaxPool with indices")
    functions = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
    dilation = tuple(node.get("dilations", [1] * len(node.attributes["kernel_shape"])))
    return _pool(node, x, functions, dilation=dilation)


def _global(function: _Function) -> _Function:
    def pooled(node: NodeView, x: Any) -> Any:
        return function(x, dim=tuple(range(2, len(node.shape(0)))), keepdim=True)

    return pooled


def _reduced(function: _Function) -> _Function:
    def reduced(node: NodeView, x: Any, _axes: Any = None) -> Any:
        axes = node.whole_numbers(1) or list(node.get("axes", []))
        if not axes and node.get("noop_with_empty_axes", 0):
            return x
        return function(
            x, dim=tuple(axes or range(len(node.shape(0)))), keepdim=bool(node.get("keepdims", 1))
        )

    return reduced


def _l2(x: Any, *, dim: Sequence[int], keepdim: bool) -> Any:
    return torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim)


# ------------------------------------------------------------------------------------- number by number


def _plain(function: _Function) -> _Function:
    """Return the translation of an operator without attributes."""

    def translated(_node: NodeView, *tensors: Any) -> Any:
        return function(*tensors)

    return translated


def _folded(function: _Function) -> _Function:
    """Return the translation of one that takes any number of inputs, two at a time."""

    def translated(_node: NodeView, first: Any, *others: Any) -> Any:
        for other in others:
            first = function(first, other)
        return first

    return translated


def _clip(node: NodeView, x: Any, _low: Any = None, _high: Any = None) -> Any:
    low, high = (float(node.value(place)) if node.has(place) else None for place in (1, 2))
    if (low, high) == (0.0, 6.0):
        return functional.relu6(x)
    return torch.clamp(x, min=low, max=high)


def _hard_sigmoid(node: NodeView, x: Any) -> Any:
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, _SIXTH, rel_tol=1e-6) and beta == 0.5:
        return functional.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, min=0.0, max=1.0)


def _softmax(node: NodeView, x: Any) -> Any:
    return functional.softmax(x, dim=node.axis(-1))


def _log_softmax(node: NodeView, x: Any) -> Any:
    return functional.log_softmax(x, dim=node.axis(-1))


def _leaky_relu(node: NodeView, x: Any) -> Any:
    return functional.leaky_relu(x, node.get("alpha", 0.01))


def _elu(node: NodeView, x: Any) -> Any:
    return functional.elu(x, node.get("alpha", 1.0))


def _prelu(_node: NodeView, x: Any, slope: Any) -> Any:
    return torch.where(x < 0, x * slope, x)  # torch's own takes one slope a channel, ONNX any that broadcasts


def _gelu(node: NodeView, x: Any) -> Any:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def _identity(_node: NodeView, x: Any, *_unused: Any) -> Any:
    return x


_SIMPLE: Mapping[str, _Function] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Cos": torch.cos,
    "Div": torch.div, "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor,
    "Greater": torch.gt, "GreaterOrEqual": torch.ge, "HardSwish": functional.hardswish, "Less": torch.lt,
    "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Mish": functional.mish, "Mul": torch.mul,
    "Neg": torch.neg, "Not": torch.logical_not, "Or": torch.logical_or, "Pow": torch.pow,
    "Reciprocal": torch.reciprocal, "Relu": functional.relu, "Round": torch.round, "Sigmoid": torch.sigmoid,
    "Sign": torch.sign, "Sin": torch.sin, "Softplus": functional.softplus, "Softsign": functional.softsign,
    "Sqrt": torch.sqrt, "Sub": torch.sub, "Tanh": torch.tanh, "Where": torch.where,
}  # fmt: skip
FUNCTIONS: Mapping[str, _Function] = {
    **{name: _plain(function) for name, function in _SIMPLE.items()},
    **MOVES,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Clip": _clip,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantize,
    "Dropout": _identity,
    "Einsum": _einsum,
    "Elu": _elu,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "HardSigmoid": _hard_sigmoid,
    "Identity": _identity,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LeakyRelu": _leaky_relu,
    "LogSoftmax": _log_softmax,
    "Max": _folded(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _folded(torch.minimum),
    "PRelu": _prelu,
    "QuantizeLinear": _quantize,
    "ReduceL2": _reduced(_l2),
    "ReduceMax": _reduced(torch.amax),
    "ReduceMean": _reduced(torch.mean),
    "ReduceMin": _reduced(torch.amin),
    "ReduceSum": _reduced(torch.sum),
    "Softmax": _softmax,
    "Sum": _folded(operator.add),
}
