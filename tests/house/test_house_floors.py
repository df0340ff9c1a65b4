"""The house: imports run downward, and light commands stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lanaprof

PACKAGE = Path(lanaprof.__file__).parent

# Rooms from the roof down; rooms on one floor do not know each other.
FLOORS = [
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"hub"},
    {"flows"},
    {"profiler", "distill"},
    {"teachers"},
    {"space"},
    {"ops"},
    {"lut", "solver"},
    {"migrations"},
    {"config"},
    {"units"},
    {"digest", "errors", "version"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ALLOWED = {
    ("migrations", "lut"),  # the migrations' environment reads the models it is compared with
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lanaprof":
            parts = node.module.split(".")
            if len(parts) > 1:
                found.add(parts[1])
            else:
                found.update(alias.name for alias in node.names if alias.name in FLOOR)
        elif isinstance(node, ast.Import):
            found.update(a.name.split(".")[1] for a in node.names if a.name.startswith("lanaprof."))
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path: Path) -> None:
    """A room imports only rooms on lower floors."""
    room = room_of(path)

    upward = {
        other
        for other in imports_of(path)
        if other != room and FLOOR[other] <= FLOOR[room] and (room, other) not in ALLOWED
    }

    assert set() == upward


def test_every_room_has_a_floor() -> None:
    """A new room is put on a floor on purpose."""
    rooms = {room_of(path) for path in PACKAGE.rglob("*.py")}

    assert rooms <= set(FLOOR)


HEAVY = (
    *("torch", "onnx", "onnxruntime", "tensorrt", "pandas", "timm", "pulp", "pycuda", "cuda", "pynvml"),
    *("fastapi", "uvicorn", "httpx", "jinja2", "pydantic"),  # of the hub
)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["solve", "--help"],
        ["select", "--help"],
        ["lut", "--help"],
        ["predict", "--help"],
        ["status", "--help"],
        ["doctor", "--help"],
        ["measure", "--help"],
        ["hub", "--help"],
        ["hub", "token", "ls", "--ledger", "none.db"],
        ["remote", "--help"],
        ["push", "--help"],
    ],
    ids=" ".join,
)
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    """Help is instant: no deep-learning library is imported for it."""
    code = (
        "import sys\nfrom lanaprof.cli import main\n"
        f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_importing_lanaprof_is_light() -> None:
    """``import lanaprof`` and every name it offers without asking imports nothing heavy."""
    code = f"import sys, lanaprof; dir(lanaprof); print([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def modules_imported_by(path: Path) -> set[Path]:
    """Return the modules of the package that a module imports anywhere, be it only for types."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lanaprof":
            at = PACKAGE.parent / Path(*node.module.split("."))
            inside = {at / f"{alias.name}.py" for alias in node.names if (at / f"{alias.name}.py").exists()}
            found |= inside or ({at.with_suffix(".py")} if at.with_suffix(".py").exists() else set())
    return found


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Modules can be read from the bottom up: imports make no circle, those within functions included."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]

    order = list(TopologicalSorter({path: modules_imported_by(path) for path in paths}).static_order())

    assert set(paths) <= set(order)
