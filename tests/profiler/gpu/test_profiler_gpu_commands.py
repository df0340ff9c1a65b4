"""Commands on a machine that seems to have a V100: the driver is emulated, the rest is real."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

RUN = """
    import sys
    from lanaprof.cli import main
    sys.argv = ["lanaprof", *{words!r}]
    try:
        main()
    except SystemExit as ended:
        print("\\n" + str(ended.code))
"""


@pytest.fixture
def answered(emulated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that gives a command's exit code and its answer; TensorRT's version is what pip would say."""
    monkeypatch.chdir(tmp_path)

    def ask(*words: str, installed: str = "") -> tuple[int, dict[str, Any]]:
        packages = tmp_path / f"packages-{installed or 'none'}"
        packages.mkdir(exist_ok=True)
        if installed:
            about = packages / f"tensorrt_cu12-{installed}.dist-info"
            about.mkdir(exist_ok=True)
            (about / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: tensorrt-cu12\nVersion: {installed}\n"
            )
        printed = emulated(
            RUN.format(words=(*words, "--json")), path=packages, EMULATED_CUDA_NAME="Tesla V100-SXM2-16GB"
        )
        document, _, code = printed.strip().rpartition("\n")
        return int(code), json.loads(document)

    return ask


@pytest.mark.parametrize("installed", ["", "10.5.0", "11.4.0.106"])
def test_measuring_on_a_v100_names_the_pin(answered: Any, installed: str) -> None:
    """Without TensorRT, and with one that dropped Volta: exit code 2, and the command to type, before any work."""
    code, document = answered("measure", "model.onnx", "--device", "v100", installed=installed)

    assert code == 2
    assert "V100" in document["error"]["message"]
    assert "tensorrt-cu12==10.4.0" in document["error"]["hint"]


def test_another_gpu_is_refused_by_name(answered: Any) -> None:
    """The emulated GPU is no H100: what is here is said."""
    code, document = answered("measure", "model.onnx", "--device", "h100", installed="11.4.0.106")

    assert code == 2
    assert "compute capability 9.0" in document["error"]["message"]
    assert "V100" in document["error"]["message"]


def test_a_doctor_names_the_pin_too(answered: Any) -> None:
    """The same rule in the same words."""
    _, document = answered("doctor", "--device", "v100", "--quick", installed="11.4.0.106")
    checks = {check["name"]: check for check in document["checks"]}

    assert checks["tensorrt"]["state"] == "fail"
    assert checks["tensorrt"]["hint"] == "pip install tensorrt-cu12==10.4.0"
