"""Candidates made from the teacher's own layer, from init to a student that loads without the teacher's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lanaprof

TEACHER = '''"""A teacher of three residual blocks, and data that never changes."""

import torch
from timm.models.resnet import BasicBlock
from torch import Tensor, nn


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.Sequential(*(BasicBlock(16, 16) for _ in range(3)))
    for block in blocks:
        nn.init.ones_(block.bn2.weight)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), blocks, head)


def data(split: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(split))
    return [torch.randn(1, 12, 12, generator=generator) for _ in range(48)]
'''


@pytest.fixture
def residual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a teacher and its operations; it is the working folder."""
    (tmp_path / "residual.py").write_text(TEACHER)
    (tmp_path / "ops.txt").write_text("slim\nslim(width=0.95)\nconv(kernel=1)\n")
    monkeypatch.chdir(tmp_path)
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_slim_candidates_go_the_whole_way(residual: Path, cli: Any) -> None:
    """They are trained and scored; the student has the trained weights, in ONNX Runtime and loaded alone, too."""

    def run(*words: str) -> Any:
        ran = cli(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    teacher = ("--teacher", "residual:network", "--input", "1x12x12", "--data", "residual:data")
    run("init", *teacher, "--ops", "ops.txt", "--layers", "1.*")
    space = run("space")
    run("distill", "--steps", "6", "--batch-size", "16")
    scored = run("score", "--images", "32")
    choices = {"1.0": "slim", "1.1": "teacher", "1.2": "slim"}
    (residual / "half.json").write_text(json.dumps({"format": "lanaprof-architecture/1", "choices": choices}))
    exported = run("export", "--architecture", "half.json", "--out", "student")
    run("export", "--architecture", "half.json", "--out", "student.onnx")

    offered = [[candidate["name"] for candidate in layer["candidates"]] for layer in space["layers"]]
    assert offered == [["teacher", "slim", "conv(kernel=1)"]] * 3
    judged = {(one["layer"], one["operation"]) for one in scored["scores"]}
    assert judged >= {("1.0", "slim"), ("1.1", "slim"), ("1.2", "slim")}
    assert exported["untrained"] == []
    student = lanaprof.load_student(residual / "student")
    assert student.get_parameter("1.0.conv1.weight").shape == (8, 16, 3, 3)
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession("student.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = student(x).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-4)
