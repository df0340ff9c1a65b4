"""The average of the weights that fine-tuning keeps, its precision, and the teacher's outputs it shares."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lanaprof.distill import DataSource, FinetuneRecipe, evaluate, finetune
from lanaprof.distill.averaging import average_decay, move_average
from lanaprof.distill.remembering import TeacherOutputs
from lanaprof.distill.runtime import Runtime
from lanaprof.errors import BadInput
from lanaprof.space import Space
from lanaprof.teachers import Teacher, assemble, state_digest

CHOICES = (("body.first", "conv"), ("body.third", "ds"))
BRIEF = FinetuneRecipe(steps=6, batch_size=8, heldout_images=16, evaluations=2)


@pytest.fixture
def student(teacher: Teacher, space: Space) -> nn.Module:
    return assemble(teacher, CHOICES, space=space)


def test_average_of_a_scripted_sequence() -> None:
    """Weights 0, 8, 4, 2 with half of the old kept each time: 0, 4, 4, 3; buffers are those of the network."""
    network = nn.BatchNorm1d(1)
    average = copy.deepcopy(network)
    seen = []
    for number, weight in enumerate((0.0, 8.0, 4.0, 2.0)):
        nn.init.constant_(network.weight, weight)
        network.running_mean.fill_(float(number))  # type: ignore[union-attr]
        move_average(average, network, 0.5 if number else 0.0)
        seen.append(average.weight.item())

    assert seen == [0.0, 4.0, 4.0, 3.0]
    assert average.running_mean is not None
    assert average.running_mean.item() == 3.0


def test_decay_follows_the_steps() -> None:
    """It looks back on a fiftieth of all steps, and early on on a tenth of those there were."""
    decays = [average_decay(step, 2500) for step in range(2500)]

    assert decays[0] == pytest.approx(0.1)
    assert decays[90] == pytest.approx(91 / 100)
    assert decays == sorted(decays)
    assert decays[-1] == pytest.approx(1 - 1 / 50)
    assert average_decay(0, 1) == 0.0  # one step: nothing to average


def test_the_average_is_what_is_kept(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """With and without it the same steps are trained, the weights that are kept differ, and both are as judged."""
    found = {}
    for ema in (True, False):
        own = copy.deepcopy(student)
        recipe = FinetuneRecipe(steps=100, batch_size=8, heldout_images=64, evaluations=1, ema=ema)
        found[ema] = finetune(own, teacher, noise, recipe=recipe)
        judged = evaluate(own, noise.iter_heldout(8, 64), teacher=teacher.module)
        assert judged.kl == pytest.approx(found[ema].best.kl)
        assert found[ema].best == found[ema].history[-1].heldout
    assert found[True].history[-1].train_loss == found[False].history[-1].train_loss
    assert found[True].weights_digest != found[False].weights_digest


def test_statistics_are_those_of_the_kept_weights(
    teacher: Teacher, student: nn.Module, noise: DataSource
) -> None:
    """Batch norm's statistics of the student are plain averages over batches, not a trace of training."""
    recipe = FinetuneRecipe(steps=40, batch_size=16, heldout_images=64, evaluations=1)
    result = finetune(student, teacher, noise, recipe=recipe)
    norms = [part for part in student.modules() if isinstance(part, nn.BatchNorm2d)]
    counted = {int(norm.num_batches_tracked) for norm in norms if norm.num_batches_tracked is not None}

    assert result.best != result.reestimated
    assert counted == {12}  # the batches of a re-estimation; training alone would have counted 40 more


def test_shared_outputs_change_nothing(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """A second student of the recipe finds the teacher's outputs and ends with the weights it would have alone."""
    calls: list[int] = []
    watched = copy.deepcopy(teacher.module)
    watched.register_forward_hook(_Count(calls))
    outputs = TeacherOutputs(watched, Runtime.here())
    one, other, alone = (copy.deepcopy(student) for _ in range(3))

    finetune(one, teacher, noise, recipe=BRIEF, outputs=outputs)
    first = len(calls)
    shared = finetune(other, teacher, noise, recipe=BRIEF, outputs=outputs)

    assert first == 6 + 2  # six batches, and the held-out images in two
    assert len(calls) == first
    assert shared == finetune(alone, teacher, noise, recipe=BRIEF)


class _Count:
    """Notes each call; survives the copy that is made of the teacher."""

    def __init__(self, calls: list[int]) -> None:
        self._calls = calls

    def __call__(self, *_arguments: Any) -> None:
        self._calls.append(1)

    def __deepcopy__(self, _memo: Any) -> _Count:
        return self


def test_outputs_beyond_the_memory_are_computed_again(teacher: Teacher) -> None:
    """Five logits of two images take 40 bytes: the second batch finds no room, and is right all the same."""
    x, y = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16)
    outputs = TeacherOutputs(teacher.module, Runtime.here(), most_bytes=60)

    def again(batch: Tensor, key: str) -> bool:
        return outputs.logits(batch, key) is outputs.logits(batch, key)

    assert again(x, "x")
    assert not again(y, "y")
    with torch.no_grad():
        torch.testing.assert_close(outputs.logits(y, "y"), teacher.module(y))


def test_mixed_precision_is_another_training(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """bf16 keeps weights in float32 and learns; its weights are others."""
    results = {}
    for precision in ("fp32", "bf16"):
        own = copy.deepcopy(student)
        recipe = FinetuneRecipe(steps=20, batch_size=16, heldout_images=32, precision=precision)
        results[precision] = finetune(own, teacher, noise, recipe=recipe)
        assert {parameter.dtype for parameter in own.parameters()} == {torch.float32}
        assert state_digest(own) == results[precision].weights_digest
    kls = [result.best.kl for result in results.values()]
    before = results["bf16"].reestimated.kl

    assert results["fp32"].weights_digest != results["bf16"].weights_digest
    assert before is not None
    assert all(kl is not None and kl < 0.8 * before for kl in kls)


def test_unknown_precision_is_refused() -> None:
    """What cannot be trained in is named, with what can."""
    with pytest.raises(BadInput, match="fp8"):
        FinetuneRecipe(precision="fp8")
