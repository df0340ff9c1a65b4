"""Layers in groups of about equal work, and how far groups are that run at the same time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lanaprof.distill.runtime import Progress

__all__ = ["Attempt", "Part", "Share", "Spread", "Together", "balanced_groups"]


def balanced_groups(work: Mapping[str, float], count: int) -> tuple[tuple[str, ...], ...]:
    """Return the names in at most ``count`` groups of about equal work, the largest first.

    The largest piece goes to the lightest group so far (Graham's rule of the longest processing time, at most
    a third above the best: doi 10.1137/0117039). Inside a group names keep their order.

    >>> balanced_groups({"a": 5.0, "b": 3.0, "c": 3.0, "d": 1.0}, 2)
    (('a', 'd'), ('b', 'c'))
    """
    order = {name: place for place, name in enumerate(work)}
    groups: list[list[str]] = [[] for _ in range(min(count, len(work)))]
    loads = [0.0] * len(groups)
    for name in sorted(work, key=lambda name: (-work[name], order[name])):
        lightest = min(range(len(groups)), key=lambda place: (loads[place], len(groups[place])))
        groups[lightest].append(name)
        loads[lightest] += work[name]
    heaviest_first = sorted(range(len(groups)), key=lambda place: -loads[place])
    return tuple(tuple(sorted(groups[place], key=order.__getitem__)) for place in heaviest_first)


@dataclass(frozen=True, slots=True)
class Share:
    """A group's part of the whole.

    Attributes:
        units: what is counted for people, such as candidates.
        work: an estimate in any unit, the same for all groups.
    """

    units: int
    work: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of work that one slot does.

    Attributes:
        name: of its own.
        share: of the whole.
        argument: for the work function; it is pickled.
    """

    name: str
    share: Share
    argument: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a part.

    Attributes:
        part: its name.
        node: Ray's id of the node.
        first: the first progress it told of: more than one step is done where it went on from a checkpoint.
            None: nothing was heard of it.
        last: the last progress it told of.
        finished: False where the node, or the process on it, was lost.
    """

    part: str
    node: str
    first: Progress | None
    last: Progress | None
    finished: bool


@dataclass(frozen=True, slots=True)
class Spread:
    """What came of all parts.

    Attributes:
        results: by the part's name.
        attempts: in the order in which they ended.
    """

    results: Mapping[str, Any]
    attempts: tuple[Attempt, ...]

    @property
    def nodes(self) -> int:
        """Return how many nodes finished something."""
        return len({attempt.node for attempt in self.attempts if attempt.finished})

    @property
    def lost(self) -> int:
        """Return how many attempts were lost with their node or process."""
        return sum(not attempt.finished for attempt in self.attempts)

    @property
    def summary(self) -> dict[str, int]:
        """Return the counts that commands tell."""
        return {"nodes": self.nodes, "groups": len(self.results), "lost": self.lost}


class Together:
    """How far all groups are: those that run, those that wait, those that had begun in an earlier run.

    Args:
        shares: by the group's name.
        stage: what is being done, for people.
        clock: gives seconds.
    """

    def __init__(
        self, shares: Mapping[str, Share], *, stage: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shares = shares
        self._stage = stage
        self._clock = clock
        self._began_s = clock()
        self._first: dict[str, float] = {}  # the fraction a group had done when it was first heard of
        self._done: dict[str, float] = {}
        self._left_s: dict[str, float] = {}

    def note(self, name: str, progress: Progress) -> None:
        """Take in what a running group says; what was lost with a node makes it smaller again."""
        done = progress.done / progress.total if progress.total else 0.0
        if not self._first:
            self._began_s = self._clock()  # what nodes take to load a teacher says nothing of what is left
        self._first[name] = min(done, self._first.get(name, done))
        self._done[name] = done
        self._left_s[name] = progress.seconds_left or 0.0

    def finish(self, name: str) -> None:
        """Note that a group is done."""
        self._first.setdefault(name, 0.0)
        self._done[name] = 1.0
        self._left_s.pop(name, None)

    def progress(self) -> Progress:
        """Return how far all are, and the time left: at the pace of all until now, at least the longest group's."""
        done = sum(share.units * self._done.get(name, 0.0) for name, share in self._shares.items())
        worked = sum(
            self._shares[name].work * (fraction - self._first[name]) for name, fraction in self._done.items()
        )
        left = sum(share.work * (1 - self._done.get(name, 0.0)) for name, share in self._shares.items())
        elapsed_s = self._clock() - self._began_s
        left_s = None
        if worked > 0 and elapsed_s > 0:
            left_s = max(left * elapsed_s / worked, *self._left_s.values(), 0.0)
        total = sum(share.units for share in self._shares.values())
        return Progress(self._stage, int(done + 1e-9), total, left_s)
