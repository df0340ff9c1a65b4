"""The loss that compares layers inside student and teacher."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from lanaprof.distill import DataSource, FinetuneRecipe, Limits, Progress, finetune
from lanaprof.distill.features import LayerOutputs, feature_error, stage_ends
from lanaprof.errors import BadInput
from lanaprof.ops import TEACHER
from lanaprof.space import Space
from lanaprof.teachers import Teacher, assemble, state_digest

CHOICES = (("body.first", "conv"), ("body.third", "ds"))
RECIPE = FinetuneRecipe(
    steps=20, batch_size=8, heldout_images=16, evaluations=1, feature_layers=("body.second", "body.third")
)


@pytest.fixture
def student(teacher: Teacher, space: Space) -> nn.Module:
    return assemble(teacher, CHOICES, space=space)


def test_stages_end_where_the_shape_changes(space: Space) -> None:
    """The second layer is the last of its shape, the third the last of all."""
    assert stage_ends(space, (TEACHER,) * len(space.layers)) == ("body.second", "body.third")


def test_what_follows_in_place_changes_nothing_recorded(teacher: Teacher) -> None:
    """The glue adds to one layer's output and rectifies another's in place: recorded is what the layers gave."""
    taken = LayerOutputs(teacher.module, ("body.second", "body.third"))
    given: list[torch.Tensor] = []
    handle = teacher.module.get_submodule("body.third").register_forward_hook(
        lambda _module, _arguments, output: given.append(output.clone())
    )
    with torch.no_grad():
        teacher.module(torch.randn(2, 3, 16, 16))
    found = taken.take()
    taken.close()
    handle.remove()

    assert set(found) == {"body.second", "body.third"}
    assert torch.equal(found["body.third"], given[0])
    assert (found["body.third"] < 0).any()
    assert taken.take() == {}


def test_error_is_the_mean_over_the_layers() -> None:
    """Zeros where ones are wanted: 1. Halves: 0.25. Together 0.625; what only one network has does not count."""
    ones = torch.ones(2, 3)
    given = {"a": torch.zeros(2, 3), "b": ones / 2, "c": ones}

    assert feature_error(given, {"a": ones, "b": ones}).item() == pytest.approx(0.625)
    assert feature_error({}, {"a": ones}).item() == 0.0


def test_layers_come_closer(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """With the comparison in the loss, the layers' outputs end nearer to the teacher's than without."""
    errors = {}
    x = noise.batch("heldout", range(16))[0]
    for share in (0.0, 0.5):
        own = copy.deepcopy(student)
        recipe = FinetuneRecipe(
            steps=60, batch_size=16, heldout_images=32, feature_layers=RECIPE.feature_layers, features=share
        )
        finetune(own, teacher, noise, recipe=recipe)
        taps = [LayerOutputs(network, RECIPE.feature_layers) for network in (own, teacher.module)]
        with torch.no_grad():
            own(x), teacher.module(x)
        errors[share] = feature_error(taps[0].take(), taps[1].take()).item()
        taps[1].close()

    assert errors[0.5] < 0.9 * errors[0.0]


def test_no_hooks_are_left(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """The student is as free of hooks after training as before."""
    finetune(student, teacher, noise, recipe=RECIPE)

    assert not any(part._forward_hooks for part in student.modules())


def test_resumed_run_ends_with_the_same_weights(
    teacher: Teacher, student: nn.Module, noise: DataSource, tmp_path: Path
) -> None:
    """Interrupted after nine steps, the next call goes on and ends as if nothing had happened."""
    other, whole = copy.deepcopy(student), copy.deepcopy(student)

    def interrupt(progress: Progress) -> None:
        if progress.done == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(
            student, teacher, noise, recipe=RECIPE, folder=tmp_path, limits=Limits(0.0), progress=interrupt
        )
    seen: list[int] = []
    resumed = finetune(
        other, teacher, noise, recipe=RECIPE, folder=tmp_path, progress=lambda p: seen.append(p.done)
    )

    assert seen[0] > 1
    assert resumed == finetune(whole, teacher, noise, recipe=RECIPE)
    assert state_digest(other) == state_digest(whole)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_is_a_share(share: float) -> None:
    """Nothing of the output in the loss would train no classifier."""
    with pytest.raises(BadInput, match="features"):
        FinetuneRecipe(features=share)
