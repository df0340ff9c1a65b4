"""What waits on a measuring farm's queue, and what can be seen of it: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["EnqueueReport", "FailedJob", "Job", "Overview", "QueueState", "WorkerState"]

KINDS = ("candidate", "segment", "network")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An operator that waits to be timed by a worker of a queue.

    Attributes:
        operator: its key; the graph is in the database.
        protocol: how it is to be timed, ``hot/1``.
        kind: of `KINDS`: what may stand in a layer, a piece of the teacher between layers, the teacher as a whole.
        layers: where it may stand, under relay.
        context: id of the relay context, kept beside the queue; empty under hot.
        since: measurements from this time on are enough (UTC); empty for any.
    """

    operator: str
    protocol: str
    kind: str = "candidate"
    layers: tuple[str, ...] = ()
    context: str = ""
    since: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON, read back by `job_from_json`."""
        return {**asdict(self), "layers": list(self.layers)}

    def lock(self, queue: str) -> str:
        """Return what tells it from all other jobs: what is to be timed where, and how."""
        return f"{queue} {self.protocol} {self.context or '-'} {self.operator}"


def job_from_json(document: Mapping[str, Any]) -> Job:
    """Return the job written by `Job.to_json`; fields of newer programs are left out."""
    known = {name: document[name] for name in Job.__dataclass_fields__ if name in document}
    return Job(**{**known, "layers": tuple(known.get("layers", ()))})


@dataclass(frozen=True, slots=True, kw_only=True)
class EnqueueReport:
    """What became of jobs that were enqueued: ``waiting`` and ``running`` ones were there already."""

    added: int = 0
    waiting: int = 0
    running: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """One device's queue.

    Attributes:
        waiting, running, done, failed: jobs; ``stalled`` are those of the running whose worker is silent.
        per_minute: jobs done a minute, of late; None when there were none.
        left_s: seconds until the queue is empty at that rate; None when that cannot be told.
    """

    queue: str
    waiting: int = 0
    running: int = 0
    stalled: int = 0
    failed: int = 0
    done: int = 0
    per_minute: float | None = None

    @property
    def left_s(self) -> float | None:
        """Return seconds until the queue is empty at the present rate; None when that cannot be told."""
        left = self.waiting + self.running
        return 60.0 * left / self.per_minute if left and self.per_minute else (None if left else 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """A worker that listens.

    Attributes:
        queue, name, place, environment, pid: what it said when it began; the place is a part of a host.
        running: jobs it holds.
        silent_s: since its last heartbeat; ``stalled`` when that is too long.
        since: when it began, UTC.
    """

    queue: str
    name: str
    place: str
    environment: str
    pid: int
    running: int
    silent_s: float
    stalled: bool
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedJob:
    """A job that was given up, and what its last worker said."""

    id: int
    queue: str
    operator: str
    attempts: int
    worker: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """The whole farm at one moment; of the failed jobs the newest."""

    queues: tuple[QueueState, ...] = ()
    workers: tuple[WorkerState, ...] = ()
    failures: tuple[FailedJob, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "queues": [{**asdict(each), "left_s": each.left_s} for each in self.queues],
            "workers": [asdict(each) for each in self.workers],
            "failures": [asdict(each) for each in self.failures],
        }
