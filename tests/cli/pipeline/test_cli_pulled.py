"""A project that begins with what others measured and scored: what is there, and what comes next."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lanaprof.cli.base
from lanaprof.cli import main

INIT = (
    "init", "--teacher", "tiny:network", "--input", "1x12x12", "--layers", "1.*", "--data", "tiny:data",
    "--ops", "ops.txt", "--device", "cpu", "--team", "robots",
)  # fmt: skip


def said(*words: str | Path) -> str:
    """Run a command, and return what it says besides its answer."""
    lanaprof.cli.base._noticed.clear()
    result = CliRunner(env={"TERM": "dumb"}).invoke(main, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stderr


def test_what_was_pulled_is_counted_and_leads_to_a_selection(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All operators are measured before the first export here; then nothing is timed, and select comes next."""
    folder = tmp_path / "second"
    folder.mkdir()
    for name in ("tiny.py", "devices.yaml", "ops.txt"):
        shutil.copy(bench.folder / name, folder)
    monkeypatch.chdir(folder)
    bench.run(*INIT)
    shutil.copy(bench.folder / "lanaprof.db", folder)

    pulled = bench.run("status")
    refused = bench.run("select", "--budget", "80%", "--no-verify", code=2)["error"]
    measured = bench.run("measure")
    after = bench.run("status")

    steps = {each["name"]: each for each in pulled["steps"]}
    scored = len({row for row in bench.query("select layer, operation from scores") if row[1] != "teacher"})
    assert steps["score"]["detail"] == f"{scored} candidates scored"
    assert "0 of" not in steps["measure"]["detail"]
    assert "is not exported yet" in steps["measure"]["detail"]
    assert pulled["next"] == "lanaprof measure --device cpu"
    assert "is not exported here yet" in refused["message"]
    assert "reuses what is measured" in refused["hint"]
    assert (measured["measured"], measured["reused"] > 0) == (0, True)
    assert after["next"] == "lanaprof select --device cpu --budget 50%"


def test_the_latest_selection_of_others_is_told(bench: Any) -> None:
    """An export takes our own, which is older, without a word; without an own one it says whose it takes."""
    bench.run("select", "--budget", "90%", "--no-verify")
    with (bench.folder / "lanaprof.toml").open("a") as file:
        file.write('team = "robots"\n')

    told = said("export", "--out", bench.folder / "net.onnx")
    bench.run("select", "--budget", "80%", "--no-verify")
    own = said("export", "--out", bench.folder / "net.onnx")

    assert "is of team 'local': as 'robots' nothing is selected here" in told
    assert "is of team" not in own
