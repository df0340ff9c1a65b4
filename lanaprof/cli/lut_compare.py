"""lanaprof lut compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lanaprof.cli.base import Outcome, command, device_option, notice, policy_option, team_option
from lanaprof.cli.lut_text import counted, say

if TYPE_CHECKING:
    from rich.console import Console

    from lanaprof.flows.comparing import CacheComparison, SourceComparison
    from lanaprof.lut import OperatorRatio, Source

_LISTED = 20  # operators a person is shown, those that changed most of their own; --json has all


@command("compare")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--cache", type=click.Choice(["relay", "hot", "cold"]), help="Only this cache state.")
@click.option("--plot", metavar="F.html|F.png", type=click.Path(path_type=Path), help="Draw it.")
@device_option
@team_option
@policy_option
def compare(a: str, b: str, cache: str | None, plot: Path | None, **options: str | None) -> Outcome:
    """Show how SOURCE B differs from SOURCE A: environment, machine as a whole, each operator (ratios B / A)."""
    from lanaprof.flows.comparing import compare_sources
    from lanaprof.flows.project import default_team
    from lanaprof.flows.sources import find_config, source_from
    from lanaprof.lut import parse_source

    folder = Path.cwd()

    def side(text: str) -> Source:
        own = parse_source(text)
        named = own.device or own.environment  # a SOURCE that says so itself keeps its own device
        return source_from(text, None, folder, device=None if named else options["device"])

    config = find_config(folder)
    own_team = default_team(options["team"], config)
    policy = options["policy"] or (config.policy if config is not None else "")
    found = compare_sources(side(a), side(b), folder, team=own_team, cache=cache, policy=policy)
    for warning in found.warnings:
        notice(warning)
    if not found.ratios:
        notice("both have measurements, but no operator in the same cache state and space")
    if plot is not None:
        from lanaprof.flows.ratiochart import write_ratios

        write_ratios(plot, found)
    return Outcome(_document(found), lambda console: _show(console, found))


def _document(found: SourceComparison) -> dict[str, Any]:
    descriptions = dict(found.descriptions)

    def row(part: CacheComparison, ratio: OperatorRatio) -> dict[str, Any]:
        return {
            "operator": ratio.operator,
            "ratio": ratio.ratio,
            "low": ratio.low,
            "high": ratio.high,
            "relative": ratio.relative,
            "q": ratio.q,
            "changed": ratio.changed,
            "disagree": ratio.disagree,
            "cache": part.cache,
            "space": part.space,
            "noisy": ratio.noisy,
            "description": descriptions.get(ratio.operator, ""),
            "candidates": [
                {"layer": layer, "operation": operation}
                for layer, operation in found.candidates.get(ratio.operator, ())
            ],
        }

    return {
        "operators": [row(part, ratio) for part, ratio in found.rows],
        "median": found.deviation(0.5),
        "p95": found.deviation(0.95),
        "common_ratio": found.common_ratio,
        "caches": {
            cache: {
                "operators": sum(len(p.comparison.operators) for p in found.parts if p.cache == cache),
            }
            for cache in dict.fromkeys(part.cache for part in found.parts)
        },
        "parts": [
            {
                "cache": part.cache,
                "space": part.space,
                "operators": len(part.comparison.operators),
                "common_ratio": part.comparison.common_ratio,
                "scatter": part.comparison.scatter,
                "spread": part.comparison.spread,
                "disagree": sum(1 for ratio in part.comparison.operators if ratio.disagree),
                "disagreement": part.comparison.disagreement,
                "changed": sum(1 for ratio in part.comparison.operators if ratio.changed),
            }
            for part in found.parts
        ],
        "environments": {
            "a": found.a.id,
            "b": found.b.id,
            "differences": [{"field": d.field, "a": d.a, "b": d.b} for d in found.differences],
        },
        "a": {"environment": found.a.id, "only": found.only_a},
        "b": {"environment": found.b.id, "only": found.only_b},
    }


def _show(console: Console, found: SourceComparison) -> None:
    from rich.markup import escape

    from lanaprof.cli.tables import plain_table
    from lanaprof.flows.comparing import difference_text
    from lanaprof.flows.sources import environment_text

    for name, environment in (("A", found.a), ("B", found.b)):
        say(console, f"{name}: {environment_text(environment)}")
    for difference in found.differences:
        say(console, f"   {difference_text(difference)}")
    if not found.differences:
        say(console, "   the same environment: what differs is the time, the process or the host")
    table = plain_table("operator", "cache", "#B / A", "95 % interval", "#of its own", "", "what it is")
    for part, row in found.rows[:_LISTED]:
        high = f"{row.high:.3f}" if row.high is not None else "∞"
        word = ("slower" if row.relative > 1 else "faster") if row.changed else ""
        apart = "disagree" if row.disagree and found.a == found.b else ""
        mark = ", ".join(filter(None, (word, apart, "noisy" if row.noisy else "")))
        own = f"{row.relative - 1:+.1%}"
        interval = f"{row.low:.3f} … {high}"
        what = escape(found.name(row.operator))
        table.add_row(row.operator[:12], part.cache, f"{row.ratio:.3f}", interval, own, mark, what)
    rows = found.ratios
    if rows:
        console.print(table)
    if len(rows) > _LISTED:
        say(console, f"and {len(rows) - _LISTED} more that changed less of their own; --json lists all")
    _summarise(console, found)
    for name, count in (("A", found.only_a), ("B", found.only_b)):
        if count:
            say(console, f"{counted(count, 'operator')} only in {name}")


def _disagreement(console: Console, part: CacheComparison) -> None:
    """Say how far two who measured in one environment are apart."""
    apart = [row for row in part.comparison.operators if row.disagree]
    whole = counted(len(part.comparison.operators), "operator")
    typical = part.comparison.disagreement
    say(
        console,
        f"{part.cache}: {len(apart)} of {whole} disagree by more than the intervals allow"
        + (f", typically by {typical:.2%}" if typical is not None else "")
        + f"; between the two a number varies by {part.comparison.spread:.2%} (1 standard deviation)",
    )


def _summarise(console: Console, found: SourceComparison) -> None:
    """Say what the whole machine did, what single operators did, and what cannot be told."""
    from lanaprof.lut import OPERATORS_LEAST

    median, p95 = found.deviation(0.5), found.deviation(0.95)
    if median is not None and p95 is not None:
        say(
            console,
            f"{len(found.ratios)} compared: they differ by {median:.2%} (median), 95 % of them by less than {p95:.2%}",
        )
    for part in found.parts if found.a == found.b else ():
        _disagreement(console, part)
    for part in found.parts:
        rows = part.comparison.operators
        if part.comparison.common_ratio is None:
            continue
        shift = part.comparison.common_ratio - 1.0
        whole = f"{part.cache}: as a whole B is {abs(shift):.2%} {'slower' if shift > 0 else 'faster'}"
        if len(rows) < OPERATORS_LEAST:
            say(
                console,
                f"{whole}; with fewer than {OPERATORS_LEAST} operators, none can be told from the rest",
            )
            continue
        slower = sum(1 for row in rows if row.changed and row.relative > 1)
        faster = sum(1 for row in rows if row.changed and row.relative < 1)
        say(
            console,
            f"{whole}; beyond that {counted(slower, 'operator')} became slower, {faster} faster (at most 5 % of such "
            f"verdicts should be wrong), the others scatter by {part.comparison.scatter:.2%} more than their "
            "intervals say",
        )
