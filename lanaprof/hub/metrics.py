"""What the hub counts, as Prometheus reads it."""

from __future__ import annotations

import threading
from collections import Counter

__all__ = ["Metrics"]

_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)


class Metrics:
    """Counters of one process. No label is taken from what a visitor sends, so there are few of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, str, int]] = Counter()
        self._times: Counter[tuple[str, float]] = Counter()
        self._time_s: Counter[str] = Counter()
        self._denied: Counter[str] = Counter()
        self._records: Counter[str] = Counter()

    def count_request(self, route: str, method: str, status: int, time_s: float) -> None:
        """Count a request that was answered."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH") else "other"
        with self._lock:
            self._requests[route, known, status] += 1
            self._time_s[route] += time_s  # type: ignore[assignment]  # a Counter adds floats as well
            for bound_s in _BOUNDS_S:
                if time_s <= bound_s:
                    self._times[route, bound_s] += 1

    def count_denied(self, reason: str) -> None:
        """Count a request without a token that counts; the reasons are the gate's own words."""
        with self._lock:
            self._denied[reason] += 1

    def count_records(self, *, added: int, known: int, refused: int) -> None:
        """Count what became of submitted records."""
        with self._lock:
            self._records.update(added=added, known=known, refused=refused)

    def text(self, stored: dict[str, int]) -> str:
        """Return all counts, with how many records are stored, by kind."""
        with self._lock:
            requests, times, time_s = dict(self._requests), dict(self._times), dict(self._time_s)
            denied, records = dict(self._denied), dict(self._records)
        lines = _head("lanaprof_hub_requests_total", "counter", "Requests answered.")
        for (route, method, status), count in sorted(requests.items()):
            lines.append(
                f'lanaprof_hub_requests_total{{route="{route}",method="{method}",status="{status}"}} {count}'
            )
        lines += _head("lanaprof_hub_request_seconds", "histogram", "Time until a request was answered.")
        for route in sorted(time_s):
            whole = sum(count for (name, _, _), count in requests.items() if name == route)
            for bound_s in _BOUNDS_S:
                count = times.get((route, bound_s), 0)
                lines.append(f'lanaprof_hub_request_seconds_bucket{{route="{route}",le="{bound_s}"}} {count}')
            lines.append(f'lanaprof_hub_request_seconds_bucket{{route="{route}",le="+Inf"}} {whole}')
            lines.append(f'lanaprof_hub_request_seconds_sum{{route="{route}"}} {time_s[route]:.6f}')
            lines.append(f'lanaprof_hub_request_seconds_count{{route="{route}"}} {whole}')
        lines += _head("lanaprof_hub_denied_total", "counter", "Requests without a token that counts.")
        lines += [f'lanaprof_hub_denied_total{{reason="{name}"}} {n}' for name, n in sorted(denied.items())]
        lines += _head("lanaprof_hub_submitted_records_total", "counter", "Submitted records, by outcome.")
        lines += [
            f'lanaprof_hub_submitted_records_total{{outcome="{name}"}} {n}'
            for name, n in sorted(records.items())
        ]
        lines += _head("lanaprof_hub_stored_records", "gauge", "Records in the database, by kind.")
        lines += [f'lanaprof_hub_stored_records{{kind="{name}"}} {n}' for name, n in sorted(stored.items())]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
