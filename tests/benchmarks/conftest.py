"""The benchmarks are scripts: they, and their tests, import each other from the folder they lie in."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

SERVER = Path(__file__).with_name("preloaded.py")
Ran = tuple[int, str]


@pytest.fixture(scope="package")
def script() -> Iterator[Callable[..., Ran]]:
    """Return what runs a script in a folder and gives its exit code and what it printed, errors included."""
    preloaded = runpy.run_path(str(SERVER))
    with tempfile.TemporaryDirectory(prefix="lanaprof-") as name:
        place = str(Path(name) / "socket")
        command = [sys.executable, str(SERVER), place]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            assert server.stdout.readline() == b"ready\n"

            def run(path: Path, *words: str, folder: Path, **variables: str) -> Ran:
                with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
                    code = preloaded["run_forked"](
                        place, [str(path), *words], folder=folder, streams=(file.fileno(), file.fileno()),
                        environment={**os.environ, **variables},
                    )  # fmt: skip
                    file.seek(0)
                    return code, file.read()

            yield run
            server.kill()  # it has nothing to put in order
