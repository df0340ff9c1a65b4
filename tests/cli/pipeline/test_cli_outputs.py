"""Places that cannot be written, and full disks: exit code 2, and what was there is still there."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

at = pytest.mark.parametrize


EXPORT = ("export", "--architecture", "architecture.json", "--out")
SOLVE = ("solve", "problem.json", "--budget", "latency_s@cpu=1", "--out")
PLOT = ("frontier", "--plot")


@at(
    ("words", "place"),
    [
        (EXPORT, "/proc/x.onnx"), (EXPORT, "architecture.json/x.onnx"), (EXPORT, "ops.txt/x.pt2"),
        (EXPORT, "/dev/full"), (SOLVE, "/dev/full"),
        (SOLVE, "nowhere/x.json"), (SOLVE, "/proc/x.json"), (SOLVE, "ops.txt/x.json"), (SOLVE, "."),
        (PLOT, "nowhere/x.html"), (PLOT, "/proc/x.png"), (PLOT, "ops.txt/x.html"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)  # fmt: skip
def test_unwritable_places_are_refused(bench: Any, words: tuple[str, ...], place: str) -> None:
    """A folder that is not there, that takes no files, or that is a file; and a device stays a device."""
    bench.architecture()
    bench.problem()

    assert "cannot be written" in bench.refuse(*words, place)
    assert not Path("/dev/full").is_file()


def test_selection_survives_an_unwritable_out(bench: Any) -> None:
    """The selection is stored before its file is written; the hint names it."""
    document = bench.run("select", "--budget", "500%", "--no-verify", "--out", "/dev/full", code=2)
    stored = bench.query("select id from selections")[0][0]

    assert stored[:12] in document["error"]["hint"]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with a few kilobytes left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", folder],
        check=False,
        capture_output=True,
        text=True,
    )
    if made.returncode:
        pytest.skip(f"mounting a small disk is not permitted here: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> None:
    """Leave no block free."""
    with (folder / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"x" * 4096)
            except OSError:
                return


@at("out", ["net.onnx", "net.pt2", "student", "arch.json", "f.html", "f.png"])
def test_full_disk_takes_no_output(bench: Any, full_disk: Path, out: str) -> None:
    """Whatever is written: exit code 2, what was there before is still there, and no half file."""
    bench.architecture()
    bench.problem()
    place = full_disk / out
    if place.suffix:
        place.write_text("before")
    fill(full_disk)
    words = {
        ".json": SOLVE,
        ".html": PLOT,
        ".png": PLOT,
    }.get(place.suffix, EXPORT)

    assert "No space left" in bench.refuse(*words, place)
    assert sorted(path.name for path in full_disk.iterdir()) == sorted(
        {"filler", out} if place.suffix else {"filler"}
    )
    assert not place.suffix or place.read_text() == "before"


def test_full_disk_keeps_the_database(bench: Any, full_disk: Path) -> None:
    """Measuring, scoring and selecting with a full disk fail plainly; every stored row is still there."""
    database = full_disk / "lanaprof.db"
    source = sqlite3.connect("lanaprof.db")
    source.execute("pragma wal_checkpoint(truncate)")
    source.close()
    database.write_bytes(Path("lanaprof.db").read_bytes())
    before = bench.database_dump(database)
    fill(full_disk)
    for words in (
        ("measure", "--force"),
        ("score", "--images", "32"),
        ("select", "--budget", "500%", "--no-verify"),
    ):
        assert "disk" in json.dumps(bench.run(*words, "--database", database, code=2))
    (full_disk / "filler").unlink()

    assert bench.database_dump(database) == before


def test_full_disk_takes_no_new_database(bench: Any, full_disk: Path) -> None:
    """A database that does not fit is refused before anything is timed."""
    fill(full_disk)

    assert "disk" in bench.refuse("measure", "--database", full_disk / "new.db")


@at("words", [("distill", "--steps", "5"), ("finetune", "--steps", "2")], ids=lambda words: words[0])
def test_training_on_a_full_disk_goes_on_later(bench: Any, full_disk: Path, words: tuple[str, ...]) -> None:
    """Weights that do not fit: exit code 2; with room again the same command ends well."""
    bench.run("select", "--budget", "500%", "--no-verify")
    shutil.move(bench.folder / ".lanaprof", full_disk / "state")
    (bench.folder / ".lanaprof").symlink_to(full_disk / "state")
    fill(full_disk)
    stopped = bench.run(*words, "--batch-size", "16", code=2)
    (full_disk / "filler").unlink()
    bench.run(*words, "--batch-size", "16")

    assert stopped["error"]["hint"]
