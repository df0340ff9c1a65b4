"""Batch norm, evaluation, fine-tuning."""

from __future__ import annotations

import copy
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lanaprof.distill import (
    DataSource,
    Evaluation,
    FinetuneRecipe,
    Progress,
    evaluate,
    finetune,
    load_data,
    reestimate_batch_norm,
)
from lanaprof.distill.augmenting import augment
from lanaprof.distill.finetuning import distillation_loss
from lanaprof.distill.training import cosine_rate
from lanaprof.errors import BadInput, UserError
from lanaprof.space import Space
from lanaprof.teachers import Teacher, assemble, state_digest

WORKER = Path(__file__).with_name("killed_worker.py")
SHORT = FinetuneRecipe(steps=40, batch_size=16, heldout_images=64)
CHOICES = (("body.first", "conv"), ("body.third", "ds"))


@pytest.fixture
def student(teacher: Teacher, space: Space) -> nn.Module:
    return assemble(teacher, CHOICES, space=space)


def test_batch_norm_statistics_are_those_of_the_batches() -> None:
    """Mean and variance are plain averages over the batches; momentum, modes and weights are as before."""
    module = nn.Sequential(nn.BatchNorm2d(3, momentum=0.25), nn.Dropout(0.5)).eval()
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randn(8, 3, 4, 4, generator=generator) * 3 + 2 for _ in range(4)]
    assert reestimate_batch_norm(module, batches) == 1
    norm = module[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    means = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in batches]).mean(0)
    assert torch.allclose(norm.running_mean, means, atol=1e-5)
    assert torch.allclose(norm.running_var, variances, rtol=1e-4)
    assert norm.momentum == 0.25
    assert not any(part.training for part in module.modules())


def test_batch_norm_takes_at_most_count_batches() -> None:
    """Neither more batches than asked for are read, nor are labels in the way."""
    read = []

    def batches() -> Any:
        for number in range(10):
            read.append(number)
            yield torch.full((2, 3, 2, 2), float(number)), torch.zeros(2)

    module = nn.BatchNorm2d(3)
    reestimate_batch_norm(module, batches(), count=3)
    assert read == [0, 1, 2]
    assert torch.allclose(module.running_mean, torch.ones(3))  # type: ignore[arg-type]
    assert module.training


def test_network_without_batch_norm_reads_nothing() -> None:
    """There is nothing to do, and no batch is asked for."""
    assert reestimate_batch_norm(nn.Conv2d(3, 3, 1), iter(())) == 0


def test_batch_norm_without_batches() -> None:
    """Statistics of nothing are refused."""
    with pytest.raises(BadInput, match="no batches"):
        reestimate_batch_norm(nn.BatchNorm2d(3), [])


def test_evaluation_of_the_teacher_itself(teacher: Teacher, labelled: DataSource) -> None:
    """It agrees with itself, and accuracy and loss are torch's own."""
    found = evaluate(teacher.module, labelled.iter_split("train", 7), teacher=teacher.module)
    x, y = labelled.batch("train", range(labelled.train_count))
    assert y is not None
    with torch.no_grad():
        logits = teacher.module(x)
    assert found.images == labelled.train_count
    assert found.agreement == 1
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert found.accuracy == pytest.approx((logits.argmax(1) == y).float().mean().item())
    assert found.loss == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-4)


def test_evaluation_without_labels(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """What needs labels or a teacher is None without them, never a number."""
    alone = evaluate(student, noise.iter_heldout(32, 64))
    assert alone == Evaluation(images=64, accuracy=None, loss=None, agreement=None, kl=None)
    beside = evaluate(student, noise.iter_heldout(32, 64), teacher=teacher.module)
    assert beside.kl is not None
    assert beside.kl > 0
    assert beside.accuracy is None


def test_evaluation_keeps_modes(student: nn.Module, noise: DataSource) -> None:
    """A network in training mode is judged in eval mode and goes on training."""
    judged = evaluate(student, noise.iter_heldout(8, 8), teacher=student)
    student.train()
    assert evaluate(student, noise.iter_heldout(8, 8), teacher=student) == judged
    assert student.training


def test_evaluation_of_nothing(student: nn.Module) -> None:
    """No batches is an error, not a division by zero."""
    with pytest.raises(BadInput, match="nothing to evaluate"):
        evaluate(student, [])


def test_finetuning_brings_the_student_closer(
    teacher: Teacher, student: nn.Module, noise: DataSource
) -> None:
    """Held-out divergence falls, and the student carries the weights of the best moment."""
    result = finetune(student, teacher, noise, recipe=SHORT)
    assert result.best.kl is not None
    assert result.reestimated.kl is not None
    assert result.best.kl < 0.5 * result.reestimated.kl
    assert [point.step for point in result.history] == [0, 10, 20, 30, 40]
    assert evaluate(student, noise.iter_heldout(16, 64), teacher=teacher.module).kl == pytest.approx(
        result.best.kl
    )
    assert state_digest(student) == result.weights_digest
    assert not student.training
    assert all(parameter.is_contiguous() for parameter in student.parameters())


def test_the_best_moment_is_kept(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """Training that only does harm leaves the student as it was when training began."""
    recipe = FinetuneRecipe(steps=8, batch_size=8, learning_rate=5.0, heldout_images=32)
    result = finetune(student, teacher, noise, recipe=recipe)
    begun_as = result.history[0].heldout
    assert result.best == begun_as
    assert evaluate(student, noise.iter_heldout(8, 32), teacher=teacher.module).kl == pytest.approx(
        begun_as.kl
    )


def test_statistics_stay_where_taking_them_anew_harms(teacher: Teacher, noise: DataSource) -> None:
    """A network that has the teacher's outputs already keeps batch norm's statistics, in training too."""
    student = copy.deepcopy(teacher.module)
    recipe = FinetuneRecipe(steps=4, batch_size=8, learning_rate=1e-6, heldout_images=32)
    result = finetune(student, teacher, noise, recipe=recipe)

    assert result.kept_statistics
    assert result.before.kl == pytest.approx(0, abs=1e-6)
    assert result.reestimated.kl is not None
    assert result.reestimated.kl > 1e-4
    assert result.history[0].heldout == result.before
    found, wanted = (
        {name: value for name, value in network.named_buffers() if "running" in name}
        for network in (student, teacher.module)
    )
    assert found
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_finetuning_with_labels(teacher: Teacher, student: nn.Module, labelled: DataSource) -> None:
    """Labels and image augmentation are used where the data has them."""
    result = finetune(student, teacher, labelled, recipe=FinetuneRecipe(steps=4, batch_size=8))
    assert result.best.accuracy is not None
    assert len(result.history) == 5


def test_teacher_is_left_alone(teacher: Teacher, student: nn.Module, noise: DataSource) -> None:
    """Fine-tuning changes nothing about the teacher."""
    finetune(student, teacher, noise, recipe=FinetuneRecipe(steps=3, batch_size=8, heldout_images=8))
    assert state_digest(teacher.module) == teacher.weights_digest
    assert all(parameter.requires_grad for parameter in teacher.module.parameters())


def test_killed_twice_gives_the_same_weights(
    teacher: Teacher, student: nn.Module, noise: DataSource, tmp_path: Path
) -> None:
    """After kill -9 at two moments, the third run goes on and ends with bit-identical weights."""
    recipe = runpy.run_path(str(WORKER))["FINETUNE_RECIPE"]
    starts = []
    for steps in (7, 9):
        ended = subprocess.run(
            [sys.executable, str(WORKER), "finetune", str(tmp_path), str(steps)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == -9, ended.stderr
        starts.append(int(ended.stdout))
    seen: list[Progress] = []
    other = copy.deepcopy(student)
    resumed = finetune(student, teacher, noise, recipe=recipe, folder=tmp_path, progress=seen.append)
    whole = finetune(other, teacher, noise, recipe=recipe)
    assert 1 == starts[0] < starts[1] < seen[0].done
    assert resumed == whole


def test_finished_run_is_reused(
    teacher: Teacher, student: nn.Module, noise: DataSource, tmp_path: Path
) -> None:
    """The same student, teacher, data and recipe are not trained twice."""
    recipe = FinetuneRecipe(steps=4, batch_size=8, heldout_images=16)
    other, seen = copy.deepcopy(student), list[Progress]()
    first = finetune(student, teacher, noise, recipe=recipe, folder=tmp_path)
    again = finetune(other, teacher, noise, recipe=recipe, folder=tmp_path, progress=seen.append)
    assert again.reused
    assert not first.reused
    assert seen == []
    assert again.weights_digest == first.weights_digest == state_digest(other)
    assert again.history == first.history


def test_student_without_classes(teacher: Teacher, noise: DataSource) -> None:
    """A student that gives no logits is refused with its output's shape."""
    student = nn.Sequential(nn.Flatten(), nn.Linear(768, 1))
    with pytest.raises(UserError, match=r"gives \(\d+, 1\), not logits"):
        finetune(student, teacher, noise, recipe=SHORT)


def test_glue_that_works_in_place_is_no_obstacle(teacher: Teacher, space: Space, noise: DataSource) -> None:
    """The teacher's in-place ReLU behind a candidate that ends in a ReLU does not stop the gradients."""
    student = assemble(teacher, [("body.first", "conv")], space=space)
    with pytest.raises(RuntimeError, match="inplace"):  # so torch alone refuses this student
        torch.autograd.backward(student(torch.randn(2, 3, 16, 16)).sum())
    result = finetune(student, teacher, noise, recipe=SHORT)
    assert result.best.kl is not None
    assert result.reestimated.kl is not None
    assert result.best.kl < result.reestimated.kl


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"steps": 0},
        {"batch_size": 1},
        {"temperature": 0.0},
        {"alpha": 2.0},
        {"evaluations": 0},
    ],
)
def test_senseless_recipes(wrong: dict[str, Any]) -> None:
    """A recipe that trains nothing is refused."""
    with pytest.raises(BadInput):
        FinetuneRecipe(**wrong)


def test_epochs_become_steps() -> None:
    """Epochs count passes over the training data; steps win."""
    assert FinetuneRecipe(epochs=1.5, batch_size=100).step_count(1000) == 15
    assert FinetuneRecipe(epochs=1.5, steps=7).step_count(1000) == 7


def test_distillation_loss_is_zero_for_the_teacher() -> None:
    """Equal logits cost nothing; at high temperature the gradient does not vanish."""
    logits = torch.randn(4, 5)
    assert distillation_loss(logits, logits, 2.0).item() == pytest.approx(0, abs=1e-6)
    other = torch.randn(4, 5)
    warm, hot = (distillation_loss(other, logits, temperature).item() for temperature in (50.0, 500.0))
    assert warm == pytest.approx(hot, rel=0.1)


def test_augmentation_flips_and_shifts() -> None:
    """Each image is the original or its mirror image, moved by at most two pixels of 28; seeded by the step."""
    x = torch.arange(28 * 28.0).reshape(1, 1, 28, 28).repeat(16, 1, 1, 1)
    moved = augment(x, seed=0, step=3)
    assert torch.equal(moved, augment(x, seed=0, step=3))
    assert not torch.equal(moved, augment(x, seed=0, step=4))
    padded = nn.functional.pad(x[:1], (2, 2, 2, 2), mode="replicate")

    def windows(image: Tensor) -> list[Tensor]:
        return [image[0, :, i : i + 28, j : j + 28] for i in range(5) for j in range(5)]

    possible = windows(padded) + windows(padded.flip(3))
    assert all(any(torch.equal(one, other) for other in possible) for one in moved)
    assert len({one.sum().item() for one in moved}) > 4


def test_learning_rate_rises_and_falls() -> None:
    """Warm-up, then a cosine to nearly zero."""
    rates = [cosine_rate(step, 100, 1.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_images_of_another_kind_are_not_augmented(teacher: Teacher, student: nn.Module) -> None:
    """Noise has no left and right: the recipe's augmentation makes no difference."""
    digests = set()
    for wanted in (True, False):
        data = load_data("random", input_shape=(3, 16, 16))
        recipe = FinetuneRecipe(steps=3, batch_size=8, heldout_images=8, augment=wanted)
        digests.add(finetune(copy.deepcopy(student), teacher, data, recipe=recipe).weights_digest)
    assert len(digests) == 1
