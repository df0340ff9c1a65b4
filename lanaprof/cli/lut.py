"""lanaprof lut: look into, exchange and merge latency databases."""

from __future__ import annotations

from lanaprof.cli import LazyGroup

__all__ = ["COMMANDS", "lut"]

COMMANDS: dict[str, tuple[str, str]] = {
    "ls": ("lanaprof.cli.lut_look:ls", "What a database holds: environments, operators, teams."),
    "show": ("lanaprof.cli.lut_look:show", "Everything known of an operator, measurement or environment."),
    "coverage": ("lanaprof.cli.lut_coverage:coverage", "How much is measured, and what is missing."),
    "compare": ("lanaprof.cli.lut_compare:compare", "The same operators in two databases or environments."),
    "export": ("lanaprof.cli.lut_exchange:export", "Write a database, or a part of it, to a file."),
    "import": ("lanaprof.cli.lut_exchange:import_", "Add exported files to a database."),
    "merge": ("lanaprof.cli.lut_exchange:merge", "Add one database to another."),
    "push": ("lanaprof.cli.lut_transfer:push", "Send a server what it lacks."),
    "pull": ("lanaprof.cli.lut_transfer:pull", "Fetch from a server what is lacking here."),
    "retract": ("lanaprof.cli.lut_upkeep:retract", "Say that measurements are not to be used any more."),
    "upgrade": ("lanaprof.cli.lut_upkeep:upgrade", "Bring a database to this program's schema."),
    "check": ("lanaprof.cli.lut_upkeep:check", "Verify a database: file, schema, every record."),
}

lut = LazyGroup(
    COMMANDS,
    name="lut",
    help="Look into, exchange and merge latency databases.\n\nSOURCE is a URL or path, with an optional "
    "#device=…,environment=…,team=…,since=…,protocol=… that takes a part of it, and policy=… where a table is read.",
    no_args_is_help=True,
)
