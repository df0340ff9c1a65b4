"""One small project, really measured, calibrated, distilled and scored; made once, then copied for each test."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import lanaprof.cli.base
from lanaprof.cli import main

TEACHER = '''"""A teacher of three blocks, and data that never changes."""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    def __init__(self, width: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, wide, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(torch.relu(self.norm(self.conv1(x))))


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 24, 2))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def shorter() -> nn.Module:
    torch.manual_seed(1)
    blocks = nn.Sequential(Block(16, 16, 1), Block(16, 24, 2))
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2), nn.ReLU(), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    )


def data(split: str) -> list[tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(len(split))
    return [(torch.randn(1, 12, 12, generator=generator), i % 4) for i in range(48)]


def odd_data() -> list[Tensor]:
    return [torch.zeros(3, 5, 5)] * 8


def no_module() -> int:
    return 3
'''
INIT = (
    "init", "--teacher", "tiny:network", "--input", "1x12x12", "--layers", "1.*", "--data", "tiny:data",
    "--ops", "ops.txt", "--device", "cpu",
)  # fmt: skip
DISTILL = ("distill", "--steps", "4", "--batch-size", "16")


def _invoke(*words: str | Path) -> Result:
    lanaprof.cli.base._noticed.clear()
    return CliRunner(env={"TERM": "dumb"}).invoke(main, [str(word) for word in words])


def _done(*words: str) -> None:
    result = _invoke(*words)
    assert result.exit_code == 0, result.output


@dataclass(frozen=True, slots=True)
class Bench:
    """The project in the working folder, and what tests do with it."""

    folder: Path

    def run(self, *words: str | Path, code: int = 0) -> dict[str, Any]:
        """Run a command with --json, expect its exit code and return the one document on stdout."""
        result = _invoke(*words, "--json")
        assert result.exit_code == code, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    def refuse(self, *words: str | Path) -> str:
        """Run a command that must fail by the user's fault; return message and hint.

        Exit code 2, one plain message without a traceback, the same in JSON, and every file as it was.
        """
        before = self.files()
        document = self.run(*words, code=2)
        plain = _invoke(*words)
        error = document["error"]
        lines = [
            line
            for line in plain.stderr.splitlines()
            if line.startswith(f"lanaprof: {error['message'][:20]}")
        ]

        assert set(error) == {"type", "message", "hint"}
        assert (plain.exit_code, plain.stdout) == (2, "")
        assert len(lines) == 1, plain.stderr
        assert "Traceback" not in plain.stderr
        assert self.files() == before
        return f"{error['message']} {error['hint']}"

    def files(self) -> dict[str, str]:
        """Return the content of every file of the project, databases by what they hold."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            if path.is_dir() or path.suffix in (".db-wal", ".db-shm", ".pyc"):
                continue
            content = path.read_bytes()
            if content.startswith(b"SQLite format 3") and path.name == "lanaprof.db":
                try:
                    content = "\n".join(self.database_dump(path)).encode()
                except sqlite3.DatabaseError:
                    content = path.read_bytes()
            found[str(path.relative_to(self.folder))] = hashlib.sha256(content).hexdigest()
        return found

    def database_dump(self, path: Path) -> list[str]:
        """Return a database's rows as text."""
        connection = sqlite3.connect(path)
        try:
            return list(connection.iterdump())
        finally:
            connection.close()

    def query(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the project's database, or change it, behind lanaprof's back."""
        connection = sqlite3.connect(self.folder / "lanaprof.db")
        try:
            rows = connection.execute(sql, values).fetchall()
            connection.commit()
        finally:
            connection.close()
        return rows

    def architecture(self, **choices: str) -> Path:
        """Write an architecture file; ``b0`` is layer ``1.0``, layers not named keep the teacher's."""
        named = {f"1.{name.removeprefix('b')}": operation for name, operation in choices.items()}
        path = self.folder / "architecture.json"
        path.write_text(json.dumps({"format": "lanaprof-architecture/1", "choices": named}))
        return path

    def problem(self) -> Path:
        """Return the project's selection problem as a file."""
        path = self.folder / "problem.json"
        self.run("select", "--budget", "500%", "--no-verify", "--dump-problem", path)
        return path

    def start(self, *words: str | Path, spread_s: str = "0.2") -> subprocess.Popen[bytes]:
        """Start a command in a process of its own, which tests may kill."""
        return subprocess.Popen(
            [sys.executable, "-m", "lanaprof", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "LANAPROF_SPREAD_S": spread_s},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def make_project(
    folder: Path, operations: Sequence[str] = ("skip", "conv", "ds", "mbconv(expand=1)")
) -> None:
    """Write the teacher, its operations, and which core to measure on."""
    folder.mkdir(parents=True)
    (folder / "tiny.py").write_text(TEACHER)
    (folder / "ops.txt").write_text("\n".join(operations) + "\n")
    core = min(os.sched_getaffinity(0))
    (folder / "devices.yaml").write_text(f"cpu: {{backend: onnxruntime, cores: [{core}]}}\n")


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders ``empty`` (files only), ``fresh`` (after init), ``measured`` and ``finished`` (after score)."""
    root = tmp_path_factory.mktemp("stages")
    make_project(root / "empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANAPROF_SPREAD_S", "0.2")  # pauses between rounds serve precision alone
        patch.delenv("LANAPROF_DATABASE", raising=False)
        patch.delenv("LANAPROF_TEAM", raising=False)
        shutil.copytree(root / "empty", root / "fresh")
        patch.chdir(root / "fresh")
        _done(*INIT)
        shutil.copytree(root / "fresh", root / "measured")
        patch.chdir(root / "measured")
        _done("measure")
        shutil.copytree(root / "measured", root / "finished")
        patch.chdir(root / "finished")
        _done("calibrate", "-n", "6")
        _done(*DISTILL)
        _done("score", "--images", "32")
    return root


@pytest.fixture(scope="session")
def with_spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose layers can be replaced together, finished (after score)."""
    folder = tmp_path_factory.mktemp("spans") / "finished"
    make_project(
        folder, ("conv(kernel=5)", "1.*: conv(kernel=1)", "stage: g_ghost(end=none)", "stage: skip  # both")
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LANAPROF_SPREAD_S", "0.2")
        patch.delenv("LANAPROF_DATABASE", raising=False)
        patch.delenv("LANAPROF_TEAM", raising=False)
        patch.chdir(folder)
        for words in (INIT, ("measure",), ("calibrate", "-n", "6"), DISTILL, ("score", "--images", "32")):
            _done(*words)
    return folder


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, stages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """A copy of the finished project in the working folder; ``parametrize(indirect)`` names another stage."""
    yield from _copied(stages / getattr(request, "param", "finished"), tmp_path / "project", monkeypatch)


@pytest.fixture
def spanned(with_spans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """A copy of the project with spans in the working folder."""
    yield from _copied(with_spans, tmp_path / "project", monkeypatch)


def _copied(made: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    shutil.copytree(made, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LANAPROF_SPREAD_S", "0.2")
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM"):
        monkeypatch.delenv(name, raising=False)
    path = list(sys.path)
    yield Bench(folder)
    sys.path[:] = path  # factories are imported from the project's folder
