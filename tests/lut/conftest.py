"""Records for the database's tests: small, valid, and different where a test says so."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import StoreError
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
from lanaprof.lut.models import TABLES
from lanaprof.lut.testing import ThrowAwayServer, throw_away_server

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


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for a store on both kinds of database, but those that need a file."""
    if "dialect" in metafunc.fixturenames:
        asked = inspect.signature(metafunc.function).parameters
        metafunc.parametrize("dialect", ["sqlite"] if "database" in asked else ["sqlite", "postgresql"])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ThrowAwayServer]:
    """A PostgreSQL server, one for all workers of the test run; the last one out ends it."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    with ExitStack() as stack:
        try:
            running = stack.enter_context(throw_away_server(base))
        except StoreError as error:
            pytest.skip(f"no PostgreSQL server: {error.message}")
        yield running


class Databases:
    """Databases on the server: made once, emptied for each test, dropped at the end."""

    def __init__(self, server: ThrowAwayServer) -> None:
        self._server = server
        self._made: list[str] = []
        self._worker = os.environ.get("PYTEST_XDIST_WORKER", "main")

    def run(self, *statements: str, name: str = "postgres") -> list[Any]:
        """Run SQL as the superuser, and return the rows of the last statement."""
        import psycopg  # an extra: without it there is no server either

        rows: list[Any] = []
        with psycopg.connect(self.libpq(name), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def libpq(self, name: str) -> str:
        return self._server.url(name)

    def bare(self, name: str, template: str = "template1") -> str:
        """Return the URL of a new database: without any table, or a copy of another one."""
        full = f"{name}_{self._worker}"
        self.run(
            f"DROP DATABASE IF EXISTS {full} WITH (FORCE)", f"CREATE DATABASE {full} TEMPLATE {template}"
        )
        self._made.append(full)
        return self._server.url(full)

    def empty(self, number: int = 0) -> str:
        """Return the URL of a database at head without records; the same number gives the same database."""
        name = f"lut{number}"
        full = f"{name}_{self._worker}"
        if full in self._made:
            tables = ", ".join(table.name for table in TABLES.values())
            self.run(f"TRUNCATE {tables}", name=full)
            return self._server.url(full)
        template = f"template_{self._worker}"
        if template not in self._made:
            open_store(self.bare("template"), create=True).close()
        return self.bare(name, template)

    def drop(self) -> None:
        self.run(*(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)" for name in self._made))


@pytest.fixture(scope="session")
def databases(server: ThrowAwayServer) -> Iterator[Databases]:
    """This worker's databases on the server."""
    made = Databases(server)
    yield made
    made.drop()


@pytest.fixture
def address(dialect: str, request: pytest.FixtureRequest) -> str:
    """What opens an empty database at head: a path, or a server's URL."""
    if dialect == "postgresql":
        databases: Databases = request.getfixturevalue("databases")
        return databases.empty()
    path: Path = request.getfixturevalue("database")
    shutil.copy(request.getfixturevalue("empty_database"), path)
    return str(path)


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    """An open, empty store: at the path ``database``, and on a server."""
    with open_store(address) as opened:
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
