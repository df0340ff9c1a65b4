"""Records for the database's tests: small, valid, and different where a test says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import (
    Calibration,
    Environment,
    Measurement,
    Operator,
    Recipe,
    Record,
    Retraction,
    Score,
    Selection,
    Store,
    open_store,
)

TIME = "2026-03-01T12:00:00Z"


class Make:
    """Makes records; every argument overrides a field."""

    def graph(self, channels: int = 8) -> dict[str, Any]:
        """Return the canonical graph of a 3x3 convolution with bias and a Clip, at 4 x 4 pixels."""
        image = {"type": "float32", "shape": [1, channels, 4, 4]}
        return {
            "format": "lanaprof-graph/1",
            "opset": 18,
            "inputs": [image],
            "constants": [
                {"type": "float32", "shape": [channels, channels, 3, 3]},
                {"type": "float32", "shape": [channels]},
                {"type": "float32", "shape": [], "value": 0.0},
                {"type": "float32", "shape": [], "value": 6.0},
            ],
            "nodes": [
                {
                    "op": "Conv",
                    "attributes": {"group": 1, "pads": [1, 1, 1, 1], "strides": [1, 1]},
                    "inputs": ["i0", "c0", "c1"],
                    "outputs": [image],
                },
                {"op": "Clip", "attributes": {}, "inputs": ["n0.0", "c2", "c3"], "outputs": [image]},
            ],
            "outputs": ["n1.0"],
        }

    def operator(self, channels: int = 8) -> Operator:
        return Operator(graph=self.graph(channels))

    def environment(self, **fields: Any) -> Environment:
        given = {
            "backend": "onnxruntime-cpu", "backend_version": "1.22.0", "cpu_model": "AMD EPYC", "isa": "avx2",
            "cores": 2, "smt": False, "threads": 1, "options": {"graph_optimization_level": "all"},
        }  # fmt: skip
        return Environment(**{**given, **fields})

    def measurement(self, **fields: Any) -> Measurement:
        latency_s = fields.get("latency_s", 1e-3)
        given = {
            "operator": self.operator().id, "environment": self.environment().id, "cache": "hot",
            "protocol": "hot/1", "status": "ok", "latency_s": latency_s,
            "ci_low_s": latency_s and latency_s * 0.99, "ci_high_s": latency_s and latency_s * 1.01,
            "samples": (1.0e-3, 1.1e-3, 1.2e-3), "rounds": (0, 0, 1), "rejected": 2, "team": "vision",
            "host": "h1", "time": TIME, "tool_version": "0.1.0", "load": 0.25,
        }  # fmt: skip
        if fields.get("status") in ("failed", "unsupported", "timeout"):
            given.update(latency_s=None, ci_low_s=None, ci_high_s=None, samples=(), rounds=())
        return Measurement(**{**given, **fields})

    def retraction(self, target: str, **fields: Any) -> Retraction:
        return Retraction(
            **{"target": target, "team": "vision", "reason": "fan broken", "time": TIME, **fields}
        )

    def score(self, **fields: Any) -> Score:
        given = {
            "teacher": "t1", "candidate": "c1", "data": "d1", "layer": "blocks.0", "operation": "skip",
            "metric": "kl", "score": -0.31, "standard_error": 0.01, "images": 640, "team": "vision",
            "time": TIME,
        }  # fmt: skip
        return Score(**{**given, **fields})

    def selection(self, **fields: Any) -> Selection:
        given = {
            "teacher": "t1", "space": "s1", "device": "cpu", "environment": self.environment().id,
            "budgets": {"latency_s@cpu": 0.005}, "choices": {"blocks.1": "skip", "blocks.0": "teacher"},
            "score": -0.4, "bound": -0.4, "proved": True, "status": "verified", "predicted_s": 0.0049,
            "measured_s": 0.00485, "ci_low_s": 0.0048, "ci_high_s": 0.0049, "rounds": 2, "method": "exact",
            "team": "vision", "time": TIME,
        }  # fmt: skip
        return Selection(**{**given, **fields})

    def calibration(self, **fields: Any) -> Calibration:
        given = {
            "environment": self.environment().id, "space": "s1", "table": "t" * 32, "weights": (1.02, 3.0e-7),
            "features": ("relay_s", "constant"), "covariance": ((0.1, 0.01), (0.01, 0.2)),
            "residual_sd": 0.004, "degrees": 14, "networks": ("n1", "n2"), "team": "vision", "time": TIME,
        }  # fmt: skip
        return Calibration(**{**given, **fields})

    def recipe(self, **fields: Any) -> Recipe:
        return Recipe(**{"recipe": "r1", "operator": self.operator().id, "generator": "export/1", **fields})

    def one_of_each(self) -> list[Record]:
        """Return one record of every kind, in an order in which none could be added one by one."""
        measurement = self.measurement()
        return [
            self.retraction(measurement.id), measurement, self.calibration(), self.recipe(), self.selection(),
            self.score(), self.environment(), self.operator(),
        ]  # fmt: skip


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a database that does not exist yet."""
    return tmp_path / "lut.db"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database at head; copying it is faster than running the migrations again."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    open_store(path, create=True).close()
    return path


@pytest.fixture
def store(database: Path, empty_database: Path) -> Iterator[Store]:
    """An open, empty store at the path ``database``."""
    shutil.copy(empty_database, database)
    with open_store(database) as opened:
        yield opened


@pytest.fixture
def python() -> Callable[..., subprocess.Popen[str]]:
    """Return what starts a Python program that can import lanaprof."""
    root = str(Path(str(resources.files("lanaprof") / "lut")).parents[1])

    def start(program: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": root},
        )

    return start
