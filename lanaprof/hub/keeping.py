"""Answers that are worth keeping: what is asked on every page, or again, and takes long on a large database."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

__all__ = ["Kept", "Remembered"]

_KEPT_MOST_S = 60.0
T = TypeVar("T")


class Kept(Generic[T]):
    """Something that is found out anew when it is old; the longer that takes, the older it may be.

    Args:
        find: finds it out; one at a time. Whoever asks meanwhile gets what was found before.
        share: kept for so many times as long as it took to find.
        clock: seconds, from any beginning.
    """

    def __init__(
        self, find: Callable[[], T], *, share: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._find = find
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._found: tuple[T, float] | None = None

    def get(self) -> T:
        """Return it, at most a minute old, or as old as finding it anew takes.

        >>> times = iter([0.0, 2.0, 41.9, 42.1, 42.1, 42.1])  # it took 2 s, and is kept for 40
        >>> answers = iter("ab")
        >>> kept = Kept(lambda: next(answers), share=20.0, clock=lambda: next(times))
        >>> kept.get(), kept.get(), kept.get()
        ('a', 'a', 'b')
        """
        before = self._found
        if before is None:
            self._lock.acquire()  # nothing to give yet: wait for whoever finds it
        elif self._clock() < before[1] or not self._lock.acquire(blocking=False):
            return before[0]  # fresh, or somebody is at it already
        try:
            if self._found is None or self._found is before:
                began_s = self._clock()
                found = self._find()
                ended_s = self._clock()
                self._found = (found, ended_s + min(_KEPT_MOST_S, self._share * (ended_s - began_s)))
            return self._found[0]
        finally:
            self._lock.release()


class Remembered(Generic[T]):
    """The answers to the last few questions, each as long as what it was made of stays as it is, and a little longer.

    Args:
        most: how many.
        share: given again for so many times as long as finding it took this thread, whatever it was made of.
        clock: seconds, from any beginning.
    """

    def __init__(self, most: int, *, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._share = share
        self._clock = clock
        self._lock = threading.Lock()
        self._answers: OrderedDict[Hashable, tuple[Hashable, T, float]] = OrderedDict()

    def find(self, question: Hashable, made_of: Hashable) -> T | None:
        """Return the answer to a question where it is known."""
        with self._lock:
            before = self._answers.get(question)
            if before is None or (before[0] != made_of and self._clock() >= before[2]):
                return None
            self._answers.move_to_end(question)
            return before[1]

    def get(self, question: Hashable, made_of: Hashable, find: Callable[[], T]) -> T:
        """Return the answer to a question.

        >>> remembered = Remembered[str](most=2, share=0.0)
        >>> [remembered.get("a", version, lambda: answer) for version, answer in ((1, "x"), (1, "y"), (2, "z"))]
        ['x', 'x', 'z']
        """
        before = self.find(question, made_of)
        if before is not None:
            return before
        began_s = time.thread_time()  # waiting for others does not count
        found = find()
        kept_s = min(_KEPT_MOST_S, self._share * (time.thread_time() - began_s))
        with self._lock:
            self._answers[question] = (made_of, found, self._clock() + kept_s)
            self._answers.move_to_end(question)
            while len(self._answers) > self._most:
                self._answers.popitem(last=False)
        return found
