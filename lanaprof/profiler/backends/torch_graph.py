"""Canonical graph → a torch module whose code is torch's own functions in a row.

The module is a trace (:class:`torch.fx.GraphModule`): nothing of ours runs between two functions, and each operator has
code of its own, which ``torch.compile`` asks for: of one code object it compiles eight variants and then gives up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.fx.proxy import GraphAppendingTracer

from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.profiler.backends.base import Array, onnx_model
from lanaprof.profiler.backends.torch_ops import FUNCTIONS
from lanaprof.profiler.backends.torch_view import KINDS, NodeView, NotTranslated

__all__ = ["array_of", "module_from_graph", "tensor_of"]

_BFLOAT16 = "bfloat16"  # known to NumPy by an extension only, and to torch by its bits


def tensor_of(array: Array) -> torch.Tensor:
    """Return a tensor with an array's values, in memory of its own."""
    if array.dtype.name == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array))  # a zero-dimensional one would stay NumPy's scalar


def array_of(tensor: torch.Tensor) -> Array:
    """Return a tensor's values, wherever and however it lies, in memory of their own."""
    tensor = tensor.detach().cpu().contiguous()
    is_bfloat16 = tensor.dtype == torch.bfloat16
    array: Array = (tensor.view(torch.int16) if is_bfloat16 else tensor).numpy().copy()
    return array.view(np.dtype(_BFLOAT16)) if is_bfloat16 else array


def module_from_graph(graph: Mapping[str, Any], *, seed: int) -> fx.GraphModule:
    """Return the operator as a torch module with seeded random weights; it takes and returns tuples of tensors.

    What depends on weights alone, as the whole numbers of weights in int8 do, is computed here once.

    Raises:
        UnsupportedOperator: a node that has no translation; names it.
        BackendError: the graph is none.
    """
    return _Translation(graph, seed).module()


class _Translation:
    """One graph on its way."""

    def __init__(self, graph: Mapping[str, Any], seed: int) -> None:
        from onnx import numpy_helper

        kinds = {row["type"] for node in graph["nodes"] for row in node["outputs"]}
        kinds |= {row["type"] for row in (*graph["inputs"], *graph["constants"])}
        unknown = sorted(kinds - KINDS.keys() - {""})
        if unknown:
            raise UnsupportedOperator(f"there is no translation of {unknown[0]} to torch")
        self._graph, self._traced, self._root = graph, fx.Graph(), nn.Module()
        self._tracer = GraphAppendingTracer(self._traced)
        model = onnx_model(graph, seed=seed)
        self._values: dict[str, Any] = {
            constant.name: tensor_of(numpy_helper.to_array(constant)) for constant in model.graph.initializer
        }
        self._described = {f"i{index}": row for index, row in enumerate(graph["inputs"])}
        self._described |= {f"c{index}": row for index, row in enumerate(graph["constants"])}

    def module(self) -> fx.GraphModule:
        for index in range(len(self._graph["inputs"])):
            self._values[f"i{index}"] = fx.Proxy(self._traced.placeholder(f"x{index}"), self._tracer)
        for index, node in enumerate(self._graph["nodes"]):
            self._add(index, node)
        outputs = [self._traced_value(name) for name in self._graph["outputs"]]
        self._traced.output(tuple(proxy.node for proxy in outputs))
        return fx.GraphModule(self._root, self._traced)

    def _add(self, index: int, node: Mapping[str, Any]) -> None:
        view = NodeView(
            node["op"],
            node["attributes"],
            [self._described[name] if name else {} for name in node["inputs"]],
            [described for described in node["outputs"] if described["type"]],
        )
        function = None if node.get("domain") else FUNCTIONS.get(view.op)
        if function is None:
            raise UnsupportedOperator(f"there is no translation of {view.op} to torch")
        given = [self._values[name] if name else None for name in node["inputs"]]
        if any(isinstance(value, fx.Proxy) for value in given):
            given = [self._traced_value(name) if name else None for name in node["inputs"]]
        try:
            found = function(view, *given)
        except NotTranslated as error:
            raise UnsupportedOperator(f"there is no translation to torch of {error}") from error
        except (
            RuntimeError,
            TypeError,
            ValueError,
            LookupError,
        ) as error:  # what torch and Python say of nonsense
            raise BackendError(f"{view.op} cannot be translated to torch: {error}") from error
        self._keep(index, node["outputs"], found)

    def _keep(self, index: int, outputs: Sequence[Mapping[str, Any]], found: Any) -> None:
        several = sum(bool(described["type"]) for described in outputs) > 1
        for slot, described in enumerate(outputs):
            if described["type"]:
                self._values[f"n{index}.{slot}"] = found[slot] if several else found
                self._described[f"n{index}.{slot}"] = described

    def _traced_value(self, name: str) -> fx.Proxy:
        """Return a value within the trace; a tensor becomes one of the module's buffers."""
        value = self._values[name]
        if isinstance(value, torch.Tensor):
            attribute = name.replace(".", "_")
            self._root.register_buffer(attribute, value)
            value = self._values[name] = fx.Proxy(self._traced.get_attr(attribute), self._tracer)
        proxy: fx.Proxy = value
        return proxy
