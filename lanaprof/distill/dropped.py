"""Candidates that were given up early, on disk beside the trained weights. Reading needs no torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lanaprof.distill.parts import part_file
from lanaprof.distill.stopping import SpaceCosts, is_no_dearer

__all__ = ["DroppedCandidate", "DroppedFile", "find_dropped", "still_dropped"]

_FORMAT = "lanaprof-dropped/1"
_STEM, _SUFFIX = "dropped", ".json"


@dataclass(frozen=True, slots=True)
class DroppedCandidate:
    """A candidate whose training ended early, and why.

    Attributes:
        layer: the layer's name.
        operation: its text without the precision.
        step: how many steps it was trained for.
        error: its mean loss over the last of them.
        rival: the operation of the same layer that costs no more and leads; ``teacher`` and ``skip`` may, too.
        rival_error: the rival's mean loss over the same steps.
        curve: (step, mean loss since the last point), as for trained candidates.
    """

    layer: str
    operation: str
    step: int
    error: float
    rival: str
    rival_error: float
    curve: tuple[tuple[int, float], ...] = ()


def find_dropped(folder: Path, key: str) -> dict[tuple[str, str], DroppedCandidate]:
    """Return what was given up under a key, by layer and operation without its precision.

    What was trained all the same, later, is among them; weights that are there count more. A file that cannot be
    read counts as not there: its candidates are trained again.
    """
    found: dict[tuple[str, str], DroppedCandidate] = {}
    for path in sorted((folder / key).glob(f"{_STEM}*{_SUFFIX}")):
        found |= _read(path)
    return found


def still_dropped(dropped: DroppedCandidate, costs: SpaceCosts) -> bool:
    """Return whether a candidate that was given up is still no cheaper than its rival: costs are measured anew."""
    return is_no_dearer(costs.get(dropped.layer, {}), dropped.rival, dropped.operation)


class DroppedFile:
    """The file of one part; each change is written whole."""

    def __init__(self, folder: Path, part: str) -> None:
        self._path = part_file(folder, _STEM, part, _SUFFIX)

    def add(self, dropped: Iterable[DroppedCandidate]) -> None:
        """Add these, in place of what was known of the same candidates."""
        new = list(dropped)
        if new:
            self._write(_read(self._path) | {(one.layer, one.operation): one for one in new})

    def remove(self, unwanted: Callable[[DroppedCandidate], bool]) -> None:
        """Forget those that ``unwanted`` says."""
        before = _read(self._path)
        after = {name: one for name, one in before.items() if not unwanted(one)}
        if len(after) < len(before):
            self._write(after)

    def _write(self, entries: dict[tuple[str, str], DroppedCandidate]) -> None:
        from lanaprof.distill.runtime import write_whole  # its module imports torch; reading must not

        lines = ",\n".join(json.dumps(asdict(entries[name]), sort_keys=True) for name in sorted(entries))
        text = f'{{"format": "{_FORMAT}", "dropped": [\n{lines}\n]}}\n'
        write_whole(self._path, lambda target: target.write_text(text, encoding="utf-8"))


def _read(path: Path) -> dict[tuple[str, str], DroppedCandidate]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        entries = document["dropped"] if document["format"] == _FORMAT else []
        return {(entry["layer"], entry["operation"]): _entry(entry) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _entry(entry: dict[str, Any]) -> DroppedCandidate:
    curve = tuple((int(step), float(loss)) for step, loss in entry["curve"])
    return DroppedCandidate(**{**entry, "curve": curve})
