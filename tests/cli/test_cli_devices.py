"""lanaprof devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import known_devices
from lanaprof.flows.detecting import detected_entries, device_name, matching_devices
from lanaprof.flows.machine import gpus_from_nvidia_smi


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("AMD EPYC", "amd-epyc"),
        ("AMD EPYC 9R14 96-Core Processor", "amd-epyc-9r14"),
        ("Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz", "intel-xeon-platinum-8375c"),
        ("AMD Ryzen 7 5800U with Radeon Graphics", "amd-ryzen-7-5800u"),
        ("Tesla V100-SXM2-16GB", "tesla-v100-sxm2-16gb"),
        ("", "this-machine"),
    ],
)
def test_names_come_from_models(model: str, name: str) -> None:
    """Trademarks, clocks and core counts are left out."""
    assert device_name(model) == name


def test_known_devices_say_whether_they_are_here(lut: Any, cli: Any) -> None:
    """The CPU can be measured; a GPU that is not here says why."""
    rows = {row["name"]: row for row in cli("devices", "--json").json["devices"]}

    assert (rows["cpu"]["available"], rows["cpu"]["problem"]) == (True, "")
    assert rows["v100"]["available"] is False
    assert rows["v100"]["problem"]
    assert rows["cpu"]["backend"] == "onnxruntime"


def test_own_devices_are_listed(lut: Any, cli: Any) -> None:
    """devices.yaml in the working folder counts, and its match rules are checked."""
    Path("devices.yaml").write_text("board:\n  backend: onnxruntime\n  match: {cpu_model: '^Imaginary 7$'}\n")
    rows = {row["name"]: row for row in cli("devices", "--json").json["devices"]}

    assert rows["board"]["available"] is False
    assert "Imaginary 7" in rows["board"]["problem"]


def test_detected_entry_can_be_pasted(lut: Any, cli: Any) -> None:
    """What --detect prints is a devices.yaml whose device is this machine."""
    printed = cli("devices", "--detect").out
    Path("devices.yaml").write_text(printed)
    name = next(iter(cli("devices", "--detect", "--json").json["detected"]))
    rows = {row["name"]: row for row in cli("devices", "--json").json["devices"]}

    assert printed.startswith(f"{name}:\n")
    assert rows[name]["available"] is True, rows[name]


def test_special_letters_of_a_model_are_literal() -> None:
    """Parentheses in a processor's name are no group of the pattern."""
    entry = detected_entries("Intel(R) Core(TM) i7")["intel-core-i7"]

    assert entry["match"] == {"cpu_model": r"^Intel\(R\) Core\(TM\) i7$"}


def test_gpus_get_entries_too() -> None:
    """A GPU's entry names its model and compute capability."""
    gpus = gpus_from_nvidia_smi("NVIDIA L4, 8.9, 550.54.15, Enabled, 210 MHz, 2040 MHz")
    found = detected_entries("AMD EPYC", gpus)

    assert list(found) == ["amd-epyc", "nvidia-l4"]
    assert found["nvidia-l4"]["match"] == {"gpu_name": "^NVIDIA L4$", "compute_capability": "8.9"}


def test_detect_says_what_is_known_and_installed(lut: Any, cli: Any) -> None:
    """The generic device matches every machine; runtimes have their version, or what to type."""
    document = cli("devices", "--detect", "--json").json
    printed = cli("devices", "--detect").out
    runtimes = {row["name"]: row for row in document["backends"]}

    assert "cpu" in document["matching"]
    assert "v100" not in document["matching"]
    assert runtimes["onnxruntime"]["version"]
    assert {"name", "version", "hint"} == set(runtimes["openvino"])
    assert f"# onnxruntime: installed, version {runtimes['onnxruntime']['version']}\n" in printed
    assert "# Known devices that are this machine already: cpu" in printed


@pytest.mark.parametrize(
    ("cpu_model", "smi", "names"),
    [
        ("AMD EPYC 9R14", "", ["cpu", "epyc"]),
        ("Intel Xeon", "", ["cpu"]),
        (
            "Intel Xeon",
            "Tesla V100-SXM2-16GB, 7.0, 535.183.01, Disabled, 135 MHz, 1530 MHz",
            ["cpu", "v100", "any"],
        ),
        ("Intel Xeon", "NVIDIA V100-like, 8.0, 535.183.01, Disabled, 135 MHz, 1530 MHz", ["cpu", "any"]),
        (
            "Intel Xeon",
            "NVIDIA A100-SXM4-40GB, 8.0, 550.54.15, Enabled, 210 MHz, 1410 MHz",
            ["cpu", "a100", "any"],
        ),
    ],
)
def test_known_devices_are_recognised(tmp_path: Path, cpu_model: str, smi: str, names: list[str]) -> None:
    """By the processor's name, or by a GPU's name and compute capability together; a GPU's runtime needs a GPU."""
    (tmp_path / "devices.yaml").write_text(
        "epyc: {backend: onnxruntime, match: {cpu_model: EPYC}}\nany: {backend: torch-cuda, match: {}}\n"
    )
    known = [each for each in known_devices(tmp_path).values() if each.backend not in ("openvino", "torch")]

    assert matching_devices(cpu_model, gpus_from_nvidia_smi(smi), known) == tuple(names)


def test_people_see_a_table(lut: Any, cli: Any) -> None:
    """Without --json devices are rows."""
    ran = cli("devices")

    assert ran.code == 0
    assert "h100" in ran.out


def test_broken_devices_file_is_an_error(lut: Any, cli: Any) -> None:
    """A devices.yaml that is none exits 2 and names it."""
    Path("devices.yaml").write_text("cpu: [")
    ran = cli("devices", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
