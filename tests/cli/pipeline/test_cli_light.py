"""Commands for laptops and login nodes import no deep-learning library, really run in a measured project."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

HEAVY = ("torch", "onnx", "tensorrt", "pandas")
CODE = """
import json, sys
import lanaprof
from lanaprof.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as ended:
    code = ended.code
print(json.dumps([code, sorted(set(sys.argv[2].split()) & set(sys.modules))]), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words",
    [
        ("--help",), ("--version",), ("select", "--help"),
        ("solve", "problem.json", "--budget", "latency_s@cpu=1"),
        ("predict", "--architecture", "architecture.json"), ("select", "--budget", "500%", "--no-verify"),
        ("select", "--budget", "500%", "--no-verify", "--top", "2"), ("frontier",), ("space",),
        ("status",), ("devices",),
        ("lut", "ls"), ("lut", "coverage", "--device", "cpu"), ("lut", "check"),
        ("lut", "compare", "lanaprof.db", "lanaprof.db"), ("lut", "export", "--out", "t.jsonl.zst"),
        ("lut", "merge", "lanaprof.db", "other.db"), ("lut", "upgrade"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_command_imports_nothing_heavy(bench: Any, words: tuple[str, ...]) -> None:
    """The command ends well, and none of torch, onnx, tensorrt, pandas was imported on the way."""
    bench.architecture()
    bench.problem()
    ran = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(words), " ".join(HEAVY)],
        cwd=bench.folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    code, imported = json.loads(ran.stderr.splitlines()[-1])

    assert (code, imported) == (0, []), ran.stderr
