"""What every command shares: --json, --debug, errors with exit codes, progress with time left."""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lanaprof.errors import BadInput, InfeasibleBudget, LanaprofError
from lanaprof.lut.policy import POLICIES

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.distill import Progress
    from lanaprof.flows.project import Project
    from lanaprof.lut import Store

__all__ = [
    "Meter",
    "Outcome",
    "command",
    "database_option",
    "device_option",
    "environment_option",
    "fail",
    "meter",
    "notice",
    "outcome_of",
    "policy_option",
    "ray_option",
    "team_option",
    "warn_of_latest",
]

Show = Callable[["Console"], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command ends with.

    Attributes:
        document: printed with --json.
        show: prints the same for people.
        exit_code: 0 done, 3 done but incomplete.
    """

    document: Mapping[str, Any]
    show: Show
    exit_code: int = 0


def command(name: str, **settings: Any) -> Callable[[Callable[..., Outcome]], click.Command]:
    """Make a command of a function that returns an Outcome; adds --json and --debug."""

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        @functools.wraps(function)
        def run(*, as_json: bool, debug: bool, **options: Any) -> int:
            del debug  # read from the command line where errors are caught
            outcome = function(**options)
            if as_json:
                sys.stdout.write(json.dumps(outcome.document, allow_nan=False) + "\n")
            else:
                from rich.console import Console

                outcome.show(Console(soft_wrap=not sys.stdout.isatty()))
            return outcome.exit_code

        run.plain = function  # type: ignore[attr-defined]
        run.__click_params__ = list(getattr(function, "__click_params__", []))  # type: ignore[attr-defined]
        wrapped: Any = run
        wrapped = click.option("--debug", is_flag=True, help="Show tracebacks.")(wrapped)
        wrapped = click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")(
            wrapped
        )
        make: Callable[[Any], click.Command] = click.command(name, **settings)
        return make(wrapped)

    return decorate


def outcome_of(made: click.Command, words: Sequence[str]) -> Outcome:
    """Run a command as if these words had been typed, and return its outcome instead of printing it."""
    with made.make_context(made.name, list(words)) as context:
        options = {name: value for name, value in context.params.items() if name not in ("as_json", "debug")}
        function: Callable[..., Outcome] = made.callback.plain  # type: ignore[union-attr]
        return function(**options)


def fail(error: BaseException, *, as_json: bool, debug: bool) -> int:
    """Tell the user what went wrong and return the exit code."""
    if isinstance(error, LanaprofError):
        kind, message, hint, code = type(error).__name__, error.message, error.hint, error.exit_code
    elif isinstance(error, click.ClickException):
        kind, message, hint, code = "UsageError", error.format_message(), "", 2
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"{error.ctx.command_path} --help"
    elif (isinstance(error, OSError) and error.filename is not None) or isinstance(error, BrokenPipeError):
        assert isinstance(error, OSError)
        kind, message, hint, code = "BadInput", f"{error.filename}: {error.strerror}", "", 2
    elif isinstance(error, OSError) and error.errno == 28:  # ENOSPC
        kind, message, hint, code = (
            "StoreError",
            "the disk is full",
            "free some space and run the command again",
            2,
        )
    else:
        kind, message, code = type(error).__name__, f"{type(error).__name__}: {error}", 1
        hint = "this is a fault of lanaprof; --debug shows where"
    if debug:
        import traceback

        traceback.print_exception(error)
    if as_json:
        document: dict[str, Any] = {"error": {"type": kind, "message": message, "hint": hint}}
        if isinstance(error, InfeasibleBudget):
            document |= {"status": "infeasible", "least": error.least}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stderr.write(f"lanaprof: {message}\n" + (f"  → {hint}\n" if hint else ""))
    return code


def notice(text: str) -> None:
    """Tell the user something on stderr, once."""
    if text not in _noticed:
        _noticed.add(text)
        sys.stderr.write(f"lanaprof: {text}\n")
        sys.stderr.flush()


_noticed: set[str] = set()


def warn_of_latest(project: Project, store: Store, which: str | None) -> None:
    """Tell the user when the latest selection is meant, and is another team's, or one before it was proved."""
    from lanaprof.flows.chosen import find_selection, verified_instead
    from lanaprof.flows.project import default_team

    if which not in (None, "latest"):
        return
    latest, own = find_selection(project, store, which), default_team(None, project.config)
    if latest.team != own:
        notice(f"selection {latest.id[:12]} is of team {latest.team!r}: as {own!r} nothing is selected here")
    if (proved := verified_instead(project, store, which)) is not None:
        notice(
            f"the latest selection was not proved; the newest that was: --selection {proved.id[:12]} "
            f"({proved.device}, {proved.time})"
        )


class Meter:
    """A progress line on stderr: a bar where a person looks, a line every ten seconds where not."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._told_s = time.monotonic()
        self._first: tuple[float, float] | None = None  # when something was done first, and how much
        self._live = sys.stderr.isatty()
        self._width = 0

    def __call__(self, done: float, total: float, left_s: float | None = None, text: str = "") -> None:
        """Show how far it is; without ``left_s`` the time left is extrapolated, what starting took left out."""
        from lanaprof.units import format_duration

        now_s = time.monotonic()
        if done and self._first is None:
            self._first = now_s, done
        if now_s - self._told_s < (0.1 if self._live else 10.0):
            return
        self._told_s = now_s
        if left_s is None:
            first_s, first = self._first or (now_s, done)
            left_s = (now_s - first_s) / (done - first) * (total - done) if done > first else 0.0
        left = f", {format_duration(left_s, digits=2)} left" if left_s > 0 else ""
        line = f"{self._title}: {done:g} of {total:g}{f' ({text})' if text else ''}{left}"
        if self._live:
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def follow(self, progress: Progress) -> None:
        """Show how far a job of distilling or scoring is."""
        self(progress.done, progress.total, progress.seconds_left, progress.stage)

    def close(self) -> None:
        """Clear the line."""
        if self._live and self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()


@contextmanager
def meter(title: str) -> Iterator[Meter]:
    """Give a progress line for the time of a block."""
    made = Meter(title)
    try:
        yield made
    finally:
        made.close()


def database_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --database."""
    return click.option(
        "--database", metavar="URL|PATH", help="The latency database [default: lanaprof.db]."
    )(function)


def device_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --device."""
    return click.option(
        "--device",
        metavar="DEVICE",
        help="name[,threads=N][,batch=N][,precision=P] [default: lanaprof.toml's].",
    )(function)


def environment_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --environment."""
    return click.option("--environment", metavar="KEY", help="Pin one environment of the device.")(function)


def team_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --team."""
    return click.option(
        "--team", metavar="NAME", help="Whose measurements [default: LANAPROF_TEAM, else local]."
    )(function)


def policy_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --policy."""
    return click.option(
        "--policy",
        type=click.Choice(list(POLICIES)),
        help="Which of several measurements of one operator counts [default: lanaprof.toml's, else own-host].",
    )(function)


def ray_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add --ray."""
    return click.option(
        "--ray", metavar="ADDRESS", help="Spread over a Ray cluster: HOST:PORT of its head, auto, or local."
    )(function)


def database_from(option: str | None) -> str:
    """Return the database for a command outside a project."""
    return option or os.environ.get("LANAPROF_DATABASE") or "lanaprof.db"


def split_named(texts: Sequence[str], what: str) -> list[tuple[str | None, str]]:
    """Split ``NAME=VALUE`` at the last ``=``; without one the name is None."""
    pairs: list[tuple[str | None, str]] = []
    for text in texts:
        name, equals, value = text.rpartition("=")
        if equals and (not name or not value):
            raise BadInput(f"{what} {text!r} must be VALUE or NAME=VALUE", hint=f"--{what} cpu=5ms")
        pairs.append((name if equals else None, value))
    return pairs
