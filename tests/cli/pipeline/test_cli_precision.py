"""Precision as a dimension of candidates, from init to the exported file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import lanaprof

OPS = "conv\nskip\nmbconv(expand=2)\n"


def offered(bench: Any, *precisions: str) -> None:
    """Make the project anew with every operation at these precisions, too."""
    Path("ops.txt").write_text(OPS)
    words = [word for precision in precisions for word in ("--precision", precision)]
    bench.run(
        "init", "--teacher", "tiny:network", "--input", "1x12x12", "--layers", "1.*", "--data", "tiny:data",
        "--ops", "ops.txt", "--device", "cpu", "--force", *words,
    )  # fmt: skip


def test_a_student_in_mixed_precision_goes_all_the_way(bench: Any) -> None:
    """Measured, calibrated, scored, selected, fine-tuned and exported: what is written is what was timed."""
    offered(bench, "int8")
    names = [candidate["name"] for candidate in bench.run("space")["layers"][0]["candidates"]]
    measured = bench.run("measure")
    bench.run("calibrate", "-n", "6")
    bench.run("distill", "--steps", "4", "--batch-size", "16")
    scored = bench.run("score", "--images", "16")
    found = bench.run("select", "--budget", "50%", "--no-verify", "--confidence", "0.5")
    architecture = Path("mixed.json")
    architecture.write_text(
        '{"format": "lanaprof-architecture/1", "teacher": "", "choices": '
        '{"1.0": "teacher@int8", "1.1": "conv@int8", "1.2": "mbconv(expand=2)"}}'
    )
    verified = bench.run("verify", "--architecture", architecture)
    tuned = bench.run("finetune", "--selection", found["id"], "--steps", "4", "--batch-size", "16")
    exported = bench.run("export", "--architecture", architecture, "--out", "mixed.onnx")
    bench.run("export", "--architecture", architecture, "--out", "mixed/")
    bench.run("export", "--architecture", architecture, "--out", "mixed.pt2")

    assert names == [
        *("teacher", "conv", "skip", "mbconv(expand=2)"),
        *("teacher@int8", "conv@int8", "mbconv(expand=2)@int8"),
    ]
    assert measured["failed"] == measured["unsupported"] == 0
    judged = {(row["layer"], row["operation"]) for row in scored["scores"]}
    assert {("1.0", "teacher@int8"), ("1.1", "conv@int8"), ("1.2", "conv")} <= judged
    assert set(found["choices"]) == {"1.0", "1.1", "1.2"}
    assert verified["architectures"][0]["measured_s"] > 0
    assert tuned["steps"] == 4
    assert exported["untrained"] == []
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    session = onnxruntime.InferenceSession("mixed.onnx", providers=["CPUExecutionProvider"])
    given = session.run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        folder = lanaprof.load_student("mixed")(x).numpy()
    assert np.abs(given - folder).max() <= 0.1 * np.abs(folder).max()
    model = onnx.load("mixed.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") < kinds.count("DequantizeLinear")  # weights are int8 in the file
    assert any(tensor.data_type == onnx.TensorProto.INT8 for tensor in model.graph.initializer)


def test_scales_are_calibrated_once(bench: Any) -> None:
    """Scoring writes them, building and exporting read them: a second score is the first."""
    offered(bench, "int8")
    bench.run("distill", "--steps", "4", "--batch-size", "16")
    bench.run("score", "--images", "16")
    kept = {path.name: path.read_bytes() for path in Path(".lanaprof/scales").iterdir()}
    for path in Path(".lanaprof/scales").iterdir():
        path.unlink()
    bench.run("export", "--out", "int8.onnx", "--architecture", _everywhere("teacher@int8"))
    again = {path.name: path.read_bytes() for path in Path(".lanaprof/scales").iterdir()}

    assert len(kept) == 3 * 3  # three layers, three operations
    assert again.items() <= kept.items()
    assert len(again) == 3


def test_what_a_runtime_cannot_compute_is_a_row(bench: Any) -> None:
    """fp16 is timed, however slow; bf16, which ONNX Runtime's CPU provider has no kernels for, is unsupported."""
    offered(bench, "bf16", "fp16")
    measured = bench.run("measure", code=3)
    coverage = bench.run("lut", "coverage", "--device", "cpu")

    assert measured["unsupported"] > 0
    assert measured["failed"] == 0
    assert coverage["missing"] == 0
    assert coverage["present"] > coverage["failed"] > 0


def test_fp8_goes_all_the_way_where_it_cannot_be_measured(bench: Any) -> None:
    """ONNX Runtime has no kernels: rows ``unsupported``. Scores, fine-tuning and files need none."""
    offered(bench, "fp8")
    measured = bench.run("measure", code=3)
    bench.run("calibrate", "-n", "6")
    bench.run("distill", "--steps", "4", "--batch-size", "16")
    scored = bench.run("score", "--images", "16")
    found = bench.run("select", "--budget", "50%", "--no-verify", "--confidence", "0.5")
    chosen = _everywhere("teacher@fp8")
    tuned = bench.run("finetune", "--architecture", chosen, "--steps", "4", "--batch-size", "16")
    written = bench.run("export", "--architecture", chosen, "--out", "fp8.onnx")
    bench.run("export", "--architecture", chosen, "--out", "fp8/")
    bench.run("export", "--architecture", chosen, "--out", "fp8.pt2")

    assert measured["failed"] == 0
    assert measured["unsupported"] > 0
    judged = {row["operation"] for row in scored["scores"]}
    assert {"teacher@fp8", "conv@fp8", "mbconv(expand=2)@fp8"} <= judged
    assert not any("@fp8" in operation for operation in found["choices"].values())
    assert tuned["steps"] == 4
    assert written["difference"] <= 0.1
    model = onnx.load("fp8.onnx")
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("QuantizeLinear") < kinds.count("DequantizeLinear")  # weights are fp8 in the file
    large = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert onnx.TensorProto.FLOAT8E4M3FN in large
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        folder, program = lanaprof.load_student("fp8")(x), torch.export.load("fp8.pt2").module()(x)
    torch.testing.assert_close(program, folder, rtol=0.1, atol=0.1 * float(folder.abs().max()))


def test_a_precision_that_nothing_is_built_at_is_refused(bench: Any) -> None:
    """init says which ones there are."""
    error = bench.refuse(
        "init", "--teacher", "tiny:network", "--input", "1x12x12", "--precision", "int4", "--force"
    )

    assert "precision 'int4'" in error
    assert "int8 or fp8" in error


def test_a_device_in_int8_is_refused(bench: Any) -> None:
    """The network around the layers stays in floating point; the message says how operations get theirs."""
    error = bench.refuse("measure", "--device", "cpu,precision=int8")

    assert "init --precision int8" in error


def test_a_device_in_sixteen_bits_is_measured_whole(bench: Any) -> None:
    """What names no precision has the device's own: layers, what lies around them, and whole networks."""
    device = "cpu,precision=fp16"
    measured = bench.run("measure", "--device", device)
    calibrated = bench.run("calibrate", "--device", device, "-n", "5")

    assert (measured["failed"], measured["unsupported"], measured["reused"]) == (0, 0, 0)
    assert measured["teacher_latency_s"] > 0
    assert calibrated["networks"] == 5


@pytest.mark.parametrize(("precision", "checked"), [("fp16", True), ("bf16", False)])
def test_a_student_for_a_device_in_sixteen_bits_is_written_so(
    bench: Any, precision: str, checked: bool
) -> None:
    """What is exported is what the device computes: weights in 16 bits, held against torch where it runs here."""
    config = Path("lanaprof.toml")
    config.write_text(config.read_text().replace('["cpu"]', f'["cpu,precision={precision}"]'))
    written = bench.run("export", "--architecture", bench.architecture(b1="conv"), "--out", "half.onnx")
    kinds = {tensor.data_type for tensor in onnx.load("half.onnx").graph.initializer}

    assert kinds == {onnx.TensorProto.FLOAT16 if checked else onnx.TensorProto.BFLOAT16}
    assert (written["difference"] is not None) == checked


def _everywhere(operation: str) -> str:
    """Write an architecture with one operation in all layers, and return its file."""
    choices = ", ".join(f'"1.{layer}": "{operation}"' for layer in range(3))
    text = '{"format": "lanaprof-architecture/1", "teacher": "", "choices": {' + choices + "}}"
    Path("everywhere.json").write_text(text)
    return "everywhere.json"
