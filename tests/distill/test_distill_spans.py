"""Candidates for several layers: what they are trained on, how they are scored, resumed and fine-tuned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from lanaprof.distill import (
    DataSource,
    Recipe,
    ScoreRecipe,
    distill,
    find_trained,
    load_candidate,
    plan,
    score_candidates,
)
from lanaprof.distill.features import stage_ends
from lanaprof.distill.taps import Replay, Taps
from lanaprof.space import Space, Span
from lanaprof.teachers import Teacher, assemble

RUN, LAST = "body.first..body.second", "body.second..body.third"
RECIPE = Recipe(steps=12, batch_size=8)


@pytest.fixture
def spanned(space: Space) -> Space:
    """The tiny space with spans over its first two and its last two layers."""
    first = tuple(Span("body.first", "body.second", name) for name in ("skip", "conv"))
    return replace(space, spans=(*first, Span("body.second", "body.third", "conv(kernel=1)")))


def test_taps_take_the_first_input_and_the_last_output(teacher: Teacher) -> None:
    """Though glue changes what lies between them in place."""
    x = torch.randn(2, 3, 16, 16)
    _, flowed = Taps(teacher.module, [RUN, "body.first", "body.second"]).run(x)

    assert torch.equal(flowed["body.first"].input, flowed[RUN].input)
    assert torch.equal(flowed["body.second"].output, flowed[RUN].output)


def test_replay_runs_a_span_as_the_assembled_network_does(teacher: Teacher, spanned: Space) -> None:
    """One module in place of two layers, glue behind it included."""
    x = torch.randn(4, 3, 16, 16)
    module = nn.Conv2d(8, 8, 3, padding=1)
    replay = Replay(teacher.module, [layer.name for layer in spanned.layers], sample=x)
    replay.record(x)

    replayed = replay.run(RUN, module)

    network = assemble(teacher, [(RUN, "conv")], space=spanned, modules={(RUN, "conv"): module})
    with torch.no_grad():
        assert torch.allclose(network(x), replayed, atol=1e-6)


def test_a_span_is_trained_on_its_run(
    teacher: Teacher, spanned: Space, noise: DataSource, tmp_path: Path
) -> None:
    """Its error falls, its weights lie under the run's name, and a second call finds them."""
    wanted = {RUN: ("skip", "conv"), LAST: ("conv(kernel=1)",), "body.first": ("ds",)}

    planned = plan(teacher, spanned, noise, wanted=wanted, recipe=RECIPE, folder=tmp_path)
    result = distill(teacher, spanned, noise, wanted=wanted, recipe=RECIPE, folder=tmp_path)
    again = distill(teacher, spanned, noise, wanted=wanted, recipe=RECIPE, folder=tmp_path)

    names = {("body.first", "ds"), (RUN, "conv"), (LAST, "conv(kernel=1)")}
    assert names == set(planned.train)
    assert names == {(one.layer, one.operation) for one in result.candidates}
    assert (0, 3) == (again.trained, again.reused)
    curve = find_trained(tmp_path, result.key)[RUN, "conv"].curve
    assert curve[-1][1] < curve[0][1]


def test_other_layers_weights_do_not_depend_on_spans(
    teacher: Teacher, space: Space, spanned: Space, noise: DataSource, tmp_path: Path
) -> None:
    """A project that gets spans keeps what it has trained, bit for bit."""
    alone = distill(
        teacher, space, noise, wanted={"body.first": ("ds",)}, recipe=RECIPE, folder=tmp_path / "a"
    )
    beside = distill(
        teacher, spanned, noise, wanted={"body.first": ("ds",), RUN: ("conv",)}, recipe=RECIPE,
        folder=tmp_path / "b",
    )  # fmt: skip

    assert alone.key == beside.key
    assert alone.candidates[0].digest == beside.candidates[0].digest


def test_a_span_is_scored_by_swapping_it_in(
    teacher: Teacher, spanned: Space, noise: DataSource, tmp_path: Path
) -> None:
    """The score is minus the divergence of the network with the span, by the sum's power as for a layer's."""
    wanted = {RUN: ("conv",)}
    result = distill(teacher, spanned, noise, wanted=wanted, recipe=RECIPE, folder=tmp_path)
    shapes = (spanned.get_layer(RUN).input_shape, spanned.get_layer(RUN).output_shape)
    module = load_candidate(tmp_path, result.key, RUN, "conv", shapes)
    recipe = ScoreRecipe(images=32, batch_size=16)

    scores = score_candidates(teacher, spanned, {(RUN, "conv"): module}, noise, recipe=recipe, layers=[RUN])

    network = assemble(teacher, [(RUN, "conv")], space=spanned, modules={(RUN, "conv"): module})
    divergences = []
    with torch.no_grad():
        for x, _ in noise.iter_heldout(16, 32):
            given, wished = network(x).log_softmax(1), teacher.module(x).log_softmax(1)
            divergences += (wished.exp() * (wished - given)).sum(1).tolist()
    mean = math.fsum(divergences) / len(divergences)
    found = {score.operation: score.score for score in scores}
    assert {"skip", "conv"} == set(found)
    assert found["conv"] == pytest.approx(-(mean**recipe.shape), rel=1e-4)


def test_nothing_is_compared_inside_a_span(spanned: Space) -> None:
    """The second layer's output is what the last two, replaced together, no longer have."""
    whole = ("teacher",) * 3
    assert ("body.second", "body.third") == stage_ends(spanned, whole)
    assert ("body.third",) == stage_ends(spanned, ("teacher", "conv(kernel=1)", ""))
