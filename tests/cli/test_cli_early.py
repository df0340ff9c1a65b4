"""What cannot work is refused before torch is loaded, and long before anything is measured or trained."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from lanaprof.flows.project import load_project, write_json

CODE = """
import json, sys
from lanaprof.cli import main
ended = []
for words in json.load(sys.stdin):
    try:
        main([*words, "--json"])
    except SystemExit as error:
        ended.append((error.code, "torch" in sys.modules))
print(json.dumps(ended), file=sys.stderr)
"""
INIT = ("init", "--force", "--teacher", "timm:resnet18")
WORDS: dict[tuple[str, ...], str] = {
    ("export", "--architecture", "a.json", "--out", "x.txt"): "cannot tell a format from 'x.txt'",
    ("export", "--architecture", "a.json", "--out", "none/x.onnx"): "none/x.onnx cannot be written: No such file",
    ("export", "--architecture", "none.json", "--out", "x.onnx"): "the architecture none.json cannot be read",
    ("export", "--selection", "none", "--out", "x.onnx"): "'none' is no selection",
    ("distill",): "the teacher has seeded random weights",
    ("distill", "--plan", "--ray", "local"): "--plan estimates the time of this machine alone",
    ("score",): "no candidate of this project is trained yet",
    ("score", "--metric", "none"): "there is no metric 'none'; known are kl, loss, accuracy",
    ("score", "--plot", "none/x.html"): "none/x.html cannot be written",
    ("finetune",): "'latest' is no selection",
    ("select", "--budget", "50%", "--out", "none/a.json"): "none/a.json cannot be written",
    ("select", "--budget", "50%", "--dump-problem", "none/p.json"): "none/p.json cannot be written",
    ("select", "--budget", "50%", "--method", "none"): "there is no method 'none'",
    ("report", "--out", "none/r.html"): "none/r.html cannot be written",
    ("report", "--csv", "none/r.csv"): "none/r.csv cannot be written",
    ("run", "--budget", "none"): "budget 'none' is not a number with a unit",
    ("run", "--budget", "50%", "--out", "x.txt"): "cannot tell a format from 'x.txt'",
    ("run", "--budget", "50%"): "the teacher has seeded random weights",
    (*INIT, "--weights", "none.pt"): "there are no weights at",
    ("init", "--force", "--teacher", "none"): "'none' is no teacher",
    (*INIT, "--ops", "none.txt"): "there is no catalogue",
    (*INIT, "--data", "imagefolder:none"): "there is no folder none",
    (*INIT, "--data", "none"): "'none' is no data spec",
    (*INIT, "--device", "none"): "unknown device 'none'",
    (*INIT, "--input", "3xnone"): "input '3xnone' is not a shape",
    (*INIT, "--precision", "int3"): "operations cannot be offered at precision 'int3'",
}  # fmt: skip


@pytest.fixture
def project(lut: Any) -> None:
    """A project with seeded weights and an empty database."""
    lut.project(data="random")
    write_json(load_project().state / "teacher.json", {**load_project().facts, "seeded": True})
    lut.database("lanaprof.db")


@pytest.mark.usefixtures("project")
def test_refusals_come_before_torch() -> None:
    """All of them in one process: each exits with 2 and its own message, and torch is not there at the end."""
    asked = list(WORDS)
    ran = subprocess.run(
        [sys.executable, "-c", CODE], input=json.dumps(asked), check=True, capture_output=True, text=True
    )
    told = [json.loads(line)["error"]["message"] for line in ran.stdout.splitlines()]
    ended = json.loads(ran.stderr.splitlines()[-1])

    assert [words for words, text in zip(asked, told, strict=True) if WORDS[words] not in text] == []
    assert ended == [[2, False]] * len(asked)
