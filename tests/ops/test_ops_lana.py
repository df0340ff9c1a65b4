"""The catalogue lana: how many, which, and that each one works."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lanaprof.ops import (
    Operation,
    build_operation,
    get_family,
    match_output,
    operations_for,
    parse_operation,
    why_not,
)
from lanaprof.ops.lana import LANA_COUNT, LANA_COUNT_OTHER, computation, find_activation

EQUAL = ((24, 14, 14), (24, 14, 14))
OTHER = ((24, 14, 14), (40, 7, 7))
Shapes = tuple[tuple[int, ...], tuple[int, ...]]


def lana(shapes: Shapes, *, macs: int | None = None, signed: bool = True) -> tuple[Operation, ...]:
    return operations_for("lana", *shapes, teacher_macs=macs, signed=signed)


def macs_of(operation: Operation, shapes: Shapes) -> int:
    macs = get_family(operation.family).macs
    assert macs is not None
    return macs(*shapes, dict(operation.parameters))


@pytest.mark.parametrize("channels", [16, 24, 116, 2048])
@pytest.mark.parametrize("size", [7, 30, 160])
@pytest.mark.parametrize("share", [0.1, 6.0])
def test_every_layer_gets_its_number_of_different_operations(channels: int, size: int, share: float) -> None:
    """Wide or narrow, small or large, cheap or dear: at least 197 that deploy differently, teacher included."""
    equal = ((channels, size, size), (channels, size, size))
    other = ((channels, size, size), (2 * channels, -(-size // 2), -(-size // 2)))
    for shapes, count, distinct in ((equal, LANA_COUNT, 197), (other, LANA_COUNT_OTHER, 150)):
        macs = int(share * shapes[0][0] * shapes[1][0] * shapes[1][1] ** 2)
        found = lana(shapes, macs=macs)
        kinds = {computation(operation, *shapes) for operation in found}
        deployed = {
            pieces(*shapes, dict(operation.parameters))
            for operation in found
            if (pieces := get_family(operation.family).pieces) is not None
        }

        assert len(found) == len(kinds) == count
        assert len(deployed) + 1 >= distinct


def test_teacher_and_skip_come_first_in_an_order_that_does_not_change() -> None:
    """Texts are canonical, mean what they say, and come in the same order every time."""
    for shapes, first in ((EQUAL, ["teacher", "skip"]), (OTHER, ["teacher"])):
        texts = [operation.text for operation in lana(shapes)]

        assert texts[: len(first)] == first
        assert texts == [parse_operation(text).text for text in texts]
        assert texts == [operation.text for operation in lana(shapes)]
        assert all(why_not(operation, *shapes) is None for operation in lana(shapes))


def test_the_arithmetic_spans_a_fiftieth_of_the_teacher_to_all_of_it() -> None:
    """A tenth of the candidates is below 15 %, a half below 60 %, none above twice the teacher's."""
    macs = 24 * 6 * (24 + 9 + 24) * 14 * 14  # mbconv(expand=6)
    shares = sorted(macs_of(one, EQUAL) / macs for one in lana(EQUAL, macs=macs)[2:])

    assert shares[len(shares) // 50] <= 0.05
    assert shares[len(shares) // 10] <= 0.15
    assert shares[len(shares) // 2] <= 0.6
    assert shares[-1] <= 2


def test_many_families_have_their_share() -> None:
    """No family takes more than a quarter, and every family that fits has a part."""
    found = [operation.family for operation in lana(EQUAL, macs=24 * 6 * (24 + 9 + 24) * 14 * 14)]

    assert len(set(found)) >= 22
    assert max(found.count(family) for family in set(found)) <= len(found) / 4


def test_operations_end_as_the_teacher_does() -> None:
    """With a ReLU where the teacher's outputs are never negative, else openly."""
    for signed, end in ((True, "none"), (False, "relu")):
        for operation in lana(EQUAL, signed=signed)[2:]:
            parameters = dict(operation.parameters)
            assert parameters.get("out", parameters.get("act")) == end


def test_the_teachers_activation_comes_first() -> None:
    """Most operations get the activation that the teacher's layer uses most; where it has none, ReLU."""
    layer = nn.Sequential(nn.Conv2d(24, 24, 1), nn.Hardswish(), nn.ReLU(), nn.Hardswish())
    found = operations_for("lana", *EQUAL, teacher=layer)
    parameters = [dict(one.parameters) for one in found if one.family != "slim"]
    inner = [one["act"] for one in parameters if "out" in one and "act" in one]

    assert find_activation(layer) == "hswish"
    assert inner.count("hswish") > len(inner) / 2
    assert find_activation(nn.Conv2d(24, 24, 1)) == ""


def test_what_the_teacher_is_already_is_not_offered_again() -> None:
    """An operation of the teacher's own arithmetic and activation is the teacher with its weights forgotten."""
    shapes: Shapes = ((32, 8, 8), (32, 8, 8))
    layer = build_operation(parse_operation("mbconv(expand=4,act=relu6)"), *shapes)
    macs = macs_of(parse_operation("mbconv(expand=4)"), shapes)
    texts = [one.text for one in operations_for("lana", *shapes, teacher_macs=macs, teacher=layer)]

    assert "mbconv(expand=4,act=relu6)" not in texts
    assert len(texts) == LANA_COUNT


def test_operations_of_the_teachers_own_block_are_among_them() -> None:
    """Slim blocks come with the teacher's layer, no two of the same sizes, and the number stays."""
    layer = build_operation(parse_operation("mbconv(expand=4,se=0.25)"), *EQUAL)
    found = operations_for("lana", *EQUAL, teacher=layer)
    slim = [operation for operation in found if operation.family == "slim"]

    assert len(slim) >= 5
    assert len({computation(operation, *EQUAL, layer) for operation in slim}) == len(slim)
    assert len(found) == LANA_COUNT


def test_token_layers_get_operations_on_tokens() -> None:
    """A transformer's layer of (T, D) gets as many, none of them a convolution of images."""
    found = operations_for("lana", (197, 192), (197, 192))

    assert len(found) >= 197
    assert all(one.family in ("teacher", "skip") or one.family.startswith("token_") for one in found)


@pytest.mark.parametrize("shapes", [EQUAL, OTHER], ids=["equal", "other"])
def test_every_operation_learns(shapes: Shapes) -> None:
    """Each builds, starts at the teacher's output, takes a step that changes its weights, and stays finite."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(4, *shape, generator=generator) for shape in shapes)
    unmoved, broken = [], []
    for operation in lana(shapes):
        if operation.family in ("teacher", "skip"):
            continue
        module = build_operation(operation, *shapes).train()
        match_output(module, x, y)
        before = [parameter.detach().clone() for parameter in module.parameters()]
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        (module(x) - y).square().mean().backward()
        optimizer.step()
        after = [parameter.detach() for parameter in module.parameters()]
        with torch.no_grad():
            output = module.eval()(x)
        if not any((new != old).any() for new, old in zip(after, before, strict=True)):
            unmoved.append(operation.text)
        if output.shape[1:] != y.shape[1:] or not all(math.isfinite(one.sum()) for one in (*after, output)):
            broken.append(operation.text)

    assert [] == unmoved
    assert [] == broken


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b1", "tf_efficientnetv2_s", "resnest50d"])
def test_real_teachers_have_the_promised_width(name: str) -> None:
    """Every layer of the teachers that LANA was shown on gets its number of candidates."""
    from lanaprof.teachers import find_layers, load_teacher, make_space

    teacher = load_teacher(f"timm:{name}")
    space = make_space(teacher, find_layers(teacher), "lana")
    counts = [
        (len(layer.candidates), LANA_COUNT if layer.input_shape == layer.output_shape else LANA_COUNT_OTHER)
        for layer in space.layers
    ]

    assert all(found == promised for found, promised in counts)
    assert space.log10_size > 35
