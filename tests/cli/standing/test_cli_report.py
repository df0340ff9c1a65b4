"""lanaprof report."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import BadInput
from lanaprof.flows.reporting import write_report

ALL = [
    "frontier", "students", "selections", "layers", "scores", "training", "calibration", "latency", "project",
    "space", "provenance",
]  # fmt: skip


def finished(stages: Any) -> Any:
    """Take the project through all its stages; return its selection."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    Path("student.onnx").write_bytes(b"0" * 2000)
    return stages.selected()


@pytest.mark.parametrize("stages", ["fresh"], indirect=True)
def test_report_works_right_after_init(stages: Any, cli: Any, page: Any) -> None:
    """Missing parts say which command fills them; no database is made."""
    ran = cli("report", "--json")
    missing = {part["section"]: part["command"] for part in ran.json["missing"]}

    assert (ran.code, ran.json["out"]) == (0, "report.html")
    assert ran.json["sections"] == ["project", "space", "provenance"]
    assert page().sections == ["project", "space", "provenance", "missing"]
    assert missing["latency"] == "lanaprof measure --device cpu"
    assert "lanaprof measure --device cpu" in page().text
    assert not Path("lanaprof.db").exists()


def test_measured_project_shows_latencies(stages: Any, cli: Any, page: Any) -> None:
    """Teacher, environment, coverage and slowest layers are there before anything is scored."""
    document = cli("report", "--json").json
    text = page().text

    assert "latency" in document["sections"]
    assert {"scores", "frontier", "selections"} <= {part["section"] for part in document["missing"]}
    assert "2 ms" in text
    assert "onnxruntime" in text


def test_finished_project_fills_every_section(stages: Any, cli: Any, page: Any) -> None:
    """Nothing is missing, all tags are closed, and the sections stand in order."""
    finished(stages)
    document = cli("report", "--json").json
    shown = page()

    assert (document["sections"], document["missing"]) == (ALL, [])
    assert (shown.sections, shown.open) == (ALL, [])


def test_selection_is_told_with_what_was_measured(stages: Any, cli: Any, page: Any) -> None:
    """Budget, prediction, measurement with its interval, state and speed-up over the teacher."""
    selection = finished(stages)
    cli("report")
    text = page().text

    for part in (selection.id[:12], "1.2 ms on cpu", "1.1 ms", "1.12 ms ± 0.9%", "verified", "1.79×"):
        assert part in text


def test_report_names_the_commands_that_made_it(stages: Any, cli: Any, page: Any) -> None:
    """The commands behind the done steps, ready to type."""
    finished(stages)
    cli("report")
    text = page().text

    assert "lanaprof init --teacher timm:test_resnet --input 3x32x32 --data random --device cpu" in text
    assert "lanaprof select --device cpu --budget 1.2ms" in text
    assert "lanaprof export --out student.onnx" in text


def test_page_is_self_contained(stages: Any, cli: Any, page: Any) -> None:
    """It refers to nothing outside itself; its one script stands in it, at the end."""
    finished(stages)
    cli("report")
    text = Path("report.html").read_text(encoding="utf-8")
    tags = page().tags

    assert re.findall(r'src="|url\(|@import|href="(?!#)|https?://(?!www\.w3\.org/2000/svg)', text) == []
    assert [given for tag, given in tags if tag == "script"] == [{}]
    assert [given for tag, given in tags if any(name.startswith("on") for name in given)] == []


def test_links_lead_somewhere(stages: Any, cli: Any, page: Any) -> None:
    """Every link within the page has a place with that name, and no name is given twice."""
    finished(stages)
    cli("report")
    tags = page().tags
    names = [str(given["id"]) for _, given in tags if "id" in given]
    links = {str(given["href"]).removeprefix("#") for tag, given in tags if tag == "a"}

    assert len(names) == len(set(names))
    assert links <= set(names)


def test_charts_have_words(stages: Any, cli: Any, page: Any) -> None:
    """Every chart has a name for those who do not see it, and tables can be reached with the keyboard."""
    finished(stages)
    cli("report")
    tags = page().tags

    assert [given.get("role") for tag, given in tags if tag == "svg" and not given.get("aria-label")] == []
    assert {given["tabindex"] for _, given in tags if given.get("role") == "group"} == {"0"}


def test_result_box_stands_on_top(stages: Any, page: Any) -> None:
    """A caller's own result comes before all sections, as text."""
    with stages.store() as store:
        extra = {"title": "Won <2x>", "rows": [["accuracy", "91 %"]]}
        write_report(stages.project, store, Path("r.html"), team="vision", extra=extra)
    text = Path("r.html").read_text(encoding="utf-8")

    assert text.index("Won &lt;2x&gt;") < text.index("<section")
    assert "91 %" in page("r.html").text


def test_stale_calibration_is_told(stages: Any, cli: Any, page: Any) -> None:
    """The page repeats the warning that a prediction carries."""
    stages.calibrated()
    stages.remeasured()
    cli("report")

    assert "lanaprof calibrate --device cpu" in page().text


def test_selection_on_a_forgotten_device_is_still_listed(stages: Any, cli: Any, page: Any) -> None:
    """devices.yaml may have lost a device that something was selected for."""
    finished(stages)
    stages.selected(device="gone", time="2026-03-09T00:00:00Z")
    ran = cli("report")

    assert ran.code == 0, ran.err
    assert "gone" in page().text


def test_device_outside_the_project_can_be_shown(stages: Any, cli: Any, page: Any) -> None:
    """--device may name one that lanaprof.toml does not list, if it is measured."""
    stages.configure(devices=("v100",))
    ran = cli("report", "--device", "cpu", "--json")

    assert ran.code == 0, ran.err
    assert "latency" in ran.json["sections"]


def test_unknown_device_is_an_error(stages: Any, cli: Any) -> None:
    """A slip in the device exits 2 and writes nothing."""
    ran = cli("report", "--device", "cpo", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "UnknownDevice")
    assert not Path("report.html").exists()


def test_place_that_cannot_be_written_is_an_error(stages: Any, cli: Any, page: Any) -> None:
    """A folder that is not there exits 2 and says what makes it."""
    ran = cli("report", "--out", "missing/report.html", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert f"mkdir -p {Path('missing').absolute()}" == ran.json["error"]["hint"]


def test_failed_writing_keeps_the_old_page(stages: Any, tmp_path: Path) -> None:
    """A folder in the way is not replaced."""
    (tmp_path / "r.html").mkdir()
    with pytest.raises(BadInput):
        write_report(stages.project, None, tmp_path / "r.html", team="vision")

    assert (tmp_path / "r.html").is_dir()


def test_people_are_told_what_is_empty(stages: Any, cli: Any, page: Any) -> None:
    """Without --json the file and the commands that fill the rest are printed."""
    ran = cli("report", "--out", "r.html")

    assert ran.out.startswith("wrote r.html")
    assert "scores is empty: lanaprof" in ran.out


@pytest.mark.parametrize("name", ["f.html", "f.png"])
def test_frontier_command_draws(stages: Any, cli: Any, name: str) -> None:
    """`frontier --plot` writes the chart of a scored project."""
    stages.scored()
    ran = cli("frontier", "--plot", name, "--json")

    assert ran.code == 0, ran.err
    assert Path(name).stat().st_size > 1000
