"""Which runs of layers one candidate may replace: stages, tails, plain chains, and what init says of others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lanaprof.errors import BadInput
from lanaprof.space import Span
from lanaprof.teachers import Teacher, assemble, find_layers, make_space, state_digest
from lanaprof.teachers.spans import find_spans

LAYERS = ("body.*",)


def block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.BatchNorm2d(outputs), nn.ReLU())


class Net(nn.Module):
    """Two blocks of one shape, then three of which the first strides; glue may read what lies between."""

    def __init__(self, glue: str = "") -> None:
        super().__init__()
        self.glue = glue
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        shapes = [(8, 8, 1), (8, 8, 1), (8, 16, 2), (16, 16, 1), (16, 16, 1)]
        self.body = nn.ModuleList(block(*shape) for shape in shapes)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, 4)."""
        x = self.stem(x)
        kept = torch.zeros(())
        for number, one in enumerate(self.body):
            x = one(x)
            if number == 3 and self.glue == "reader":
                kept = x.mean((2, 3))
            if number == 3 and self.glue == "between":
                x = x * 2
        logits: Tensor = self.head(x.mean((2, 3)) + kept)
        return logits


def made(glue: str = "") -> Teacher:
    torch.manual_seed(0)
    module = Net(glue).eval()
    return Teacher("tiny:net", module, (3, 8, 8), "made up", state_digest(module), False, {})


@pytest.fixture
def rules(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes an operations file."""

    def write(*lines: str) -> Path:
        path = tmp_path / "ops.txt"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


def test_stages_and_tails_are_named_by_rules(rules: Callable[..., Path]) -> None:
    """A stage begins where the shape changes; a tail is behind such a beginning; the order is the network's."""
    teacher = made()
    ops = rules("tail: skip", "stage: ds", "body.3..body.4: ds", "body.[01]: conv")

    found = find_spans(teacher, find_layers(teacher, LAYERS), ops)

    assert {
        Span("body.0", "body.1", "ds"),
        Span("body.0", "body.1", "conv"),
        Span("body.2", "body.4", "ds"),
        Span("body.3", "body.4", "skip"),
        Span("body.3", "body.4", "ds"),
    } == set(found)
    assert [span.first for span in found] == sorted(span.first for span in found)


def test_the_catalogue_offers_few(rules: Callable[..., Path]) -> None:
    """At most three for each of a stage and its tail; quick offers none, a file only what it says."""
    teacher = made()
    found = find_layers(teacher, LAYERS)

    offered = find_spans(teacher, found, "lana")

    assert {("body.0", "body.1"), ("body.2", "body.4"), ("body.3", "body.4")} == {
        (one.first, one.last) for one in offered
    }
    assert len(offered) <= 9
    assert () == find_spans(teacher, found, "quick")
    assert () == find_spans(teacher, found, rules("conv"))


def test_spans_come_at_precisions_too(rules: Callable[..., Path]) -> None:
    """What multiplies is offered once more; skip is not."""
    teacher = made()
    ops = rules("conv", "body.[01]: ds", "body.[01]: skip")

    space = make_space(teacher, find_layers(teacher, LAYERS), ops, precisions=("int8",))

    assert ("ds", "skip", "ds@int8") == space.runs[0].candidates


@pytest.mark.parametrize(
    ("glue", "reason"),
    [("reader", "something else reads"), ("between", "body.4 does not read what body.3 gives")],
)
def test_what_is_no_plain_chain_has_no_spans(glue: str, reason: str) -> None:
    """Where something else reads what lies between, or changes it, init says why; other stages have theirs."""
    teacher = made(glue)
    told: list[str] = []

    found = find_spans(teacher, find_layers(teacher, LAYERS), "lana", tell=told.append)

    assert {("body.0", "body.1")} == {(one.first, one.last) for one in found}
    assert any("body.2..body.4" in text and reason in text for text in told)
    assert any("body.3..body.4" in text and reason in text for text in told)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("body.[024]: conv", "names no two or more consecutive layers"),
        ("body.0: conv", "names no two or more consecutive layers"),
        ("body.0..body.9: conv", "names no two or more consecutive layers"),
        ("body.2..body.4: skip", "skip cannot stand for 'body.2..body.4'"),
        ("tail: g_ghost(share=0.875)", "leaves nothing of 16 channels"),
    ],
)
def test_rules_that_fit_nothing_are_refused(rules: Callable[..., Path], line: str, message: str) -> None:
    """Layers that do not follow each other, an operation that fits none of the runs."""
    teacher = made()

    with pytest.raises(BadInput, match=message):
        find_spans(teacher, find_layers(teacher, LAYERS), rules(line))


def test_a_rule_for_stages_needs_to_fit_only_one(rules: Callable[..., Path]) -> None:
    """The stage that changes its shape cannot be skipped; the other can."""
    teacher = made()

    found = find_spans(teacher, find_layers(teacher, LAYERS), rules("stage: skip"))

    assert (Span("body.0", "body.1", "skip"),) == found


def test_the_teacher_is_left_as_it_was() -> None:
    """Looking for chains changes neither weights nor what the network gives."""
    teacher = made()
    x = torch.randn(1, 3, 8, 8)
    before = teacher.module(x)

    find_spans(teacher, find_layers(teacher, LAYERS), "lana")

    assert torch.equal(before, teacher.module(x))
    assert not any("forward" in vars(child) for child in teacher.module.modules())
    assert not any(child.training for child in teacher.module.modules())


def test_a_network_with_a_span_has_one_module_for_its_layers(rules: Callable[..., Path]) -> None:
    """The span stands in the first layer, the others pass on what it gives."""
    teacher = made()
    space = make_space(teacher, find_layers(teacher, LAYERS), rules("conv", "tail: skip"))

    network = assemble(teacher, [("body.3..body.4", "skip")], space=space)

    x = torch.randn(2, 3, 8, 8)
    inside = teacher.module
    with torch.no_grad():
        features = inside.get_submodule("stem")(x)
        for number in range(3):
            features = inside.get_submodule(f"body.{number}")(features)
        expected = inside.get_submodule("head")(features.mean((2, 3)))
        assert torch.allclose(network(x), expected, atol=1e-6)
