"""lanaprof status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lanaprof.distill.dropped import DroppedCandidate, DroppedFile
from lanaprof.flows.artifacts import student_file

fresh = pytest.mark.parametrize("stages", ["fresh"], indirect=True)


def steps(cli: Any) -> dict[str, Any]:
    """Return the steps of ``status --json`` by name."""
    ran = cli("status", "--json")
    assert ran.code == 0, ran.err
    return {step["name"]: step for step in ran.json["steps"]}


@fresh
def test_after_init_measuring_comes_next(stages: Any, cli: Any) -> None:
    """A new project has no database; status says what to type and about how long it takes, and makes none."""
    document = cli("status", "--json").json

    assert [step["name"] for step in document["steps"] if step["done"]] == ["init"]
    assert document["next"] == "lanaprof measure --device cpu"
    assert document["seconds_left"] > 0
    assert not (stages.folder / "lanaprof.db").exists()


def test_measured_project_is_calibrated_next(stages: Any, cli: Any) -> None:
    """All operators have a latency: measuring is done, calibrating comes next."""
    document = cli("status", "--json").json
    measure = document["steps"][1]

    assert (measure["name"], measure["done"], measure["command"]) == ("measure", True, None)
    assert "teacher 2 ms" in measure["detail"]
    assert document["next"] == "lanaprof calibrate --device cpu"


def test_calibration_goes_stale_with_the_table(stages: Any, cli: Any) -> None:
    """A newer measurement makes the calibration stale, and refreshing it the next command."""
    stages.calibrated()
    before = steps(cli)["calibrate"]
    stages.remeasured()
    after = steps(cli)["calibrate"]

    assert (before["done"], before["stale"], before["command"]) == (True, False, None)
    assert (after["done"], after["stale"], after["command"]) == (
        True,
        True,
        "lanaprof calibrate --device cpu",
    )


def test_distilling_counts_the_candidates_that_can_matter(stages: Any, cli: Any) -> None:
    """Trained candidates are read from their files; what is left is what comes next."""
    stages.calibrated()
    stages.trained(count=2)
    document = cli("status", "--json").json
    distill = next(step for step in document["steps"] if step["name"] == "distill")

    assert distill["detail"].startswith("2 of ")
    assert (distill["done"], document["next"]) == (False, "lanaprof distill")


def test_unreadable_weights_count_as_untrained(stages: Any, cli: Any) -> None:
    """A damaged weight file is trained again, so it does not count."""
    stages.trained(count=2)
    next((stages.folder / ".lanaprof" / "weights").glob("*/*/*.safetensors")).write_bytes(b"torn")

    assert steps(cli)["distill"]["detail"].startswith("1 of ")


def test_interrupted_first_distilling_counts(stages: Any, cli: Any) -> None:
    """Without distill.json, which is written at the end, the weights so far count."""
    stages.trained(count=3)
    (stages.folder / ".lanaprof" / "distill.json").unlink()

    assert steps(cli)["distill"]["detail"].startswith("3 of ")


def test_scores_of_other_weights_are_stale(stages: Any, cli: Any) -> None:
    """A candidate that was trained anew after it was scored must be scored again."""
    stages.trained()
    stages.scored()
    before = steps(cli)["score"]
    stages.scored(time="2026-03-05T00:00:00Z", candidate="other")
    after = steps(cli)["score"]

    assert (before["done"], before["stale"]) == (True, False)
    assert (after["done"], after["stale"], after["command"]) == (True, True, "lanaprof score")


def test_newer_scores_make_a_selection_stale(stages: Any, cli: Any) -> None:
    """What was selected by older scores may not be the best any more."""
    stages.trained()
    stages.scored()
    selection = stages.selected()
    before = steps(cli)["select"]
    stages.scored(time="2026-03-05T00:00:00Z")
    after = steps(cli)["select"]

    assert (before["done"], before["stale"]) == (True, False)
    assert f"newest {selection.id[:12]}: verified, measured 1.12 ms on cpu" in before["detail"]
    assert (after["stale"], after["command"]) == (True, "lanaprof select --device cpu --budget 50%")


def test_selections_of_another_teacher_do_not_count(stages: Any, cli: Any) -> None:
    """A shared database may hold other people's selections."""
    stages.selected(teacher="somebody else's")

    assert steps(cli)["select"]["done"] is False


def test_selections_of_an_older_space_do_not_count(stages: Any, cli: Any) -> None:
    """A selection with an operation that the space no longer offers belongs to the past."""
    first = stages.project.space.layers[0].name
    choices = tuple((layer.name, "teacher") for layer in stages.project.space.layers)
    stages.selected(choices=tuple((name, "ghost" if name == first else op) for name, op in choices))

    assert steps(cli)["select"]["done"] is False


def test_network_older_than_the_selection_is_not_its_export(stages: Any, cli: Any) -> None:
    """An .onnx file that lay there before comes from somewhere else."""
    (stages.folder / "teacher.onnx").write_bytes(b"")
    os.utime(stages.folder / "teacher.onnx", (1e9, 1e9))
    stages.selected()

    assert steps(cli)["export"]["done"] is False


def test_finished_project_has_nothing_next(stages: Any, cli: Any) -> None:
    """Calibrated, trained, scored, selected, fine-tuned and exported: nothing is left."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    selection = stages.selected()
    student = student_file(stages.project, selection)
    student.parent.mkdir()
    student.write_bytes(b"")
    (stages.folder / "student.onnx").write_bytes(b"")
    ran = cli("status", "--json")

    assert [step["name"] for step in ran.json["steps"] if not step["done"]] == []
    assert (ran.json["next"], ran.json["seconds_left"]) == (None, None)
    assert "Nothing is left" in cli("status").out


def test_seeded_teacher_is_not_asked_to_teach(stages: Any, cli: Any) -> None:
    """With random weights, distilling is impossible and not what comes next; the detail says why."""
    facts = stages.folder / ".lanaprof" / "teacher.json"
    facts.write_text(facts.read_text().replace('"seeded": false', '"seeded": true'))
    stages.calibrated()
    document = cli("status", "--json").json
    distill = next(step for step in document["steps"] if step["name"] == "distill")

    assert "seeded random weights" in distill["detail"]
    assert document["next"] is None or "distill" not in document["next"]


def test_device_that_is_not_here_is_not_next(stages: Any, cli: Any) -> None:
    """A GPU of the project that this machine lacks waits, with the reason, and does not block the rest."""
    stages.configure(devices=("cpu", "v100"))
    document = cli("status", "--json").json
    gpu = next(step for step in document["steps"] if step["device"] == "v100")

    assert (gpu["done"], gpu["here"]) == (False, False)
    assert document["next"] == "lanaprof calibrate --device cpu"


@pytest.mark.parametrize("stage", ["measured", "selected"])
def test_people_see_steps_and_the_next_command(stages: Any, cli: Any, stage: str) -> None:
    """Without --json a table and the command are printed."""
    if stage == "selected":
        stages.calibrated()
        stages.trained()
        stages.scored()
        stages.selected()
    ran = cli("status")

    assert ran.code == 0
    assert ("Next: lanaprof " + ("calibrate" if stage == "measured" else "finetune")) in ran.out


def test_missing_database_that_was_named_is_an_error(stages: Any, cli: Any) -> None:
    """--database with a slip must not look like an empty project."""
    ran = cli("status", "--database", "slip.db", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "StoreError")
    assert not Path("slip.db").exists()


def test_without_a_project_status_says_how_to_make_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
) -> None:
    """Outside a project the command exits 2 and names init."""
    monkeypatch.chdir(tmp_path)
    ran = cli("status")

    assert ran.code == 2
    assert "lanaprof init" in ran.err


def test_status_and_report_need_no_torch(stages: Any) -> None:
    """Neither command imports torch, onnx, tensorrt, pandas or Pillow."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    stages.selected()
    program = """
import sys
from click.testing import CliRunner
from lanaprof.cli import main
for words in (["status"], ["report"]):
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
print(sorted({"torch", "onnx", "onnxruntime", "tensorrt", "pandas", "PIL"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (done.stderr, done.stdout.strip()) == ("", "[]")


def test_given_up_candidates_need_no_training(stages: Any, cli: Any) -> None:
    """What distilling gave up for good reasons counts as done; where the costs say otherwise it is to be trained."""
    stages.calibrated()
    stages.trained(count=2)
    folder = stages.folder / ".lanaprof" / "weights" / "k1"
    before = steps(cli)["distill"]
    layer, operation = stages.names()[2]
    # the reason holds while the rival is the cheaper one
    for rival, told in (("conv(kernel=1)", True), ("teacher", False)):
        DroppedFile(folder, "").add([DroppedCandidate(layer, operation, 25, 0.9, rival, 0.5)])
        after = steps(cli)["distill"]

        assert before["detail"].startswith("2 of ")
        assert ("1 given up early" in after["detail"]) is told
        assert after["done"] is False
