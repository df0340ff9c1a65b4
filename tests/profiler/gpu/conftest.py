"""GPUs without one: programs that run over the emulated CUDA driver, in processes of their own."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Emulated = Callable[..., str]


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """Return the module that builds the emulated drivers."""
    spec = importlib.util.spec_from_file_location(
        "emulated_build", Path(__file__).parent / "emulated/build.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulated(builder: ModuleType) -> Emulated:
    """Return a function that gives what a program prints over the emulated drivers; it must end well."""
    try:
        library = builder.emulated_driver()
    except builder.CannotBuild as error:
        pytest.skip(str(error))

    def run(code: str, *, path: Path | None = None, **variables: str) -> str:
        inherited = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
        paths = [str(path)] if path else []
        environment = {
            **inherited,
            "LD_LIBRARY_PATH": str(library),
            "PYTHONPATH": os.pathsep.join(paths),
            **variables,
        }
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code)],
            capture_output=True, text=True, check=False, env=environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def pycuda_path(builder: ModuleType) -> Path:
    """Return the folder with PyCUDA, built against the emulated driver once; that takes a minute or two."""
    try:
        path: Path = builder.emulated_pycuda()
    except builder.CannotBuild as error:
        pytest.skip(str(error))
    return path
