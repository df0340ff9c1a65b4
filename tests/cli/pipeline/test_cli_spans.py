"""Candidates for several layers, the whole way: from lines of an operations file to a student that loads alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

import lanaprof

RUN = "1.0..1.2"
AT_ONCE = ("--no-verify", "--confidence", "0.5")


def architecture(folder: Path, **choices: str) -> Path:
    path = folder / "architecture.json"
    path.write_text(json.dumps({"format": "lanaprof-architecture/1", "choices": choices}))
    return path


def span_budget(spanned: Any) -> str:
    """Return a budget between the span over all layers and the cheapest network without it."""
    problem = json.loads(spanned.problem().read_text())
    layers = [min(one["costs"]["latency_s@cpu"] for one in row["candidates"]) for row in problem["layers"]]
    spans = {(one["first"], one["last"], one["name"]): one["costs"] for one in problem["spans"]}
    whole = spans["1.0", "1.2", "conv(kernel=1)"]["latency_s@cpu"]
    others = layers[2]  # behind the skip of the first two
    assert whole < others
    return f"{(problem['fixed']['latency_s@cpu'] + (whole + others) / 2) * 1e6:.3f}us"


def test_spans_are_listed_with_their_operators(spanned: Any) -> None:
    """Shapes of both ends; every operator is measured, skip has none."""
    document = spanned.run("space")

    listed = {(span["first"], span["last"], span["name"]): span for span in document["spans"]}
    assert {
        ("1.0", "1.1", "g_ghost(end=none)"), ("1.0", "1.1", "skip"), ("1.0", "1.2", "conv(kernel=1)")
    } == set(listed)  # fmt: skip
    whole = listed["1.0", "1.2", "conv(kernel=1)"]
    assert ([16, 12, 12], [24, 6, 6]) == (whole["input_shape"], whole["output_shape"])
    assert whole["operator"]
    assert listed["1.0", "1.1", "skip"]["operator"] is None
    covered = spanned.run("lut", "coverage", "--device", "cpu")
    assert (document["operators"], 0) == (covered["present"], covered["missing"])


def test_a_budget_that_only_a_span_meets(spanned: Any) -> None:
    """Without its span the least is above the budget; the answer says first..last, covers all, and is stored."""
    document = spanned.run("select", "--budget", span_budget(spanned), *AT_ONCE)

    assert {RUN: "conv(kernel=1)"} == document["choices"]
    assert document["proved"]
    (status,) = (step for step in spanned.run("status")["steps"] if step["name"] == "select")
    assert status["done"]
    points = spanned.run("frontier", "--device", "cpu")["points"]
    assert {RUN: "conv(kernel=1)"} == points[0]["choices"]


def test_selecting_a_span_by_its_sum_asks_for_finalists(spanned: Any, cli: Any) -> None:
    """Sums are kind to spans: the user hears it, unless finalists are held, or no span was selected."""
    budget = ("--budget", span_budget(spanned), *AT_ONCE)

    by_sum = cli("select", *budget)
    judged = cli("select", *budget, "--finalists", "1", "--tuned", "0")
    without = cli("select", "--budget", "500%", *AT_ONCE)

    assert [0, 0, 0] == [by_sum.code, judged.code, without.code]
    assert "--finalists 8" in by_sum.err
    assert "--finalists 8" not in judged.err + without.err


def test_networks_with_spans_are_predicted_and_timed(spanned: Any) -> None:
    """predict adds up what stands in the network; verify builds it, and random ones, and names their choices."""
    mixed = architecture(spanned.folder, **{"1.0..1.1": "g_ghost(end=none)", "1.2": "conv(kernel=5)"})

    predicted = spanned.run("predict", "--architecture", mixed, "--device", "cpu")
    document = spanned.run("verify", "--architecture", mixed, "--random", "4", "--device", "cpu")

    first, *others = document["architectures"]
    assert {"1.0..1.1": "g_ghost(end=none)", "1.2": "conv(kernel=5)"} == first["choices"]
    assert predicted["latency_s"] == pytest.approx(first["table_s"])
    assert first["measured_s"] > 0
    assert len(others) == 4


@pytest.mark.parametrize(
    "choices",
    [
        {RUN: "conv(kernel=1)"},
        {"1.0..1.1": "g_ghost(end=none)"},
        {"1.0..1.1": "skip", "1.2": "conv(kernel=5)"},
    ],
)
def test_students_with_spans_are_written_and_loaded(spanned: Any, choices: dict[str, str]) -> None:
    """ONNX Runtime, a torch.export program and the folder loaded alone give the same outputs."""
    path = architecture(spanned.folder, **choices)
    for out in ("net.onnx", "net.pt2", "student"):
        written = spanned.run("export", "--architecture", path, "--out", out)
        assert not written["untrained"]

    student = lanaprof.load_student("student")
    x = torch.randn(1, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = student(x).numpy()
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    (from_onnx,) = session.run(None, {"input": x.numpy()})
    program: Any = torch.export.load("net.pt2").module()
    noted = json.loads(Path("student/architecture.json").read_text())["choices"]

    assert choices.items() <= noted.items()
    assert np.abs(from_onnx - expected).max() <= 1e-5
    assert np.abs(program(x).detach().numpy() - expected).max() <= 1e-5


def test_a_student_with_a_span_is_fine_tuned(spanned: Any) -> None:
    """The loss inside compares only what both networks have; the weights are found by the next export."""
    path = architecture(spanned.folder, **{RUN: "conv(kernel=1)"})

    spanned.run("finetune", "--architecture", path, "--steps", "2", "--batch-size", "8")
    written = spanned.run("export", "--architecture", path, "--out", "student")

    assert written["finetuned"]


def test_the_report_says_what_stands_in_place_of_layers(spanned: Any) -> None:
    """A covered layer has nothing chosen of its own; a run's teacher is all its layers together."""
    choices = spanned.run("select", "--budget", span_budget(spanned), *AT_ONCE)["choices"]
    spanned.run("report", "--out", "report.html", "--csv", "report.csv")

    with Path("report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    teachers = {row["layer"]: float(row["latency_s"]) for row in rows if row["operation"] == "teacher"}

    assert choices == {row["layer"]: row["operation"] for row in rows if row["chosen"] == "1"}
    assert [RUN] == list(choices)
    assert teachers[RUN] == pytest.approx(sum(teachers[layer] for layer in ("1.0", "1.1", "1.2")))
    assert "3 of 3 layers replaced" in Path("report.html").read_text()


def test_scores_of_networks_with_spans_are_judged(spanned: Any) -> None:
    """Random networks with spans are fine-tuned shortly, and named as architecture files name them."""
    document = spanned.run("score", "--images", "32", "--networks", "8", "--tune-steps", "1", "--seeds", "1")

    names = {name for point in document["correlation"]["points"] for name in point["choices"]}
    assert names & {"1.0..1.1", RUN}


def test_records_of_spans_travel(spanned: Any) -> None:
    """Operators, scores, selections and points of the frontier that name first..last, as a hub or a file gets them."""
    spanned.run("select", "--budget", span_budget(spanned), *AT_ONCE)
    spanned.run("frontier", "--store")
    spanned.run("lut", "export", "--out", "all.jsonl")

    taken = spanned.run("lut", "import", "all.jsonl", "--database", "other.db")
    chosen = spanned.run("export", "--selection", "latest", "--out", "there", "--database", "other.db")

    assert 0 == taken["refused"]
    assert (spanned.folder / "all.jsonl").read_text().count(RUN) >= 3
    assert "folder" == chosen["kind"]


def test_spans_are_scored_on_the_scale_of_sums(spanned: Any) -> None:
    """Their scores times the factor of their run, layers' as they were, and select takes these."""
    before = {
        (one["layer"], one["operation"]): one["score"]
        for one in spanned.run("score", "--images", "32")["scores"]
    }
    fitted = spanned.run("score", "--images", "32", "--spans", "1")["spans"]
    stored = spanned.query("select layer, operation, score from scores where metric = 'kl+spans'")
    after = {(layer, operation): score for layer, operation, score in stored}

    assert {"1.0..1.1", RUN} == set(fitted)
    assert {1} == {one["networks"] for one in fitted.values()}
    for name, score in before.items():
        if name[1] != "teacher":
            factor = fitted[name[0]]["factor"] if name[0] in fitted else 1.0
            assert score * factor == pytest.approx(after[name])
    chosen = spanned.run("select", "--budget", span_budget(spanned), *AT_ONCE)
    assert after[RUN, "conv(kernel=1)"] == pytest.approx(chosen["score"])
