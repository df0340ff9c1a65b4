"""One real project on a tiny network, at every stage of its life; its latencies are made up, nothing is measured."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from lanaprof.config import ProjectConfig, parse_device, write_config
from lanaprof.flows.operators import export_networks, export_operators, find_operators
from lanaprof.flows.predicting import open_predictor, table_digest
from lanaprof.flows.project import Project, load_project, write_json
from lanaprof.flows.starting import init_project
from lanaprof.lut import Calibration, Measurement, Record, Score, Selection, Store, open_store
from lanaprof.ops import SKIP, TEACHER
from lanaprof.profiler.calibration import FEATURES
from lanaprof.profiler.environment import local_environment
from lanaprof.space import save_space

TIME = "2026-03-01T12:00:00Z"
TEACHER_S = 2e-3
CPU = parse_device("cpu")


def measurement(operator: str, latency_s: float | None, **fields: Any) -> Measurement:
    """Return a made-up measurement in this machine's own environment."""
    given = {
        "operator": operator, "environment": local_environment(CPU).id, "cache": "hot", "protocol": "hot/1",
        "status": "ok" if latency_s else "failed", "latency_s": latency_s,
        "ci_low_s": latency_s and latency_s * 0.99, "ci_high_s": latency_s and latency_s * 1.01,
        "samples": (), "rounds": (), "team": "vision", "host": "h1", "time": TIME,
    }  # fmt: skip
    return Measurement(**{**given, **fields})


@dataclass(frozen=True, slots=True)
class Stages:
    """Takes the project in the working folder from stage to stage."""

    folder: Path

    @property
    def project(self) -> Project:
        return load_project(self.folder)

    def store(self) -> Store:
        return open_store(self.folder / "lanaprof.db", create=True)

    def add(self, *records: Record) -> None:
        with self.store() as store:
            report = store.add(records)
        assert not report.refused, report.refused

    def configure(self, **fields: Any) -> None:
        write_config(self.folder, replace(self.project.config, **fields))

    def remeasured(self) -> None:
        """Add a newer row for one operator: whatever was fitted to the table is stale now."""
        project = self.project
        key = find_operators(project, CPU).keys[0]
        space = project.space.relay_digest(1)
        self.add(
            measurement(
                key, 9e-5, cache="relay", space=space, protocol="relay/1", time="2026-04-01T00:00:00Z"
            )
        )

    def calibrated(self) -> None:
        project = self.project
        with self.store() as store:
            predictor = open_predictor(project, CPU, store, team="vision")
            record = Calibration(
                environment=local_environment(CPU).id, space=project.space.relay_digest(1),
                table=table_digest(predictor.table, predictor.operators), weights=(0.95, 0.0, 1e-6, 0.0, 1e-5),
                features=FEATURES, covariance=tuple(tuple(1e-4 * (i == j) for j in range(5)) for i in range(5)),
                residual_sd=0.0042, degrees=12, networks=tuple(f"n{i}" for i in range(16)), team="vision", time=TIME,
            )  # fmt: skip
            store.add([record])

    def names(self) -> list[tuple[str, str]]:
        """Return all candidates but the teacher's layers and ``skip``."""
        return [
            (layer.name, operation)
            for layer in self.project.space.layers
            for operation in layer.candidates
            if operation not in (TEACHER, SKIP)
        ]

    def trained(self, count: int | None = None) -> None:
        """Write weight files, as ``distill`` leaves them."""
        import json

        folder = self.folder / ".lanaprof" / "weights" / "k1"
        for number, (layer, operation) in enumerate(self.names()[:count]):
            path = folder / layer / f"{number}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            about = {
                "format": "lanaprof-candidate/1", "layer": layer, "operation": operation,
                "digest": f"d{number}", "error": 0.1 + number / 100, "steps": 200,
                "curve": [[100, 0.5], [200, 0.1 + number / 100]],
            }  # fmt: skip
            save_file({"w": np.zeros(2, np.float32)}, path, metadata={"lanaprof": json.dumps(about)})
        write_json(self.folder / ".lanaprof" / "distill.json", {"key": "k1", "data": "d", "recipe": {}})

    def scored(self, *, time: str = TIME, candidate: str = "d") -> None:
        """Score every candidate: the cheaper, the worse."""
        records = [
            Score(
                teacher=self.project.weights_digest, candidate=f"{candidate}{number}", data="d", layer=layer,
                operation=operation, metric="kl", score=-0.02 * (1 + number % 7), standard_error=0.001,
                images=640, team="vision", time=time,
            )
            for number, (layer, operation) in enumerate(self.names())
        ]  # fmt: skip
        self.add(*records)

    def selected(self, **fields: Any) -> Selection:
        """Store a selection that takes the last candidate of every layer."""
        project = self.project
        choices = tuple((layer.name, layer.candidates[-1]) for layer in project.space.layers)
        given = {
            "teacher": project.weights_digest, "space": project.space.relay_digest(1), "device": "cpu",
            "environment": local_environment(CPU).id, "budgets": (("latency_s@cpu", 1.2e-3),),
            "choices": choices, "score": -0.3, "bound": -0.3, "proved": True, "status": "verified",
            "predicted_s": 1.1e-3, "measured_s": 1.12e-3, "ci_low_s": 1.11e-3, "ci_high_s": 1.13e-3, "rounds": 2,
            "method": "exact", "team": "vision", "time": "2026-03-02T12:00:00Z",
        }  # fmt: skip
        record = Selection(**{**given, **fields})
        self.add(record)
        return record


def _fill(stages: Stages) -> None:
    """Store an operator and a latency for every candidate, the teacher's circuit, and the teacher itself."""
    project = stages.project
    with stages.store() as store:
        store.add([local_environment(CPU)])
        export_operators(project, CPU, store)
        operators = find_operators(project, CPU, store)
        teacher = (TEACHER,) * len(project.space.layers)
        network = export_networks(project, CPU, store, [teacher])[teacher]
    assert operators.circuit is not None
    relay = {"cache": "relay", "space": project.space.relay_digest(1), "protocol": "relay/1"}
    own = {operators.operator(layer.name, TEACHER) for layer in project.space.layers}
    times = {key: 1e-5 * (2 + number % 5) for number, key in enumerate(operators.keys)}
    times.update({key: 1.5e-4 + 1e-5 * (number % 4) for number, key in enumerate(sorted(filter(None, own)))})
    times.update(dict.fromkeys(operators.circuit.segments, 5e-5))
    stages.add(
        *(measurement(key, seconds, **relay) for key, seconds in times.items()),
        measurement(network, TEACHER_S),
    )


class Page(HTMLParser):
    """A page's sections, texts and tables; an unclosed or misplaced tag is an error.

    ``tables`` holds, by the table's label, rows of (text, value sorted by or None); the first row is the heading.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.sections: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[tuple[str, float | None]]]] = {}
        self._label = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag == "section":
            self.sections.append(str(given["id"]))
        if given.get("role") == "group" and given["aria-label"] != "Chart":
            self._label = str(given["aria-label"])
            self.tables[self._label] = []
        if tag == "tr":
            self.tables[self._label].append([])
        if tag in ("td", "th"):
            value = given.get("data-v")
            self.tables[self._label][-1].append(("", float(value) if value is not None else None))
        if tag not in ("meta", "polyline", "wbr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            cells = self.tables[self._label][-1]
            cells[-1] = (cells[-1][0] + data, cells[-1][1])

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def rows(self, label: str) -> list[list[str]]:
        """Return a table's texts without its heading."""
        return [[text for text, _ in row] for row in self.tables[label][1:]]


@pytest.fixture
def page() -> Callable[..., Page]:
    """Return what reads a page that a command wrote."""
    return lambda path="report.html": Page(Path(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``fresh`` (after init, as if with trained weights) and ``measured``; made once, then copied."""
    root = tmp_path_factory.mktemp("projects")
    config = ProjectConfig(teacher="timm:test_resnet", input="3x32x32", devices=("cpu",), data="random")
    project = init_project(root / "fresh", config)
    few = tuple(
        replace(layer, candidates=layer.candidates[:4] if SKIP not in layer.candidates else (
            *layer.candidates[:4], *({SKIP} - set(layer.candidates[:4]))
        ))
        for layer in project.space.layers
    )  # fmt: skip
    save_space(replace(project.space, layers=few), root / "fresh" / "space.json")
    shutil.copytree(root / "fresh", root / "measured")
    _fill(Stages(root / "measured"))
    for name in ("fresh", "measured"):  # seeded weights would stop distilling: the stages pretend otherwise
        facts = dict(load_project(root / name).facts)
        write_json(root / name / ".lanaprof" / "teacher.json", {**facts, "seeded": False})
    return root


@pytest.fixture
def stages(
    request: pytest.FixtureRequest, templates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Stages:
    """A measured project in the working folder; ``parametrize(indirect)`` with "fresh" for one just made."""
    folder = tmp_path / "project"
    shutil.copytree(templates / getattr(request, "param", "measured"), folder)
    monkeypatch.chdir(folder)
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    return Stages(folder)
