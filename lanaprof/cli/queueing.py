"""lanaprof measure --queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lanaprof.cli.base import Outcome, meter

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.config import Device
    from lanaprof.flows.project import Project


def enqueue(
    project: Project | None, device: Device, database: str, *, team: str, options: dict[str, Any]
) -> Outcome:
    """Put what the device lacks on its queue."""
    from lanaprof.flows.queueing import Again, enqueue_gaps, enqueue_project
    from lanaprof.lut import open_store
    from lanaprof.lut.queue import demand_server, open_queue

    demand_server(database)  # before anything is exported
    again = Again(retry=tuple(options["retry"]), force=options["force"])
    with open_store(database, create=True) as store, open_queue(database, create=True) as queue:
        if project is None:
            done = enqueue_gaps(device, store, queue, team=team, again=again)
        else:
            with meter("exporting candidates") as bar:
                done = enqueue_project(
                    project,
                    device,
                    store,
                    queue,
                    team=team,
                    exporter=options["exporter"],
                    exporting=bar,
                    again=again,
                )
    report = done.report
    document = {
        "queue": done.queue,
        "enqueued": report.added,
        "waiting": report.waiting,
        "running": report.running,
        "reused": done.reused,
        "operators": done.operators,
        "exported": done.exported,
        "unsupported": done.unexportable,
        "cache": done.cache,
        "workers": done.workers,
        "environment": done.environment or None,
    }

    def show(console: Console) -> None:
        console.print(
            f"{report.added} jobs enqueued on {done.queue} ({done.cache}), {report.waiting} waited and "
            f"{report.running} ran already; {done.reused} of {done.operators} operators are measured"
        )
        if done.workers:
            console.print(f"{done.workers} workers listen: lanaprof farm --watch")
        elif report.added or report.waiting or report.running:
            console.print(
                f"nobody listens: on each host that is {done.queue}, "
                f"lanaprof worker --device {done.queue} --database URL"
            )

    return Outcome(document, show)
