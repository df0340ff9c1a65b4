"""Broken databases, projects, teachers, weights and data: refused by name, never changed."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

at = pytest.mark.parametrize
empty = at("bench", ["empty"], indirect=True)
ON_DEVICE = (
    ("measure",), ("calibrate",), ("verify",), ("select", "--budget", "5ms"), ("frontier",), ("run", "--budget", "5ms"),
    ("predict", "--architecture", "architecture.json"),
)  # fmt: skip
OLDER = Path(__file__).parents[2] / "lut" / "fixtures" / "schema_0001.db"
INIT = ("init", "--teacher", "tiny:network", "--input", "1x12x12", "--layers", "1.*", "--ops", "ops.txt")


@at("words", ON_DEVICE, ids=lambda words: words[0])
@at("kind", ["garbage", "foreign", "newer", "older", "cut"])
def test_broken_databases_are_refused(bench: Any, words: tuple[str, ...], kind: str) -> None:
    """Garbage, half a file, another program's, a newer or older lanaprof's: refused by all, never changed."""
    path = bench.folder / "lanaprof.db"
    bench.architecture()
    if kind == "garbage":
        path.write_bytes(b"no database" * 100)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:40_000])
    elif kind == "newer":
        bench.query("update lanaprof_schema_version set version_num = '0999_future'")
    elif kind == "older":
        shutil.copy(OLDER, path)
    else:
        path.unlink()
        with sqlite3.connect(path) as connection:
            connection.execute("create table songs (name text)")
        connection.close()
    text = bench.refuse(*words)

    assert "lanaprof.db" in text
    assert {"newer": "0999_future", "foreign": "songs", "older": "lanaprof lut upgrade"}.get(kind, "") in text


@at(
    ("url", "says"),
    [
        ("mysql://a@b/c", "'mysql'"), ("nonsense://x", "'nonsense'"), ("sqlite:////nowhere/x.db", "/nowhere"),
        ("postgresql://user@127.0.0.1:1/none", "PostgreSQL"), ("nowhere/x.db", "nowhere"),
    ],
)  # fmt: skip
def test_unreachable_databases_are_refused(bench: Any, url: str, says: str) -> None:
    """A database that cannot be had is refused by what is wrong with its URL."""
    assert says in bench.refuse("measure", "--database", url)


def test_environment_names_the_database(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """LANAPROF_DATABASE comes before lanaprof.toml; the option comes before both."""
    monkeypatch.setenv("LANAPROF_DATABASE", "nowhere.db")

    assert "nowhere.db" in bench.refuse("frontier")
    assert bench.run("frontier", "--database", "lanaprof.db")["points"]


@empty
@at(
    ("teacher", "says"),
    [
        ("nothing", "is no teacher"), ("timm:magicnet", "no network 'magicnet'"), ("torchvision:magic", "no network"),
        ("tiny:magic", "has no 'magic'"), ("magic:network", "no module 'magic'"), ("tiny:no_module", "torch.nn.Module"),
        ("timm:test_resnet?colour=3", "colour"), ("timm:test_resnet?checkpoint_path=x", "checkpoint_path"),
    ],
)  # fmt: skip
def test_unknown_teachers_are_refused(bench: Any, teacher: str, says: str) -> None:
    """A teacher that cannot be had is refused, and no project begun."""
    assert says in bench.refuse("init", "--teacher", teacher, "--input", "1x12x12")


@empty
@at("shape", ["3x12x12", "1x12", "0x12x12", "big", "1x-3x3"])
def test_wrong_inputs_are_refused(bench: Any, shape: str) -> None:
    """A shape that is none, or that the teacher cannot take."""
    assert "--input" in bench.refuse("init", "--teacher", "tiny:network", "--input", shape)


@empty
def test_factory_needs_an_input(bench: Any) -> None:
    """A factory's module does not say its size."""
    assert "--input" in bench.refuse("init", "--teacher", "tiny:network")


@empty
@at("name", ["missing.pt", "foreign.pt", "misfit.pth", "garbage.pt", "garbage.safetensors", "text.txt", "."])
def test_weights_that_do_not_fit_are_refused(bench: Any, name: str) -> None:
    """Missing, garbage, of another network or another shape: refused by name."""
    torch.save({"other.weight": torch.zeros(3)}, "foreign.pt")
    torch.save({"4.weight": torch.zeros(7, 24)}, "misfit.pth")
    for garbage in ("garbage.pt", "garbage.safetensors", "text.txt"):
        Path(garbage).write_text("no weights at all")

    assert name.removeprefix(".") in bench.refuse(*INIT, "--weights", name)


@empty
@at(
    ("words", "says"),
    [
        (("--layers", "zz.*"), "no submodule matches"), (("--layers", "4", "--layers", "0.0"), "layers"),
        (("--ops", "missing.txt"), "missing.txt"), (("--ops", "tiny.py"), "line 1"),
        (("--device", "magic"), "unknown device"), (("--cost", "beauty"), "unknown cost 'beauty'"),
        (("--cost", "latency_s@magic"), "unknown device"), (("--seed", "many"), "--seed"),
    ],
)  # fmt: skip
def test_bad_settings_of_init_are_refused(bench: Any, words: tuple[str, ...], says: str) -> None:
    """Layers, operations, devices and costs are checked before anything is written."""
    base = [word for word in INIT if words[0] not in ("--layers",) or word not in ("--layers", "1.*")]

    assert says in bench.refuse(*base, *words)


def test_existing_project_is_not_overwritten(bench: Any) -> None:
    """init in a project needs --force; a forced one that fails leaves it as it was."""
    assert "--force" in bench.refuse(*INIT)
    assert "magic" in bench.refuse("init", "--force", "--teacher", "timm:magic")


@at(
    "text",
    ["", "teacher = 3", 'teacher = "', 'teacher = "other:net"', 'teacher = "tiny:network"\ncolour = "red"',
     'teacher = "tiny:network"\ndevices = "cpu"', 'teacher = "tiny:network"\nseed = "one"'],
)  # fmt: skip
def test_broken_project_files_are_refused(bench: Any, text: str) -> None:
    """lanaprof.toml is checked key by key."""
    (bench.folder / "lanaprof.toml").write_text(text)

    assert "lanaprof.toml" in bench.refuse("space")


@at("text", [None, "", "{", "{}", "[]", '{"format": "lanaprof-space/9"}', '{"format": "lanaprof-space/1"}'])
def test_broken_spaces_are_refused(bench: Any, text: str | None) -> None:
    """space.json is checked; the hint is to write it anew."""
    path = bench.folder / "space.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)

    assert "space" in bench.refuse("measure")


@at("name", ["teacher.json", "distill.json"])
@at("text", ["", "{", "[]", "{}"])
def test_broken_state_is_refused_or_made_anew(bench: Any, name: str, text: str) -> None:
    """Files of .lanaprof that are no caches are named when they are broken."""
    (bench.folder / ".lanaprof" / name).write_text(text)

    assert "lanaprof " in bench.refuse("score")


def test_changed_teacher_is_refused(bench: Any) -> None:
    """A factory that gives other weights than at init would make every score wrong."""
    path = bench.folder / "tiny.py"
    path.write_text(path.read_text().replace("manual_seed(0)", "manual_seed(9)"))

    assert "weights" in bench.refuse("export", "--architecture", bench.architecture(), "--out", "x.onnx")


@at("spec", ["", "magic", "imagefolder:missing", "tiny:magic", "tiny:odd_data", "torchvision:Magic:x"])
def test_bad_data_is_refused(bench: Any, spec: str) -> None:
    """distill says what is wrong with the data, and how to name it."""
    toml = bench.folder / "lanaprof.toml"
    toml.write_text(toml.read_text().replace('data = "tiny:data"', f'data = "{spec}"'))

    assert bench.refuse("distill", "--steps", "2")


@at(
    "words",
    [
        ("distill", "--steps", "0"), ("distill", "--layers", "zz"), ("distill", "--learning-rate", "nan"),
        ("score", "--metric", "magic"), ("score", "--metric", "tiny:magic"), ("score", "--images", "0"),
        ("calibrate", "-n", "2"), ("verify", "--random", "0"), ("verify", "--level", "1"),
        ("finetune", "--epochs", "0"),
        ("finetune", "--epochs", "nan", "--architecture", "architecture.json"), ("measure", "--max-time", "5"),
        ("measure", "--retry", "magic"), ("measure", "--workers", "0"),
        ("measure", "--workers", "many"), ("measure", "--exporter", "magic"),
        ("export",), ("predict",), ("magic",), ("frontier", "--plot", "f.gif"),
        ("predict", "--architecture", "architecture.json", "--level", "0"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_bad_settings_are_refused(bench: Any, words: tuple[str, ...]) -> None:
    """Numbers out of range, names nobody knows, required options left out."""
    bench.architecture()

    assert bench.refuse(*words)
