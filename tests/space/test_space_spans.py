"""Spans in plain data: runs of layers as places, choices that cover several layers, what is refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lanaprof.errors import BadArchitecture, BadProject
from lanaprof.space import (
    Architecture,
    Layer,
    Space,
    Span,
    place_name,
    random_architecture,
    space_from_json,
    space_to_json,
)

SMALL, LARGE = (8, 4, 4), (16, 2, 2)
LAYERS = tuple(
    Layer(f"b.{n}", SMALL, LARGE if n == 3 else SMALL, 10 * (n + 1), f"s{n}", ("teacher", "conv", "ds"))
    for n in range(4)
)
SPANS = (
    Span("b.1", "b.3", "conv(kernel=1)"),
    Span("b.0", "b.1", "skip"),
    Span("b.1", "b.2", "ds"),
    Span("b.0", "b.1", "conv"),
)
SPACE = Space("net", (3, 8, 8), LAYERS, SPANS)


def test_a_run_is_described_as_a_layer() -> None:
    """From its first layer's input to its last one's output, with the parameters of all and its spans' names."""
    first, second, third = SPACE.runs

    assert ("b.0..b.1", "b.1..b.2", "b.1..b.3") == (first.name, second.name, third.name)
    assert (("skip", "conv"), 30) == (first.candidates, first.params)
    assert (SMALL, LARGE, 90) == (third.input_shape, third.output_shape, third.params)
    assert SPACE.get_layer("b.1..b.3") == third
    assert ("b.1", "b.2", "b.3") == SPACE.covered(third.name)


def test_what_the_first_of_several_holds_covers_the_others() -> None:
    """Choices hold one text per layer, none where a span covers, and come back by name."""
    asked = (("b.0", "ds"), ("b.1..b.2", "ds"))

    choices = Architecture("net", asked).complete(SPACE)

    assert ("ds", "ds", "", "teacher") == choices
    assert (*asked, ("b.3", "teacher")) == SPACE.named(choices)
    assert ["b.0", "b.1..b.2", "b.3"] == [layer.name for layer, _ in SPACE.parts(choices)]


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ((("b.0..b.1", "skip"), ("b.1", "conv")), "both hold the layer 'b.1'"),
        ((("b.0..b.1", "skip"), ("b.1..b.3", "conv(kernel=1)")), "both hold the layer 'b.1'"),
        ((("b.0..b.2", "conv"),), "spans several layers, which this space has no candidates for"),
        ((("b.0..b.1", "ds"),), "'ds' is no candidate of the run 'b.0..b.1'"),
    ],
)
def test_choices_that_do_not_fit_are_refused(choices: tuple[tuple[str, str], ...], message: str) -> None:
    """Two for one layer, a run or an operation that the space does not offer."""
    with pytest.raises(BadArchitecture, match=message):
        Architecture("net", choices).complete(SPACE)


@pytest.mark.parametrize("choices", [("", "conv", "ds", "teacher"), ("ds", "", "", "ds"), ("ds",) * 3])
def test_parts_refuse_what_is_no_network(choices: tuple[str, ...]) -> None:
    """Nothing in the first layer, a run that no span covers, too few."""
    with pytest.raises(BadArchitecture):
        SPACE.parts(choices)


@pytest.mark.parametrize(
    "span",
    [
        {"first": "b.2", "last": "b.1", "name": "skip"},
        {"first": "b.1", "last": "b.1", "name": "skip"},
        {"first": "b.1", "last": "c.9", "name": "skip"},
        {"first": "b.1", "last": "b.2", "name": "teacher"},
        {"first": "b.1", "last": "b.2", "name": "ds"},
    ],
)
def test_spans_of_a_file_are_checked(span: Mapping[str, str]) -> None:
    """Layers in their order, two at least, known ones; neither the teacher nor anything twice."""
    document: dict[str, Any] = space_to_json(SPACE)
    document["spans"].append(span)

    with pytest.raises(BadProject, match="span"):
        space_from_json(document)


def test_spans_stand_in_the_file() -> None:
    """What is written is read."""
    assert SPACE == space_from_json(space_to_json(SPACE))


def test_random_architectures_have_spans_now_and_then() -> None:
    """All are networks of the space; every span is drawn, and most layers keep candidates of their own."""
    drawn = [random_architecture(SPACE, random.Random(seed)).complete(SPACE) for seed in range(200)]

    named = [pair for choices in drawn for pair in SPACE.named(choices)]
    assert {(place_name(span.first, span.last), span.name) for span in SPANS} <= set(named)
    assert sum(choices.count("") for choices in drawn) < 0.5 * 4 * len(drawn)


def test_without_spans_random_architectures_are_what_they_were() -> None:
    """The same seeds give the same networks whatever spans a later version may offer."""
    plain = replace(SPACE, spans=())

    drawn = random_architecture(plain, random.Random(7)).complete(plain)

    assert ("conv", "teacher", "conv", "ds") == drawn


def test_only_allowed_spans_are_drawn() -> None:
    """A run without anything measured takes no part."""
    allowed: dict[str, list[str]] = {run.name: [] for run in SPACE.runs}

    drawn = [random_architecture(SPACE, random.Random(seed), allowed).complete(SPACE) for seed in range(50)]

    assert not any("" in choices for choices in drawn)
