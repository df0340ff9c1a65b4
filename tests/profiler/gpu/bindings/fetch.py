"""Fetches NVIDIA's Python bindings of TensorRT, several versions of them, and builds what they need to be imported.

The wheels hold no TensorRT (about 1.2 MB each); they come from the package index by pip, once, into
``build/tensorrt-bindings`` of the checkout.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["PACKAGES", "CannotFetch", "environment_of"]

HERE = Path(__file__).parent
CACHE = HERE.parents[3] / "build" / "tensorrt-bindings"
PACKAGES: Mapping[str, str] = {  # version → distribution
    "8.6.1": "tensorrt-bindings",
    "10.4.0": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu12-bindings",
}
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin", "nvparsers")


class CannotFetch(Exception):
    """The bindings cannot be had here; the text says why."""


def environment_of(version: str) -> dict[str, str]:
    """Return the environment in which a child process can import ``tensorrt_bindings`` of a version.

    Raises:
        CannotFetch: no compiler, no package index, or no wheel for this Python.
    """
    wheel, libraries = _unpacked(version), _stub_libraries(version.partition(".")[0])
    return {
        **os.environ,
        "LD_LIBRARY_PATH": str(libraries),
        "PYTHONPATH": os.pathsep.join([str(wheel), str(HERE.parents[3])]),
    }


def _unpacked(version: str) -> Path:
    """Return the folder with a version's bindings."""
    target = CACHE / f"{PACKAGES[version]}-{version}-cp{sys.version_info.major}{sys.version_info.minor}"
    if target.is_dir():
        return target
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                   "--no-deps", "--only-binary=:all:", "--retries=1", "--timeout=20", f"--dest={folder}",
                   f"{PACKAGES[version]}=={version}"]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            lines = done.stderr.strip().splitlines() or ["pip gave no reason"]
            raise CannotFetch(f"TensorRT's bindings {version} cannot be downloaded: {lines[-1]}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(folder / "unpacked")
        _move(folder / "unpacked", target)
    return target


def _stub_libraries(major: str) -> Path:
    """Return the folder with libraries of the names that a major version's bindings link to."""
    target = CACHE / f"stubs-{major}"
    if target.is_dir():
        return target
    compiler = shutil.which("gcc") or shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        raise CannotFetch("TensorRT's bindings are imported on Linux with a C compiler (gcc) alone")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as name:
        folder = Path(name) / "stubs"
        folder.mkdir()
        for library in _LIBRARIES:
            file = f"lib{library}.so.{major}"
            subprocess.run(
                [compiler, "-shared", "-fPIC", f"-Wl,-soname,{file}", "-o", str(folder / file),
                 str(HERE / "stub_libraries.c")], check=True, capture_output=True,
            )  # fmt: skip
        _move(folder, target)
    return target


def _move(source: Path, target: Path) -> None:
    """Put a folder into its place whole; another process may have been first."""
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise
