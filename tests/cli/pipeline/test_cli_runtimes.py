"""Other runtimes through the command line: files, a relay campaign, and what they say when they cannot."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

import lanaprof.cli.base
from lanaprof.cli import main
from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.backends import backend_class

TEACHER = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    blocks = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    return nn.Sequential(nn.Conv2d(3, 8, 3), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
"""
INIT = ("init", "--teacher", "small:network", "--input", "3x12x12", "--layers", "1.*", "--ops", "ops.txt")
Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs a command in an empty folder and gives its JSON."""
    try:
        backend_class("openvino").version()
    except BackendUnavailable as error:
        pytest.skip(f"{error.message}: {error.hint}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0")  # pauses between rounds serve precision alone
    monkeypatch.delenv("LANAPROF_DATABASE", raising=False)

    def once(*words: str, code: int = 0) -> Any:
        lanaprof.cli.base._noticed.clear()
        result = CliRunner(env={"TERM": "dumb"}).invoke(main, [*words, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    return once


def relu_file(name: str) -> None:
    image = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [1, 8, 16, 16]) for each in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "relu", image[:1], image[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), name)


def environments(run: Run) -> dict[str, str]:
    return {row["backend"]: row["id"] for row in run("lut", "ls")["environments"]}


@pytest.mark.parametrize("device", ["cpu-openvino", "cpu-torch"])
def test_a_file_is_timed_by_each_runtime(run: Run, device: str) -> None:
    """One operator, two environments: what one runtime measured does not serve the other."""
    relu_file("relu.onnx")

    rows = [run("measure", "relu.onnx", "--device", name)["files"][0] for name in ("cpu", device)]
    again = run("measure", "relu.onnx", "--device", device)

    assert {row["status"] for row in rows} <= {"ok", "noisy"}
    assert all(0 < row["ci_low_s"] <= row["latency_s"] <= row["ci_high_s"] for row in rows)
    assert (again["measured"], again["reused"]) == (0, 1)
    assert len(set(environments(run).values())) == 2


@pytest.mark.parametrize("device", ["cpu-openvino", "cpu-torch"])
def test_a_space_is_measured_by_relay(run: Run, device: str) -> None:
    """Programs read what their predecessors wrote, and every operator of the space has its latency."""
    Path("small.py").write_text(TEACHER)
    Path("ops.txt").write_text("skip\nds\n")
    run(*INIT, "--device", device)

    measured = run("measure")
    covered = run("lut", "coverage", "--device", device)
    predicted = run("predict", "--architecture", architecture(), "--device", device)

    assert (measured["failed"], measured["unsupported"], measured["timeout"]) == (0, 0, 0)
    assert (covered["present"], covered["missing"]) == (covered["wanted"], 0)
    assert 0 <= predicted["low_s"] < predicted["latency_s"] <= predicted["high_s"]
    assert list(environments(run)) == [device.removeprefix("cpu-")]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="inductor needs a C++ compiler")
def test_options_of_a_device_have_numbers_of_their_own(run: Run) -> None:
    """Compiled by inductor in the process that measures; what ran eagerly does not count for it, nor the other way."""
    relu_file("relu.onnx")
    Path("devices.yaml").write_text("fast: {backend: torch, match: {}, options: {compile: inductor}}\n")

    rows = [run("measure", "relu.onnx", "--device", name)["files"][0] for name in ("cpu-torch", "fast")]
    covered = [run("lut", "coverage", "--device", name)["environment"] for name in ("cpu-torch", "fast")]

    assert {row["status"] for row in rows} <= {"ok", "noisy"}
    assert len(set(covered)) == 2


def architecture() -> str:
    path = Path("architecture.json")
    path.write_text(
        json.dumps({"format": "lanaprof-architecture/1", "choices": {"1.0": "ds", "1.1": "skip"}})
    )
    return str(path)


def test_the_device_is_listed_and_checked(run: Run) -> None:
    """`devices` can measure it here; `doctor` names the runtime and its version."""
    rows = {row["name"]: row for row in run("devices")["devices"]}
    result = CliRunner().invoke(main, ["doctor", "--device", "cpu-openvino", "--json"])
    found = {row["name"]: row for row in json.loads(result.stdout)["checks"]}

    assert (rows["cpu-openvino"]["backend"], rows["cpu-openvino"]["available"]) == ("openvino", True)
    assert (found["runtime"]["state"], found["hardware"]["state"]) == ("ok", "ok")
    assert backend_class("openvino").version() in found["runtime"]["message"]


def test_a_missing_runtime_is_said_by_every_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install stands in the list, in the checks and in the refusal."""
    relu_file("relu.onnx")
    hide(monkeypatch, "openvino")

    rows = {row["name"]: row for row in run("devices")["devices"]}
    refused = run("measure", "relu.onnx", "--device", "cpu-openvino", code=2)["error"]
    result = CliRunner().invoke(main, ["doctor", "--device", "cpu-openvino", "--json"])
    found = {row["name"]: row for row in json.loads(result.stdout)["checks"]}

    hint = "pip install 'lanaprof[openvino]'"
    assert (rows["cpu-openvino"]["available"], rows["cpu-openvino"]["hint"]) == (False, hint)
    assert (refused["type"], refused["hint"]) == ("BackendUnavailable", hint)
    assert (found["runtime"]["state"], found["runtime"]["hint"], result.exit_code) == ("fail", hint, 2)


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Make one installed package look as if it were not."""
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == package:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
