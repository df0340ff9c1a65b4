"""A farm's queue on a real server: what is enqueued once, seen, handed on, tried again; and what stands in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from lanaprof.errors import DeviceUnavailable, SchemaMismatch, StoreError
from lanaprof.lut import check
from lanaprof.lut.engine import engine_for, locate, writing
from lanaprof.lut.jobs import Job, WorkerState, job_from_json
from lanaprof.lut.models import VERSION_TABLE, metadata
from lanaprof.lut.placelock import PlaceLock
from lanaprof.lut.queue import Queue, drop_queue, open_queue
from lanaprof.lut.serving import GivenBack, Handle, Listener, Refused, lock_of, serve

pytest.importorskip("procrastinate", reason="the extra farm is not installed")

JOBS = [Job(operator=f"operator-{number}", protocol="hot/1") for number in range(5)]


@pytest.fixture
def url(databases: Any) -> Iterator[str]:
    """A server's database at head, without a queue."""
    found: str = databases.empty()
    yield found
    drop_queue(found)


@pytest.fixture
def queue(url: str) -> Iterator[Queue]:
    """An empty queue."""
    with open_queue(url, create=True) as opened:
        yield opened


def listener(**changes: Any) -> Listener:
    """Return who listens; silent for minutes it still lives, so that none dies of a busy machine."""
    given = {
        "queue": "cpu", "name": "lab", "place": "host h core 1", "environment": "e", "pid": 7, "jobs": 2,
        "once": True, "beat_s": 0.5, "stalled_s": 600.0, "poll_s": 0.05,
    }  # fmt: skip
    return Listener(**{**given, **changes})


def served(queue: Queue, handle: Handle, **changes: Any) -> list[str]:
    """Serve a queue to its end; return what the owner was told."""
    told: list[str] = []

    async def main() -> None:
        who = listener(**changes)
        lock = lock_of(queue, who)
        await serve(queue, who, handle, lock=lock, stop=asyncio.Event(), notice=told.append)

    asyncio.run(asyncio.wait_for(main(), 600))
    return told


def run(queue: Queue, statement: str) -> Any:
    """Run SQL in the queue's schema; return the first value of what it gives."""
    with writing(queue.engine) as connection:
        found = connection.execute(text(statement))
        return found.scalar() if found.returns_rows else None


def states(queue: Queue) -> tuple[int, int, int, int]:
    """Return how many jobs wait, run, are done, have failed."""
    (state,) = queue.overview().queues
    return state.waiting, state.running, state.done, state.failed


def test_job_is_what_its_json_says() -> None:
    """A job survives its journey as JSON, whatever a newer program adds."""
    job = Job(operator="o", protocol="relay/2", kind="segment", layers=("a", "b"), context="c", since="2026")

    assert job == job_from_json({**job.to_json(), "unheard_of": 1})


def test_a_file_is_no_server(tmp_path: Path) -> None:
    """A farm on a SQLite file is refused with what to type instead."""
    with pytest.raises(StoreError, match="is a file") as raised:
        open_queue(str(tmp_path / "lanaprof.db"), create=True)

    assert "postgresql://" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_absent_queue_says_what_makes_one(url: str) -> None:
    """Looking makes nothing."""
    for _ in range(2):
        with pytest.raises(StoreError, match="no queue") as raised:
            open_queue(url)

    assert "lanaprof measure" in raised.value.hint


def test_nothing_is_enqueued_twice(queue: Queue) -> None:
    """An operator that waits, or runs, for a device and protocol is not enqueued again; for another device it is."""
    first = queue.enqueue("cpu", JOBS[:3])
    run(
        queue,
        "UPDATE procrastinate_jobs SET status = 'doing' WHERE id = (SELECT min(id) FROM procrastinate_jobs)",
    )
    second, other = queue.enqueue("cpu", JOBS), queue.enqueue("t4", JOBS[:1])

    assert (3, 0, 0) == (first.added, first.waiting, first.running)
    assert (2, 2, 1) == (second.added, second.waiting, second.running)
    assert 1 == other.added


def test_contexts_are_kept_beside_the_jobs(queue: Queue) -> None:
    """What many jobs share is stored once, and given by its id."""
    queue.enqueue(
        "cpu", [Job(operator=each, protocol="relay/2", context="c") for each in "ab"], {"c": {"space": "s"}}
    )

    assert {"space": "s"} == queue.get_context("c")
    with pytest.raises(StoreError, match="no relay context"):
        queue.get_context("d")


def test_the_latency_database_does_not_see_the_queue(url: str, queue: Queue) -> None:
    """With a queue beside it the database has the models' tables and no others, and is well."""
    queue.enqueue("cpu", JOBS)
    engine = engine_for(locate(url))
    with engine.connect() as connection:
        differences = compare_metadata(
            MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}), metadata
        )
    engine.dispose()

    assert [] == differences
    assert () == tuple(check(url).problems)


def test_jobs_are_handed_out_and_done(queue: Queue) -> None:
    """Every job is handled once; afterwards nobody listens."""
    queue.enqueue("cpu", JOBS)
    handled = []

    async def handle(job: Job) -> None:
        handled.append(job)

    served(queue, handle)

    assert JOBS == sorted(handled, key=lambda job: job.operator)
    assert (0, 0, 5, 0) == states(queue)
    assert () == queue.overview().workers


def test_who_listens_can_be_seen(queue: Queue) -> None:
    """While it works, a worker is listed with its place, environment and jobs."""
    queue.enqueue("cpu", JOBS[:1])
    seen: list[WorkerState] = []

    async def handle(job: Job) -> None:
        seen.extend(queue.overview().workers)

    served(queue, handle)

    assert [("lab", "host h core 1", "e", 1, False)] == [
        (each.name, each.place, each.environment, each.running, each.stalled) for each in seen
    ]


def test_a_worker_is_heard_to_its_end(queue: Queue) -> None:
    """While its last job runs and nothing more waits, a worker's heart still beats."""
    queue.enqueue("cpu", JOBS[:1])
    beats = set[Any]()

    async def handle(job: Job) -> None:
        while len(beats) < 10:  # procrastinate's own heart stops with the last job it fetched
            beats.add(run(queue, "SELECT last_heartbeat FROM procrastinate_workers"))
            await asyncio.sleep(0.02)

    served(queue, handle, beat_s=0.1)

    assert 10 == len(beats)


def test_given_back_waits_again(queue: Queue) -> None:
    """A job that is given back is handed out once more."""
    queue.enqueue("cpu", JOBS[:1])
    handled = []

    async def handle(job: Job) -> None:
        handled.append(job)
        if len(handled) == 1:
            raise GivenBack

    served(queue, handle)

    assert 2 == len(handled)
    assert (0, 0, 1, 0) == states(queue)


def test_refused_fails_with_its_reason_and_can_be_retried(queue: Queue) -> None:
    """What no attempt can make right is tried once and says why; on request it waits again."""
    queue.enqueue("cpu", JOBS[:1])

    async def handle(job: Job) -> None:
        raise Refused("no such protocol")

    served(queue, handle)
    (failure,) = queue.overview().failures

    assert (JOBS[0].operator, "lab", "no such protocol") == (
        failure.operator,
        failure.worker,
        failure.message,
    )
    assert 1 == queue.retry_failed("cpu")
    assert (1, 0, 0, 0) == states(queue)


def test_retry_forgets_what_waits_anew(queue: Queue) -> None:
    """A failed job whose operator was enqueued again is not let in beside it."""
    queue.enqueue("cpu", JOBS[:1])
    run(queue, "UPDATE procrastinate_jobs SET status = 'failed'")
    queue.enqueue("cpu", JOBS[:1])

    assert 0 == queue.retry_failed()
    assert (1, 0, 0, 0) == states(queue)


@pytest.mark.parametrize("heartbeat", ["now() - interval '1 minute'", None], ids=["silent", "unknown"])
def test_jobs_of_dead_workers_are_handed_on(queue: Queue, heartbeat: str | None) -> None:
    """What a silent or vanished worker held is stalled, and done by the next."""
    queue.enqueue("cpu", JOBS[:2])
    if heartbeat is not None:
        run(queue, f"INSERT INTO procrastinate_workers (last_heartbeat) VALUES ({heartbeat})")
    run(
        queue,
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)",
    )
    stalled = queue.overview(stalled_s=3.0).queues[0].stalled
    up_s: float = run(
        queue, "SELECT extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float"
    )
    time.sleep(max(0.0, 3.1 - up_s))  # a server that has just started has heard of nobody yet

    async def handle(job: Job) -> None:
        pass

    served(queue, handle, stalled_s=3.0)

    assert 2 == stalled
    assert (0, 0, 2, 0) == states(queue)


def test_a_live_workers_jobs_are_left_alone(queue: Queue) -> None:
    """Nobody takes a job from a worker that is heard."""
    queue.enqueue("cpu", JOBS[:1])
    run(queue, "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() + interval '1 hour')")
    run(
        queue,
        "UPDATE procrastinate_jobs SET status = 'doing', worker_id = (SELECT max(id) FROM procrastinate_workers)",
    )

    async def handle(job: Job) -> None:
        raise AssertionError

    served(queue, handle)

    assert (0, 1, 0, 0) == states(queue)


def place(queue: Queue, holder: str, *, silent_s: float = 600.0) -> PlaceLock:
    """Return a lock of the place that a listener measures on."""
    return PlaceLock(queue.engine, queue.location, place="host h core 1", holder=holder, silent_s=silent_s)


def test_one_worker_at_a_time_for_a_place(queue: Queue) -> None:
    """A second worker on the same cores is refused while the first lives."""
    first = place(queue, "first")

    async def handle(job: Job) -> None:
        raise AssertionError

    assert "taken" == first.take()
    with pytest.raises(DeviceUnavailable, match="is measured on by"):
        served(queue, handle)
    first.give_back()


def test_a_lock_that_was_lost_is_not_taken_from_its_holder(queue: Queue) -> None:
    """When only the connection is gone, the holder takes it again, and others wait until it has been silent."""
    first, second = place(queue, "first"), place(queue, "second")

    assert "taken" == first.take()
    first.drop()
    assert "waiting" == second.take()
    assert "taken" == first.take()
    first.drop()
    second = place(queue, "second", silent_s=0.0)  # as if all the time had passed
    assert "taken" == second.take()
    assert "locked" == first.take()
    second.give_back()
    assert "taken" == first.take()
    first.give_back()


def test_clear_deletes_what_ended(queue: Queue) -> None:
    """Ended jobs go, and those that wait when asked."""
    queue.enqueue("cpu", JOBS)
    run(
        queue,
        "UPDATE procrastinate_jobs SET status = 'failed' WHERE id = (SELECT min(id) FROM procrastinate_jobs)",
    )

    assert (1, 0, 4) == (queue.clear("cpu"), queue.clear("t4", waiting=True), queue.clear(waiting=True))


def test_a_queue_of_other_tables_is_refused(url: str, queue: Queue) -> None:
    """A queue made by another procrastinate is not touched, but it can be removed."""
    run(queue, "COMMENT ON SCHEMA lanaprof_queue IS 'procrastinate 4.0.0, tables 01234567'")

    with pytest.raises(SchemaMismatch, match=r"made by procrastinate 4\.0\.0") as raised:
        open_queue(url, create=True)

    assert "lanaprof farm clear --everything" in raised.value.hint
