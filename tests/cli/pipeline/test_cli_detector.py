"""A network that is no classifier: distilled without labels, judged by a metric of its own."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[3] / "examples" / "detector"
DATA = '''"""A few of the example's scenes."""

from scenes import Scenes


def data(split: str) -> Scenes:
    return Scenes(split, 64 if split == "train" else 24)
'''


@pytest.fixture
def detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with the example's trained detector and few scenes; it is the working folder."""
    for name in ("detector.py", "scenes.py", "detector.safetensors"):
        shutil.copyfile(EXAMPLE / name, tmp_path / name)
    (tmp_path / "few_scenes.py").write_text(DATA)
    (tmp_path / "ops.txt").write_text("skip\nbasic(width=0.5)\n")
    core = min(os.sched_getaffinity(0))
    (tmp_path / "devices.yaml").write_text(f"cpu: {{backend: onnxruntime, cores: [{core}]}}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0.2")  # pauses between rounds serve precision alone
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_detector_is_judged_by_its_average_precision(detector: Path, cli: Any) -> None:
    """Layers of the backbone named by globs are distilled, scored by the user's function, and one is replaced."""

    def run(*words: str) -> Any:
        ran = cli(*words, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    named = ("--teacher", "detector:teacher", "--input", "1x64x64", "--layers", "backbone.[3-5]")
    run("init", *named, "--data", "few_scenes:data", "--ops", "ops.txt", "--device", "cpu")
    run("measure")
    run("distill", "--steps", "6", "--batch-size", "16")
    scored = run("score", "--metric", "detector:ap", "--images", "16")
    choosing = ("select", "--metric", "detector:ap", "--no-verify", "--confidence", "0.5", "--budget")
    least_s = cli(*choosing, "1ns", "--json").json["least"]["latency_s@cpu"]
    chosen = run(*choosing, f"{1.001 * least_s!r}s")  # whatever was measured, the teacher does not fit

    assert scored["metric"] == "detector:ap"
    assert set(chosen["choices"]) == {"backbone.3", "backbone.4", "backbone.5"}
    assert set(chosen["choices"].values()) != {"teacher"}
    assert -3 <= chosen["score"] <= 0.5  # three layers can lose at most all the precision there is
    assert run("export", "--out", "student.onnx")["untrained"] == []
