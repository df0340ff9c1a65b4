"""The same things under the same words: candidates, operators, what became of them, and the device that is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanaprof.config import ProjectConfig
from lanaprof.errors import UnknownDevice
from lanaprof.flows.counting import operator_words, space_words
from lanaprof.flows.devicing import device_to_measure
from lanaprof.flows.operators import OperatorMap
from lanaprof.flows.tally import Tally
from lanaprof.space import Layer, Space, Span

IMAGE = (16, 8, 8)
LAYERS = tuple(Layer(f"b{n}", IMAGE, IMAGE, 100, "s", ("teacher", "skip", "conv")) for n in range(2))
BARE = ProjectConfig(teacher="timm:resnet18")


def test_a_space_is_counted_with_its_spans() -> None:
    """The teacher's own layers and skip are candidates; spans are said apart."""
    plain = Space("net", (3, 8, 8), LAYERS)
    spanned = Space("net", (3, 8, 8), LAYERS, (Span("b0", "b1", "skip"),))

    assert space_words(plain) == "2 layers, 6 candidates, 10^1.0 networks"
    assert space_words(spanned) == "2 layers, 6 candidates, 1 span, 10^1.0 networks"


@pytest.mark.parametrize(
    ("keys", "problems", "words"),
    [
        (("k", "k"), 0, "1 operator"),
        (("k", "l", None), 0, "2 operators, 1 candidate not exported yet (skip needs no operator)"),
        ((None, None), 0, "2 candidates not exported yet (skip needs no operator)"),
        (("k", ""), 1, "1 operator, 1 candidate cannot be exported"),
    ],
)
def test_equal_candidates_are_one_operator(keys: tuple[str | None, ...], problems: int, words: str) -> None:
    """What is not exported yet, or cannot be, is said as candidates: how many operators these are nobody knows."""
    candidates = {(f"b{n}", "conv"): key for n, key in enumerate(keys)}
    operators = OperatorMap(candidates, None, {str(n): "why" for n in range(problems)})

    assert operator_words(operators) == words


def test_measured_operators_are_a_part_of_all() -> None:
    """As status says it."""
    operators = OperatorMap({("b0", "conv"): "k", ("b1", "conv"): "l"}, None)

    assert operator_words(operators, measured=1) == "1 of 2 operators measured"


def test_what_became_of_operators_is_said_in_one_way() -> None:
    """States that nothing fell into are left out."""
    assert Tally(measured=3, reused=1, noisy=2, timeout=1).words == "3 measured, 1 reused, 2 noisy, 1 timeout"


def test_measuring_means_the_first_device_of_the_project(tmp_path: Path) -> None:
    """Whether it measures here, enqueues or listens; an option comes first."""
    config = ProjectConfig(teacher="timm:resnet18", devices=("cpu,threads=2", "cpu"))

    assert device_to_measure(None, config, tmp_path).text == "cpu,threads=2"
    assert device_to_measure("cpu", config, tmp_path).text == "cpu"


def test_outside_a_project_measuring_means_cpu(tmp_path: Path) -> None:
    """A host of a farm needs neither project nor option."""
    assert device_to_measure(None, None, tmp_path).text == "cpu"


def test_a_project_without_devices_asks_for_one(tmp_path: Path) -> None:
    """Nobody measures, enqueues for, or listens as, a device that was not meant."""
    with pytest.raises(UnknownDevice, match=r"lanaprof\.toml names none; known: .*cpu"):
        device_to_measure(None, BARE, tmp_path)
