"""devices.yaml and lanaprof.toml: what is read, what is refused, in whose words."""

from __future__ import annotations

from pathlib import Path

import pytest

from lanaprof.config import (
    ProjectConfig,
    input_shape_from_text,
    known_devices,
    parse_device,
    read_config,
    write_config,
)
from lanaprof.errors import BadInput, BadProject, UnknownDevice


def test_shipped_devices_load() -> None:
    """cpu is one thread of ONNX Runtime; GPUs are TensorRT."""
    devices = known_devices(Path("/nonexistent"))

    assert ("onnxruntime", 1, 1, "fp32") == tuple(
        getattr(devices["cpu"], name) for name in ("backend", "threads", "batch", "precision")
    )
    assert "tensorrt" == devices["v100"].backend


def test_options_of_a_device_text() -> None:
    """Only what differs from the defaults is printed back."""
    device = parse_device("cpu,threads=2,batch=1")

    assert ("cpu,threads=2", 2, 1) == (device.text, device.threads, device.batch)


@pytest.mark.parametrize(
    "text",
    ["cpu,threads=0", "cpu,threads=two", "cpu,batch=-1", "cpu,speed=9", "cpu,threads", "cpu,precision=fp7"],
)
def test_bad_device_options(text: str) -> None:
    """Unknown options and impossible values are refused."""
    with pytest.raises(BadInput):
        parse_device(text)


def test_unknown_devices_are_met_with_the_known() -> None:
    """A slip in the name gets a guess and the list."""
    with pytest.raises(UnknownDevice, match="did you mean 'v100'"):
        parse_device("v1000")


def test_own_devices_win(tmp_path: Path) -> None:
    """./devices.yaml adds devices and replaces shipped ones."""
    (tmp_path / "devices.yaml").write_text(
        "cpu: {backend: onnxruntime, threads: 4}\nlab: {backend: onnxruntime, cores: [0, 1]}\n"
    )

    devices = known_devices(tmp_path)

    assert (4, 2, (0, 1)) == (devices["cpu"].threads, devices["lab"].threads, devices["lab"].cores)


@pytest.mark.parametrize(
    "text",
    ["- a\n- b\n", "lab: {threads: 2}\n", "lab: {backend: x, colour: red}\n", "lab: [\n",
     "lab: {backend: x, cores: 3}\n", "lab: {backend: x, match: {host: y}}\n", "lab: {backend: x, threads: true}\n"],
)  # fmt: skip
def test_broken_device_files(tmp_path: Path, text: str) -> None:
    """The message names the file."""
    (tmp_path / "devices.yaml").write_text(text)

    with pytest.raises(BadInput, match=r"devices\.yaml"):
        known_devices(tmp_path)


def test_matching_an_environment(tmp_path: Path) -> None:
    """Backend, threads and the pattern on the CPU's name must fit."""
    (tmp_path / "devices.yaml").write_text("epyc: {backend: onnxruntime, match: {cpu_model: EPYC}}\n")
    device = parse_device("epyc", tmp_path)

    def matches(backend: str, cpu_model: str, threads: int) -> bool:
        return device.matches(backend=backend, cpu_model=cpu_model, gpu_model="", threads=threads)

    assert matches("onnxruntime", "AMD EPYC 9R14", 1)
    assert not matches("onnxruntime", "Intel Xeon", 1)
    assert not matches("onnxruntime", "AMD EPYC 9R14", 2)
    assert not matches("openvino", "AMD EPYC 9R14", 1)


def test_a_project_file_reads_back(tmp_path: Path) -> None:
    """What is written is what is read, quotes and umlauts included."""
    config = ProjectConfig(
        teacher="timm:resnet18",
        data='imagefolder:/Bücher "neu"',
        devices=("cpu", "cpu,threads=2"),
        costs=("params",),
        seed=7,
    )
    write_config(tmp_path, config)

    assert config == read_config(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("teacher = 3", "must be a text"), ("teacher = [", "cannot be read"),
     ('seed = "x"\nteacher = "t"', "whole number"),
     ('devices = "cpu"\nteacher = "t"', "list of texts"), ('teachr = "t"', "did you mean 'teacher'"),
     ("seed = 1", "names no teacher")],
)  # fmt: skip
def test_broken_project_files(tmp_path: Path, text: str, problem: str) -> None:
    """Every fault is named."""
    (tmp_path / "lanaprof.toml").write_text(text)

    with pytest.raises(BadProject, match=problem):
        read_config(tmp_path)


def test_no_project(tmp_path: Path) -> None:
    """The message says how to make one."""
    with pytest.raises(BadProject) as caught:
        read_config(tmp_path)

    assert "lanaprof init" in caught.value.hint


@pytest.mark.parametrize("text", ["3x224xbig", "", "3x0x224", "224 224"])
def test_bad_input_shapes(text: str) -> None:
    """A shape is whole numbers joined by x."""
    with pytest.raises(BadProject):
        input_shape_from_text(text)


@pytest.mark.parametrize(("given", "mhz"), [("true", 0), ("1312", 1312), ("false", None)])
def test_a_clock_is_fixed_by_default_or_in_megahertz(tmp_path: Path, given: str, mhz: int | None) -> None:
    """0 stands for the default clock, which only the GPU knows."""
    (tmp_path / "devices.yaml").write_text(f"lab: {{backend: tensorrt, lock_clocks: {given}}}\n")

    assert parse_device("lab", tmp_path).lock_clocks == mhz


@pytest.mark.parametrize("given", ["fast", "-1", "1.2GHz"])
def test_a_clock_is_a_number_of_megahertz(tmp_path: Path, given: str) -> None:
    """Anything else says what it may be."""
    (tmp_path / "devices.yaml").write_text(f"lab: {{backend: tensorrt, lock_clocks: {given}}}\n")

    with pytest.raises(BadInput, match="true for the default clock, or MHz"):
        parse_device("lab", tmp_path)
