"""lanaprof farm."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, database_option

if TYPE_CHECKING:
    from rich.console import Console, Group

    from lanaprof.lut.jobs import Overview
    from lanaprof.lut.queue import Queue

_LOOK_EVERY_S = 2.0


def _queue_option(function: Any) -> Any:
    return click.option("--device", metavar="DEVICE", help="Only this device's queue.")(function)


def _database(option: str | None) -> str:
    from lanaprof.flows.sources import source_from

    return source_from(None, option, Path.cwd()).database


def _queue_name(device: str | None) -> str | None:
    from lanaprof.config import parse_device
    from lanaprof.flows.farming import queue_of

    return queue_of(parse_device(device, Path.cwd())) if device else None


def _opened(option: str | None) -> Queue:
    from lanaprof.lut.queue import open_queue

    return open_queue(_database(option))


class _Farm(click.Group):
    """Looks at the farm when no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the command's name where it may be left out."""
        if not any(each in self.commands for each in args) and not {"-h", "--help"} & set(args):
            args = ["show", *args]
        return super().parse_args(ctx, args)


@click.group("farm", cls=_Farm)
def farm() -> None:
    """Queues, workers, throughput, time left, failed jobs of a measuring farm [default: show]."""


@command("show")
@database_option
@click.option("--watch", is_flag=True, help="Look again every two seconds, until Ctrl-C.")
def show(database: str | None, *, watch: bool) -> Outcome:
    """Queues, workers, throughput and time left; stalled and failed jobs."""
    with _opened(database) as queue:
        seen = queue.overview()
        if watch:
            from rich.console import Console
            from rich.live import Live

            with Live(_tables(seen), console=Console(stderr=True), auto_refresh=False) as live:
                try:
                    while True:
                        time.sleep(_LOOK_EVERY_S)
                        seen = queue.overview()
                        live.update(_tables(seen), refresh=True)
                except KeyboardInterrupt:
                    pass  # how one ends looking
            return Outcome(seen.to_json(), lambda _console: None)  # the last look stands there already
    return Outcome(seen.to_json(), lambda console: console.print(_tables(seen)))


def _tables(seen: Overview) -> Group:
    from rich.console import Group

    from lanaprof.cli.tables import plain_table
    from lanaprof.units import format_duration

    def time_text(seconds: float | None) -> str:
        return "–" if seconds is None else format_duration(seconds, digits=2)

    queues = plain_table(
        "queue", "#waiting", "#running", "#stalled", "#done", "#failed", "#a minute", "#left"
    )
    for each in seen.queues:
        rate = "–" if each.per_minute is None else f"{each.per_minute:.1f}"
        numbers = (each.waiting, each.running, each.stalled, each.done, each.failed)
        queues.add_row(each.queue, *map(str, numbers), rate, time_text(each.left_s))
    parts: list[Any] = [queues if seen.queues else "nothing was ever enqueued: lanaprof measure --queue"]
    if seen.workers:
        workers = plain_table("worker", "queue", "on", "#process", "environment", "#running", "#heard")
        for one in seen.workers:
            heard = f"{time_text(one.silent_s)} ago" + (", stalled" if one.stalled else "")
            workers.add_row(
                one.name, one.queue, one.place, str(one.pid), one.environment[:12], str(one.running), heard
            )
        parts += ["", workers]
    idle = {each.queue for each in seen.queues if each.waiting} - {
        one.queue for one in seen.workers if not one.stalled
    }
    parts += [f"nobody listens to {name}: lanaprof worker --device {name}" for name in sorted(idle)]
    if seen.failures:
        failures = plain_table("#failed job", "queue", "operator", "#attempts", "worker", "why")
        for job in seen.failures:
            row = (str(job.id), job.queue, job.operator[:12], str(job.attempts), job.worker, job.message)
            failures.add_row(*row)
        parts += ["", failures, "lanaprof farm retry lets them wait again"]
    return Group(*parts)


@command("retry")
@database_option
@_queue_option
def retry(database: str | None, device: str | None) -> Outcome:
    """Let failed jobs wait again."""
    with _opened(database) as queue:
        count = queue.retry_failed(_queue_name(device))
    return Outcome({"retried": count}, lambda console: console.print(f"{count} jobs wait again"))


@command("clear")
@database_option
@_queue_option
@click.option("--waiting", is_flag=True, help="Those that wait, too.")
@click.option("--everything", is_flag=True, help="Remove the queue itself; stop all workers first.")
def clear(database: str | None, device: str | None, *, waiting: bool, everything: bool) -> Outcome:
    """Delete jobs that ended. No measurement is touched."""
    from lanaprof.errors import BadInput

    if everything:
        from lanaprof.lut.queue import drop_queue

        if device or waiting:
            raise BadInput("--everything removes all queues", hint="leave out --device and --waiting")
        drop_queue(_database(database))
        return Outcome({"cleared": "everything"}, lambda console: console.print("the queue is removed"))
    with _opened(database) as queue:
        count = queue.clear(_queue_name(device), waiting=waiting)

    def told(console: Console) -> None:
        console.print(f"{count} jobs deleted")

    return Outcome({"cleared": count}, told)


for each in (show, retry, clear):
    farm.add_command(each)
