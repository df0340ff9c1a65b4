"""How much a request may bring and how often one may ask: the numbers, and the buckets that hold them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Bucket", "Limits"]

_KEYS_MOST = 10_000  # addresses or tokens remembered: bounds memory, whoever knocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one hub allows.

    Attributes:
        body_bytes: of a submitted bundle as it comes over the wire.
        content_bytes: of the same bundle unpacked.
        line_bytes: of one record in it; the largest known is 0.6 MB.
        reader_bytes, reader_s: memory and processor time of the process that reads a Parquet file first.
        request_bytes: of any other request's body.
        refusals_listed: how many refused rows a report lists; all are counted.
        ahead_s: how far a record's time may lie in the future: the newest row counts for many.
        token_per_s, token_burst: requests of one token, in the long run and at once.
        address_per_s, address_burst: requests of one address, likewise.
        failures_per_s, failures_burst: requests of one address without a token that counts.
        kept_share: what was found out is shown again for so many times as long as that took, at most a minute.
        heavy_at_once: comparisons, coverages and downloads computed at the same time; ``heavy_waiting``: and so many
            more that wait for their turn.
        bundles_at_once: bundles unpacked and added at the same time.
        uploads_at_once: bundles of one token on their way at the same time.
    """

    body_bytes: int = 64 * 2**20
    content_bytes: int = 512 * 2**20
    line_bytes: int = 4 * 2**20
    reader_bytes: int = 3 * 2**30
    reader_s: int = 120
    request_bytes: int = 2**20
    refusals_listed: int = 1_000
    ahead_s: float = 86_400.0
    token_per_s: float = 20.0
    token_burst: int = 400
    address_per_s: float = 50.0
    address_burst: int = 1_000
    failures_per_s: float = 0.2
    failures_burst: int = 20
    kept_share: float = 20.0  # a twentieth of one core is spent on each at most
    heavy_at_once: int = 2
    heavy_waiting: int = 24
    bundles_at_once: int = 4
    uploads_at_once: int = 4


class Bucket:
    """Tokens in a bucket for each key: each request takes one, and they flow back at a rate.

    Args:
        per_s: how many come back a second.
        burst: how many there are at first, and at most.
        clock: seconds, from any beginning.
    """

    def __init__(self, per_s: float, burst: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._lock = threading.Lock()
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str, *, take: int = 1) -> float:
        """Take from a key's bucket and return 0, or take nothing and return how long to wait.

        >>> bucket = Bucket(1.0, 2, clock=lambda: 0.0)
        >>> [bucket.wait_s("a"), bucket.wait_s("a"), bucket.wait_s("a"), bucket.wait_s("b")]
        [0.0, 0.0, 1.0, 0.0]
        """
        now_s = self._clock()
        with self._lock:
            level, then_s = self._levels.pop(key, (float(self._burst), now_s))
            level = min(float(self._burst), level + (now_s - then_s) * self._per_s)
            enough = level >= max(take, 1)
            self._levels[key] = (level - take if enough else level, now_s)
            while len(self._levels) > _KEYS_MOST:
                self._levels.popitem(last=False)  # the one not seen for longest
        return 0.0 if enough else (max(take, 1) - level) / self._per_s
