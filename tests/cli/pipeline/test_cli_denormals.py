"""measure and export warn of weights so small that processors stumble over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

import lanaprof.cli.base
from lanaprof.cli import main

TINY = 1e-40
TEACHER = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    made = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), blocks)
    with torch.no_grad():
        made[0].weight[0] = 1e-40
    return made
"""


def scale_file(path: Path, weight: float) -> Path:
    """Write a network that multiplies by four weights, one of them this."""
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    weights = numpy_helper.from_array(np.array([1, 2, 3, weight], dtype=np.float32), "w")
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "scale", places[:1], places[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def run(*words: str | Path) -> str:
    """Run a command that must succeed; return what it told on stderr."""
    lanaprof.cli.base._noticed.clear()
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_measure_warns_of_a_files_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file with a denormal weight is named, the other is not."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0.05")
    told = run(
        "measure",
        "--device",
        "cpu",
        scale_file(tmp_path / "a.onnx", TINY),
        scale_file(tmp_path / "b.onnx", 1),
    )

    assert "a.onnx: 25.00% of its weights are denormal" in told
    assert "b.onnx:" not in told


def test_export_warns_of_a_students_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9 of the network's weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("dusty.py").write_text(TEACHER)
    run("init", "--teacher", "dusty:network", "--input", "1x8x8", "--layers", "1.*", "--device", "cpu")
    space: dict[str, Any] = json.loads(Path("space.json").read_text())
    architecture = {"format": "lanaprof-architecture/1", "teacher": space["teacher"], "choices": {}}
    Path("same.json").write_text(json.dumps(architecture))
    told = run("export", "--architecture", "same.json", "--out", "student")

    assert "student: 0.72% of its weights are denormal" in told  # 9 of 80 + 2 * 584
