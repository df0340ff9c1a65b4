"""What a person with a GPU runs: here it says what is missing, and its steps are rehearsed on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.profiler.gpu.probe import find_gpus

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def run(folder: Path, *words: str) -> tuple[int, str, dict[str, object]]:
    """Return the exit code, the report's text and its document."""
    out = folder / "report.txt"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--out", str(out), *words], cwd=folder, check=False, capture_output=True,
        text=True, env={**os.environ, "LANAPROF_SPREAD_S": "0.2"},
    )  # fmt: skip
    text, _, document = out.read_text().partition("\n{")
    return done.returncode, text, json.loads("{" + document)


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_without_a_gpu_the_report_says_so(tmp_path: Path) -> None:
    """One failed step, why, and exit code 2; nothing is installed."""
    code, text, document = run(tmp_path)

    assert code == 2
    assert "there is no GPU to check" in text
    assert [row["state"] for row in document["steps"]] == ["failed"]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_every_step_is_rehearsed_on_the_cpu(tmp_path: Path) -> None:
    """The same commands on --device cpu: all end well, and what they found is in the report without paths."""
    code, text, document = run(tmp_path, "--device", "cpu", "--quick")
    steps = {row["step"]: row for row in document["steps"]}  # type: ignore[attr-defined]

    assert code == 0, text
    assert [row["state"] for row in steps.values()] == ["ok"] * 11
    assert steps["measure"]["found"]["measured"] > 0
    assert steps["whole networks"]["found"]["median_error"] < 1
    assert steps["torch"]["found"]["measured"] > 0
    assert steps["torch beside it"]["found"]["median"] > 0
    assert steps["selection"]["found"]["status"] in ("verified", "over_budget")
    assert str(tmp_path) not in json.dumps(document)
