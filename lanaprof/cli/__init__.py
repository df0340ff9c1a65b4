"""The command line: one file per command, imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from lanaprof.cli.base import fail

__all__ = ["COMMANDS", "LazyGroup", "main"]

COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("lanaprof.cli.init:init", "Make a project: find the teacher's layers, write lanaprof.toml."),
    "status": ("lanaprof.cli.status:status", "What is done, what is stale, what comes next."),
    "run": ("lanaprof.cli.run:run", "The whole pipeline from here to an exported student."),
    "devices": ("lanaprof.cli.devices:devices", "Known devices, and which can be measured here."),
    "doctor": ("lanaprof.cli.doctor:doctor", "Check this machine before measuring."),
    "space": ("lanaprof.cli.space:space", "Layers, candidates, operators."),
    "measure": ("lanaprof.cli.measure:measure", "Fill the latency database."),
    "worker": ("lanaprof.cli.worker:worker", "Measure what waits on a device's queue, for a farm."),
    "farm": ("lanaprof.cli.farm:farm", "Queues, workers and failed jobs of a measuring farm."),
    "calibrate": ("lanaprof.cli.calibrate:calibrate", "Fit the table to whole networks."),
    "distill": ("lanaprof.cli.distill:distill", "Train the candidates that can matter."),
    "score": ("lanaprof.cli.score:score", "Score the candidates on held-out data."),
    "select": ("lanaprof.cli.select:select", "Choose the best architecture within a budget, and prove it."),
    "frontier": ("lanaprof.cli.frontier:frontier", "The best score for every budget."),
    "solve": ("lanaprof.cli.solve:solve", "The solver alone, on a problem file."),
    "verify": ("lanaprof.cli.verify:verify", "Time whole networks against their predictions."),
    "predict": ("lanaprof.cli.predict:predict", "An architecture's latency from the table alone."),
    "finetune": ("lanaprof.cli.finetune:finetune", "Distil the whole selected network."),
    "export": ("lanaprof.cli.export:export", "Write a network as ONNX, torch.export program or folder."),
    "report": ("lanaprof.cli.report:report", "One self-contained HTML page."),
    "hub": ("lanaprof.cli.hub:hub", "One server that gives every team its tables by token."),
    "remote": ("lanaprof.cli.remote:remote", "The hubs to push to and pull from."),
    "push": ("lanaprof.cli.remote:push", "Send a hub what it lacks."),
    "pull": ("lanaprof.cli.remote:pull", "Fetch from a hub what is lacking here."),
    "lut": ("lanaprof.cli.lut:lut", "Look into, exchange and merge latency databases."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, and which turns errors into messages and exit codes."""

    def __init__(self, lazy: dict[str, tuple[str, str]], **settings: Any) -> None:
        super().__init__(**settings)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order a user needs them."""
        return [*self._lazy, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        found: click.Command = getattr(import_module(module), attribute)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._lazy.items()])

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run a command; exit with its code."""
        words = list(sys.argv[1:] if args is None else args)
        if extra.get("standalone_mode") is False:
            return super().main(words, *rest, **extra)
        before = words[: words.index("--")] if "--" in words else words
        as_json, debug = "--json" in before, "--debug" in before
        try:
            code = super().main(words, *rest, **{**extra, "standalone_mode": False})
        except (click.Abort, KeyboardInterrupt):
            sys.stderr.write("lanaprof: stopped; the same command goes on from here\n")
            sys.exit(130)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            sys.exit(2)
        except Exception as error:  # the one place where errors become messages
            sys.exit(fail(error, as_json=as_json, debug=debug))
        sys.exit(code if isinstance(code, int) else 0)


main = LazyGroup(
    COMMANDS,
    name="lanaprof",
    help="Fit a trained neural network into a latency budget on your own device, with numbers you can trust.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
)
main = click.version_option(package_name="lanaprof", message="%(prog)s %(version)s")(main)
