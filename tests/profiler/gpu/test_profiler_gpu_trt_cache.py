"""Files that builds leave: whole or absent, of one environment, and right when many write at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.profiler.backends.trt_cache import (
    BlobFile,
    cache_folder,
    environment_folder,
    plan_file,
    timing_file,
)

HERE = {"tensorrt": "10.4.0", "gpu": "Tesla V100-SXM2-16GB"}


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def file(tmp_path: Path, said: list[str]) -> BlobFile:
    return timing_file(HERE, root=tmp_path, report=said.append)


def test_what_is_written_is_read(file: BlobFile, said: list[str]) -> None:
    """Any bytes, line ends among them; absent is empty."""
    assert file.read() == b""
    content = b"\n\x00{}\n" + bytes(range(256))

    file.write(content)

    assert file.read() == content
    assert said == []


def test_an_update_sees_what_is_there(file: BlobFile) -> None:
    """And writes what it makes of it; nothing is written where nothing came of it."""
    seen: list[bytes] = []

    def change(before: bytes, after: bytes) -> bytes:
        seen.append(before)
        return after

    file.update(lambda before: change(before, b"first"))
    stamp = file.path.stat().st_mtime_ns
    file.update(lambda before: change(before, b""))
    file.update(lambda before: change(before, b"first"))

    assert seen == [b"", b"first", b"first"]
    assert stamp == file.path.stat().st_mtime_ns


def test_an_error_on_the_way_leaves_what_was_there(file: BlobFile) -> None:
    """And no lock behind: the next one goes on."""
    file.write(b"before")

    with pytest.raises(ZeroDivisionError):
        file.update(lambda _before: bytes(1 // 0))
    file.update(lambda before: before + b" and after")

    assert file.read() == b"before and after"
    assert not list(file.path.parent.glob(".timings-*"))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda whole: b"", "it has no header of ours"),
        (lambda whole: b"RIFF" + whole, "it has no header of ours"),
        (lambda whole: whole[:-1], "its content is not what was written"),
        (lambda whole: whole[:-1] + b"X", "its content is not what was written"),
        (lambda whole: whole + b"X", "its content is not what was written"),
        (lambda whole: b'{"format": "another/1"}\n', "it has no header of ours"),
        (lambda whole: b"[]\n", "it has no header of ours"),
        (lambda whole: b"\xff\xfe\n", "it has no header of ours"),
        (lambda whole: b"0" * 100_000, "it has no header of ours"),
    ],
)
def test_a_damaged_file_is_set_aside(file: BlobFile, said: list[str], change: object, reason: str) -> None:
    """Cut short, changed, of something else: renamed, said, and as if there were none."""
    file.write(b"timings")
    damaged = change(file.path.read_bytes())  # type: ignore[operator]
    file.path.write_bytes(damaged)

    assert file.read() == b""

    (aside,) = file.path.parent.glob("timings.damaged-*")
    assert aside.read_bytes() == damaged
    assert said == [f"{file.path} is damaged ({reason}); it was set aside as {aside.name}"]
    file.write(b"new")
    assert file.read() == b"new"


def test_another_key_is_another_file(tmp_path: Path, said: list[str]) -> None:
    """A version, a GPU, a driver: none reads what another left."""
    keys = (HERE, {**HERE, "tensorrt": "10.4.1"}, {**HERE, "gpu": "NVIDIA H100"})
    files = [timing_file(key, root=tmp_path, report=said.append) for key in keys]
    for number, one in enumerate(files):
        one.write(b"%d" % number)

    assert [one.read() for one in files] == [b"0", b"1", b"2"]
    assert len({one.path for one in files}) == 3


def test_a_file_of_another_key_counts_as_absent(file: BlobFile, said: list[str]) -> None:
    """Copied from elsewhere: it is whole, hence not set aside, and not used."""
    BlobFile(file.path, "another key", said.append).write(b"elsewhere")

    assert file.read() == b""
    assert said == []
    file.write(b"here")
    assert file.read() == b"here"


def test_plans_lie_beside_timings(tmp_path: Path) -> None:
    """One folder an environment; its owner's alone, for plans are code."""
    plan = plan_file(HERE, "0123", root=tmp_path)
    plan.write(b"plan")

    assert plan.path == environment_folder(HERE, root=tmp_path) / "plans" / "0123"
    assert plan.path.parent.stat().st_mode & 0o777 == 0o700


def test_the_folder_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """LANAPROF_CACHE, else the desktop's custom, else below home."""
    monkeypatch.setenv("LANAPROF_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    found = [cache_folder()]
    monkeypatch.delenv("LANAPROF_CACHE")
    found.append(cache_folder())
    monkeypatch.delenv("XDG_CACHE_HOME")
    found.append(cache_folder())

    assert found == [tmp_path / "own", tmp_path / "xdg" / "lanaprof", tmp_path / ".cache" / "lanaprof"]


_WRITER = """
import sys, time
from pathlib import Path
from lanaprof.profiler.backends.trt_cache import timing_file
file = timing_file({here!r}, root=Path(sys.argv[1]))
for number in range(20):
    name = f"{{sys.argv[2]}}-{{number}}".encode()
    def change(before, name=name):
        time.sleep(0.001)  # the others are at the door
        return b"\\n".join(sorted([*before.split(), name]))
    file.update(change)
    assert name in file.read().split()
"""


def test_writers_at_once_lose_nothing(tmp_path: Path, file: BlobFile) -> None:
    """Three processes add twenty entries each; every reading in between was whole."""
    command = [sys.executable, "-c", _WRITER.format(here=HERE), str(tmp_path)]
    writers = [subprocess.Popen([*command, name], stderr=subprocess.PIPE) for name in "abc"]
    errors = [writer.communicate()[1].decode() for writer in writers]

    expected = {f"{name}-{number}".encode() for name in "abc" for number in range(20)}
    assert errors == ["", "", ""]
    assert expected == set(file.read().split())


def test_a_writer_that_dies_leaves_no_lock(tmp_path: Path, file: BlobFile) -> None:
    """Killed while it holds the lock: the content is the last whole one, and the next one goes on."""
    file.write(b"before")
    code = (
        "import os; from pathlib import Path\n"
        "from lanaprof.profiler.backends.trt_cache import timing_file\n"
        f"timing_file({HERE!r}, root=Path({str(tmp_path)!r})).update(lambda before: os.kill(os.getpid(), 9))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)

    assert done.returncode == -9
    file.update(lambda before: before + b" and after")
    assert file.read() == b"before and after"
