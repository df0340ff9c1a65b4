"""Networks from elsewhere that a report compares with: a JSON file that anybody may write."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanaprof.errors import BadInput
from lanaprof.flows.project import Project

__all__ = ["Baseline", "find_baselines"]

_FILE = "baselines.json"
_EXAMPLE = (
    '[{"name": "random search", "latency_s": 0.004, "quality": 0.91, "metric": "accuracy", '
    '"standard_error": 0.002}]'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """A network that was not made by this project's selections.

    Attributes:
        name: for people.
        latency_s: measured on the report's device.
        quality: in its metric.
        metric: accuracy, agreement, kl or loss, as an evaluation has them; or any other name.
        standard_error: of the quality; None when unknown.
    """

    name: str
    latency_s: float
    quality: float
    metric: str
    standard_error: float | None = None


def find_baselines(project: Project, path: Path | None = None) -> tuple[Baseline, ...]:
    """Return the baselines of a file, by default .lanaprof/baselines.json where it is there.

    Raises:
        BadInput: the file cannot be read, or a row is no baseline.
    """
    own = path if path is not None else project.state / _FILE
    if path is None and not own.is_file():
        return ()
    try:
        rows = json.loads(own.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"the baselines {own} cannot be read: {reason}", hint=_EXAMPLE) from error
    if not isinstance(rows, list):
        raise BadInput(f"{own} holds no list of baselines", hint=_EXAMPLE)
    return tuple(_baseline(row, number, own) for number, row in enumerate(rows, start=1))


def _baseline(row: Any, number: int, path: Path) -> Baseline:
    try:
        error = row.get("standard_error")
        found = Baseline(
            name=str(row["name"]),
            latency_s=float(row["latency_s"]),
            quality=float(row["quality"]),
            metric=str(row["metric"]),
            standard_error=None if error is None else float(error),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as problem:
        raise BadInput(f"{path}, row {number} is no baseline: {row!r}", hint=_EXAMPLE) from problem
    numbers = (found.latency_s, found.quality, found.standard_error or 0.0)
    if not all(map(math.isfinite, numbers)) or found.latency_s <= 0 or (found.standard_error or 0.0) < 0:
        raise BadInput(
            f"{path}, row {number}: {found.name!r} needs a latency above 0, a finite quality and a standard error "
            "of 0 or more",
            hint=_EXAMPLE,
        )
    return found
