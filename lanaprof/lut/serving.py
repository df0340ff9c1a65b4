"""A worker of the queue: procrastinate's own, kept going over lost connections and restarts of the server.

One place on one host is served by one worker at a time: it holds a lock on the server. What a dead worker held is
given to others: every worker looks for silent ones at its start and from time to time. A job may thus be handed out
twice, to a worker that was taken for dead and to its successor; both may end it, and its measurement is one more row.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lanaprof.errors import LanaprofError, StoreError
from lanaprof.lut.jobs import Job, job_from_json
from lanaprof.lut.placelock import PlaceLock
from lanaprof.lut.postgres import postgres_arguments
from lanaprof.lut.queue import SCHEMA, STALLED_S, TASK, Queue, refuse_taken

if TYPE_CHECKING:
    from procrastinate import App
    from procrastinate import jobs as engine_jobs
    from procrastinate.job_context import JobContext
    from procrastinate.retry import BaseRetryStrategy

__all__ = ["GivenBack", "Listener", "Refused", "lock_of", "serve"]

_ATTEMPTS = 20  # of one job, by whatever workers; a job that ends its worker each time is no more tried
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # between attempts to reach the server; the last one repeats
_LOOK_EVERY_S = 1.0  # whether others have left, or jobs are due again
_NEVER_S = 1e9  # we look for dead workers ourselves, below
_WAIT_MOST_S = 60.0  # before a job that failed is tried again

_ANNOUNCE = (
    "INSERT INTO lanaprof_workers (worker, queue, name, place, environment, pid)"
    " VALUES (%(worker)s, %(queue)s, %(name)s, %(place)s, %(environment)s, %(pid)s)"
)
_UP_S = "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float AS up_s"
# One statement each, unlike procrastinate's own retry by id: that one does not see that a job was handed on, by another
# worker's look, to somebody who is at it now.
_DEAD = """
status = 'doing' AND queue_name = %(queue)s
AND NOT EXISTS (SELECT 1 FROM procrastinate_workers w WHERE w.id = j.worker_id)
"""
_GIVE_UP = f"""
UPDATE procrastinate_jobs j SET status = 'failed', attempts = attempts + 1 WHERE {_DEAD}
AND (attempts + 1 >= %(most)s
     OR EXISTS (SELECT 1 FROM procrastinate_jobs o WHERE o.lock = j.lock AND o.status = 'todo'))
"""  # noqa: S608 (a constant)
_AGAIN = "UPDATE procrastinate_jobs j SET status = 'todo', attempts = attempts + 1, scheduled_at = NULL"
_HAND_ON = f"{_AGAIN} WHERE {_DEAD}"
_FORGOTTEN = f"{_AGAIN} WHERE status = 'doing' AND id = ANY(%(jobs)s) AND worker_id = %(worker)s"

Handle = Callable[[Job], Awaitable[None]]


class GivenBack(Exception):
    """A worker stops before it came to this job: it waits again, for whoever is next."""


class Refused(LanaprofError):
    """A job that no attempt can make right; raised by whoever handles it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Who listens to a queue, and how.

    Attributes:
        queue: the device's.
        name: of the worker, for people.
        place: the part of a host it measures on; one worker at a time.
        environment: key of the environment its measurements stand for.
        pid: its process.
        jobs: how many it holds at once.
        once: end when nothing waits any more.
        beat_s, stalled_s, poll_s: seconds between heartbeats, until a silent worker is dead, between looks for jobs.
    """

    queue: str
    name: str
    place: str
    environment: str
    pid: int
    jobs: int
    once: bool = False
    beat_s: float = 10.0
    stalled_s: float = STALLED_S
    poll_s: float = 2.0


def lock_of(queue: Queue, listener: Listener) -> PlaceLock:
    """Return the lock of the listener's place; it is not taken yet."""
    return PlaceLock(
        queue.engine, queue.location, place=listener.place, silent_s=listener.stalled_s,
        holder=f"{listener.name}, process {listener.pid}, {secrets.token_hex(4)}",
    )  # fmt: skip


async def serve(
    queue: Queue,
    listener: Listener,
    handle: Handle,
    *,
    lock: PlaceLock,
    stop: asyncio.Event,
    notice: Callable[[str], None],
) -> None:
    """Listen until stopped, or until nothing waits; a server that is away is waited for.

    Args:
        queue: an open one.
        listener: who listens.
        handle: times one job's operator; GivenBack lets it wait again, Refused gives it up, and after any other
            exception it is tried again later, up to 20 times.
        lock: of the listener's place, from `lock_of`; taken here, and given back at the end.
        stop: set from outside; what is running is waited for.
        notice: told what the owner should know.

    Raises:
        DeviceUnavailable: another worker holds the place.
    """
    for name, level in (("procrastinate", logging.CRITICAL), ("psycopg.pool", logging.ERROR)):
        logging.getLogger(name).setLevel(level)  # what they tell of lost connections we tell in our own words
    _forgive_lost_connections(asyncio.get_running_loop())
    attempt, held_before = 0, False
    lost: tuple[type[Exception], ...] = (StoreError, *_lost())
    try:
        while not stop.is_set():
            problem, pause_s = "", _LOOK_EVERY_S
            try:
                answer = await asyncio.to_thread(lock.take)
                if answer == "locked" and not held_before:
                    raise refuse_taken(listener.place, queue)
                if answer == "taken":
                    held_before = True
                    if await _connected(queue, listener, handle, lock, stop):
                        return
                    attempt = 0
                else:
                    notice(f"{listener.place} was measured on a moment ago: waiting until nobody does")
            except lost as error:
                problem = str(error.__cause__ or error).strip().partition("\n")[0]
                pause_s = _PAUSES_S[min(attempt, len(_PAUSES_S) - 1)]
                attempt += 1
            if "worker_id_fkey" in problem:
                notice("others took this worker for dead, and its jobs: it was not heard for too long")
            elif problem and not stop.is_set():
                notice(f"the queue cannot be reached ({problem}): trying again until it can")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
    finally:
        with contextlib.suppress(StoreError):  # of a server that is away nobody asks for the lock
            await asyncio.to_thread(lock.give_back)


def _lost() -> tuple[type[Exception], ...]:
    """Return what is raised when the server is away."""
    import psycopg  # an extra
    from procrastinate.exceptions import ConnectorException

    return ConnectorException, psycopg.Error


def _forgive_lost_connections(loop: asyncio.AbstractEventLoop) -> None:
    """Be silent about jobs whose end could not be told to the server: they are handed out again."""
    lost = _lost()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), lost):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handler)


async def _connected(
    queue: Queue, listener: Listener, handle: Handle, lock: PlaceLock, stop: asyncio.Event
) -> bool:
    """Serve while the connection lasts; return whether the work is done.

    Raises:
        StoreError, or what `_lost` lists: the server went away.
    """
    from procrastinate import App  # an extra
    from procrastinate.psycopg_connector import PsycopgConnector
    from procrastinate.worker import Worker

    async def look(connection: Any) -> None:
        await connection.execute(f"SELECT set_config('search_path', '{SCHEMA}', false)")
        await connection.commit()

    connector = PsycopgConnector(
        conninfo="", kwargs=postgres_arguments(queue.location.url), configure=look, min_size=1, max_size=1,
        timeout=20.0,
    )  # fmt: skip
    app = App(connector=connector)
    running, known = set[int](), asyncio.Event()
    app.task(name=TASK, retry=_retries(), pass_context=True)(_task(app, listener, handle, running, known))
    async with app.open_async():
        await _recover(app, listener)
        worker: Any = Worker(  # some of its methods have no types
            app, [listener.queue], name=listener.name, concurrency=listener.jobs, wait=not listener.once,
            fetch_job_polling_interval=listener.poll_s, listen_notify=False, install_signal_handlers=False,
            update_heartbeat_interval=listener.beat_s, stalled_worker_timeout=_NEVER_S,
        )  # fmt: skip
        # Beside cancelling: a driver whose query is cancelled may raise an error of its own.
        ended = asyncio.Event()
        sides = [
            asyncio.create_task(_stopping(worker, stop)),
            asyncio.create_task(_attending(app, worker, listener, lock, running, known, ended)),
        ]
        try:
            await worker.run()
        finally:
            ended.set()
            for each in sides:
                each.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
        if stop.is_set():
            return True
        if not listener.once:
            raise StoreError("the connection was lost")
        waiting = "SELECT count(*) AS waiting FROM procrastinate_jobs WHERE queue_name = %(queue)s AND status = 'todo'"
        row = await connector.execute_query_one_async(waiting, queue=listener.queue)
        return not row["waiting"]


def _task(
    app: App, listener: Listener, handle: Handle, running: set[int], known: asyncio.Event
) -> Callable[..., Awaitable[None]]:
    async def measure(engine: JobContext, /, **document: Any) -> None:
        assert engine.job.id is not None
        running.add(engine.job.id)
        try:
            await known.wait()  # nobody works unseen: who looks for other environments would miss this one
            await handle(job_from_json(document))
        except GivenBack:
            raise
        except Exception as error:
            trouble = "INSERT INTO lanaprof_troubles (job, worker, message) VALUES (%(job)s, %(worker)s, %(message)s)"
            message = (
                error.message if isinstance(error, LanaprofError) else f"{type(error).__name__}: {error}"
            )
            await app.connector.execute_query_async(
                trouble, job=engine.job.id, worker=listener.name, message=message[:500]
            )
            raise
        finally:
            running.discard(engine.job.id)

    return measure


def _retries() -> BaseRetryStrategy:
    from procrastinate.retry import BaseRetryStrategy, RetryDecision  # an extra

    class Retries(BaseRetryStrategy):
        def get_retry_decision(
            self, *, exception: BaseException, job: engine_jobs.Job
        ) -> RetryDecision | None:
            if isinstance(exception, GivenBack | asyncio.CancelledError):
                return RetryDecision(retry_in={"seconds": 0})
            if isinstance(exception, Refused) or job.attempts + 1 >= _ATTEMPTS:
                return None
            return RetryDecision(retry_in={"seconds": int(min(2.0**job.attempts, _WAIT_MOST_S))})

    return Retries()


async def _stopping(worker: Any, stop: asyncio.Event) -> None:
    await stop.wait()
    worker.stop()


async def _attending(
    app: App,
    worker: Any,
    listener: Listener,
    lock: PlaceLock,
    running: set[int],
    known: asyncio.Event,
    ended: asyncio.Event,
) -> None:
    """Say who listens, look after the lock, and let jobs wait again that nobody works at."""
    while worker.worker_id is None and not ended.is_set():
        await asyncio.sleep(0.02)
    manager, forgotten, announced = app.job_manager, set[int](), False
    lost: tuple[type[Exception], ...] = (StoreError, *_lost())
    while not ended.is_set():
        try:
            if not announced:
                await app.connector.execute_query_async(
                    _ANNOUNCE, worker=worker.worker_id, queue=listener.queue, name=listener.name,
                    place=listener.place, environment=listener.environment, pid=listener.pid,
                )  # fmt: skip
                announced = True
            # Its own heart stops when it is told to end, or has nothing more to fetch, though a batch may still run.
            await manager.update_heartbeat(worker.worker_id)
            await _recover(app, listener)
            # Jobs of ours that ended, and the server did not hear of it; what ends this moment is not meant.
            held = await manager.list_jobs_async(status="doing", worker_id=worker.worker_id)
            idle = {job.id for job in held if job.id is not None} - running
            if forgotten & idle:
                await app.connector.execute_query_async(
                    _FORGOTTEN, jobs=list(forgotten & idle), worker=worker.worker_id
                )
            forgotten = idle - forgotten
            if await asyncio.to_thread(lock.take) != "taken":
                worker.stop()  # another worker took over while we could not be heard
                return
        except lost:
            pass  # the server is away: the lock is taken anew as soon as it can be, while what runs goes on
        finally:
            known.set()  # or as good as it can be: jobs do not wait for a server that is away
        await asyncio.sleep(listener.beat_s)


async def _recover(app: App, listener: Listener) -> None:
    """Let the jobs of dead workers wait again; a server that has just come back has heard of nobody yet."""
    query = app.connector.execute_query_async
    if (await app.connector.execute_query_one_async(_UP_S))["up_s"] < listener.stalled_s:
        return
    await app.job_manager.prune_stalled_workers(listener.stalled_s)
    await query(_GIVE_UP, queue=listener.queue, most=_ATTEMPTS)
    await query(_HAND_ON, queue=listener.queue)
