"""The queue of a measuring farm, in a schema of its own on the server that holds the shared database.

The engine is procrastinate (https://procrastinate.readthedocs.io): its tables hold the jobs, its functions move them.
Beside them stand small tables of ours: who listens, who measures where, relay contexts, and why jobs failed. Nothing in
the schema is a record of the latency database; it can be dropped at any time, and what is missing enqueued again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import resources
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlalchemy import Engine, event, text

from lanaprof.digest import digest
from lanaprof.errors import DeviceUnavailable, SchemaMismatch, StoreError, UserError
from lanaprof.lut.adding import chunked
from lanaprof.lut.engine import Location, locate, repeating, translated_errors, writing
from lanaprof.lut.jobs import EnqueueReport, Job, Overview
from lanaprof.lut.placelock import PLACES_TABLE
from lanaprof.lut.postgres import postgres_engine
from lanaprof.lut.queue_looking import overview_from

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

__all__ = [
    "SCHEMA",
    "STALLED_S",
    "TASK",
    "Queue",
    "demand_server",
    "drop_queue",
    "open_queue",
    "refuse_taken",
]

SCHEMA = "lanaprof_queue"
TASK = "lanaprof.measure"
STALLED_S = 45.0  # a worker silent for so long is taken for dead; it beats every 10 seconds
_LOCK = 5_018_418  # any fixed number, other than the one under which the latency database is made
_AT_ONCE = 1_000  # jobs in one statement
T = TypeVar("T")

_OWN_TABLES = """
CREATE TABLE lanaprof_workers (
    worker bigint PRIMARY KEY REFERENCES procrastinate_workers (id) ON DELETE CASCADE,
    queue text NOT NULL, name text NOT NULL, place text NOT NULL, environment text NOT NULL, pid integer NOT NULL,
    since timestamptz NOT NULL DEFAULT now());
CREATE TABLE lanaprof_contexts (id text PRIMARY KEY, content jsonb NOT NULL);
CREATE TABLE lanaprof_troubles (
    job bigint NOT NULL REFERENCES procrastinate_jobs (id) ON DELETE CASCADE,
    at timestamptz NOT NULL DEFAULT now(), worker text NOT NULL, message text NOT NULL);
CREATE INDEX lanaprof_troubles_job ON lanaprof_troubles (job);
CREATE INDEX lanaprof_jobs_queue ON procrastinate_jobs (queue_name, status);
CREATE INDEX lanaprof_jobs_lock ON procrastinate_jobs (lock) WHERE status IN ('todo', 'doing');
"""
# The last index is for procrastinate's own look for jobs with the same lock: without it a new queue of 20,000 takes
# more than a second to hand out one.

_DOUBLE = """
DELETE FROM procrastinate_jobs f WHERE status = 'failed' AND (CAST(:queue AS text) IS NULL OR queue_name = :queue)
AND EXISTS (SELECT 1 FROM procrastinate_jobs o WHERE o.lock = f.lock
            AND (o.status IN ('todo', 'doing') OR (o.status = 'failed' AND o.id > f.id)))
"""
_AGAIN = """
UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, scheduled_at = NULL
WHERE status = 'failed' AND (CAST(:queue AS text) IS NULL OR queue_name = :queue) RETURNING id
"""


def demand_server(database: str) -> Location:
    """Return where the server is; touches nothing.

    Raises:
        StoreError: the database is a file, or the extra ``farm`` is not installed.
    """
    location = locate(database)
    if location.path is not None:
        raise StoreError(
            f"a farm shares a PostgreSQL server; {location.shown} is a file",
            hint="--database postgresql://USER@HOST/NAME, or LANAPROF_DATABASE; docs/sharing.md says how to make one",
        )
    try:
        import procrastinate  # noqa: F401 (an extra: only farms need it)
    except ImportError as error:
        raise StoreError(
            f"the queue's engine is not installed ({error})", hint='pip install "lanaprof[farm]"'
        ) from None
    return location


def open_queue(database: str, *, create: bool = False) -> Queue:
    """Return a server's queue; use it in a ``with`` statement.

    Args:
        database: URL of the server.
        create: make the queue's schema where there is none.

    Raises:
        StoreError: no server, not reachable, no rights, or no queue there; says what to type.
        SchemaMismatch: it was made by a procrastinate whose tables are others.
    """
    location = demand_server(database)
    engine = queue_engine(location)
    queue = Queue(engine, location)
    try:
        with translated_errors(location):
            queue._prepare(create=create)
    except BaseException:
        engine.dispose()
        raise
    return queue


def queue_engine(location: Location) -> Engine:
    """Return an engine whose connections see the queue's schema and no other; the caller disposes of it."""
    engine = postgres_engine(location.url)

    @event.listens_for(engine, "connect")
    def look(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SELECT set_config('search_path', '{SCHEMA}', false)")
        cursor.close()
        connection.commit()

    return engine


class Queue:
    """A server's queue, as those see it who put jobs there or look at it. Raises StoreError when the server fails."""

    def __init__(self, engine: Engine, location: Location) -> None:
        self.engine, self.location = engine, location

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _prepare(self, *, create: bool) -> None:
        made_by = self._made_by()
        if made_by is None and create:
            with writing(self.engine) as connection:
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
                if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": SCHEMA}) is None:
                    _make(connection)
            made_by = self._made_by()
        if made_by is None:
            raise StoreError(
                f"there is no queue at {self.location.shown}",
                hint=f"`lanaprof measure --device DEVICE --queue --database {self.location.shown}` makes and fills it",
            )
        if made_by != _maker():
            raise SchemaMismatch(
                f"the queue at {self.location.shown} was made by {made_by}, here is {_maker()}",
                hint="pip install that version; or stop all workers, `lanaprof farm clear --everything`, "
                "and enqueue again: no measurement is touched",
            )

    def _made_by(self) -> str | None:
        with self.engine.begin() as connection:
            found = connection.scalar(
                text("SELECT obj_description(to_regnamespace(:schema), 'pg_namespace')"), {"schema": SCHEMA}
            )
        return None if found is None else str(found)

    def _write(self, work: Callable[[Connection], T]) -> T:
        def transaction() -> T:
            with writing(self.engine) as connection:
                return work(connection)

        with translated_errors(self.location):
            return repeating(self.location, transaction)

    def enqueue(
        self, queue: str, jobs: Iterable[Job], contexts: Mapping[str, Any] | None = None
    ) -> EnqueueReport:
        """Put jobs on a device's queue, but those that wait or run there already.

        Args:
            queue: the device's.
            jobs: what is to be timed.
            contexts: by id, the relay contexts the jobs name: plain JSON.
        """
        total = EnqueueReport()
        for chunk in chunked(list(jobs), _AT_ONCE):
            found = self._write(partial(_enqueued, queue=queue, jobs=chunk, contexts=contexts or {}))
            total = EnqueueReport(
                added=total.added + found.added,
                waiting=total.waiting + found.waiting,
                running=total.running + found.running,
            )
        if total.added >= _AT_ONCE:
            # Handing out a job of 20,000 takes 50 to 100 ms until the server knows how many there are, then 1 to 3 ms.
            # Of those who may not say so it only warns; it finds out by itself in a while.
            self._write(lambda connection: connection.execute(text("ANALYZE procrastinate_jobs")))
        return total

    def get_context(self, name: str) -> Mapping[str, Any]:
        """Return a relay context.

        Raises:
            StoreError: it is not there any more.
        """
        query = text("SELECT content FROM lanaprof_contexts WHERE id = :id")
        found = self._write(lambda connection: connection.scalar(query, {"id": name}))
        if found is None:
            raise StoreError(
                f"the queue has no relay context {name}", hint="enqueue again: lanaprof measure --queue"
            )
        content: Mapping[str, Any] = found
        return content

    def overview(self, *, stalled_s: float = STALLED_S) -> Overview:
        """Return what waits, what runs, who listens and what failed, as one consistent state."""

        def look() -> Overview:
            with self.engine.begin() as connection:
                return overview_from(connection, stalled_s=stalled_s)

        with translated_errors(self.location):
            return repeating(self.location, look)

    def retry_failed(self, queue: str | None = None) -> int:
        """Let failed jobs wait again; return how many. One that waits anew already is deleted instead."""
        return self._write(lambda connection: _retried(connection, queue))

    def clear(self, queue: str | None = None, *, waiting: bool = False) -> int:
        """Delete jobs that ended, and those that wait if asked; return how many. Measurements stay."""
        ended = ["succeeded", "failed", "cancelled", "aborted", *(["todo"] if waiting else [])]
        query = text(
            "DELETE FROM procrastinate_jobs WHERE status::text = ANY(:ended)"
            " AND (CAST(:queue AS text) IS NULL OR queue_name = :queue)"
        )
        return self._write(
            lambda connection: connection.execute(query, {"ended": ended, "queue": queue}).rowcount
        )


def drop_queue(database: str) -> None:
    """Remove the queue with all its jobs, whoever made it; measurements stay."""
    location = demand_server(database)
    engine = queue_engine(location)
    try:
        with translated_errors(location), writing(engine) as connection:
            connection.execute(text(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE"))
    finally:
        engine.dispose()


def refuse_taken(place: str, queue: Queue) -> UserError:
    """Return the error for a place that another worker holds."""
    holders = [each for each in queue.overview().workers if each.place == place]
    who = f"{holders[-1].name}, process {holders[-1].pid}" if holders else "another worker"
    return DeviceUnavailable(
        f"{place} is measured on by {who} already",
        hint="stop that worker first, or give this one other cores: `cores` in devices.yaml",
    )


def _maker() -> str:
    sql = (resources.files("procrastinate.sql") / "schema.sql").read_text(encoding="utf-8")
    tables = digest([sql, _OWN_TABLES, PLACES_TABLE])[:8]
    return f"procrastinate {version('procrastinate')}, tables {tables}"


def _make(connection: Connection) -> None:
    """Make the schema; the connection looks at it alone, so that what procrastinate makes lies there."""
    from procrastinate.schema import SchemaManager  # an extra

    connection.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    raw: Any = connection.connection.driver_connection
    for statements in (SchemaManager.get_schema(), _OWN_TABLES, PLACES_TABLE):
        raw.execute(statements)
    raw.execute(f"COMMENT ON SCHEMA {SCHEMA} IS '{_maker()}'")


def _enqueued(
    connection: Connection, *, queue: str, jobs: list[Job], contexts: Mapping[str, Any]
) -> EnqueueReport:
    from procrastinate import jobs as engine_jobs  # an extra
    from procrastinate.manager import JobManager
    from procrastinate.sync_psycopg_connector import SyncPsycopgConnector

    # One after the other per queue, so that nobody enqueues between our look and our writing.
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:queue, :seed))")
    connection.execute(lock, {"queue": f"enqueue {queue}", "seed": _LOCK})
    wanted = {job.lock(queue): job for job in jobs}
    there = text(
        "SELECT lock, status::text FROM procrastinate_jobs WHERE status IN ('todo', 'doing') AND lock = ANY(:locks)"
    )
    found = {row[0]: row[1] for row in connection.execute(there, {"locks": list(wanted)})}
    fresh = {name: job for name, job in wanted.items() if name not in found}
    used = {job.context for job in fresh.values() if job.context}
    for name in sorted(used):
        connection.execute(
            text(
                "INSERT INTO lanaprof_contexts VALUES (:id, CAST(:content AS jsonb)) ON CONFLICT DO NOTHING"
            ),
            {"id": name, "content": json.dumps(contexts[name])},
        )
    if fresh:
        deferred = [
            engine_jobs.Job(
                id=None, queue=queue, task_name=TASK, lock=name, queueing_lock=name, task_kwargs=job.to_json()
            )
            for name, job in fresh.items()
        ]
        JobManager(SyncPsycopgConnector()).batch_defer_jobs(
            deferred, connection=connection.connection.driver_connection
        )
    running = sum(status == "doing" for status in found.values())
    return EnqueueReport(added=len(fresh), waiting=len(found) - running, running=running)


def _retried(connection: Connection, queue: str | None) -> int:
    chosen = {"queue": queue}
    connection.execute(text(_DOUBLE), chosen)
    return len(connection.execute(text(_AGAIN), chosen).all())
