"""Two sides of a comparison, and what an upgrade changed: the same hardware under two versions of runtime or driver."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lanaprof.errors import UserError
from lanaprof.flows.architectures import natural
from lanaprof.flows.comparing import SourceComparison, difference_text
from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.pages import Cell, Link, facts, figure, table
from lanaprof.flows.ratiochart import ratios_chart
from lanaprof.flows.sources import environment_text
from lanaprof.hub.asking import Here, Plain
from lanaprof.hub.charts import ratios_histogram
from lanaprof.hub.problems import problem_from_error
from lanaprof.hub.reading import compare_sides
from lanaprof.hub.rendering import render
from lanaprof.hub.state import Hub
from lanaprof.hub.visiting import Seen
from lanaprof.lut import Environment, Holding, OperatorRatio, environment_differences

__all__ = ["Upgrade", "router", "upgrades_of"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_RATIOS = 200  # operators of a comparison that are listed
_DRAWN = 2_000  # and drawn: more would be a page of megabytes
_UPGRADES = 15  # pairs that are listed, those with the newest measurements
_VERSION = re.compile(
    r"[0-9]+(\.[0-9]+)+"
)  # a runtime option with such a value on both sides is a version, too
Key = Annotated[str, Query(pattern="^[0-9a-f]{0,32}$")]


@router.get("/compare")
def compare(
    hub: Here,
    visitor: Seen,
    a_environment: Key = "",
    a_team: Plain = "",
    b_environment: Key = "",
    b_team: Plain = "",
) -> HTMLResponse:
    """Return two environments or teams side by side."""
    a, b = (a_environment, a_team), (b_environment, b_team)
    body, holdings = "", hub.holdings.get()
    if any((*a, *b)):
        try:
            body = _compared(compare_sides(hub, a, b), teams=(a_team, b_team))
        except UserError as error:  # nothing in common, or several environments: said beside the form
            told = problem_from_error(error, hub.store.name)
            body = facts([("cannot be compared", str(told.detail))])
            if not (a_environment and b_environment):
                body += '<p class="todo">Choose the environment of each side.</p>'
    used = {each.environment for each in holdings}
    return render(
        "compare.html",
        visitor,
        title="Side by side",
        body=body,
        lead=()
        if body
        else ("Choose two environments, or two teams in one: operators that both measured, ratio by ratio.",),
        here="/compare",
        sides=[
            {"name": name, "environment": environment, "team": team}
            for name, (environment, team) in (("a", a), ("b", b))
        ],
        environments=[
            (each.id, environment_text(each)) for each in hub.store.environments() if each.id in used
        ],
        teams=sorted({team for each in holdings for team in each.teams}),
    )


def _compared(found: SourceComparison, *, teams: tuple[str, str]) -> str:
    sides = zip("AB", (found.a, found.b), teams, strict=True)
    about = [(name, f"{environment_text(each)}{team and f', team {team}'}") for name, each, team in sides]
    about += [("differs", difference_text(each)) for each in found.differences]
    if not found.ratios or found.common_ratio is None:
        return facts([*about, ("in common", "no operator in the same cache state and space")])
    apart = sum(1 for row in found.ratios if row.disagree)
    about += [
        ("operators in both", str(len(found.ratios))),
        ("as a whole B / A", f"{found.common_ratio:.3f}"),
        ("differ by more than their intervals", str(apart)),
    ]
    rows = [_ratio_cells(found, part.cache, row) for part, row in found.rows[:_RATIOS]]
    columns = ["operator", "what it is", "cache", "#B / A", "95 % interval", "disagree", "of its own"]
    chart = ""
    if len(found.ratios) <= _DRAWN:
        caption = "Latency in B over latency in A, with 95 % intervals."
        chart = figure(svg_from_drawing(ratios_chart(found)), caption)
    return facts(about) + chart + table(columns, rows, label="Operators in both", sortable=True)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """The same hardware and options under an older and a newer version of the runtime or driver.

    Attributes:
        states: the (cache state, space) in which both were measured.
        newest: time of the newest measurement of either.
    """

    a: Environment
    b: Environment
    states: tuple[tuple[str, str], ...]
    newest: str

    @property
    def text(self) -> str:
        """Return what changed."""
        return "; ".join(difference_text(each) for each in environment_differences(self.a, self.b))


def upgrades_of(environments: Iterable[Environment], holdings: Iterable[Holding]) -> tuple[Upgrade, ...]:
    """Return pairs of environments that differ in versions alone and were measured alike, the newest first.

    Of more than two versions, each is paired with the next.
    """
    held: dict[str, list[Holding]] = {}
    for each in holdings:
        held.setdefault(each.environment, []).append(each)
    families: dict[tuple[object, ...], list[Environment]] = {}
    for environment in environments:
        if environment.id in held:
            families.setdefault(_hardware(environment), []).append(environment)
    found = []
    for family in families.values():
        ordered = sorted(family, key=lambda each: ([natural(text) for text in _versions(each)], each.id))
        for a, b in pairwise(ordered):
            sides = [{(each.cache, each.space) for each in held[one.id]} for one in (a, b)]
            newest = max((each.newest.rstrip("Z") for one in (a, b) for each in held[one.id]), default="")
            if sides[0] & sides[1]:
                found.append(Upgrade(a, b, tuple(sorted(sides[0] & sides[1])), newest))
    return tuple(sorted(found, key=lambda each: (each.newest, each.a.id), reverse=True))


def _hardware(environment: Environment) -> tuple[object, ...]:
    """Return everything about an environment but versions."""
    options = tuple((name, "" if _VERSION.fullmatch(value) else value) for name, value in environment.options)
    return (
        environment.backend, environment.cpu_model, environment.isa, environment.cores, environment.smt,
        environment.gpu_model, environment.threads, options,
    )  # fmt: skip


def _versions(environment: Environment) -> list[str]:
    options = [value for _, value in environment.options if _VERSION.fullmatch(value)]
    return [environment.backend_version, environment.driver, *options]


@router.get("/drift")
def drift(hub: Here, visitor: Seen, a: Key = "", b: Key = "") -> HTMLResponse:
    """Return what upgrades changed: all pairs with their ratio, and one of them in full."""
    upgrades = upgrades_of(hub.store.environments(), hub.holdings.get())
    body = _list(hub, upgrades[:_UPGRADES])
    if len(upgrades) > _UPGRADES:
        body += f"<p>{len(upgrades) - _UPGRADES} older ones are not shown; Compare has all environments.</p>"
    chosen = next((each for each in upgrades if (each.a.id, each.b.id) == (a, b)), None)
    if chosen is not None:
        body += f'<h2 id="one">{_heading(chosen)}</h2>'
        try:
            body += _drifted(compare_sides(hub, (chosen.a.id, ""), (chosen.b.id, "")))
        except UserError as error:
            body += facts([("cannot be compared", str(problem_from_error(error, hub.store.name).detail))])
    elif a or b:
        body += facts([("cannot be compared", "these two are no upgrade of each other; see Compare")])
    lead = ("The same hardware and options under two versions of the runtime or the driver.",)
    return render("base.html", visitor, title="Drift after an upgrade", lead=lead, body=body, here="/drift")


def _heading(upgrade: Upgrade) -> str:
    return escape(f"{upgrade.a.gpu_model or upgrade.a.cpu_model}: {upgrade.text}")


def _list(hub: Hub, upgrades: Sequence[Upgrade]) -> str:
    if not upgrades:
        return '<p class="todo">No hardware was measured under two versions of a runtime or driver yet.</p>'
    rows: list[list[Cell]] = []
    for each in upgrades:
        shared = hub.store.shared_ratio(each.a.id, each.b.id, each.states)
        rows.append(
            [
                Link(each.text, f"/drift?a={each.a.id}&b={each.b.id}#one"),
                each.a.gpu_model or each.a.cpu_model,
                each.a.backend,
                (f"{shared.ratio:.3f}", shared.ratio) if shared is not None else ("–", None),
                (f"{shared.operators:,}", float(shared.operators)) if shared is not None else ("0", 0.0),
                each.newest[:10],
            ]
        )
    columns = ["what changed", "hardware", "runtime", "#new / old", "#operators looked at", "newest"]
    return table(columns, rows, label="Upgrades", sortable=True)


def _drifted(found: SourceComparison) -> str:
    """Return what changed between the two sides: as a whole, as a distribution, and operator by operator."""
    if not found.ratios or found.common_ratio is None:
        return facts([("in common", "no operator in the same cache state and space")])
    beyond = [(part, row) for part, row in found.rows if row.disagree or row.changed]
    slower = sum(1 for _, row in beyond if row.ratio > 1)
    about = [
        ("operators in both", f"{len(found.ratios):,}"),
        ("as a whole new / old", f"{found.common_ratio:.3f}"),
        (
            "changed beyond their intervals",
            f"{len(beyond):,}: {slower:,} slower, {len(beyond) - slower:,} faster",
        ),
    ]
    caption = (
        "How many operators have which ratio; the narrow bars are those that changed beyond their intervals. "
        "The line: no change. Broken: the common ratio."
    )
    chart = figure(svg_from_drawing(ratios_histogram(found)), caption)
    if not beyond:
        return facts(about) + chart + "<p>No operator changed beyond its interval.</p>"
    rows = [_ratio_cells(found, part.cache, row) for part, row in beyond[:_RATIOS]]
    columns = [
        "operator",
        "what it is",
        "cache",
        "#new / old",
        "95 % interval",
        "beyond its interval",
        "of its own",
    ]
    more = f"<p>The {_RATIOS} that changed most are listed.</p>" if len(beyond) > _RATIOS else ""
    return facts(about) + chart + table(columns, rows, label="What changed", sortable=True) + more


def _ratio_cells(found: SourceComparison, cache: str, row: OperatorRatio) -> list[Cell]:
    return [
        Link(row.operator[:12], f"/operators/{row.operator}"),
        found.name(row.operator),
        cache,
        (f"{row.ratio:.3f}", row.ratio),
        f"{row.low:.3f}\u00a0…\u00a0{'∞' if row.high is None else f'{row.high:.3f}'}",
        "yes" if row.disagree else "",
        "yes" if row.changed else "",
    ]
