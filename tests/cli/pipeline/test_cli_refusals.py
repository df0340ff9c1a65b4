"""What users ask wrongly: exit code 2, one plain message that says what to type, nothing lost, no traceback.

``bench.refuse`` checks all of that, in text and JSON, and returns message and hint.
"""

from __future__ import annotations

from typing import Any

import pytest

at = pytest.mark.parametrize
empty = at("bench", ["empty"], indirect=True)
fresh = at("bench", ["fresh"], indirect=True)
measured = at("bench", ["measured"], indirect=True)
ON_DEVICE = (
    ("measure",), ("calibrate",), ("verify",), ("select", "--budget", "5ms"), ("frontier",), ("run", "--budget", "5ms"),
    ("predict", "--architecture", "architecture.json"),
)  # fmt: skip


@at("words", ON_DEVICE, ids=lambda words: words[0])
def test_unknown_device_lists_the_known(bench: Any, words: tuple[str, ...]) -> None:
    """A device nobody defined is refused by every command that takes one."""
    bench.architecture()
    text = bench.refuse(*words, "--device", "cpuu")

    assert "unknown device 'cpuu'" in text
    assert "did you mean 'cpu'" in text


@at(
    "words",
    [("measure",), ("calibrate",), ("verify",), ("run", "--budget", "5ms")],
    ids=lambda words: words[0],
)
def test_device_that_is_not_here_says_what_it_needs(bench: Any, words: tuple[str, ...]) -> None:
    """A v100 needs an NVIDIA GPU and TensorRT: commands that time say so before they do anything."""
    text = bench.refuse(*words, "--device", "v100")

    assert "V100" in text
    assert "TensorRT" in text


@at("option", ["threads=0", "threads=two", "batch=-1", "precision=fp31", "speed=9", "threads"])
def test_bad_device_options_are_refused(bench: Any, option: str) -> None:
    """Threads and batch are whole numbers from 1, precisions are known, other options unknown."""
    assert option.partition("=")[0] in bench.refuse("measure", "--device", f"cpu,{option}")


@at("entry", ["x: [", "x: 3", "x: {backend: 3}", "x: {backend: onnxruntime, colour: red}", "- x"])
def test_broken_devices_file_is_named(bench: Any, entry: str) -> None:
    """./devices.yaml that does not hold together is refused by name."""
    (bench.folder / "devices.yaml").write_text(entry)

    assert "devices.yaml" in bench.refuse("measure")


def test_unmeasured_environment_is_refused(bench: Any) -> None:
    """Nothing was measured with two threads, nor in an environment of that key."""
    file = bench.architecture()

    assert "lanaprof measure --device cpu,threads=2" in bench.refuse(
        "predict", "--architecture", file, "--device", "cpu,threads=2"
    )
    assert "'zzz'" in bench.refuse("predict", "--architecture", file, "--environment", "zzz")


@at(
    "budget",
    ["5", "5 parsecs", "-5ms", "0ms", "nan", "nanms", "infms", "ms", "", "-50%", "0x", "cpu=", "=5ms"],
)
def test_budgets_that_mean_nothing_are_refused(bench: Any, budget: str) -> None:
    """A budget has a unit and is a finite number above zero; the hint shows one."""
    text = bench.refuse("select", f"--budget={budget}", "--no-verify")

    assert any(example in text for example in ("5ms", "50%", "2x"))


def test_budgets_of_costs_not_listed_are_refused(bench: Any) -> None:
    """What the project was not made for cannot be budgeted; the hint says what to set and run."""
    assert "lanaprof distill" in bench.refuse(
        "select", "--budget", "5ms", "--max-params", "1k", "--no-verify"
    )
    assert "v100" in bench.refuse("select", "--budget", "v100=5ms", "--no-verify")


def test_budget_given_twice_or_not_at_all_is_refused(bench: Any) -> None:
    """One budget a device, and at least one."""
    assert "two budgets" in bench.refuse("select", "--budget", "5ms", "--budget", "cpu=6ms", "--no-verify")
    assert "no budget" in bench.refuse("select", "--no-verify")


@at("proving", [(), ("--no-verify",)])
def test_unreachable_budget_names_the_least(bench: Any, proving: tuple[str, ...]) -> None:
    """Proved or not, an unreachable budget stores nothing."""
    assert "least reachable" in bench.refuse("select", "--budget", "1ns", *proving)


@at(
    "words",
    [
        ("--confidence", "2"), ("--confidence", "nan"), ("--method", "magic"), ("--metric", "magic"),
        ("--top", "0"), ("--overlap", "7", "--top", "2"), ("--time-limit", "5"), ("--time-limit", "0s"),
        ("--scores", "missing.csv"), ("--max-params", "many"), ("--max-weights", "5"), ("--max-peak", "-1MB"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_settings_of_select_are_refused(bench: Any, words: tuple[str, ...]) -> None:
    """Every option of select says what it takes."""
    assert words[0].removeprefix("--").split("-")[-1] in bench.refuse(
        "select", "--budget", "90%", "--no-verify", *words
    )


@at(
    "text",
    [
        "", "a,b\n1,2\n", "layer,operation,score\n1.0,ds,nan\n", "layer,operation,score\n1.0,ds,\n",
        "layer,operation,score\n1.0,zz(,1\n", "[", "{}", '[{"layer": "1.0"}]',
        '[{"layer": "x", "operation": "ds", "score": 0}]',
    ],
)  # fmt: skip
def test_bad_score_files_are_refused(bench: Any, text: str) -> None:
    """Scores need layer, operation and a finite score, of this space."""
    (bench.folder / "s.csv").write_text(text)

    assert "score" in bench.refuse("select", "--budget", "90%", "--no-verify", "--scores", "s.csv")


@fresh
@at("words", [("calibrate",), ("verify", "--random", "1")], ids=lambda words: words[0])
def test_nothing_measured_names_the_command(bench: Any, words: tuple[str, ...]) -> None:
    """Without measurements the hint is to measure."""
    bench.run("measure", "--plan")

    assert "lanaprof measure" in bench.refuse(*words)


@fresh
@at(
    "words",
    [("select", "--budget", "5ms"), ("frontier",), ("verify",), ("finetune",), ("export", "--out", "x.onnx")],
)
def test_missing_database_is_not_made_by_reading(bench: Any, words: tuple[str, ...]) -> None:
    """Commands that read the database refuse a missing one and say which make it."""
    assert "lanaprof measure" in bench.refuse(*words)


@measured
def test_each_step_names_the_one_before(bench: Any) -> None:
    """Nothing trained, no scores, no selection: each says what to run."""
    assert "lanaprof distill" in bench.refuse("score")
    assert "lanaprof score" in bench.refuse("select", "--budget", "90%")
    assert "lanaprof score" in bench.refuse("frontier")
    assert "lanaprof select" in bench.refuse("finetune")
    assert "lanaprof select" in bench.refuse("export", "--out", "x.onnx")
    assert "lanaprof select" in bench.refuse("verify")


@empty
@at(
    "words",
    [("space",), ("calibrate",), ("distill",), ("score",), ("frontier",), ("verify",), ("finetune",), ("status",),
     ("select", "--budget", "5ms"), ("export", "--out", "x.onnx"), ("run", "--budget", "5ms")],
    ids=lambda words: words[0],
)  # fmt: skip
def test_outside_a_project_says_how_to_make_one(bench: Any, words: tuple[str, ...]) -> None:
    """Commands that need a project name ``lanaprof init``."""
    assert "lanaprof init" in bench.refuse(*words)


@at("command", ["verify", "finetune", "export"])
def test_unknown_selection_lists_those_there(bench: Any, command: str) -> None:
    """An id nobody stored is refused with the ids there are."""
    stored = bench.run("select", "--budget", "500%", "--no-verify")["id"]
    more = ("--out", "x.onnx") if command == "export" else ()

    assert stored[:12] in bench.refuse(command, "--selection", "ffff", *more)


@at(
    "document",
    [
        "", "{", "[]", "3", '{"choices": {}}', '{"format": "lanaprof-architecture/9", "choices": {}}',
        '{"format": "lanaprof-architecture/1"}', '{"format": "lanaprof-architecture/1", "choices": {"zz": "skip"}}',
        '{"format": "lanaprof-architecture/1", "choices": {"1.0": "conv(kernel=7)"}}',
        '{"format": "lanaprof-architecture/1", "choices": {"1.0": "magic("}}',
        '{"format": "lanaprof-architecture/1", "choices": {"1.2": "skip"}}',
        '{"format": "lanaprof-architecture/1", "choices": {"1.0": 3}}',
        '{"format": "lanaprof-architecture/1", "choices": {"1.0": "ds", "1.0": "skip"}}',
        '{"format": "lanaprof-architecture/1", "teacher": "timm:resnet18", "choices": {}}',
    ],
)  # fmt: skip
def test_bad_architecture_files_are_refused(bench: Any, document: str) -> None:
    """Malformed, of another version, layer, operation or teacher: predict, verify and export all refuse it."""
    path = bench.folder / "a.json"
    path.write_text(document)
    texts = {
        bench.refuse(*words, "--architecture", path)
        for words in (("predict",), ("export", "--out", "x.onnx"))
    }

    assert len(texts) == 1
    assert bench.refuse("verify", "--architecture", path) in texts


def test_missing_operator_is_named(bench: Any) -> None:
    """A candidate without a measurement: predict names it, its operator and what to type."""
    key = bench.run("space")["layers"][0]["candidates"][3]["operator"]
    bench.query("delete from measurements where operator = ?", key)
    text = bench.refuse("predict", "--architecture", bench.architecture(b0="ds"))

    assert "'ds' in layer '1.0'" in text
    assert key in text
    assert "lanaprof measure --device cpu" in text
