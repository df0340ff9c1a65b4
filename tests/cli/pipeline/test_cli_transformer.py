"""A vision transformer from init to a student, its attention and MLPs replaced apart."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lanaprof

TEACHER = '''"""A transformer of two blocks for 16 × 16 pixels, and data that never changes."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


def network() -> nn.Module:
    torch.manual_seed(0)
    return VisionTransformer(
        img_size=16, patch_size=4, in_chans=1, embed_dim=32, depth=2, num_heads=2, num_classes=4
    )


def data(split: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(split))
    return [torch.randn(1, 16, 16, generator=generator) for _ in range(32)]
'''
OPERATIONS = (
    "skip",
    "token_linear(rank=0.25)",
    "token_attention(heads=1,dim=8)",
    "token_window(window=2,heads=1)",
)


@pytest.fixture
def transformer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with a teacher, its operations and a core to measure on; it is the working folder."""
    (tmp_path / "small_vit.py").write_text(TEACHER)
    (tmp_path / "ops.txt").write_text("\n".join(OPERATIONS) + "\n")
    core = min(os.sched_getaffinity(0))
    (tmp_path / "devices.yaml").write_text(f"cpu: {{backend: onnxruntime, cores: [{core}]}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0.2")  # pauses between rounds serve precision alone
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_halves_of_blocks_are_measured_learnt_and_chosen(transformer: Path, cli: Any) -> None:
    """The student has replaced halves beside kept ones, computes the same in ONNX Runtime, and loads alone."""

    def run(*words: str) -> Any:
        ran = cli(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    teacher = ("--teacher", "small_vit:network", "--input", "1x16x16", "--data", "small_vit:data")
    run("init", *teacher, "--ops", "ops.txt", "--device", "cpu")
    space = run("space")
    run("measure")
    run("distill", "--steps", "3", "--batch-size", "8")
    run("score", "--images", "16")
    chosen = run("select", "--no-verify", "--confidence", "0.5", "--budget", "70%")
    exported = run("export", "--out", "student")
    run("export", "--out", "student.onnx")

    assert [layer["name"] for layer in space["layers"]] == [
        "blocks.0.attention", "blocks.0.mlp", "blocks.1.attention", "blocks.1.mlp",
    ]  # fmt: skip
    assert all(len(layer["candidates"]) == 5 for layer in space["layers"])
    assert exported["untrained"] == []
    assert set(chosen["choices"].values()) != {"teacher"}
    student = lanaprof.load_student(transformer / "student")
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession("student.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = student(x).numpy()
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], expected, rtol=1e-4, atol=1e-4)
