"""Backends by name: ours, and those that installed packages bring by entry points."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lanaprof.errors import BackendUnavailable
from lanaprof.profiler.backends import backend_class, backend_names
from lanaprof.profiler.backends.registry import ENTRY_POINT_GROUP

at = pytest.mark.parametrize


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return what installs a package with entry points; its module ``plugged`` has a backend ``abacus``."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugged.py").write_text(
        "from lanaprof.profiler.testing import ScriptedBackend\n"
        "class Abacus(ScriptedBackend):\n    name = 'abacus'\nnothing = 3\n"
    )

    def install(package: str, name: str, target: str) -> None:
        folder = tmp_path / f"{package}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (folder / "entry_points.txt").write_text(f"[{ENTRY_POINT_GROUP}]\n{name} = {target}\n")

    yield install
    sys.modules.pop("plugged", None)


def test_a_package_may_bring_a_backend(plug: Callable[..., None]) -> None:
    """Found by its entry point, imported when asked for."""
    plug("abaci", "abacus", "plugged:Abacus")

    assert "abacus" in backend_names()
    assert "plugged" not in sys.modules
    assert backend_class("abacus").__module__ == "plugged"


def test_an_unknown_backend_lists_those_known(plug: Callable[..., None]) -> None:
    """Those of other packages, too."""
    plug("abaci", "abacus", "plugged:Abacus")

    with pytest.raises(BackendUnavailable, match=r"known: abacus, onnxruntime, .*openvino"):
        backend_class("abacis")


def test_two_packages_with_one_name_are_refused(plug: Callable[..., None]) -> None:
    """Neither is taken; both are named."""
    plug("abaci", "abacus", "plugged:Abacus")
    plug("frames", "abacus", "frames:Abacus")

    with pytest.raises(BackendUnavailable, match="frames:Abacus, plugged:Abacus"):
        backend_class("abacus")


def test_nobody_takes_a_name_of_ours(plug: Callable[..., None]) -> None:
    """Measurements that say onnxruntime are ONNX Runtime's."""
    plug("abaci", "onnxruntime", "plugged:Abacus")

    assert backend_class("onnxruntime").__module__ == "lanaprof.profiler.backends.onnxruntime"


@at(
    ("name", "target", "words"),
    [
        ("abacus", "nowhere:Abacus", "cannot be imported"),
        ("abacus", "plugged:Missing", "cannot be imported"),
        ("abacus", "plugged:nothing", "is no lanaprof.profiler.backends.Backend"),
        ("slide_rule", "plugged:Abacus", "calls itself 'abacus'"),
    ],
)
def test_what_is_no_backend_is_unavailable(
    plug: Callable[..., None], name: str, target: str, words: str
) -> None:
    """A broken package is named, and breaks nothing else."""
    plug("abaci", name, target)

    with pytest.raises(BackendUnavailable, match=words):
        backend_class(name)
