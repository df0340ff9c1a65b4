"""kill -9 at any moment: what was acknowledged stays, nothing is done twice, the same command goes on."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

at = pytest.mark.parametrize
_PATIENCE_S = 120.0  # for a process to begin its work on a busy machine


def kill_once_begun(process: subprocess.Popen[bytes], trace: Path, pattern: str, longest_s: float) -> None:
    """Kill a process and its children at a random moment after it left something that matches."""
    end_s = time.monotonic() + _PATIENCE_S
    while not any(trace.glob(pattern)) and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.01)
    time.sleep(random.uniform(0, longest_s))
    os.killpg(process.pid, signal.SIGKILL) if process.poll() is None else None
    process.wait()


def stored(bench: Any) -> set[str]:
    return {row[0] for row in bench.query("select id from measurements")}


@at("bench", ["fresh"], indirect=True)
def test_killed_measure_goes_on(bench: Any) -> None:
    """Two kills at random moments: each operator is measured once in the end, and the database is whole."""
    acknowledged: set[str] = set()
    bench.run("measure", "--plan")
    for _ in range(2):
        process = bench.start("measure", spread_s="2")
        kill_once_begun(process, bench.folder / ".lanaprof" / "journals", "*.jsonl", 2.5)
        acknowledged |= stored(bench)
    document = bench.run("measure")
    rows = bench.query("select operator, cache, space, count(*) from measurements group by 1, 2, 3")

    assert document["complete"] is True
    assert document["measured"] + document["reused"] == 8
    assert acknowledged <= stored(bench)
    assert {row[3] for row in rows} == {1}
    assert bench.query("pragma integrity_check") == [("ok",)]
    assert bench.run("lut", "check")
    assert not list((bench.folder / ".lanaprof" / "journals").glob("*.jsonl"))


@at("bench", ["fresh"], indirect=True)
def test_finished_rounds_survive_a_kill(bench: Any) -> None:
    """The rounds in the journal at the moment of the kill are in the measurements afterwards."""
    bench.run("measure", "--plan")
    process = bench.start("measure", spread_s="30")  # so slow that it cannot end before the kill
    journals = bench.folder / ".lanaprof" / "journals"
    end_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end_s:
        lines = [line for path in journals.glob("*.jsonl") for line in path.read_text().splitlines()]
        if len(lines) >= 3:  # the header and two rounds
            break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = next(journals.glob("*.jsonl")).read_bytes().count(b"\n") - 1
    began = bench.start("measure", spread_s="0.2")
    assert began.wait(timeout=_PATIENCE_S) == 0

    assert kept >= 2
    assert bench.run("measure")["measured"] == 0
    assert bench.query("pragma integrity_check") == [("ok",)]


@at("bench", ["measured"], indirect=True)
def test_killed_distill_goes_on(bench: Any) -> None:
    """Two kills: candidates whose weights were there are not trained again, byte for byte."""
    weights = bench.folder / ".lanaprof" / "weights"
    words = ("distill", "--steps", "40", "--batch-size", "16")
    first = bench.run(*words, "--layers", "1.0")
    finished = {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in weights.glob("*/*/*.safetensors")
    }
    for _ in range(2):
        begun = time.time_ns()
        (weights / "mark").touch()
        process = bench.start(*words)
        kill_once_begun(process, weights, "mark", 4.0)
        for path in weights.glob("*/*/*.safetensors"):
            finished.setdefault(path, (path.stat().st_mtime_ns, path.read_bytes()))
        assert begun < time.time_ns()
    document = bench.run(*words)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in weights.glob("*/*/*.safetensors")}

    assert first["trained"] == len([path for path in finished if "1.0" in path.parts[-2]])
    assert finished.items() <= after.items()
    assert document["trained"] == document["wanted"] - len(finished)
    assert document["reused"] == len(finished)


@at("bench", ["measured"], indirect=True)
def test_reader_is_not_disturbed_by_a_measuring_process(bench: Any) -> None:
    """While a campaign writes, other commands read the same database."""
    process = bench.start("measure", "--force", spread_s="1")
    file = bench.architecture()
    answers = 0
    while process.poll() is None:
        answers += bench.run("predict", "--architecture", file)["latency_s"] is not None
        time.sleep(0.05)

    assert process.returncode == 0
    assert answers > 0


def test_killed_transaction_leaves_the_database_whole(bench: Any) -> None:
    """A process that dies inside a transaction leaves nothing of it behind."""
    before = bench.database_dump(bench.folder / "lanaprof.db")
    code = (
        "import sqlite3, os, signal; c = sqlite3.connect('lanaprof.db');"
        "c.execute('delete from measurements'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run(["python3", "-c", code], cwd=bench.folder, check=False)

    assert bench.run("measure")["measured"] == 0
    assert bench.database_dump(bench.folder / "lanaprof.db") == before
    assert sqlite3.sqlite_version
