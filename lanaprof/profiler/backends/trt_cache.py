"""Files that TensorRT's builds leave for later ones: the timings of kernels, and whole plans.

TensorRT times the kernels that could do a layer and takes the fastest; near ties fall differently from build to
build. Timings kept in a file make builds short, and let a network's build take the kernels that its operators were
measured with. A file is one environment's: TensorRT, GPU, driver and build options are in its name and in its first
line. Writers take a lock, read what others wrote meanwhile, and replace the file in one step; readers need no lock.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lanaprof.digest import DIGEST_LENGTH, digest

__all__ = ["BlobFile", "cache_folder", "environment_folder", "plan_file", "timing_file", "to_stderr"]

_FORMAT = "lanaprof-blob/1"
_LONGEST_HEADER = 1 << 16  # bytes; what has no line end by then is no file of ours


def cache_folder() -> Path:
    """Return the user's folder for what can be made again: LANAPROF_CACHE, else the system's custom."""
    own = os.environ.get("LANAPROF_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lanaprof"


def environment_folder(environment: Mapping[str, str], *, root: Path | None = None) -> Path:
    """Return the folder of one environment's files."""
    return (root or cache_folder()) / "tensorrt" / digest(dict(environment))


def timing_file(
    environment: Mapping[str, str],
    *,
    root: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> BlobFile:
    """Return the file of an environment's kernel timings."""
    return BlobFile(
        environment_folder(environment, root=root) / "timings",
        digest(dict(environment)),
        report or to_stderr,
    )


def plan_file(
    environment: Mapping[str, str],
    key: str,
    *,
    root: Path | None = None,
    report: Callable[[str], None] | None = None,
) -> BlobFile:
    """Return the file of a plan; the key says what was built."""
    folder = environment_folder(environment, root=root) / "plans"
    return BlobFile(folder / key, digest([dict(environment), key]), report or to_stderr)


def to_stderr(text: str) -> None:
    """Say something beside the results: in a worker process, stdout carries replies."""
    sys.stderr.write(f"lanaprof: {text}\n")


@dataclass(frozen=True, slots=True)
class BlobFile:
    """One file of bytes with a first line that says what they are.

    Args:
        path: where it lies; folders are made when it is written.
        key: what the bytes are valid for; a file of another key is taken for absent, and replaced.
        report: told when a damaged file is set aside.
    """

    path: Path
    key: str
    report: Callable[[str], None]

    def read(self) -> bytes:
        """Return the bytes; empty where there is no file, one of another key, or a damaged one, which is set aside."""
        try:
            whole = self.path.read_bytes()
        except OSError:
            return b""
        line, found, blob = whole.partition(b"\n")
        try:
            header = json.loads(line) if found and len(line) <= _LONGEST_HEADER else None
        except ValueError:
            header = None
        if not isinstance(header, dict) or header.get("format") != _FORMAT:
            self.set_aside("it has no header of ours")
            return b""
        if header.get("key") != self.key:
            return b""
        if header.get("sha256") != hashlib.sha256(blob).hexdigest():
            self.set_aside("its content is not what was written")
            return b""
        return blob

    def write(self, blob: bytes) -> None:
        """Replace the file in one step: whoever reads meanwhile sees the old one or the new one, whole.

        Raises:
            OSError: the folder cannot be written.
        """
        header = {"format": _FORMAT, "key": self.key, "sha256": hashlib.sha256(blob).hexdigest()}
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # plans are code: only their user's
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(json.dumps(header, sort_keys=True).encode() + b"\n" + blob)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise

    def update(self, change: Callable[[bytes], bytes]) -> None:
        """Replace the content by what a function makes of it; one process at a time.

        Args:
            change: gets the content as it is now, empty where there is none; what it returns is written if it differs.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _locked(self.path.with_name(self.path.name + ".lock")):
            before = self.read()
            after = change(before)
            if after and after != before:
                self.write(after)

    def set_aside(self, reason: str) -> None:
        """Rename a file that cannot be used, so that it can be looked at, and say so."""
        content = b""
        with contextlib.suppress(OSError):
            content = self.path.read_bytes()
        mark = hashlib.sha256(content).hexdigest()[: DIGEST_LENGTH // 4]
        aside = self.path.with_name(f"{self.path.name}.damaged-{mark}")
        try:
            self.path.replace(aside)
        except FileNotFoundError:
            return  # another process was first
        except OSError as error:
            self.report(f"{self.path} is damaged ({reason}) and cannot be set aside: {error}")
            return
        self.report(f"{self.path} is damaged ({reason}); it was set aside as {aside.name}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock file; the kernel releases it when the process ends, however it ends."""
    try:
        import fcntl  # not on Windows, where the last of two writers wins and none writes half a file
    except ImportError:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
