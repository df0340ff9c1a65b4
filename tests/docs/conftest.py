"""Small folders for the pages to be read in; made once for all processes of a test run, then copied."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from lanaprof.cli import main
from lanaprof.lut import open_store

sys.path.insert(0, str(Path(__file__).parent))  # the modules beside this one; the tests import them, too

from docs_blocks import ROOT, blocks
from docs_pages import FINISHING, page_of
from docs_running import clean_environment, read_page

EXAMPLE = Path("examples/fashion_mnist")
WIDTHS = "WIDTHS = (8, 8, 8)"  # of the example's (24, 48, 96)
IMAGES = {"train": 160, "t10k": 32}
OPERATIONS = "skip\nconv(kernel=1)\n"
EXPORTS = ("theirs.sqlite", "theirs.jsonl.zst", "mine.jsonl.zst", "alice.jsonl.zst", "bob.parquet")
DATABASES = ("theirs.db", "lab.db", "team.db", "before.db", "after.db")


def _narrow_example(root: Path) -> None:
    """Write the example with narrower layers, random weights and few images."""
    import torch
    from safetensors.torch import save_file

    made = root / EXAMPLE
    (made / "data").mkdir(parents=True)
    source = (ROOT / EXAMPLE / "teacher.py").read_text(encoding="utf-8")
    narrowed = re.sub(r"^WIDTHS = .*$", WIDTHS, source, flags=re.MULTILINE)
    assert narrowed != source
    (made / "teacher.py").write_text(narrowed, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "narrow", "__file__": str(made / "teacher.py")}
    exec(compile(narrowed, "teacher.py", "exec"), scope)
    torch.manual_seed(0)
    save_file(scope["ResidualNet"]().state_dict(), made / "teacher.safetensors")
    draw = np.random.default_rng(0)
    for part, count in IMAGES.items():
        images = draw.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = draw.integers(0, 10, count, dtype=np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (made / "data" / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))


def _furnish(folder: Path) -> None:
    """Write what lies in the folders that the pages talk of, beside a project."""
    folder.mkdir(parents=True)
    for name in ("teacher.py", "teacher.safetensors"):
        shutil.copyfile(folder.parents[1] / EXAMPLE / name, folder / name)
    (folder / "few.txt").write_text(OPERATIONS, encoding="utf-8")


def _finish(folder: Path) -> None:
    """Do what README.md begins with, and write the databases of which the pages talk."""
    page, first = FINISHING
    read_page(
        page_of(page), folder, elsewhere={}, only=[one for one in blocks(page) if one.text.startswith(first)]
    )
    with chdir(folder):
        for words in (
            ["export", "--out", "student/"],
            *(["lut", "export", "--out", name] for name in EXPORTS),
        ):
            ran = CliRunner().invoke(main, words)
            assert ran.exit_code == 0, ran.output
        for name in DATABASES:
            shutil.copyfile(EXPORTS[0], name)
        with open_store("lanaprof.db") as own, open_store("lab.db") as lab:
            rows = list(own.measurements())
            report = lab.add(
                [replace(row, team=team, host=team) for row in rows for team in ("vision", "robots")]
            )
        assert not report.refused
        choices = {"blocks.1": "conv(kernel=1)"}
        architecture = {"format": "lanaprof-architecture/1", "choices": choices}
        Path("arch.json").write_text(json.dumps(architecture), encoding="utf-8")


def _make(root: Path, name: str) -> None:
    """Make a ground: ``example`` is a checkout with an empty project, in ``finished`` README.md was read."""
    if name == "example":
        _narrow_example(root / name)
        _furnish(root / name / "build" / "first")
        return
    shutil.copytree(root / "example", root / name)
    with pytest.MonkeyPatch.context() as patch:
        clean_environment(patch, root / "config", root / name / EXAMPLE / "data")
        _finish(root / name / "build" / "first")


@pytest.fixture(scope="session")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what gives a ground's folder: made when it is first asked for, by one process of a run for all."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # the processes of a run have folders of their own in it
    root = shared / "docs-grounds"

    def find(name: str) -> Path:
        with (shared / "docs-grounds.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for each in dict.fromkeys(("example", name)):
                done = root / f"{each}.done"
                if not done.exists():
                    shutil.rmtree(root / each, ignore_errors=True)
                    _make(root, each)
                    done.touch()
        return root / name

    return find


@pytest.fixture
def ground(
    grounds: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Return what copies a ground for a page and gives the folder to work in."""

    def copied(name: str) -> Path:
        made = tmp_path / "checkout"
        shutil.copytree(grounds(name), made)
        clean_environment(monkeypatch, tmp_path / "config", made / EXAMPLE / "data")
        return made / "build" / "first"

    return copied
