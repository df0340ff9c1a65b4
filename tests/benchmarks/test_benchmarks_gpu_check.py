"""What a person with a GPU runs: here it says what is missing, and its steps are rehearsed on the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lanaprof.profiler.gpu.probe import find_gpus

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


Run = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def run(script: Callable[..., tuple[int, str]], tmp_path: Path) -> Run:
    """Return what checks in the test's folder and gives the exit code, the report's text and its document."""

    def once(*words: str) -> tuple[int, str, dict[str, Any]]:
        out = tmp_path / "report.txt"
        code, _ = script(SCRIPT, "--out", str(out), *words, folder=tmp_path, LANAPROF_SPREAD_S="0.2")
        text, _, document = out.read_text().partition("\n{")
        return code, text, json.loads("{" + document)

    return once


@pytest.mark.skipif(bool(find_gpus()), reason="there is a GPU")
def test_without_a_gpu_the_report_says_so(run: Run) -> None:
    """One failed step, why, and exit code 2; nothing is installed."""
    code, text, document = run()

    assert code == 2
    assert "there is no GPU to check" in text
    assert [row["state"] for row in document["steps"]] == ["failed"]


@pytest.mark.slow
def test_every_step_is_rehearsed_on_the_cpu(run: Run, tmp_path: Path) -> None:
    """The same commands on --device cpu: all end well, and what they found is in the report without paths."""
    code, text, document = run("--device", "cpu", "--quick")
    steps = {row["step"]: row for row in document["steps"]}

    assert code == 0, text
    assert [row["state"] for row in steps.values()] == ["ok"] * 11
    assert steps["measure"]["found"]["measured"] > 0
    assert steps["whole networks"]["found"]["median_error"] >= 0
    assert steps["torch"]["found"]["measured"] > 0
    assert steps["torch beside it"]["found"]["median"] > 0
    assert steps["selection"]["found"]["status"] in ("verified", "over_budget")
    assert str(tmp_path) not in json.dumps(document)
