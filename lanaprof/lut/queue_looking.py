"""What is seen of a farm's queue, in one look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

from lanaprof.lut.jobs import FailedJob, Overview, QueueState, WorkerState

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = ["overview_from"]

_WINDOW_S = 600.0  # throughput is that of the last ten minutes
_FAILURES_SHOWN = 50

_COUNTS = """
SELECT j.queue_name, j.status::text, count(*),
       count(*) FILTER (
           WHERE w.id IS NULL OR w.last_heartbeat < now() - :stalled * interval '1 s')
FROM procrastinate_jobs j LEFT JOIN procrastinate_workers w ON w.id = j.worker_id
GROUP BY 1, 2 ORDER BY 1
"""
_RATES = """
SELECT j.queue_name, count(*) FILTER (WHERE e.type = 'succeeded'),
       extract(epoch FROM now() - min(e.at))::float
FROM procrastinate_events e JOIN procrastinate_jobs j ON j.id = e.job_id
WHERE e.at > now() - :window * interval '1 s' AND e.type IN ('started', 'succeeded') GROUP BY 1
"""
_WORKERS = """
SELECT l.queue, l.name, l.place, l.environment, l.pid,
       (SELECT count(*) FROM procrastinate_jobs j WHERE j.worker_id = w.id AND j.status = 'doing'),
       extract(epoch FROM clock_timestamp() - w.last_heartbeat)::float,
       to_char(l.since AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
FROM lanaprof_workers l JOIN procrastinate_workers w ON w.id = l.worker ORDER BY l.queue, l.name, w.id
"""
_FAILED = """
SELECT j.id, j.queue_name, j.args ->> 'operator', j.attempts, coalesce(t.worker, ''), coalesce(t.message, '')
FROM procrastinate_jobs j LEFT JOIN LATERAL
     (SELECT worker, message FROM lanaprof_troubles WHERE job = j.id ORDER BY at DESC LIMIT 1) t ON true
WHERE j.status = 'failed' ORDER BY j.id DESC LIMIT :limit
"""


def overview_from(connection: Connection, *, stalled_s: float) -> Overview:
    """Return what waits, what runs, who listens and what failed.

    Args:
        connection: in a transaction that sees one state.
        stalled_s: a worker silent for so long is taken for dead.
    """
    counts = connection.execute(text(_COUNTS), {"stalled": stalled_s}).all()
    rates = connection.execute(text(_RATES), {"window": _WINDOW_S}).all()
    workers = connection.execute(text(_WORKERS)).all()
    failed = connection.execute(text(_FAILED), {"limit": _FAILURES_SHOWN}).all()
    jobs = {(queue, status): count for queue, status, count, _ in counts}
    stalled = {queue: count for queue, status, _, count in counts if status == "doing"}
    per_minute = {queue: 60.0 * done / span_s for queue, done, span_s in rates if done and span_s > 0}
    names = sorted({row[0] for row in counts} | {row[0] for row in workers})
    return Overview(
        queues=tuple(
            QueueState(
                queue=name, waiting=jobs.get((name, "todo"), 0), running=jobs.get((name, "doing"), 0),
                stalled=stalled.get(name, 0), failed=jobs.get((name, "failed"), 0),
                done=jobs.get((name, "succeeded"), 0), per_minute=per_minute.get(name),
            )
            for name in names
        ),
        workers=tuple(
            WorkerState(
                queue=row[0], name=row[1], place=row[2], environment=row[3], pid=row[4], running=row[5],
                silent_s=round(row[6], 1), stalled=row[6] > stalled_s, since=row[7],
            )
            for row in workers
        ),
        failures=tuple(
            FailedJob(id=row[0], queue=row[1], operator=row[2], attempts=row[3], worker=row[4], message=row[5])
            for row in failed
        ),
    )  # fmt: skip
