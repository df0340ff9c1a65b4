"""Operators cut out of a network's layout: the stand-ins are gone, the function is the same, neighbours fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from lanaprof.profiler.backends import Edges, Settings
from lanaprof.profiler.backends.base import onnx_bytes
from lanaprof.profiler.backends.edges import CutModel, add_stand_ins, cut_stand_ins
from lanaprof.profiler.backends.onnxruntime import OnnxRuntime
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.sample_graphs import (
    attention_graph,
    conv_graph,
    graph_of,
    relu_graph,
    squeeze_excite_graph,
    two_output_graph,
)

Array = npt.NDArray[np.float32]
BACKEND = OnnxRuntime(Settings())
EDGE = Edges((True,), (True,))
at = pytest.mark.parametrize


def weights(*shape: int) -> Array:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def made(
    nodes: Sequence[tuple[Any, ...]],
    read: int,
    written: int,
    constants: Mapping[str, Any],
    *,
    larger: int = 0,
) -> Graph:
    """Return the graph of (op, inputs, output[, attributes]) rows from ``read`` to ``written`` channels."""
    rows = [
        helper.make_node(op, names.split(), [result], **(rest[0] if rest else {}))
        for op, names, result, *rest in nodes
    ]
    source, target = ("float32", (1, read, 7, 7)), ("float32", (1, written, 7 + larger, 7 + larger))
    return graph_of(rows, [source], [target], **constants)


SAME = {"pads": [1] * 4}


def plain(read: int, written: int) -> Graph:
    """Return a 3×3 convolution with ReLU."""
    rows = [("Conv", "x0 w", "a", SAME), ("Relu", "a", "y0")]
    return made(rows, read, written, {"w": weights(written, read, 3, 3)})


def inverted(width: int, *, gated: bool = False, residual: bool = True) -> Graph:
    """Return an inverted bottleneck, as MobileNets have it, with or without gate and residual."""
    wide = 2 * width
    rows: list[tuple[Any, ...]] = [
        ("Conv", "x0 up", "a"), ("HardSwish", "a", "b"),
        ("Conv", "b deep", "c", SAME | {"group": wide}), ("HardSwish", "c", "d"),
    ]  # fmt: skip
    constants = {"up": weights(wide, width, 1, 1), "deep": weights(wide, 1, 3, 3)}
    if gated:
        rows += [
            ("GlobalAveragePool", "d", "p"), ("Conv", "p less", "q"), ("Relu", "q", "r"), ("Conv", "r more", "s"),
            ("HardSigmoid", "s", "g", {"alpha": 1 / 6}), ("Mul", "d g", "e"),
        ]  # fmt: skip
        constants |= {"less": weights(8, wide, 1, 1), "more": weights(wide, 8, 1, 1)}
    rows.append(("Conv", f"{'e' if gated else 'd'} down", "o" if residual else "y0"))
    if residual:
        rows.append(("Add", "o x0", "y0"))
    return made(rows, width, width, constants | {"down": weights(width, wide, 1, 1)})


def basic(width: int) -> Graph:
    """Return a residual block of ResNets; its last activation comes behind the sum."""
    rows = [
        ("Conv", "x0 one", "a", SAME), ("Relu", "a", "b"), ("Conv", "b two", "c", SAME), ("Add", "c x0", "d"),
        ("Relu", "d", "y0"),
    ]  # fmt: skip
    return made(rows, width, width, {name: weights(width, width, 3, 3) for name in ("one", "two")})


def activated(op: str) -> Graph:
    """Return a block that begins with an activation, as pre-activation networks have it."""
    return made([(op, "x0", "a"), ("Conv", "a w", "y0", SAME)], 16, 16, {"w": weights(16, 16, 3, 3)})


def padded() -> Graph:
    """Return a block that ends with a padding for the next convolution."""
    rows = [("Conv", "x0 w", "a", SAME), ("Relu", "a", "b"), ("Pad", "b by", "y0")]
    by = np.array([0, 0, 1, 1, 0, 0, 1, 1])
    return made(rows, 16, 16, {"w": weights(16, 16, 3, 3), "by": by}, larger=2)


def relu(values: Array) -> Array:
    return np.maximum(values, 0)


def hard_swish(values: Array) -> Array:
    return (values * np.clip(values / 6 + 0.5, 0, 1)).astype(np.float32)


def unchanged(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class Case:
    """An operator, and what the runtime makes its neighbours do of it."""

    graph: Callable[[], Graph]
    before: Callable[[Array], Array] = unchanged
    behind: Callable[[Array], Array] = unchanged


CASES = {
    "convolution": Case(lambda: plain(16, 32)),
    "channels that fill no block": Case(lambda: plain(24, 40)),
    "8 channels": Case(lambda: plain(8, 8)),
    "3 to 8 channels": Case(lambda: plain(3, 8)),
    "8 to 24 channels": Case(lambda: plain(8, 24)),
    "depthwise": Case(lambda: conv_graph(24, groups=24)),
    "grouped": Case(lambda: conv_graph(32, groups=2)),
    "gate and residual": Case(lambda: inverted(24, gated=True)),
    "gate": Case(lambda: inverted(16, gated=True, residual=False)),
    "residual": Case(lambda: inverted(16)),
    "residual of 8 channels": Case(lambda: inverted(8)),
    "activation behind the residual": Case(lambda: basic(16)),
    "begins with relu": Case(lambda: activated("Relu"), before=relu),
    "begins with hard swish": Case(lambda: activated("HardSwish"), before=hard_swish),
    "ends with a padding": Case(padded, behind=lambda y: np.pad(y, ((0, 0), (0, 0), (1, 1), (1, 1)))),
    "ends outside the layout": Case(squeeze_excite_graph),
}  # fmt: skip


def output_shapes(graph: Graph) -> list[tuple[int, ...]]:
    places = [reference[1:].split(".") for reference in graph["outputs"]]
    return [tuple(graph["nodes"][int(n)]["outputs"][int(slot)]["shape"]) for n, slot in places]


def cut(graph: Graph, edges: Edges) -> CutModel | None:
    """Return the operator between its stand-ins, as the runtime optimised it."""
    model = onnx.load_from_string(onnx_bytes(graph, seed=0))
    add_stand_ins(model, edges)
    optimised = BACKEND._optimised(model)
    return cut_stand_ins(optimised, edges, [row["shape"] for row in graph["inputs"]], output_shapes(graph))


def got(found: CutModel | None) -> CutModel:
    assert found is not None
    return found


@cache
def block() -> int:
    """Return how many channels this processor's kernels keep together; one channel fills one block."""
    found = (
        got(cut(made([("Conv", "x0 w", "y0")], 1, 1, {"w": weights(1, 1, 1, 1)}), EDGE)).inputs[0].shape[1]
    )
    if found == 1:
        pytest.skip("ONNX Runtime has no blocked layout on this processor")
    return found


def filled(shape: Sequence[int]) -> tuple[int, ...]:
    return (shape[0], -(-shape[1] // block()) * block(), *shape[2:])


def blocked(values: Array) -> Array:
    """Return (N, C, H, W) as (N, C / b, H, W, b), the last block filled up with zeros."""
    count, channels, height, width = filled(values.shape)
    room = np.zeros((count, channels, height, width), dtype=np.float32)
    room[:, : values.shape[1]] = values
    return room.reshape(count, channels // block(), block(), height, width).transpose(0, 1, 3, 4, 2)


def unblocked(memory: Array, shape: Sequence[int]) -> Array:
    """Return what lies in memory by blocks as (N, C, H, W)."""
    count, channels, height, width = filled(shape)
    rows = memory[: count * channels * height * width]
    rows = rows.reshape(count, channels // block(), height, width, block()).transpose(0, 1, 4, 2, 3)
    result: Array = rows.reshape(count, channels, height, width)[:, : shape[1]]
    return result


def whole(graph: Graph, values: Array, *, seed: int = 0) -> Array:
    """Return what the operator alone computes."""
    source = BACKEND.buffer("float32", values.shape, seed=0)
    target = BACKEND.buffer("float32", output_shapes(graph)[0], seed=1)
    BACKEND.write(source, values)
    BACKEND.compile(graph, seed=seed).bind([source], [target])()
    result: Array = BACKEND.read(target)
    return result


def image(graph: Graph) -> Array:
    values: Array = np.random.default_rng(1).standard_normal(graph["inputs"][0]["shape"], dtype=np.float32)
    return values


def assert_close(expected: Array, actual: Array) -> None:
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()))


@at("kind", CASES)
def test_the_stand_ins_are_gone(kind: str) -> None:
    """What is timed has the operator's own convolutions and no other, and reads the network's buffers only."""
    graph = CASES[kind].graph()

    model = got(cut(graph, EDGE)).model

    own = sum(node["op"] == "Conv" for node in graph["nodes"])
    assert own == sum(node.op_type in ("Conv", "FusedConv") for node in model.graph.node)
    assert not [tensor.name for tensor in model.graph.initializer if "__" in tensor.name]


@at("kind", CASES)
def test_edges_are_blocked(kind: str) -> None:
    """Both ports have the shape in memory, whole blocks of channels; a padding is left to who comes next."""
    case = CASES[kind]
    graph = case.graph()
    found = got(cut(graph, EDGE))
    written = output_shapes(graph)[0]
    padding = case.behind(np.zeros((1, 1, 1, 1), dtype=np.float32)).shape[-1] - 1

    assert [filled(graph["inputs"][0]["shape"])] == [port.shape for port in found.inputs]
    assert [filled((*written[:2], written[2] - padding, written[3] - padding))] == [
        port.shape for port in found.outputs
    ]


@at("kind", CASES)
def test_the_cut_operator_computes_the_same(kind: str) -> None:
    """Fed and read in the blocked layout; what its neighbours take over is done by hand here."""
    case = CASES[kind]
    graph = case.graph()
    values, shape = image(graph), output_shapes(graph)[0]
    source = BACKEND.edge_buffer("float32", values.shape, seed=0)
    target = BACKEND.edge_buffer("float32", shape, seed=1)
    fed = blocked(case.before(values)).ravel()
    source.values[: fed.size] = fed

    BACKEND.compile_inside(graph, seed=0, edges=EDGE).bind([source], [target])()

    inner = got(cut(graph, EDGE)).outputs[0].shape
    result = unblocked(target.values, (*shape[:2], *inner[2:]))
    assert_close(whole(graph, values), case.behind(result))


CHAINS: Mapping[str, tuple[Callable[[], Graph], Callable[[], Graph]]] = {
    "blocks": (lambda: inverted(24, gated=True), lambda: plain(24, 40)),
    "few channels": (lambda: plain(3, 8), lambda: plain(8, 8)),
    "few channels and a residual": (lambda: plain(8, 8), lambda: inverted(8)),
    "out of few channels": (lambda: inverted(8, gated=True, residual=False), lambda: plain(8, 24)),
    "depthwise with few channels": (lambda: conv_graph(8, 7, groups=8), lambda: plain(8, 16)),
    "behind a residual": (lambda: basic(16), lambda: inverted(16, gated=True)),
    "into a depthwise one": (lambda: plain(16, 24), lambda: conv_graph(24, 7, groups=24)),
}


@at("kind", CHAINS)
def test_neighbours_understand_each_other(kind: str) -> None:
    """Two operators with an edge between them compute what the two do as a network of plain layout."""
    first, second = (build() for build in CHAINS[kind])
    values, middle = image(first), output_shapes(first)[0]
    source = BACKEND.buffer("float32", values.shape, seed=0)
    BACKEND.write(source, values)
    between = BACKEND.edge_buffer("float32", middle, seed=1)
    target = BACKEND.buffer("float32", output_shapes(second)[0], seed=2)
    calls = [
        BACKEND.compile_inside(first, seed=3, edges=Edges((False,), (True,))).bind([source], [between]),
        BACKEND.compile_inside(second, seed=4, edges=Edges((True,), (False,))).bind([between], [target]),
    ]

    for call in calls:
        call()

    assert_close(whole(second, whole(first, values, seed=3), seed=4), BACKEND.read(target))


def test_what_is_no_edge_stays_as_it_is() -> None:
    """The network's own input and output keep name, shape and layout, on the side where they are."""
    graph = plain(24, 40)

    begin, end = got(cut(graph, Edges((False,), (True,)))), got(cut(graph, Edges((True,), (False,))))

    assert [("x0", (1, 24, 7, 7))] == [(port.name, port.shape) for port in begin.inputs]
    assert [("y0", (1, 40, 7, 7))] == [(port.name, port.shape) for port in end.outputs]
    assert [filled((1, 40, 7, 7)), filled((1, 24, 7, 7))] == [begin.outputs[0].shape, end.inputs[0].shape]


@at("build", [attention_graph, two_output_graph])
def test_tokens_have_no_blocks(build: Callable[[], Graph]) -> None:
    """Nothing is put beside what is not (batch, channels, height, width)."""
    graph = build()
    edges = Edges((True,) * len(graph["inputs"]), (True,) * len(graph["outputs"]))

    found = got(cut(graph, edges))

    assert [tuple(row["shape"]) for row in graph["inputs"]] == [port.shape for port in found.inputs]
    assert output_shapes(graph) == [port.shape for port in found.outputs]
    assert ["x0"] == [port.name for port in found.inputs][:1]


def test_an_operator_that_its_neighbours_take_over_is_timed_alone() -> None:
    """A lone ReLU belongs to the convolution before it: nothing is left to cut out, so it runs as a whole."""
    graph = relu_graph(1, 16, 7, 7)
    values = image(graph)
    source, target = (BACKEND.edge_buffer("float32", values.shape, seed=seed) for seed in (0, 1))
    source.values[: values.size] = values.ravel()

    BACKEND.compile_inside(graph, seed=0, edges=EDGE).bind([source], [target])()

    assert cut(graph, EDGE) is None
    assert np.array_equal(relu(values).ravel(), target.values[: values.size])
