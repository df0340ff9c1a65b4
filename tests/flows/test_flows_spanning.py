"""Scores of spans on the scale of sums: which networks say how much a sum promises, and the factor that follows."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from lanaprof.flows.spanning import networks_of_run, run_factor
from lanaprof.ops import TEACHER
from lanaprof.space import Layer, Space, Span

IMAGE = (8, 4, 4)
LAYERS = tuple(Layer(name, IMAGE, IMAGE, 10, "s", (TEACHER, "conv", "ds", "skip")) for name in "abc")
PROJECT: Any = SimpleNamespace(
    space=Space("net", (3, 8, 8), LAYERS, (Span("a", "b", "conv"),)), config=SimpleNamespace(seed=0)
)
SCORES = {(name, operation): -0.1 for name in "abc" for operation in ("conv", "ds")}


@pytest.mark.parametrize(
    ("promised", "lost", "factor"),
    [
        ([0.6, 0.4], [0.5, 0.3], 1.25),  # sums promise a quarter more than comes
        ([0.1, 0.1], [0.4, 0.4], 0.5),  # four times as bad as promised: believed by half
        (
            [9.0],
            [1.0],
            2.0,
        ),  # equal losses of two layers, added as roots, come to √2 times their root at most
        ([0.3], [0.0], 1.0),
        ([0.3], [math.inf], 1.0),
    ],
)
def test_the_factor_is_what_sums_promise_over_what_comes(
    promised: list[float], lost: list[float], factor: float
) -> None:
    """Of all networks together, so that those that lose nothing do not decide; kept within reason."""
    assert factor == pytest.approx(run_factor(promised, lost, 2))


def test_networks_replace_the_whole_run_and_nothing_else() -> None:
    """Every layer of it holds a scored candidate, never the teacher's own; the others keep theirs."""
    found = networks_of_run(PROJECT, SCORES, "a..b", 3)

    assert 3 == len(set(found))
    assert {TEACHER} == {choices[2] for choices in found}
    assert {"conv", "ds"} >= {operation for choices in found for operation in choices[:2]}


def test_there_are_no_more_networks_than_there_are() -> None:
    """Two candidates in two layers are four networks, however many are asked for, and always the same."""
    found = networks_of_run(PROJECT, SCORES, "a..b", 40)

    assert 4 == len(found)
    assert found == networks_of_run(PROJECT, SCORES, "a..b", 40)


def test_a_run_with_a_layer_nobody_scored_has_none() -> None:
    """What the layers lose together cannot be held against a sum that is not known."""
    known = {name: score for name, score in SCORES.items() if name[0] != "b"}

    assert () == networks_of_run(PROJECT, known, "a..b", 3)
