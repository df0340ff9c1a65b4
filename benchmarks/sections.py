"""What the sections of docs/benchmarks.md share: a section is a table with charts from the runs of one benchmark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Run = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        lines: Markdown.
        images: file name → SVG.
        runs: what it is made of.
    """

    title: str
    lines: Sequence[str]
    images: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[Run] = ()


def percent(share: float, digits: int = 2, *, signed: bool = False) -> str:
    """Return a share as percent.

    >>> percent(-0.0059), percent(0.9, 0), percent(0.0012, signed=True)
    ('−0.59 %', '90 %', '+0.12 %')
    """
    return f"{100 * share:{'+' if signed else ''}.{digits}f} %".replace("-", "−")


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927).

    >>> [round(value, 3) for value in wilson(9, 10)]
    [0.596, 0.982]
    """
    z = 1.96
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    return middle - half, middle + half


def nothing_yet(title: str, what: str, command: str) -> Section:
    return Section(title=title, lines=[f"{what} `{command}` measures it; no results are committed yet."])


def commands_of(runs: Sequence[Run]) -> str:
    found = dict.fromkeys(str(run["command"]) for run in runs)
    dates = sorted(str(run["time"])[:10] for run in runs)
    when = dates[0] if dates[0] == dates[-1] else f"{dates[0]} to {dates[-1]}"
    machines = dict.fromkeys(
        f"{run['machine']['cpu_model']}, {run['machine']['cores']} cores" for run in runs
    )
    return f"{', '.join(f'`{one}`' for one in found)} on {' and '.join(machines)}, {when}."


def picture(name: str, label: str) -> list[str]:
    return ["", f"![{label}](images/{name})"]
