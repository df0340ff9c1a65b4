"""The rounds of a campaign on local disk: kill -9 costs at most the round in progress."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lanaprof.digest import digest
from lanaprof.profiler.clock import RawSample

__all__ = ["Journal", "JournalHeader", "Round", "open_journal", "unfinished_journals"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalHeader:
    """What a batch is: rounds of another environment, protocol or space are of no use to it."""

    environment: str
    protocol: str
    space: str
    operators: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "environment": self.environment,
            "protocol": self.protocol,
            "space": self.space,
            "operators": list(self.operators),
        }


@dataclass(frozen=True, slots=True)
class Round:
    """The samples of one finished round, by operator."""

    number: int
    samples: Mapping[str, tuple[RawSample, ...]]


class Journal:
    """An append-only file of rounds; use it as a context manager."""

    def __init__(self, path: Path, header: JournalHeader, rounds: list[Round], file: IO[str]) -> None:
        self.path, self.header, self.rounds, self._file = path, header, rounds, file

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, finished: Round) -> None:
        """Write a round and wait until the disk has it."""
        rows = {
            key: [[s.start_ns, s.wall_ns, s.cpu_ns, s.switches] for s in samples]
            for key, samples in finished.samples.items()
        }
        self._file.write(json.dumps({"round": finished.number, "samples": rows}) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rounds.append(finished)

    def remove(self) -> None:
        """Delete the file: every operator of the batch is in the database."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class _Gone(Exception):
    """The journal is not there any more."""


def _read(path: Path) -> tuple[JournalHeader, list[Round], int] | None:
    """Return header, whole rounds and the length they fill; None for a file that holds no header."""
    rounds: list[Round] = []
    header: JournalHeader | None = None
    length = 0
    try:
        file = path.open("rb")
    except FileNotFoundError:  # its campaign, beside this one, has just ended
        raise _Gone from None
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break  # the writer was killed in the middle
            try:
                entry = json.loads(line)
                if header is None:
                    fields = {**entry, "operators": tuple(entry["operators"])}
                    header = JournalHeader(**fields)
                else:
                    samples = {
                        k: tuple(RawSample(*row) for row in rows) for k, rows in entry["samples"].items()
                    }
                    rounds.append(Round(entry["round"], samples))
            except (ValueError, KeyError, TypeError):
                break
            length += len(line)
    return (header, rounds, length) if header is not None else None


def open_journal(folder: Path, header: JournalHeader) -> Journal:
    """Return the batch's journal with the rounds it already has."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{digest(header.to_json())}.jsonl"
    found = _read(path) if path.exists() else None
    if found is not None and found[0] == header:
        file = path.open("r+")
        file.truncate(found[2])
        file.seek(found[2])
        return Journal(path, header, found[1], file)
    # It appears with its header in it: campaigns beside this one throw away what has none.
    unnamed = path.with_suffix(".new")
    file = unnamed.open("w")
    file.write(json.dumps(header.to_json()) + "\n")
    file.flush()
    os.fsync(file.fileno())
    unnamed.replace(path)
    return Journal(path, header, [], file)


def unfinished_journals(
    folder: Path,
    *,
    environment: str,
    protocol: str,
    space: str,
    wanted: Iterable[str],
    beside: Collection[str] | None = (),
) -> tuple[JournalHeader, ...]:
    """Return the headers of batches that were cut off and hold operators still wanted; drop stale ones.

    Args:
        folder: of the journals.
        environment: of the batches, like protocol and space; others are left alone.
        protocol: in its text form.
        space: the relay context's digest, or empty.
        wanted: what is to be measured.
        beside: what campaigns beside this one measure; their journals are left alone. None leaves all alone.
    """
    keys, others = set(wanted), set(beside or ())
    found = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        try:
            content = _read(path)
        except _Gone:
            continue
        if content is None:
            path.unlink(missing_ok=True)
            continue
        header = content[0]
        if (header.environment, header.protocol, header.space) != (environment, protocol, space):
            continue
        if keys.intersection(header.operators):
            found.append(header)
        elif beside is not None and not others.intersection(header.operators):
            path.unlink(missing_ok=True)
    return tuple(found)
