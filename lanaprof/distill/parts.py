"""Parts of one distillation: several processes train different candidates in one folder at the same time."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lanaprof.errors import StoreError, UserError

__all__ = ["PartHeld", "check_part", "hold_part", "part_file"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,79}")


class PartHeld(UserError):
    """Another process works on the part."""


def check_part(part: str) -> None:
    """Check that a part's name can be in a file's name; the empty one is the only part.

    Raises:
        UserError: it cannot.
    """
    if part and not _NAME.fullmatch(part):
        raise UserError(
            f"{part!r} cannot name a part of a distillation",
            hint="use letters, digits and . _ = -, at most 80 of them, such as group-3",
        )


def part_file(folder: Path, stem: str, part: str, suffix: str) -> Path:
    """Return the path of a part's own file.

    >>> part_file(Path("weights"), "checkpoint", "group-3", ".pt").name
    'checkpoint@group-3.pt'
    """
    return folder / (f"{stem}@{part}{suffix}" if part else f"{stem}{suffix}")


@contextmanager
def hold_part(folder: Path, part: str) -> Iterator[None]:
    """Hold a part of a folder for this process; the lock ends with the process, however it ends.

    Raises:
        PartHeld: another process holds it; the message says which.
        StoreError: the folder cannot be written.
    """
    path = part_file(folder, "distilling", part, ".lock")
    file = _locked(path, part)
    try:
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield
    finally:
        if os.name == "posix":  # elsewhere an open file cannot be removed: it stays, and means nothing
            with suppress(OSError):  # somebody removed the folder: then nobody waits for the file
                path.unlink()
        file.close()


def _locked(path: Path, part: str) -> IO[str]:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise StoreError(
                f"cannot write {path}: {error}", hint="choose a folder that can be written"
            ) from error
        if not _try_lock(file):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            called = f"part {part!r} of " if part else ""
            raise PartHeld(
                f"{holder} is distilling {called}these candidates already, in {path.parent}",
                hint="wait for it, or end it: the next call goes on from its last checkpoint",
            )
        # its holder may have removed the file between our opening and our locking it: then nobody else sees our lock
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            return file
        file.close()


def _try_lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt  # there alone

            file.seek(2**30)  # far behind the text, which others must be able to read
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
