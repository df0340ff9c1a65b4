"""What is rounded when a module runs in int8 or fp8: decided call by call, so that any module can be quantised.

The rules are those of explicit quantisation. What a kernel for int8 reads is rounded first; what comes out is rounded
where somebody reads it, hence behind the activation that belongs to a convolution. Values that are moved but not
changed keep their scale. All else (norms, attention, activations that are no clipping) is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lanaprof.ops.slimming.calls import function_name

__all__ = ["Rounding", "Rounds"]

_IMAGE = 4  # dimensions of (batch, channels, height, width)


class Rounds(Protocol):
    """Does the rounding: each place where a value or a weight is rounded has a number, in the order of calls."""

    def value(self, place: int, x: Tensor) -> Tensor:
        """Return a value as whole numbers stand for it."""

    def weight(self, place: int, x: Tensor, axis: int) -> Tensor:
        """Return a weight likewise, with a scale for every index of one axis."""

    @property
    def joins_activations(self) -> bool:
        """Whether an activation belongs to the kernel of the convolution before it."""

    def is_folded(self, running_mean: Any) -> bool:
        """Say whether a batch norm has no work left."""


@dataclass(slots=True)
class _Value:
    """What is known of a tensor; it is kept so that its id stays its own."""

    tensor: Tensor
    rounded: Tensor | None = None
    place: int | None = None  # whose scale it has, where another value lends it
    maker: str = ""


class Rounding(TorchFunctionMode):
    """Runs one forward pass in int8 or fp8.

    Attributes:
        input_place, output_place: where the module's input and output are rounded; None where they are not.
        values, weights: how many places there are.
    """

    def __init__(self, rounds: Rounds, x: Tensor) -> None:
        super().__init__()
        self._rounds = rounds
        self._known: dict[int, _Value] = {}
        self._input = self._note(x)
        self._output: _Value | None = None
        self.values = self.weights = 0

    @property
    def input_place(self) -> int | None:
        """Where the module's input is rounded."""
        return self._input.place

    @property
    def output_place(self) -> int | None:
        """Where the module's output is rounded."""
        return None if self._output is None else self._output.place

    def finish(self, result: Any) -> Any:
        """Return the module's result, rounded where a kernel for int8 made it: its neighbour may read that."""
        if not isinstance(result, Tensor):
            return result
        self._output = self._of(result)
        return self.round(result) if self._output.maker or self._output.place is not None else result

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        name = function_name(func)
        if name in _LOOKS or name.startswith("the property "):
            return func(*args, **(kwargs or {}))
        return _RULES.get(name, _as_it_is)(self, func, args, kwargs or {})

    def round(self, x: Any) -> Any:
        """Return a value rounded, once for all who read it; what is no activation stays as it is."""
        if not self.is_activation(x):
            return x
        value = self._of(x)
        if value.rounded is None:
            if value.place is None:
                value.place = self.values
                self.values += 1
            value.rounded = self._rounds.value(value.place, x)
        return value.rounded

    def round_weight(self, x: Tensor, axis: int) -> Tensor:
        """Return a weight rounded."""
        self.weights += 1
        return self._rounds.weight(self.weights - 1, x, axis)

    def is_activation(self, x: Any) -> bool:
        """Say whether something is a floating-point tensor that is no parameter."""
        return isinstance(x, Tensor) and x.is_floating_point() and not isinstance(x, nn.Parameter)

    def is_rounded(self, x: Any) -> bool:
        """Say whether a value has a scale already."""
        return self.is_activation(x) and self._of(x).place is not None

    def maker(self, x: Any) -> str:
        """Return the kind of kernel that made a value; empty where it was computed in float32."""
        return self._of(x).maker if isinstance(x, Tensor) else ""

    def made(self, result: Tensor, maker: str) -> Tensor:
        """Note that a kernel made a value, and return it."""
        self._note(result).maker = maker
        return result

    def moved(self, result: Any, source: Any, *, exact: bool = False) -> Any:
        """Note that values come from a rounded one unchanged, and return them.

        Args:
            result: a tensor, or several.
            source: the value they were part of.
            exact: they need no rounding of their own to be seen as such.
        """
        before = self._of(source)
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor) and part is not source:
                noted = self._note(part)
                noted.place, noted.maker = before.place, before.maker
                noted.rounded = part if exact else None
        return result

    def forget(self, result: Any) -> None:
        """Note that a tensor holds something new; it may have been changed in place."""
        for part in result if isinstance(result, tuple | list) else (result,):
            if isinstance(part, Tensor):
                self._note(part)

    @property
    def joins_activations(self) -> bool:
        """Whether an activation belongs to the kernel of the convolution before it."""
        return self._rounds.joins_activations

    def is_folded(self, running_mean: Any) -> bool:
        """Say whether a batch norm has no work left."""
        return self._rounds.is_folded(running_mean)

    def _note(self, x: Tensor) -> _Value:
        self._known[id(x)] = _Value(x)
        return self._known[id(x)]

    def _of(self, x: Tensor) -> _Value:
        return self._known.get(id(x)) or self._note(x)


Rule = Callable[[Rounding, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def _convolution(
    run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    x, weight, *rest = args
    if not isinstance(weight, nn.Parameter):
        return _as_it_is(
            run, func, args, kwargs
        )  # its weights are computed: a kernel for int8 wants constants
    axis = 1 if "transpose" in function_name(func) else 0
    return run.made(func(run.round(x), run.round_weight(weight, axis), *rest, **kwargs), "conv")


def _linear(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, weight = args[0], args[1]
    bias = args[2] if len(args) > 2 else kwargs.get("bias")
    if not isinstance(weight, nn.Parameter):
        return _as_it_is(run, func, args, kwargs)
    # Transposed before it is rounded: runtimes look for the rounding right before the product.
    result = torch.matmul(run.round(x), run.round_weight(weight.t(), 1))
    return result if bias is None else result + bias  # in float32, which a kernel of a product may give


def _sum(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Sums and products of images; of tokens they stay in float32, where residual sums need the precision."""
    x, y = args[0], args[1] if len(args) > 1 else kwargs.get("other")
    images = [isinstance(one, Tensor) and run.is_activation(one) and one.dim() == _IMAGE for one in (x, y)]
    if not all(images) or kwargs.get("alpha", 1) != 1:
        return _as_it_is(run, func, args, kwargs)
    outside = (
        torch.add if function_name(func) == "add" else torch.mul
    )  # never in place: what is rounded is shared
    return run.made(outside(run.round(x), run.round(y)), "sum")


def _pool(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not run.is_activation(args[0]) or args[0].dim() != _IMAGE:
        return _as_it_is(run, func, args, kwargs)
    return run.made(func(run.round(args[0]), *args[1:], **kwargs), "pool")


def _mean(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The mean of every channel is a pooling, and written as one: kernels for int8 know no other mean."""
    x = args[0]
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    keeps = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    image = run.is_activation(x) and x.dim() == _IMAGE
    if not image or not isinstance(dims, tuple | list) or sorted(d % _IMAGE for d in dims) != [2, 3]:
        return _as_it_is(run, func, args, kwargs)
    pooled = run.made(torch.nn.functional.adaptive_avg_pool2d(run.round(x), 1), "pool")
    return pooled if keeps else run.moved(pooled.flatten(1), pooled)


def _clipping(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A clipping is part of the kernel before it, and of the rounding behind it."""
    maker = run.maker(args[0])
    return run.made(func(*args, **kwargs), maker)


def _activation(
    run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if run.joins_activations:
        return run.made(func(*args, **kwargs), run.maker(args[0]))
    return _as_it_is(run, func, args, kwargs)


def _gate(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A sigmoid has a kernel for int8."""
    if not run.maker(args[0]) or run.joins_activations:
        return _activation(run, func, args, kwargs)
    return func(run.round(args[0]).clone(), *args[1:], **kwargs)


def _largest(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The largest of some numbers is one of them: same scale."""
    result = func(run.round(args[0]), *args[1:], **kwargs)
    return run.moved(result, args[0])


def _padding(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Zero is a number of every grid: a padding with zeros stays on it, and becomes the next convolution's own."""
    given = dict(zip(("input", "pad", "mode", "value"), args, strict=False)) | kwargs
    if given.get("mode", "constant") != "constant" or given.get("value"):
        return _as_it_is(run, func, args, kwargs)
    return run.moved(func(run.round(args[0]), *args[1:], **kwargs), args[0], exact=True)


def _move(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if not run.is_rounded(args[0]):
        result = func(*args, **kwargs)
        return run.moved(result, args[0]) if run.is_activation(args[0]) else result
    return run.moved(func(run.round(args[0]), *args[1:], **kwargs), args[0])


def _join(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    parts = args[0]
    if not all(run.is_activation(part) and run.maker(part) for part in parts):
        return _as_it_is(run, func, args, kwargs)
    return run.made(func([run.round(part) for part in parts], *args[1:], **kwargs), "join")


def _batch_norm(
    run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    mean = args[1] if len(args) > 1 else kwargs.get("running_mean")
    return args[0] if run.is_folded(mean) else _as_it_is(run, func, args, kwargs)


def _as_it_is(run: Rounding, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute in float32, from rounded values where a convolution made them: else that would be in float32, too."""
    if not run.joins_activations:
        # A copy: what works in place must not change what others read.
        args = tuple(run.round(one).clone() if run.maker(one) == "conv" else one for one in args)
    result = func(*args, **kwargs)
    run.forget(result)
    return result


# Nothing is computed from the values.
_LOOKS = frozenset(
    (
        *("size", "dim", "ndimension", "numel", "nelement", "stride", "storage_offset", "is_contiguous"),
        *("get_device", "is_floating_point", "is_complex", "element_size", "data_ptr"),
        *("__len__", "__hash__", "__bool__", "__format__"),
    )
)
_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d"), _convolution),
    "linear": _linear,
    "batch_norm": _batch_norm,
    **dict.fromkeys(("add", "mul"), _sum),
    **dict.fromkeys(("avg_pool2d", "adaptive_avg_pool2d"), _pool),
    "mean": _mean,
    **dict.fromkeys(("relu", "relu6", "hardtanh", "clamp"), _clipping),
    **dict.fromkeys(
        ("hardswish", "silu", "gelu", "hardsigmoid", "mish", "elu", "leaky_relu", "tanh"), _activation
    ),
    "sigmoid": _gate,
    **dict.fromkeys(("max_pool2d", "boolean_dispatch"), _largest),
    "padded_conv2d": _convolution,  # ours, of teachers with TensorFlow's paddings
    **dict.fromkeys(("pad", "constant_pad"), _padding),
    **dict.fromkeys(
        ("reshape", "view", "flatten", "permute", "transpose", "contiguous", "chunk", "split"), _move
    ),
    **dict.fromkeys(("squeeze", "unsqueeze", "clone", "channel_shuffle"), _move),
    **dict.fromkeys(("cat", "concat"), _join),
}
