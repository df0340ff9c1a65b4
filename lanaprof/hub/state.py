"""What the routes of one hub share."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request

from lanaprof.flows.comparing import SourceComparison
from lanaprof.flows.covering import Covered, covered_at
from lanaprof.flows.sources import viewpoint_of
from lanaprof.hub.keeping import Kept, Remembered
from lanaprof.hub.ledger import Ledger
from lanaprof.hub.limits import Bucket, Limits
from lanaprof.hub.metrics import Metrics
from lanaprof.hub.problems import RequestProblem
from lanaprof.lut import Holding, Store
from lanaprof.lut.standing import Standings

__all__ = ["Hub", "hub_of"]

_WAIT_S = 5.0  # of a bundle for its turn; it holds a thread meanwhile
_HEAVY_WAIT_S = 30.0  # of a long computation, likewise
_COMPARISONS_MOST = 16  # 1 to 2 MB each, of 4,000 operators
_PARTS_MOST = 8  # parts of the database whose coverage is kept: each takes as much memory as the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A hub.

    Attributes:
        store: the shared database.
        ledger: tokens and the log.
        folder: where devices.yaml may lie.
        limits: how much and how often.
        metrics: its counters.
        failures: of each address, requests without a token that counts.
        standings: what stands in each environment: what follows is made of it.
        holdings: what is measured where; ``counts``: how many records there are, by kind. All may be a little old.
        coverage: how much of the operators is measured on each device.
        comparisons: the last ones that were asked for, likewise.
        public: the pages may be read without a token.
        secure: browsers reach it by https alone: cookies say so.
    """

    store: Store
    ledger: Ledger
    folder: Path
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    public: bool = False
    secure: bool = False
    failures: Bucket = field(init=False)
    standings: Standings = field(init=False)
    holdings: Kept[tuple[Holding, ...]] = field(init=False)
    counts: Kept[dict[str, int]] = field(init=False)
    coverage: Kept[dict[str, Covered]] = field(init=False)
    comparisons: Remembered[SourceComparison] = field(init=False)
    _parts: OrderedDict[tuple[str, str, str], Kept[dict[str, Covered]]] = field(
        init=False, default_factory=OrderedDict
    )
    _heavy: threading.BoundedSemaphore = field(init=False)
    _waiting: threading.BoundedSemaphore = field(init=False)
    _bundles: threading.BoundedSemaphore = field(init=False)
    _uploads: Counter[str] = field(init=False, default_factory=Counter)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        failures = Bucket(self.limits.failures_per_s, self.limits.failures_burst)
        object.__setattr__(self, "failures", failures)
        object.__setattr__(self, "standings", Standings(self.store, viewpoint_of(None)))
        share = self.limits.kept_share
        object.__setattr__(self, "holdings", Kept(self._hold, share=share))
        object.__setattr__(self, "counts", Kept(self.store.counts, share=share))
        object.__setattr__(self, "coverage", Kept(self._cover, share=share))
        object.__setattr__(self, "comparisons", Remembered(_COMPARISONS_MOST, share=share))
        object.__setattr__(self, "_heavy", threading.BoundedSemaphore(self.limits.heavy_at_once))
        room = threading.BoundedSemaphore(self.limits.heavy_at_once + self.limits.heavy_waiting)
        object.__setattr__(self, "_waiting", room)
        object.__setattr__(self, "_bundles", threading.BoundedSemaphore(self.limits.bundles_at_once))

    def prepare(self) -> None:
        """Find out what visitors ask for first, so that none of them waits until the whole database was counted."""
        for kept in (self.holdings, self.counts, self.coverage):
            kept.get()

    def said_age(self) -> tuple[str, ...]:
        """Return how old what is shown is, where more came at once than can be counted while a visitor waits."""
        pending = self.standings.pending
        if not pending:
            return ()
        moment = time.strftime("%H:%M:%S UTC on %Y-%m-%d", time.gmtime(self.standings.whole_s))
        more = f"{pending} environment{'' if pending == 1 else 's'}"
        return (f"As of {moment}: what came since in {more} is still to be counted.",)

    def _hold(self) -> tuple[Holding, ...]:
        self.standings.look()
        return self.standings.holdings()

    def _cover(self) -> dict[str, Covered]:
        self.standings.look()
        return covered_at(self.store, self.standings, self.folder)

    def covered(self, *, team: str = "", since: str = "", protocol: str = "") -> dict[str, Covered]:
        """Return how much of the operators is measured on each device, by a team, since a time, by a protocol.

        The first time a part is asked for, all of it is read; the last few that were asked for are kept.
        """
        if not (team or since or protocol):
            return self.coverage.get()
        part = (team, since, protocol)
        with self._lock:
            kept = self._parts.pop(part, None) or Kept(self._cover_part(*part), share=self.limits.kept_share)
            self._parts[part] = kept
            while len(self._parts) > _PARTS_MOST:
                self._parts.popitem(last=False)
        return kept.get()

    def _cover_part(self, team: str, since: str, protocol: str) -> Callable[[], dict[str, Covered]]:
        chosen = Standings(self.store, viewpoint_of(None), team=team, since=since, protocol=protocol)

        def cover() -> dict[str, Covered]:
            with self.heavy():  # the first time all is read
                for standings in (self.standings, chosen):
                    standings.look()
            return covered_at(self.store, self.standings, self.folder, chosen=chosen)

        return cover

    @contextmanager
    def heavy(self) -> Iterator[None]:
        """Take one of the places for long computations, after a while, or refuse: not all threads may wait."""
        with _place(self._waiting), _place(self._heavy, wait_s=_HEAVY_WAIT_S):
            yield

    @contextmanager
    def bundle(self) -> Iterator[None]:
        """Take one of the places for bundles that are here, after a while, or refuse."""
        with _place(self._bundles, wait_s=_WAIT_S):
            yield

    def uploading(self, token: str) -> int:
        """Return how many bundles of a token are on their way, by its id."""
        with self._lock:
            return self._uploads[token]

    @contextmanager
    def upload(self, token: str) -> Iterator[None]:
        """Take one of a token's places for bundles on their way, or refuse: who is slow delays nobody else."""
        with self._lock:
            if self._uploads[token] >= self.limits.uploads_at_once:
                raise RequestProblem(
                    429, "this token sends several bundles already", hint="wait", headers={"Retry-After": "5"}
                )
            self._uploads[token] += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploads[token] -= 1


@contextmanager
def _place(places: threading.BoundedSemaphore, *, wait_s: float = 0.0) -> Iterator[None]:
    if not places.acquire(blocking=wait_s > 0, timeout=wait_s or None):
        raise RequestProblem(503, "the hub is busy", hint="try again in 5 s", headers={"Retry-After": "5"})
    try:
        yield
    finally:
        places.release()


def hub_of(request: Request) -> Hub:
    """Return the hub a request came to."""
    hub: Hub = request.app.state.hub
    return hub
