"""What ``verify`` found, kept in the project's folder for reports: networks with their predictions and latencies."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanaprof.flows.project import Project, write_json

if TYPE_CHECKING:
    from lanaprof.config import Device
    from lanaprof.flows.verifying import VerifyReport

__all__ = ["TimedNetwork", "find_verified", "note_verified"]

_FILE = "verified.json"
_KEPT = 500  # networks, the newest: enough for a chart
_INTERVAL = ("low_s", "high_s", "ci_low_s", "ci_high_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedNetwork:
    """A whole network, predicted and measured.

    Attributes:
        kind: calibration, verified or selection.
        name: for people.
        predicted_s, low_s, high_s: the prediction; without an interval its ends are None.
        measured_s, ci_low_s, ci_high_s: what it took.
    """

    kind: str
    name: str
    predicted_s: float
    measured_s: float
    low_s: float | None = None
    high_s: float | None = None
    ci_low_s: float | None = None
    ci_high_s: float | None = None

    @property
    def error(self) -> float:
        """Return predicted over measured, minus 1."""
        return self.predicted_s / self.measured_s - 1

    @property
    def is_inside(self) -> bool | None:
        """Say whether the measured latency lies in the interval; None without one."""
        if self.low_s is None or self.high_s is None:
            return None
        return self.low_s <= self.measured_s <= self.high_s


def note_verified(project: Project, device: Device, environment: str, report: VerifyReport) -> None:
    """Add the networks of a verification to those noted before.

    Args:
        project: whose networks.
        device: where they were timed.
        environment: its key; reports show those of the environment they predict for.
        report: what ``verify`` found.
    """
    rows = [
        {
            "device": device.text,
            "environment": environment,
            "time": row.measured.time,
            "predicted_s": row.predicted.latency_s,
            "low_s": row.predicted.low_s,
            "high_s": row.predicted.high_s,
            "measured_s": row.measured.latency_s,
            "ci_low_s": row.measured.ci_low_s,
            "ci_high_s": row.measured.ci_high_s,
        }
        for row in report.networks
    ]
    write_json(project.state / _FILE, [*_read(project), *rows][-_KEPT:])


def find_verified(project: Project, device: Device, environment: str) -> tuple[TimedNetwork, ...]:
    """Return the networks verified on a device in an environment, oldest first; a row that makes no sense is none."""
    found = []
    for row in _read(project):
        try:
            if row["device"] != device.text or row["environment"] != environment:
                continue
            network = TimedNetwork(
                kind="verified",
                name=f"verified {row['time']}",
                predicted_s=float(row["predicted_s"]),
                measured_s=float(row["measured_s"]),
                **{name: float(row[name]) for name in _INTERVAL if row.get(name) is not None},
            )
        except (KeyError, TypeError, ValueError):
            continue
        if network.measured_s > 0 and all(map(math.isfinite, (network.predicted_s, network.measured_s))):
            found.append(network)
    return tuple(found)


def _read(project: Project) -> list[dict[str, Any]]:
    try:
        found = json.loads((project.state / _FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # nothing verified yet, or not ours: a page can do without
        return []
    return found if isinstance(found, list) else []
