"""kill -9 at any moment: what was acknowledged stays, nothing is done twice, the same command goes on."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lanaprof.lut import open_store

at = pytest.mark.parametrize
_PATIENCE_S = 600.0  # for a process to begin its work on a busy machine


def kill_once_begun(
    process: subprocess.Popen[bytes], has_begun: Callable[[], bool], *, longest_s: float
) -> None:
    """Kill a process and its children at a random moment after it began its work."""
    end_s = time.monotonic() + _PATIENCE_S
    while not has_begun() and process.poll() is None and time.monotonic() < end_s:
        time.sleep(0.01)
    assert has_begun()
    time.sleep(random.uniform(0, longest_s))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def changed_since(path: Path, before_ns: int) -> bool:
    return path.stat().st_mtime_ns != before_ns


def stored(bench: Any) -> set[str]:
    return {row[0] for row in bench.query("select id from measurements")}


@at("bench", ["fresh"], indirect=True)
def test_killed_measure_goes_on(bench: Any) -> None:
    """Two kills at random moments: each operator is measured once in the end, and the database is whole."""
    acknowledged: set[str] = set()
    bench.run("measure", "--plan")
    journals = bench.folder / ".lanaprof" / "journals"
    for _ in range(2):
        process = bench.start("measure", spread_s="2")
        kill_once_begun(process, lambda: any(journals.glob("*.jsonl")) or bool(stored(bench)), longest_s=2.5)
        acknowledged |= stored(bench)
    document = bench.run("measure")
    rows = bench.query("select operator, cache, space, count(*) from measurements group by 1, 2, 3")

    assert document["complete"] is True
    assert document["measured"] + document["reused"] == 8
    assert acknowledged <= stored(bench)
    assert {row[3] for row in rows} == {1}
    assert bench.query("pragma integrity_check") == [("ok",)]
    assert bench.run("lut", "check")
    assert not list(journals.glob("*.jsonl"))


@at("bench", ["fresh"], indirect=True)
def test_finished_rounds_survive_a_kill(bench: Any) -> None:
    """The rounds in the journal at the moment of the kill are in the measurements afterwards."""
    bench.run("measure", "--plan")
    process = bench.start("measure", spread_s="120")  # so slow that it cannot end before the kill
    (journals := bench.folder / ".lanaprof" / "journals").mkdir(exist_ok=True)

    def rounds() -> list[str]:
        texts = [path.read_text() for path in journals.glob("*.jsonl")]
        return [line for text in texts for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]

    kill_once_begun(process, lambda: len(rounds()) >= 2, longest_s=0.5)
    samples = json.loads(rounds()[0])["samples"]
    bench.run("measure")
    with open_store(bench.folder / "lanaprof.db") as store:
        ids = [row[0] for row in bench.query("select id from measurements")]
        kept = {record.operator: set(record.samples) for record in store.find_measurements(ids).values()}
    timed = {key: {t / 1e9 for _, wall, cpu, _ in runs for t in (wall, cpu)} for key, runs in samples.items()}

    assert [key for key, seconds in timed.items() if seconds & kept[key]]
    assert bench.query("pragma integrity_check") == [("ok",)]


@at("bench", ["measured"], indirect=True)
def test_killed_distill_goes_on(bench: Any) -> None:
    """Two kills: candidates whose weights were there are not trained again, byte for byte."""
    weights = bench.folder / ".lanaprof" / "weights"
    words = ("distill", "--steps", "80", "--batch-size", "16", "--no-stop")

    def written() -> dict[Path, tuple[int, bytes]]:
        return {
            path: (path.stat().st_mtime_ns, path.read_bytes()) for path in weights.glob("*/*/*.safetensors")
        }

    first = bench.run(*words, "--layers", "1.0")
    finished = written()
    for _ in range(2):
        about = next(weights.glob("*/about.json"))  # written anew when training begins
        changed = partial(changed_since, about, about.stat().st_mtime_ns)
        kill_once_begun(bench.start(*words), changed, longest_s=1.0)
        finished |= {path: what for path, what in written().items() if path not in finished}
    document = bench.run(*words)

    assert first["trained"] == 3
    assert finished.items() <= written().items()
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
