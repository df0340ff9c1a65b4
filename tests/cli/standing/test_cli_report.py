"""lanaprof report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import BadInput
from lanaprof.flows.reporting import write_report

ALL = [
    "project", "latency", "calibration", "scores", "frontier", "selections", "layers", "students", "space",
    "provenance",
]  # fmt: skip


class Outline(HTMLParser):
    """Collects a page's sections, its text, and tags that were not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.sections.append(str(dict(attrs)["id"]))
        if tag not in ("meta", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def outline(path: str | Path = "report.html") -> Outline:
    return Outline(Path(path).read_text(encoding="utf-8"))


def finished(stages: Any) -> Any:
    """Take the project through all its stages; return its selection."""
    stages.calibrated()
    stages.trained()
    stages.scored()
    Path("student.onnx").write_bytes(b"0" * 2000)
    return stages.selected()


@pytest.mark.parametrize("stages", ["fresh"], indirect=True)
def test_report_works_right_after_init(stages: Any, cli: Any) -> None:
    """Missing parts say which command fills them; no database is made."""
    ran = cli("report", "--json")
    missing = {part["section"]: part["command"] for part in ran.json["missing"]}

    assert (ran.code, ran.json["out"]) == (0, "report.html")
    assert ran.json["sections"] == ["project", "space", "provenance"]
    assert missing["latency"] == "lanaprof measure --device cpu"
    assert "lanaprof measure --device cpu" in outline().text
    assert not Path("lanaprof.db").exists()


def test_measured_project_shows_latencies(stages: Any, cli: Any) -> None:
    """Teacher, environment, coverage and slowest layers are there before anything is scored."""
    document = cli("report", "--json").json
    text = outline().text

    assert "latency" in document["sections"]
    assert {"scores", "frontier", "selections"} <= {part["section"] for part in document["missing"]}
    assert "2 ms" in text
    assert "onnxruntime" in text


def test_finished_project_fills_every_section(stages: Any, cli: Any) -> None:
    """Nothing is missing, all tags are closed, and the sections stand in order."""
    finished(stages)
    document = cli("report", "--json").json
    page = outline()

    assert (document["sections"], document["missing"]) == (ALL, [])
    assert (page.sections, page.open) == (ALL, [])


def test_selection_is_told_with_what_was_measured(stages: Any, cli: Any) -> None:
    """Budget, prediction, measurement with its interval, state and speed-up over the teacher."""
    selection = finished(stages)
    cli("report")
    text = outline().text

    for part in (selection.id[:12], "1.2 ms on cpu", "1.1 ms", "1.12 ms ± 0.9%", "verified", "1.79×"):
        assert part in text


def test_report_names_the_commands_that_made_it(stages: Any, cli: Any) -> None:
    """The commands behind the done steps, ready to type."""
    finished(stages)
    cli("report")
    text = outline().text

    assert "lanaprof init --teacher timm:test_resnet --input 3x32x32 --data random --device cpu" in text
    assert "lanaprof select --device cpu --budget 1.2ms" in text
    assert "lanaprof export --out student.onnx" in text


def test_page_is_self_contained(stages: Any, cli: Any) -> None:
    """It refers to nothing outside itself and runs no script."""
    finished(stages)
    cli("report")
    text = Path("report.html").read_text(encoding="utf-8")

    assert "<script" not in text
    assert re.findall(r'src="|url\(|@import|href="(?!#)', text) == []


def test_result_box_stands_on_top(stages: Any) -> None:
    """A caller's own result comes before all sections, as text."""
    with stages.store() as store:
        extra = {"title": "Won <2x>", "rows": [["accuracy", "91 %"]]}
        write_report(stages.project, store, Path("r.html"), team="vision", extra=extra)
    text = Path("r.html").read_text(encoding="utf-8")

    assert text.index("Won &lt;2x&gt;") < text.index("<section")
    assert "91 %" in outline("r.html").text


def test_stale_calibration_is_told(stages: Any, cli: Any) -> None:
    """The page repeats the warning that a prediction carries."""
    stages.calibrated()
    stages.remeasured()
    cli("report")

    assert "lanaprof calibrate --device cpu" in outline().text


def test_selection_on_a_forgotten_device_is_still_listed(stages: Any, cli: Any) -> None:
    """devices.yaml may have lost a device that something was selected for."""
    finished(stages)
    stages.selected(device="gone", time="2026-03-09T00:00:00Z")
    ran = cli("report")

    assert ran.code == 0, ran.err
    assert "gone" in outline().text


def test_device_outside_the_project_can_be_shown(stages: Any, cli: Any) -> None:
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


def test_place_that_cannot_be_written_is_an_error(stages: Any, cli: Any) -> None:
    """A folder that is not there exits 2 and names the option."""
    ran = cli("report", "--out", "missing/report.html", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert "--out" in ran.json["error"]["hint"]


def test_failed_writing_keeps_the_old_page(stages: Any, tmp_path: Path) -> None:
    """A folder in the way is not replaced."""
    (tmp_path / "r.html").mkdir()
    with pytest.raises(BadInput):
        write_report(stages.project, None, tmp_path / "r.html", team="vision")

    assert (tmp_path / "r.html").is_dir()


def test_people_are_told_what_is_empty(stages: Any, cli: Any) -> None:
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
