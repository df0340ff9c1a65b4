"""The command line on small real databases and a small real project; nothing here measures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lanaprof.cli.base
from lanaprof.cli import main
from lanaprof.config import ProjectConfig, write_config
from lanaprof.lut import Environment, Measurement, Operator, Record, open_store
from lanaprof.space import Layer, Space, recipe, save_space


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Return the one JSON document on stdout."""
        return json.loads(self.out)


class Lut:
    """Makes records, databases and a project in the working folder."""

    def __init__(self, empty: Path) -> None:
        self._empty = empty

    def operator(self, channels: int = 8) -> Operator:
        """Return a pointwise convolution."""
        image = {"type": "float32", "shape": [1, channels, 4, 4]}
        graph = {
            "format": "lanaprof-graph/1",
            "opset": 18,
            "inputs": [image],
            "constants": [{"type": "float32", "shape": [channels, channels, 1, 1]}],
            "nodes": [{"op": "Conv", "attributes": {}, "inputs": ["i0", "c0"], "outputs": [image]}],
            "outputs": ["n0.0"],
        }
        return Operator(graph=graph)

    def environment(self, **fields: Any) -> Environment:
        given = {
            "backend": "onnxruntime", "backend_version": "1.22.0", "cpu_model": "Example CPU [9]",
            "isa": "x86_64 avx2", "cores": 1, "smt": False, "threads": 1, "options": {},
        }  # fmt: skip
        return Environment(**{**given, **fields})

    def measurement(self, channels: int = 8, **fields: Any) -> Measurement:
        status = fields.get("status", "ok")
        latency_s = fields.get("latency_s", 1e-3) if status in ("ok", "noisy") else None
        given = {
            "operator": self.operator(channels).id, "environment": self.environment().id, "cache": "hot",
            "protocol": "hot/1", "status": status, "latency_s": latency_s,
            "ci_low_s": latency_s and latency_s * 0.99, "ci_high_s": latency_s and latency_s * 1.01,
            "samples": (1e-3, 1.1e-3) if latency_s else (), "rounds": (0, 1) if latency_s else (),
            "team": "vision", "host": "h1", "time": "2026-03-01T12:00:00Z",
        }  # fmt: skip
        return Measurement(**{**given, **fields})

    def database(self, path: str | Path, *records: Record) -> Path:
        """Make a database with these records, and an operator and environment for each that needs them."""
        shutil.copy(self._empty, path)
        with open_store(path) as store:
            report = store.add([self.operator(), self.environment(), *records])
        assert not report.refused
        return Path(path)

    def project(self, **config: Any) -> Space:
        """Make a project in the working folder: layers a and b are alike, c and d are not; all can be skipped."""
        layers = tuple(
            Layer(name, (8, 4, 4), (8, 4, 4), params, f"structure {params}", ("teacher", "skip"))
            for name, params in (("a", 10), ("b", 10), ("c", 20), ("d", 30))
        )
        space = Space("pkg:teacher", (8, 4, 4), layers, ())
        write_config(Path.cwd(), ProjectConfig(**{"teacher": "pkg:teacher", **config}))
        save_space(space, "space.json")
        Path(".lanaprof").mkdir(exist_ok=True)
        Path(".lanaprof/teacher.json").write_text(json.dumps({"weights_digest": "w", "structure": "s"}))
        return space

    def exported(self, space: Space, **operators: str) -> None:
        """Cache which operator each layer's teacher is; an empty text says it cannot be exported."""
        made = {
            recipe(space.get_layer(layer), "teacher", batch=1, precision="fp32"): key
            for layer, key in operators.items()
        }
        problems = {name: "no such kernel" for name, key in made.items() if not key}
        Path(".lanaprof/recipes.json").write_text(json.dumps({"operators": made, "problems": problems}))


@pytest.fixture(scope="session")
def empty_lut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; copying it is faster than making one."""
    path = tmp_path_factory.mktemp("lut") / "empty.db"
    open_store(path, create=True).close()
    return path


@pytest.fixture
def lut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_lut: Path) -> Lut:
    """Records and databases, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    return Lut(empty_lut)


@pytest.fixture
def cli() -> Callable[..., Ran]:
    """Return what runs a command."""

    def run(*arguments: str | Path, columns: int = 200) -> Ran:
        lanaprof.cli.base._noticed.clear()  # a process tells each notice once
        environment = {"COLUMNS": str(columns), "TERM": "dumb"}
        result = CliRunner(env=environment).invoke(main, [str(each) for each in arguments])
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
