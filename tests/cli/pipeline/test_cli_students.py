"""finetune, export, load_student and run: from a selection to a network that stands alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lanaprof
from lanaprof.lut import open_store

at = pytest.mark.parametrize
CHEAP = ("select", "--no-verify", "--confidence", "0.5", "--budget", "70%")


def teacher_module(bench: Any) -> torch.nn.Module:
    """Return the teacher as its factory makes it."""
    names: dict[str, Any] = {}
    exec((bench.folder / "tiny.py").read_text(), names)
    module: torch.nn.Module = names["network"]().eval()
    return module


def images(count: int = 1) -> torch.Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(5))


def test_teacher_in_every_layer_is_the_teacher(bench: Any) -> None:
    """An architecture without choices gives exactly the teacher's outputs."""
    bench.run("export", "--architecture", bench.architecture(), "--out", "student")
    student = lanaprof.load_student(bench.folder / "student")
    x = images(4)

    with torch.no_grad():
        assert torch.equal(student(x), teacher_module(bench)(x))


def test_teacher_as_onnx_agrees_with_torch(bench: Any) -> None:
    """The exported ONNX file gives the teacher's outputs within 1e-4."""
    document = bench.run("export", "--architecture", bench.architecture(), "--out", "net.onnx")
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    with torch.no_grad():
        expected = teacher_module(bench)(images()).numpy()
    actual = session.run(None, {"input": images().numpy()})[0]

    assert document["untrained"] == []
    assert document["difference"] <= 1e-4
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def test_program_needs_no_teacher_code(bench: Any, tmp_path: Path) -> None:
    """A .pt2 file is loaded where neither lanaprof nor the teacher's module is imported, with the same outputs."""
    bench.run("export", "--architecture", bench.architecture(b0="ds"), "--out", tmp_path / "net.pt2")
    bench.run("export", "--architecture", bench.architecture(b0="ds"), "--out", "student")
    torch.save(images(), tmp_path / "x.pt")
    code = (
        "import sys, torch; out = torch.export.load('net.pt2').module()(torch.load('x.pt')); torch.save(out, 'y.pt');"
        "assert not {'tiny', 'lanaprof', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    with torch.no_grad():
        expected = lanaprof.load_student("student")(images())

    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), expected, rtol=1e-4, atol=1e-5)


@at("bench", ["measured"], indirect=True)
def test_untrained_layers_are_named(bench: Any, cli: Any) -> None:
    """Candidates nobody trained are written with seeded weights, a warning, exit code 0, and no database is needed."""
    (bench.folder / "lanaprof.db").unlink()
    file = bench.architecture(b0="ds", b1="skip", b2="conv")
    ran = cli("export", "--architecture", file, "--out", "net.onnx", "--json")

    assert ran.code == 0
    assert ran.json["untrained"] == ["1.0", "1.2"]
    assert "not trained" in ran.err


def test_trained_layers_are_used(bench: Any) -> None:
    """After ``distill`` nothing is untrained, and the candidate's own weights are in the network."""
    file = bench.architecture(b0="ds")
    trained = bench.run("export", "--architecture", file, "--out", "trained")
    shutil.rmtree(bench.folder / ".lanaprof" / "weights")
    untrained = bench.run("export", "--architecture", file, "--out", "untrained")
    one, other = (lanaprof.load_student(bench.folder / name) for name in ("trained", "untrained"))

    assert (trained["untrained"], untrained["untrained"]) == ([], ["1.0"])
    assert not torch.equal(one(images()), other(images()))


def test_damaged_weights_are_no_untrained_layers(bench: Any, cli: Any) -> None:
    """A file cut off in the middle is an error that names it; a network with random layers instead is none."""
    weights = sorted((bench.folder / ".lanaprof" / "weights").rglob("*.safetensors"))
    for path in weights:
        path.write_bytes(path.read_bytes()[:200])
    ran = cli("export", "--architecture", bench.architecture(b0="ds"), "--out", "net.onnx", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")
    assert any(str(path) in ran.json["error"]["message"] for path in weights)
    assert not (bench.folder / "net.onnx").exists()


def test_damaged_finetuned_weights_are_refused(bench: Any, cli: Any) -> None:
    """The message says which file and what to type."""
    bench.run(*CHEAP)
    bench.run("finetune", "--steps", "1", "--batch-size", "16")
    (path,) = (bench.folder / ".lanaprof" / "students").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-9])
    ran = cli("export", "--out", "net.onnx", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")
    assert str(path) in ran.json["error"]["message"]
    assert "lanaprof finetune" in ran.json["error"]["hint"]


def test_weights_can_be_read_by_those_who_read_the_project(bench: Any) -> None:
    """Trained weights have the mode of every other file of the project, not that of a temporary one."""
    files = [path for path in (bench.folder / ".lanaprof" / "weights").rglob("*") if path.is_file()]

    assert {path.suffix for path in files} >= {".safetensors", ".json"}
    assert len({path.stat().st_mode for path in files if path.suffix != ".lock"}) == 1


def test_an_unproved_latest_selection_is_said(bench: Any, cli: Any) -> None:
    """Whoever tried a budget from the table alone is told which selection was proved before."""
    bench.run(*CHEAP)
    with open_store(str(bench.folder / "lanaprof.db")) as store:
        proved = replace(store.find_selection(), status="verified", time="2020-01-01T00:00:00Z")
        store.add([proved])
    asked, named = (cli("export", "--out", "net.onnx", *words) for words in ((), ("--selection", proved.id)))

    assert (asked.code, named.code) == (0, 0)
    assert f"--selection {proved.id[:12]}" in asked.err
    assert "not proved" not in named.err


def test_finetuned_weights_are_exported(bench: Any) -> None:
    """finetune changes the selection's network; the second time it is there already."""
    bench.run(*CHEAP)
    bench.run("export", "--out", "before")
    words = ("finetune", "--steps", "3", "--batch-size", "16")
    first, again = bench.run(*words), bench.run(*words)
    exported = bench.run("export", "--out", "after")

    assert (first["reused"], again["reused"], exported["finetuned"]) == (False, True, True)
    assert {"assembled", "reestimated", "finetuned"} <= set(first)
    weights = [(bench.folder / name / "student.safetensors").read_bytes() for name in ("before", "after")]
    assert weights[0] != weights[1]


def test_finetune_says_on_how_many_images(bench: Any, cli: Any) -> None:
    """In the terminal's heading, and for each stage of --json: the same held-out images."""
    bench.run(*CHEAP)
    words = ("finetune", "--steps", "1", "--batch-size", "16")
    document = bench.run(*words)
    images = {document[stage]["images"] for stage in ("assembled", "reestimated", "finetuned")}

    assert len(images) == 1
    assert f"{images.pop()} held-out images" in cli(*words).out


def test_finetuning_notes_its_history(bench: Any) -> None:
    """Beside the fine-tuned weights lies every look at held-out data, the first before any step."""
    bench.run(*CHEAP)
    tuned = bench.run("finetune", "--steps", "4", "--batch-size", "16")
    (path,) = (bench.folder / ".lanaprof" / "students").glob("*.json")
    noted = json.loads(path.read_text())
    history = noted["history"]

    assert [point["step"] for point in history] == [0, 1, 2, 3, 4]
    assert [point["train_loss"] is None for point in history] == [True, False, False, False, False]
    begun_as = noted["assembled" if noted["kept_statistics"] else "reestimated"]
    assert history[0] == {"step": 0, "train_loss": None, **begun_as}
    assert min(point["kl"] for point in history) <= tuned["finetuned"]["kl"]


@at("words", [("--no-ema",), ("--alpha", "0"), ("--temperature", "4"), ("--precision", "bf16")], ids=" ".join)
def test_the_recipe_of_fine_tuning_counts(bench: Any, words: tuple[str, ...]) -> None:
    """Another recipe is another fine-tune: nothing is reused, and the loss of its steps differs."""
    bench.run(*CHEAP)
    bench.run("finetune", "--steps", "3", "--batch-size", "16")
    (path,) = (bench.folder / ".lanaprof" / "students").glob("*.json")
    first = json.loads(path.read_text())
    other = bench.run("finetune", "--steps", "3", "--batch-size", "16", *words)
    second = json.loads(path.read_text())

    assert not other["reused"]
    losses = [[point["train_loss"] for point in noted["history"]] for noted in (first, second)]
    assert (losses[0] == losses[1]) == (
        words == ("--no-ema",)
    )  # the average changes what is kept, not the steps


def test_larger_batch_is_exported(bench: Any) -> None:
    """--batch sets the exported input's first size."""
    bench.run("export", "--architecture", bench.architecture(), "--out", "net.onnx", "--batch", "3")
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])

    assert session.get_inputs()[0].shape == [3, 1, 12, 12]


def test_failed_export_leaves_the_old_student(bench: Any) -> None:
    """A folder that holds a student keeps it when the next export finds no place to write."""
    bench.run("export", "--architecture", bench.architecture(), "--out", "student")
    (bench.folder / "student" / "architecture.json").unlink()
    (bench.folder / "student" / "architecture.json").mkdir()  # so that replacing it fails
    (bench.folder / "student" / "architecture.json" / "x").touch()

    assert "cannot be written" in bench.refuse(
        "export", "--architecture", bench.architecture(), "--out", "student"
    )
    assert not list((bench.folder / "student").glob(".writing-*"))


@at("file", ["student.json", "student.safetensors", "architecture.json"])
@at("damage", [None, "", "garbage"])
def test_damaged_student_is_refused(bench: Any, file: str, damage: str | None) -> None:
    """load_student says that the folder holds no student, whichever file is broken or missing."""
    bench.run("export", "--architecture", bench.architecture(), "--out", "student")
    path = bench.folder / "student" / file
    if damage is None:
        path.unlink()
    else:
        path.write_text(damage)

    with pytest.raises(lanaprof.BadInput, match="holds no exported student"):
        lanaprof.load_student("student")


def test_run_goes_from_here_to_a_student(bench: Any) -> None:
    """run does what is left, exports and reports; the second run selects nothing anew."""
    words = (
        "run", "--budget", "300%", "--steps", "4", "--batch-size", "16", "--images", "32", "--finetune-steps", "2",
    )  # fmt: skip
    first = bench.run(*words)
    again = bench.run(*words)

    assert first["steps"]["measure"]["measured"] == 0
    assert "score" not in first["steps"]
    assert first["steps"]["select"]["status"] == "verified"
    assert (bench.folder / "student.onnx").exists()
    assert (bench.folder / "report.html").exists()
    assert "select" not in again["steps"]
    assert again["selection"] == first["selection"]


def test_run_prints_one_document(bench: Any, cli: Any) -> None:
    """run --json keeps stdout for its document; a step that fails is the run's error."""
    ran = cli("run", "--budget", "1ns", "--steps", "4", "--batch-size", "16", "--images", "32", "--json")

    assert ran.code == 2
    assert json.loads(ran.out)["error"]["type"] == "InfeasibleBudget"
    assert "lanaprof select" in ran.err
