"""What a project's folder holds besides its files: the user's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from lanaprof.cli import main
from lanaprof.distill.metrics import find_metric
from lanaprof.errors import BadInput
from lanaprof.flows.project import load_project


def test_a_metric_of_the_folder_is_found_beside_a_teacher_of_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else of this project is the user's own, and the folder is importable all the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])
    (tmp_path / "folders_metric.py").write_text("def judge(outputs, wanted):\n    return outputs[:, 0]\n")
    words = ["init", "--teacher", "timm:test_efficientnet", "--input", "3x32x32", "--device", "cpu"]
    made = CliRunner().invoke(main, words)
    assert made.exit_code == 0, made.output
    with pytest.raises(BadInput, match="there is no module 'folders_metric'"):
        find_metric("folders_metric:judge", labelled=False)

    load_project(tmp_path).load_teacher()
    judge = find_metric("folders_metric:judge", labelled=False)

    assert judge(torch.tensor([[2.0]]), None, None).tolist() == [2.0]
