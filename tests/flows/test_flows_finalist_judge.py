"""The judge of finalists: what it cannot judge is said before anything is timed; what it keeps is read again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from lanaprof.distill import FinetuneRecipe, load_data
from lanaprof.errors import UserError
from lanaprof.flows.finalist_judge import ProjectJudge, _read


def judge_of(network: nn.Module) -> ProjectJudge:
    """Return the judge of a project whose teacher is this network."""
    teacher = SimpleNamespace(module=network)
    project: Any = SimpleNamespace(load_teacher=lambda: teacher)
    data = load_data("random", input_shape=(3, 4, 4))
    return ProjectJudge(project, data, FinetuneRecipe(steps=2, batch_size=4))


def test_a_teacher_without_classes_is_said_at_once() -> None:
    """One number an image is no distribution over classes."""
    with pytest.raises(UserError, match=r"gives \(2, 1\), not logits"):
        judge_of(nn.Sequential(nn.Flatten(), nn.Linear(48, 1))).check()


def test_a_classifier_can_be_judged() -> None:
    """Logits of five classes pass, in training mode or not, and the teacher keeps its mode."""
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(48, 5)).train()
    torch.manual_seed(0)

    judge_of(network).check()

    assert network.training


@pytest.mark.parametrize(
    "content", ["", "{}", '{"format": "other/1", "kl_per_image": [1.0]}', '{"format": 3}']
)
def test_a_damaged_judgement_is_made_again(tmp_path: Path, content: str) -> None:
    """What cannot be read counts as not judged yet."""
    path = tmp_path / "judged.json"
    path.write_text(content)

    assert _read(path) is None
    assert _read(tmp_path / "missing.json") is None


def test_images_without_a_number_are_infinitely_far(tmp_path: Path) -> None:
    """A network that gave no number for an image is not read back as a good one."""
    path = tmp_path / "judged.json"
    path.write_text(json.dumps({"format": "lanaprof-finalist/1", "kl_per_image": [0.5, None]}))
    found = cast(Any, _read(path))

    assert found.per_image == (0.5, float("inf"))
    assert found.kl == float("inf")
