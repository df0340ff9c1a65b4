"""Writing files for the user: whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from lanaprof.errors import BadInput

__all__ = ["write_for_user", "write_whole"]


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    What is there but no regular file (a pipe, a device) is written to, not replaced.

    Raises:
        OSError: it cannot be written; what was there before is still there.
    """
    content = data.encode() if isinstance(data, str) else data
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            temporary.unlink()
        raise


def write_for_user(path: Path, data: str | bytes, *, hint: str = "") -> None:
    """Write a file that an option names, whole or not at all.

    Raises:
        BadInput: it cannot be written; what was there before is still there.
    """
    try:
        write_whole(path, data)
    except OSError as error:
        raise BadInput(f"{path} cannot be written: {error.strerror or error}", hint=hint) from error
