"""Who asks a hub in `hub_scale`: visitors, one or many at a time, and what became of their requests."""

from __future__ import annotations

import http.client
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

from harness import say
from hub_routes import Asked

ALIVE = "/healthz"
IDLE_S = 3.0  # the hub closes a connection that is idle for 5 s; a browser opens another one before
PAUSE_S = (1.0, 3.0)  # a reader's, between two requests
_TIMING = re.compile(r"total;dur=([\d.]+)")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status (0: the connection failed) and the seconds it took at the server, and for the reader."""

    status: int
    server_s: float
    reader_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """A hub that runs: its port, secrets by name, a browser's session, its process."""

    port: int
    tokens: dict[str, str]
    session: str
    pid: int

    def visitor(self, who: str) -> Visitor:
        """Return somebody with a connection of their own."""
        return Visitor(self.port, self.tokens[who], self.session)

    def cpu_s(self) -> float:
        """Return what the process has worked, in steps of a hundredth of a second."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_bytes(self) -> int:
        """Return how much memory the process took at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


@dataclass(slots=True)
class Visitor:
    """One connection to a hub, kept open as browsers do."""

    port: int
    token: str
    cookie: str
    _connection: http.client.HTTPConnection | None = field(default=None)
    _used_s: float = field(default=0.0)

    def get(self, path: str, *, page: bool) -> Answer:
        """Ask once."""
        headers = {"Accept": "text/html", "Cookie": f"lanaprof_session={self.cookie}"} if page else {}
        return self.ask("GET", path, headers or {"Authorization": f"Bearer {self.token}"})

    def push(self, body: bytes) -> Answer:
        """Submit a bundle."""
        return self.ask("POST", "/api/v1/bundle", {"Authorization": f"Bearer {self.token}"}, body)

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None = None) -> Answer:
        """Ask once, over the connection that is open."""
        began_s = time.perf_counter()
        try:
            if self._connection is None or began_s - self._used_s > IDLE_S:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            answer.read()
            self._used_s = time.perf_counter()
            if answer.will_close:
                self._connection.close()
                self._connection = None
        except (OSError, http.client.HTTPException) as error:
            if method == "POST" or path != ALIVE:
                say(f"  {method} {path}: {error!r}")
            self._connection = None
            return Answer(0, 0.0, time.perf_counter() - began_s)
        found = _TIMING.search(answer.headers.get("Server-Timing", ""))
        server_s = float(found[1]) / 1e3 if found else 0.0
        return Answer(answer.status, server_s, time.perf_counter() - began_s)


class Crowd:
    """Readers and pushing teams, and what became of their requests."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._asked = [each for each in asked if each.common]
        self._lock = threading.Lock()
        self._answers: dict[str, list[Answer]] = {}

    def read(self, visitor: Visitor, number: int, end_s: float) -> None:
        """Ask for one thing after the other, for one at least."""
        chance = random.Random(number)
        pause_s = chance.uniform(0.0, PAUSE_S[1])  # they do not begin together
        while True:
            time.sleep(pause_s)
            each = chance.choice(self._asked)
            self._note(each.name, visitor.get(chance.choice(each.paths), page=each.page))
            pause_s = chance.uniform(*PAUSE_S)
            if time.monotonic() + pause_s >= end_s:
                return

    def push(self, visitor: Visitor, bodies: Sequence[bytes], end_s: float) -> None:
        """Push one bundle after the other; pushed again they are known, and looked at all the same."""
        for body in cycle(bodies):
            self._note("push", visitor.push(body))
            if time.monotonic() >= end_s:
                return

    def _note(self, name: str, answer: Answer) -> None:
        with self._lock:
            self._answers.setdefault(name, []).append(answer)

    def results(self) -> list[dict[str, Any]]:
        """Return the figures by what was asked, and of all readers."""
        pages = {each.name: each.page for each in self._asked}
        reading = [answer for name, found in self._answers.items() if name != "push" for answer in found]
        rows = [*sorted(self._answers.items()), ("all that was read", reading)]
        return [{"name": name, "page": pages.get(name), **_figures(found)} for name, found in rows if found]


def _figures(answers: Sequence[Answer]) -> dict[str, Any]:
    times_s = sorted(each.server_s for each in answers)
    statuses = Counter(each.status for each in answers)
    return {
        "requests": len(answers), "failed": sum(count for status, count in statuses.items() if status != 200),
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "median_s": median(times_s), "p95_s": times_s[int(0.95 * (len(times_s) - 1))], "most_s": times_s[-1],
    }  # fmt: skip


def wait_until_served(visitor: Visitor) -> None:
    """Wait until a hub that has just started answers."""
    while visitor.get(ALIVE, page=True).status != 200:
        time.sleep(0.05)
