"""Reading a Parquet file that came in, first in a process of its own: whatever it unfolds into, the hub stays.

A Parquet file of a megabyte may stand for terabytes, and its reader is a large library in C++. So the file is read
whole once by a process with little memory and time, and by the hub only where that process came to its end.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from lanaprof.errors import BadInput
from lanaprof.hub.limits import Limits
from lanaprof.hub.problems import RequestProblem
from lanaprof.lut import Record, parquet

__all__ = ["rehearse"]

_NUMBER_BYTES = 8
_TOLD = 3  # exit code of a process that says what is wrong
_SPARE_S = 30  # of starting, beside the time to read
log = logging.getLogger("lanaprof.hub")


def rehearse(bundle: Path, limits: Limits) -> None:
    """Read a Parquet file to its end in a process of its own.

    Args:
        bundle: the file.
        limits: of what it may unfold into, and of memory and time.

    Raises:
        RequestProblem: it is no such file, or damaged, or more than the limits allow.
    """
    numbers = (limits.content_bytes, limits.line_bytes, limits.reader_bytes, limits.reader_s)
    command = [sys.executable, "-m", __name__, str(bundle), *map(str, numbers)]
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.reader_s + _SPARE_S,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_read(f"it takes more than {limits.reader_s} s") from error
    if done.returncode == _TOLD:
        told = json.loads(done.stdout)
        raise RequestProblem(told["status"], told["message"], hint=told["hint"])
    if done.returncode:
        log.warning("a Parquet file ended its reader (%d): %s", done.returncode, done.stderr[-500:])
        raise _not_read(f"it is damaged, or takes more than {limits.reader_bytes} bytes of memory")


def _not_read(why: str) -> RequestProblem:
    return RequestProblem(413, f"the Parquet file cannot be read: {why}", hint="send it in parts")


def _read(bundle: Path, content_bytes: int, line_bytes: int) -> None:
    total = 0
    parquet.check(bundle)
    for row in parquet.read(bundle, None):
        if row.breaks:  # perhaps for want of memory, which the hub has more of
            raise RequestProblem(400, f"row {row.row} of the body: {row.problem}"[:500], hint="send it again")
        size = _size(row.record) if row.record is not None else len(row.problem)
        total += size
        if size > line_bytes:
            raise RequestProblem(
                413, f"row {row.row} is longer than {line_bytes} bytes", hint="one record a row"
            )
        if total > content_bytes:
            text = f"the bundle holds more than {content_bytes} bytes unpacked"
            raise RequestProblem(413, text, hint="send it in parts, as `lanaprof push` does")


def _size(record: Record) -> int:
    """Return about how many bytes a record is: its numbers, or its text."""
    numbers = [*getattr(record, "samples", ()), *getattr(record, "rounds", ())]
    return _NUMBER_BYTES * len(numbers) if numbers else len(json.dumps(record.to_json()))


def _bound(memory_bytes: int, time_s: int) -> None:
    """Take this process's memory and time away, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (time_s, time_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _main(bundle: str, content_bytes: str, line_bytes: str, memory_bytes: str, time_s: str) -> int:
    _bound(int(memory_bytes), int(time_s))
    try:
        _read(Path(bundle), int(content_bytes), int(line_bytes))
    except RequestProblem as problem:
        told = {"status": problem.status_code, "message": str(problem.detail), "hint": problem.hint}
    except BadInput as error:
        message = error.message.replace(bundle, "the body")
        told = {"status": 400, "message": message, "hint": "send a file that `lanaprof lut export` wrote"}
    else:
        return 0
    sys.stdout.write(json.dumps(told))
    return _TOLD


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
