"""Several campaigns at once, each on cores of its own: threads of this process, each with a measuring process.

A campaign's thread keeps to its worker's cores: it works only while that worker waits for it, so it disturbs none.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lanaprof.profiler.campaign import Campaign, CampaignResult, Progress, Target
from lanaprof.profiler.rig import Rig

__all__ = ["Share", "combined_progress", "merged_results", "run_together"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part.

    Attributes:
        campaign: set up for its cores; not to be shared with another.
        targets: what it measures.
        cores: where its worker runs; empty leaves its thread where it is.
    """

    campaign: Campaign
    targets: tuple[Target, ...]
    cores: tuple[int, ...] = ()


class _Ended(Exception):
    """Another share failed, or the user stopped all of them."""


class _Crew:
    """What the threads share: a lock for all that leaves them, and one end."""

    def __init__(self, shares: Sequence[Share]) -> None:
        self._lock, self._rigs_lock = (
            threading.Lock(),
            threading.Lock(),
        )  # a slow report must not keep rigs alive
        self._over = threading.Event()
        self._rigs: set[Rig] = set()
        self._shares = shares
        totals = [len(share.targets) + len(share.campaign.companions) for share in shares]
        self._progress = [Progress(0, total, 0.0, "") for total in totals]

    def end(self) -> None:
        """Make every campaign end as soon as it can, without recording what it was at."""
        self._over.set()
        with self._rigs_lock:
            for rig in self._rigs:
                rig.kill()

    def run(
        self, place: int, limit_s: float | None, still_wanted: Callable[[str], bool] | None
    ) -> CampaignResult:
        """Run one share in this thread."""
        share = self._shares[place]
        if share.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, share.cores)  # of this thread alone
        campaign = share.campaign
        joined = replace(
            campaign,
            emit=lambda record: self._alone(campaign.emit, record),
            new_rig=lambda: self._new_rig(campaign.new_rig),
            report=lambda progress: self._alone(self._report, place, progress),
        )
        result = joined.run(share.targets, limit_s=limit_s, still_wanted=still_wanted)
        last = self._progress[place]
        self._progress[place] = Progress(last.total, last.total, 0.0, "")
        return result

    def _alone(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call it while no other thread does."""
        with self._lock:
            if self._over.is_set():  # what a killed worker makes a campaign believe is not recorded
                raise _Ended
            return function(*arguments)

    def _new_rig(self, start: Callable[[], Rig]) -> Rig:
        if self._over.is_set():
            raise _Ended
        rig = start()
        with self._rigs_lock:
            self._rigs.add(rig)
            if not self._over.is_set():
                return rig
        rig.close()
        raise _Ended

    def _report(self, place: int, progress: Progress) -> None:
        self._progress[place] = progress
        self._shares[place].campaign.report(combined_progress(self._progress))


def combined_progress(parts: Sequence[Progress]) -> Progress:
    """Return how far all are together: the longest time left, and what that one does.

    >>> combined_progress([Progress(2, 5, 8.0, "hot: round 3"), Progress(1, 4, 9.0, "hot: round 2")])
    Progress(done=3, total=9, left_s=9.0, text='2 workers, hot: round 2')
    """
    last = max(parts, key=lambda part: part.left_s)
    busy = sum(part.done < part.total for part in parts)
    workers = f"{busy} workers, " if busy > 1 else ""
    return Progress(
        sum(part.done for part in parts), sum(part.total for part in parts), last.left_s, workers + last.text
    )


def merged_results(results: Iterable[CampaignResult]) -> CampaignResult:
    """Return the result of all campaigns as if they had been one."""
    whole = CampaignResult()
    for result in results:
        for status, count in result.counts.items():
            whole.counts[status] = whole.counts.get(status, 0) + count
        whole.measurements |= result.measurements
        whole.copies |= result.copies
        whole.clean += result.clean
        whole.rejected += result.rejected
        whole.drift = min(whole.drift[0], result.drift[0]), max(whole.drift[1], result.drift[1])
        whole.incomplete = whole.incomplete or result.incomplete
    return whole


def run_together(
    shares: Sequence[Share],
    *,
    limit_s: float | None = None,
    still_wanted: Callable[[str], bool] | None = None,
) -> CampaignResult:
    """Run all shares at once and return what they did together.

    The first error ends all of them, and so does an interrupt: what was measured by then is recorded, the rounds of
    unfinished batches are in their journals.

    Args:
        shares: at least one.
        limit_s: for each, hence for all.
        still_wanted: as for a campaign; called from several threads.
    """
    crew = _Crew(shares)
    with ThreadPoolExecutor(len(shares)) as pool:
        running: list[Future[CampaignResult]] = [
            pool.submit(crew.run, place, limit_s, still_wanted) for place in range(len(shares))
        ]
        try:
            ended, _ = wait(running, return_when=FIRST_EXCEPTION)
            if any(each.exception() is not None for each in ended):
                crew.end()
        except BaseException:
            crew.end()
            raise
    errors = [error for each in running if (error := each.exception()) is not None]
    for error in errors:
        if not isinstance(error, _Ended):
            raise error
    result = merged_results(each.result() for each in running)
    result.workers = len(shares)
    return result
