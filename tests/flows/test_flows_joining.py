"""What neighbours of one precision spare each other, known before a network is built."""

from __future__ import annotations

import pytest

from lanaprof.flows.joining import Ends, Joints, find_ends, joints_of
from lanaprof.ops import build_operation, parse_operation
from lanaprof.profiler.circuit import Circuit, Step
from lanaprof.profiler.export import exported_graph

SHAPE = (8, 6, 6)
STEPS = (
    Step("", "stem", ("image",), ("a",)),
    Step("one", "", ("a",), ("b",)),
    Step("two", "", ("b",), ("c",)),
    Step("three", "", ("c",), ("d",)),
    Step("", "head", ("d",), ("logits",)),
)
CIRCUIT = Circuit(STEPS, tuple((name, "float32", (1, *SHAPE)) for name in "abcd"))
JOINTS = Joints(CIRCUIT, {"int8": Ends("uint8", "uint8"), "half": Ends("float16", "float16")})
BYTES = 4 * 8 * 6 * 6


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("conv", Ends()),
        ("conv@int8", Ends("uint8", "uint8")),
        ("basic(width=0.5)@int8", Ends("uint8", "uint8")),
        ("conv(act=hswish)@fp16", Ends("float16", "float16")),
    ],
)
def test_an_operators_ends_are_those_of_its_graph(text: str, ends: Ends) -> None:
    """What converts its input at once, and its output at last, can be joined to its like."""
    module = build_operation(parse_operation(text), SHAPE, SHAPE).eval()

    assert find_ends(exported_graph(module, (1, *SHAPE))) == ends


@pytest.mark.parametrize(
    ("chosen", "joined"),
    [
        (("float", "float", "float"), 0),
        (("int8", "float", "int8"), 0),
        (("int8", "int8", "float"), 1),
        (("int8", "int8", "int8"), 2),
        (("int8", "", "int8"), 1),  # a skipped layer hands on what it gets
        (("int8", "half", "half"), 1),
        (("half", "int8", "half"), 0),
    ],
)
def test_only_neighbours_of_one_type_are_joined(chosen: tuple[str, ...], joined: int) -> None:
    """Every border between two of them counts once, with the bytes that flow there."""
    layers = dict(zip(("one", "two", "three"), chosen, strict=True))

    assert JOINTS.features(layers) == (float(joined * BYTES), float(joined))


def test_a_space_in_float32_has_no_joints() -> None:
    """Where no operator converts anything there is nothing to predict by."""
    graph = exported_graph(build_operation(parse_operation("conv"), SHAPE, SHAPE).eval(), (1, *SHAPE))

    assert joints_of(CIRCUIT, [("float", graph)]) is None
