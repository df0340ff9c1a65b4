"""Which channels of a block belong together: numbered, united, kept from being dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["ChannelClasses", "Ids", "Room"]

Ids = NDArray[np.int64]  # one number per channel, in the channels' order


@dataclass(frozen=True, slots=True)
class Room:
    """Channels one of whose number may be chosen freely: what some convolutions or linear layers produce.

    Attributes:
        classes: of channels that can only be dropped together, such as a group's, by their least number.
        channels: how many there are now.
    """

    classes: tuple[int, ...]
    channels: int


class ChannelClasses:
    """Numbers for channels and what holds between them; resolved once, when everything is known."""

    def __init__(self) -> None:
        self._count = 0
        self._left: list[Ids] = []
        self._right: list[Ids] = []
        self._fixed: list[Ids] = []
        self._produced: list[Ids] = []
        self.reasons: dict[str, None] = {}  # why channels were fixed, each once, in order

    def number(self, count: int) -> Ids:
        """Return fresh numbers."""
        ids = np.arange(self._count, self._count + count, dtype=np.int64)
        self._count += count
        return ids

    def unite(self, left: Ids, right: Ids) -> None:
        """Say that channels pair by pair can only be dropped together."""
        self._left.append(np.ravel(left))
        self._right.append(np.ravel(right))

    def unite_rows(self, table: Ids) -> None:
        """Say that all channels in a column of the table can only be dropped together."""
        self.unite(table[1:], np.broadcast_to(table[0], table[1:].shape))

    def fix(self, ids: Ids, why: str = "") -> None:
        """Say that channels cannot be dropped."""
        self._fixed.append(np.ravel(ids))
        if why:
            self.reasons[why] = None

    def produce(self, ids: Ids) -> None:
        """Say that a convolution or linear layer produces these channels: their number is its choice."""
        self._produced.append(np.ravel(ids))

    def resolve(self) -> tuple[Ids, NDArray[np.bool_], tuple[Room, ...]]:
        """Return the class of every number (its least), which numbers are fixed, and the rooms."""
        roots = _least_connected(self._count, _joined(self._left), _joined(self._right))
        fixed = np.zeros(self._count, dtype=bool)
        fixed[roots[_joined(self._fixed)]] = True
        fixed = fixed[roots]
        producers = [roots[ids[~fixed[ids]]] for ids in self._produced]
        first: dict[int, int] = {}  # class → the first producer that has it
        pairs = [
            (first.setdefault(int(root), place), place)
            for place, found in enumerate(producers)
            for root in np.unique(found)
        ]
        links = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        owners = _least_connected(len(producers), links[:, 0], links[:, 1])
        rooms = []
        for owner in np.unique(owners):
            mine = [found for place, found in enumerate(producers) if owners[place] == owner]
            channels = max(len(found) for found in mine)
            if channels:
                classes = tuple(int(root) for root in np.unique(np.concatenate(mine)))
                rooms.append(Room(classes, channels))
        return roots, fixed, tuple(rooms)


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _least_connected(count: int, left: Ids, right: Ids) -> Ids:
    """Return for each of ``count`` numbers the least number that the pairs connect it to."""
    roots = np.arange(count, dtype=np.int64)
    while True:
        least = np.minimum(roots[left], roots[right])
        found = roots.copy()
        np.minimum.at(found, left, least)
        np.minimum.at(found, right, least)
        found = found[found]
        if np.array_equal(found, roots):
            return roots
        roots = found
