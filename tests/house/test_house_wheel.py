"""The wheel holds the package, its data files and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(ROOT / "lanaprof", source / "lanaprof", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(ROOT / name, source / name)
    for name in ("profiler", "lut", "solver", "distill", "migrations", "devices.yaml"):
        (source / name).symlink_to(Path("lanaprof") / name)
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    with zipfile.ZipFile(next(out.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


def test_only_the_package_is_on_top(names: set[str]) -> None:
    """The links at the root do not become packages."""
    top = {name.split("/")[0] for name in names}

    assert {"lanaprof"} == {name for name in top if not name.endswith(".dist-info")}


def test_every_module_is_inside(names: set[str]) -> None:
    """Every Python file of the package is in the wheel."""
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "lanaprof").rglob("*.py")}

    assert expected <= names


@pytest.mark.parametrize(
    "name", ["py.typed", "devices.yaml", "migrations/script.py.mako", "hub/templates/base.html"]
)
def test_data_files_are_inside(names: set[str], name: str) -> None:
    """What is read at run time is shipped."""
    assert f"lanaprof/{name}" in names


@pytest.mark.parametrize("name", ["profiler", "lut", "solver", "distill", "migrations", "devices.yaml"])
def test_links_at_the_root_lead_into_the_package(name: str) -> None:
    """The signposts at the root point at the real rooms."""
    assert (ROOT / name).resolve() == (ROOT / "lanaprof" / name).resolve()
