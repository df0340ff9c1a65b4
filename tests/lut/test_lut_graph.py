"""Keys, statistics and descriptions of canonical graphs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from lanaprof.errors import BadInput
from lanaprof.lut import describe_graph, graph_statistics, operator_key
from lanaprof.lut.keys import environment_key


def tensor(*shape: int, kind: str = "float32") -> dict[str, Any]:
    return {"type": kind, "shape": list(shape)}


def graph_of(inputs: list[Any], constants: list[Any], nodes: list[Any], outputs: list[str]) -> dict[str, Any]:
    return {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": inputs, "constants": constants,
        "nodes": nodes, "outputs": outputs,
    }  # fmt: skip


def node(op: str, inputs: list[str], *outputs: Any, **attributes: Any) -> dict[str, Any]:
    return {"op": op, "attributes": attributes, "inputs": inputs, "outputs": list(outputs)}


def macs_of(op: str, shapes: list[list[int]], out: list[int], **attributes: Any) -> int:
    """Return the multiply-accumulates of one node whose first operand is an input and the rest constants."""
    names = ["i0", *(f"c{index}" for index in range(len(shapes) - 1))]
    constants = [tensor(*shape) for shape in shapes[1:]]
    only = node(op, names, tensor(*out), **attributes)
    return graph_statistics(graph_of([tensor(*shapes[0])], constants, [only], ["n0.0"])).macs


def test_golden_operator_key(make: Any) -> None:
    """The key stays what it is: databases everywhere depend on it."""
    assert operator_key(make.graph()) == "42a78e1d68825595fc810e0864bcd8b8"


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph.update(opset=19),
        lambda graph: graph["constants"][3].update(value=3.0),
        lambda graph: graph["nodes"][0]["attributes"].update(pads=[0, 0, 0, 0]),
        lambda graph: graph["nodes"][0]["attributes"].update(group=2),
        lambda graph: graph["inputs"][0].update(type="float16"),
    ],
)
def test_what_changes_the_work_changes_the_key(make: Any, change: Callable[[Any], None]) -> None:
    """Another Clip bound, pad, group, type or opset is another operator."""
    graph = copy.deepcopy(make.graph())
    change(graph)

    assert operator_key(graph) != operator_key(make.graph())


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("format",), "lanaprof-graph/9", "format is 'lanaprof-graph/9'"),
        (("opset",), "18", "opset is '18'"),
        (("inputs",), None, "inputs is missing"),
        (("inputs", 0, "type"), "float", "inputs[0].type is 'float'; known: "),
        (("inputs", 0, "shape"), ["N", 3], "static shapes only"),
        (("inputs", 0, "shape"), [-1], "static shapes only"),
        (("inputs", 0, "shape"), [2**63], "static shapes only"),
        (("inputs", 0), 3, "inputs[0] is of type int, not an object"),
        (("nodes", 0, "op"), "", "nodes[0].op is ''"),
        (("nodes", 0, "domain"), 3, "nodes[0].domain"),
        (("nodes", 0, "attributes"), [], "nodes[0].attributes is of type list"),
        (("nodes", 0, "outputs"), [], "nodes[0].outputs is empty"),
        (("nodes", 0, "inputs", 0), "n1.0", "refers to n1.0, which does not stand before it"),
        (("nodes", 1, "inputs", 0), "n0.1", "refers to n0.1"),
        (("nodes", 0, "inputs", 0), "i1", "refers to i1"),
        (("nodes", 0, "inputs", 1), "c4", "refers to c4"),
        (("nodes", 0, "inputs", 1), "weight", "is 'weight', expected i<k>"),
        (("nodes", 0), "Conv", "nodes[0] is of type str, not an object"),
        (("outputs",), [], "outputs is empty"),
        (("outputs", 0), 7, "outputs[0] is 7"),
    ],
)
def test_what_is_no_graph_is_refused_with_the_place(
    make: Any, path: tuple[Any, ...], value: Any, reason: str
) -> None:
    """The message says where a graph is wrong."""
    graph = copy.deepcopy(make.graph())
    place = graph
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(BadInput) as caught:
        operator_key(graph)

    assert reason in caught.value.message


def test_graph_must_be_an_object() -> None:
    """A list is no graph."""
    with pytest.raises(BadInput, match="not an object"):
        operator_key([])  # type: ignore[arg-type]


def test_environment_key_is_the_environments_id(make: Any) -> None:
    """The key can be computed from the fields alone."""
    environment = make.environment()

    assert environment_key(environment.to_json()) == environment.id


def test_statistics_of_a_convolution(make: Any) -> None:
    """Counted by hand: 8·8·9 weights and 8 biases; 128 outputs of 72 products; two images alive at once."""
    statistics = graph_statistics(make.graph())

    assert statistics.params == 8 * 8 * 9 + 8
    assert statistics.weight_bytes == 4 * statistics.params
    assert statistics.macs == 8 * 4 * 4 * 8 * 9
    assert statistics.peak_bytes == 2 * 8 * 16 * 4
    assert (statistics.input_bytes, statistics.output_bytes, statistics.nodes) == (512, 512, 2)


def test_macs_by_hand() -> None:
    """Each counted kind of node against the textbook formula."""
    assert macs_of("Conv", [[1, 8, 4, 4], [8, 1, 3, 3]], [1, 8, 4, 4], group=8) == 8 * 16 * 9
    assert macs_of("Conv", [[2, 8, 4, 4], [6, 4, 1, 1]], [2, 6, 4, 4], group=2) == 2 * 6 * 16 * 4
    assert macs_of("ConvTranspose", [[1, 3, 4, 4], [3, 5, 2, 2]], [1, 5, 8, 8]) == 3 * 16 * 5 * 4
    assert macs_of("Gemm", [[2, 7], [7, 5]], [2, 5]) == 2 * 5 * 7
    assert macs_of("Gemm", [[7, 2], [5, 7]], [2, 5], transA=1, transB=1) == 2 * 5 * 7
    assert macs_of("MatMul", [[3, 2, 7], [3, 7, 5]], [3, 2, 5]) == 3 * 2 * 5 * 7
    assert macs_of("MatMul", [[7], [7, 5]], [5]) == 5 * 7
    assert macs_of("Relu", [[1, 8, 4, 4]], [1, 8, 4, 4]) == 0


def test_macs_of_a_quantised_convolution() -> None:
    """The weight of QLinearConv is its fourth operand."""
    shapes = [[1, 8, 4, 4], [], [], [8, 8, 3, 3], [8], [8], [], []]

    assert macs_of("QLinearConv", shapes, [1, 8, 4, 4]) == 8 * 16 * 72


def test_residual_stays_alive_until_it_is_added() -> None:
    """x, relu(x) and its square live together: the input is needed by the last node."""
    x = tensor(1, 10)
    nodes = [node("Relu", ["i0"], x), node("Mul", ["n0.0", "n0.0"], x), node("Add", ["i0", "n1.0"], x)]

    assert graph_statistics(graph_of([x], [], nodes, ["n2.0"])).peak_bytes == 3 * 40


def test_unused_and_absent_outputs_do_not_stay_alive() -> None:
    """An output nobody reads is freed at once; one that was not asked for takes no memory."""
    x = tensor(1, 10)
    nodes = [node("Split", ["i0"], x, x, None), node("Relu", ["n0.0"], x), node("Relu", ["n1.0"], x)]

    assert graph_statistics(graph_of([x], [], nodes, ["n2.0"])).peak_bytes == 3 * 40


def test_identity_graph_needs_its_input() -> None:
    """No nodes: the input, which is also the output, is all there is."""
    x = tensor(1, 10)

    statistics = graph_statistics(graph_of([x], [], [], ["i0"]))

    assert (statistics.peak_bytes, statistics.output_bytes, statistics.nodes) == (40, 40, 0)
    assert describe_graph(graph_of([x], [], [], ["i0"])) == "no nodes, 10 → 10"


def test_four_bit_weights_are_packed() -> None:
    """Five int4 elements take three bytes."""
    x = tensor(1, 10)
    graph = graph_of([x], [tensor(5, kind="int4")], [node("Relu", ["i0"], x)], ["n0.0"])

    assert graph_statistics(graph).weight_bytes == 3


def test_description_starts_with_the_heavy_nodes() -> None:
    """Convolutions come first with their kernels; a batch over 1 is shown."""
    x = tensor(2, 8, 4, 4)
    graph = graph_of(
        [x],
        [tensor(8, 8, 1, 1), tensor(8, 1, 5, 5), tensor(8, 4, 3, 3)],
        [
            node("Relu", ["i0"], x),
            node("Conv", ["n0.0", "c0"], x),
            node("Conv", ["n1.0", "c1"], x, group=8),
            node("Conv", ["n2.0", "c2"], x, group=2),
            node("Conv", ["n3.0", "c1"], x, group=8),
            node("Sigmoid", ["n4.0"], x),
        ],
        ["n5.0"],
    )

    assert describe_graph(graph) == (
        "Conv 1x1 ×1, DepthwiseConv 5x5 ×2, GroupedConv 3x3 ×1, Relu ×1 …, 2×8×4×4 → 2×8×4×4"
    )
