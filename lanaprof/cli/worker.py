"""lanaprof worker."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import (
    Outcome,
    command,
    database_option,
    device_option,
    meter,
    notice,
    team_option,
)

if TYPE_CHECKING:
    from rich.console import Console


@command("worker")
@device_option
@database_option
@team_option
@click.option("--name", metavar="TEXT", help="What others see of this worker [default: the host's name].")
@click.option("--once", is_flag=True, help="End when nothing waits any more.")
@click.option("--max-time", metavar="8h", help="Stop after this time.")
@click.option(
    "--batch",
    default=64,
    show_default=True,
    type=click.IntRange(1, 768),
    help="Operators taken off the queue at once and timed together.",
)
def worker(**options: Any) -> Outcome:
    """Measure what waits on a device's queue, for whoever enqueued it; needs neither torch nor a teacher.

    SIGTERM or Ctrl-C ends the round in progress, stores what is done and gives the rest back.
    """
    from lanaprof.flows.bench import open_bench
    from lanaprof.flows.devicing import device_to_measure
    from lanaprof.flows.farming import listener_of, work
    from lanaprof.flows.project import default_team
    from lanaprof.flows.sources import find_config, source_from
    from lanaprof.lut import open_store
    from lanaprof.lut.queue import demand_server, open_queue
    from lanaprof.units import parse_duration

    limit_s = (
        parse_duration(options["max_time"], what="--max-time", example="10m") if options["max_time"] else None
    )
    here = Path.cwd()
    config = find_config(here)
    device = device_to_measure(options["device"], config, here)
    database = source_from(None, options["database"], here).database
    demand_server(database)
    with open_store(database, create=True) as store, meter("measuring") as bar:
        bench = open_bench(
            device,
            store,
            team=default_team(options["team"], config),
            report=lambda p: bar(p.done, p.total, p.left_s, p.text),
            notice=notice,
        )
        with open_queue(database, create=True) as queue:
            listener = listener_of(
                bench, queue, name=options["name"], once=options["once"], jobs=options["batch"]
            )
            notice(f"{listener.name} listens to {listener.queue} on {listener.place}")
            report = work(bench, queue, listener, limit_s=limit_s)
    document = {"queue": listener.queue, "place": listener.place, **asdict(report)}
    document["seconds"] = round(report.seconds, 3)

    def show(console: Console) -> None:
        from lanaprof.units import format_duration

        parts = [report.words]
        parts += [f"{report.refused} refused"] if report.refused else []
        parts += [f"{report.given_back} given back"] if report.given_back else []
        console.print(f"{', '.join(parts)} in {format_duration(report.seconds, digits=3)}")

    broken = report.failed or report.unsupported or report.timeout or report.refused
    return Outcome(document, show, 3 if broken or report.given_back else 0)
