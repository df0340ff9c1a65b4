"""The reference page of the command line, made from what the commands say of themselves.

``python -m lanaprof.cli.reference > docs/cli.md`` writes it anew.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

__all__ = ["cli_markdown"]

_HEAD = """\
# The command line

<!-- Generated: python -m lanaprof.cli.reference > docs/cli.md; a test compares the two. -->

`lanaprof COMMAND --help` prints the same for one command. What all commands have in common:

- `--json` prints exactly one JSON document to standard output; everything else goes to standard error. An
  error is `{"error": {"type", "message", "hint"}}`; a budget that nothing meets adds `"status": "infeasible"` and
  `"least"`, the least reachable value of each budgeted cost.
- `--debug` shows the traceback of an error.
- Exit codes: 0 done; 1 a fault of lanaprof; 2 your input or an unmet need; 3 done but incomplete (some
  operators failed, a time limit was reached, the budget was not met); 130 stopped by Ctrl-C.
- Options come before environment variables, these before lanaprof.toml, this before the defaults. An option
  that takes several values is repeated.
- DEVICE is `name[,threads=N][,batch=N][,precision=P]` with a name from devices.yaml. Without it: the first device
  in lanaprof.toml, else the only one that was measured, else an error that lists them.
- Times are written `250us`, `5ms`, `1.5s`, `10m`, `2h`; sizes `20MB` (10⁶ bytes) or `16MiB` (2²⁰); counts `5M`,
  `300k`. A latency budget may also be `50%` (of the teacher's latency) or `2x` (so many times faster).

| environment variable | meaning |
| --- | --- |
| `LANAPROF_DATABASE` | the latency database: a path or URL |
| `LANAPROF_TEAM` | the team whose measurements these are |
| `LANAPROF_TOKEN` | the token for hubs; comes before the one `lanaprof remote add` kept |
| `LANAPROF_HUB_LEDGER` | the hub's file of tokens and its audit log |
| `LANAPROF_SPREAD_S` | the rounds of a batch take at least so many seconds (default: 20, under hot 3) |
| `LANAPROF_FASHION_MNIST` | folder with the four files of Fashion-MNIST, for the data spec `fashion-mnist` |
"""

# click's names for kinds of values, longest first, and how a person writes them
_KINDS = (("INTEGER RANGE", "N"), ("FLOAT RANGE", "X"), ("INTEGER", "N"), ("FLOAT", "X"))


def cli_markdown() -> str:
    """Return the page: every command with its usage, help and options."""
    from lanaprof.cli import main

    lines = [_HEAD]
    for name, command in _commands(main, "lanaprof"):
        lines += _section(name, command)
    return "\n".join(lines)


def _commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, with the words that call it."""
    context = click.Context(group, info_name=prefix)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{prefix} {name}")


def _section(name: str, command: click.Command) -> list[str]:
    context = click.Context(command, info_name=name)
    depth = "#" * (len(name.split()))
    lines = [f"{depth} {name}", ""]
    if not isinstance(command, click.Group):
        words = " ".join(command.collect_usage_pieces(context))
        lines += ["```console", f"$ {name} {words}", "```", ""]
    lines += [(command.help or "").strip(), ""]
    rows = [record for parameter in command.params if (record := _option(parameter, context)) is not None]
    if rows:
        lines += ["| option | meaning |", "| --- | --- |", *rows, ""]
    return lines


def _option(parameter: click.Parameter, context: click.Context) -> str | None:
    """Return an option's row; arguments stand in the usage, --json and --debug at the top of the page."""
    record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
    if record is None or parameter.name in ("as_json", "debug", "help"):
        return None
    option, meaning = (" ".join(text.split()).replace("|", "\\|") for text in record)
    for name, short in _KINDS:
        option = option.replace(name, short)
    return f"| `{option}` | {meaning} |"


if __name__ == "__main__":
    sys.stdout.write(cli_markdown())
