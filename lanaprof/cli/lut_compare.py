"""lanaprof lut compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, device_option, notice, team_option
from lanaprof.cli.lut_text import counted, say

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.comparing import SourceComparison
    from lanaprof.lut import Source

_LISTED = 20  # operators a person is shown, those that differ most; --json has all


@command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--cache", type=click.Choice(["relay", "hot", "cold"]), help="Only this cache state.")
@device_option
@team_option
def compare(a: str, b: str, cache: str | None, device: str | None, team: str | None) -> Outcome:
    """Show how the latencies in SOURCE B differ from those in SOURCE A: B / A per operator and cache state."""
    from lanaprof.flows.comparing import compare_sources
    from lanaprof.flows.project import default_team
    from lanaprof.flows.sources import find_config, source_from
    from lanaprof.lut import parse_source

    folder = Path.cwd()

    def side(text: str) -> Source:
        own = parse_source(text)
        named = own.device or own.environment  # a SOURCE that says so itself keeps its own device
        return source_from(text, None, folder, device=None if named else device)

    own_team = default_team(team, find_config(folder))
    found = compare_sources(side(a), side(b), folder, team=own_team, cache=cache)
    for warning in found.warnings:
        notice(warning)
    if not found.ratios:
        notice("both have measurements, but no operator in the same cache state and space")
    return Outcome(_document(found), lambda console: _show(console, found))


def _document(found: SourceComparison) -> dict[str, Any]:
    descriptions = dict(found.descriptions)
    return {
        "operators": [
            {
                "operator": ratio.operator,
                "ratio": ratio.ratio,
                "low": ratio.low,
                "high": ratio.high,
                "cache": part.cache,
                "space": part.space,
                "noisy": ratio.noisy,
                "description": descriptions.get(ratio.operator, ""),
            }
            for part in found.parts
            for ratio in part.comparison.operators
        ],
        "median": found.deviation(0.5),
        "p95": found.deviation(0.95),
        "caches": {
            cache: {
                "operators": sum(len(p.comparison.operators) for p in found.parts if p.cache == cache),
            }
            for cache in dict.fromkeys(part.cache for part in found.parts)
        },
        "a": {"environment": found.a.id, "only": found.only_a},
        "b": {"environment": found.b.id, "only": found.only_b},
    }


def _show(console: Console, found: SourceComparison) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table
    from lanaprof.flows.sources import environment_text

    for name, environment in (("A", found.a), ("B", found.b)):
        say(console, f"{name}: {environment_text(environment)}")
    descriptions = dict(found.descriptions)
    rows = sorted(found.ratios, key=lambda ratio: abs(ratio.ratio - 1.0), reverse=True)
    table = plain_table("operator", "cache", "#B / A", "95 % interval", "", "what it is")
    for row in rows[:_LISTED]:
        high = f"{row.high:.3f}" if row.high is not None else "∞"
        mark = "noisy" if row.noisy else ""
        what = escape(descriptions.get(row.operator, ""))
        table.add_row(row.operator[:12], row.cache, f"{row.ratio:.3f}", f"{row.low:.3f} … {high}", mark, what)
    if rows:
        console.print(table)
    if len(rows) > _LISTED:
        say(console, f"and {len(rows) - _LISTED} more that differ less; --json lists all")
    median, p95 = found.deviation(0.5), found.deviation(0.95)
    if median is not None and p95 is not None:
        say(
            console,
            f"{len(rows)} compared: they differ by {median:.2%} (median), 95 % of them by less than {p95:.2%}",
        )
    for name, count in (("A", found.only_a), ("B", found.only_b)):
        if count:
            say(console, f"{counted(count, 'operator')} only in {name}")
