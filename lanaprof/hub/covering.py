"""Coverage of a space: which of its operators are measured, noisy, failed or missing in which environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lanaprof.digest import digest
from lanaprof.flows.pages import Cell, Link, table
from lanaprof.flows.sources import devices_of_environment, known_here
from lanaprof.hub.asking import After, Here, Plain
from lanaprof.hub.rendering import Field, render
from lanaprof.hub.state import Hub
from lanaprof.hub.visiting import Seen
from lanaprof.lut import Environment, Holding

__all__ = ["Context", "contexts_of", "router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_ROWS = 100  # a page
_COLUMNS = 6  # environments side by side, the newest: more do not fit, and each is read whole
_MISSING = "missing"
_WORDS = {"ok": "measured"}  # other statuses are words already
_STATES = (
    "measured",
    "noisy",
    "failed",
    _MISSING,
)  # that are counted; what could not be timed counts as failed
Name = Annotated[str, Query(pattern="^[0-9a-f]{0,12}$")]
Place = Annotated[str, Query(pattern="^[0-9a-f]{0,32}$")]
State = Annotated[Literal["", "measured", "noisy", "failed", "missing"], Query()]


@dataclass(frozen=True, slots=True)
class Context:
    """A cache state, in relay with its space, and the environments operators were measured in, the newest first."""

    cache: str
    space: str
    holdings: tuple[Holding, ...]

    @property
    def name(self) -> str:
        """Return what addresses call it."""
        return digest([self.cache, self.space])[:12]

    @property
    def text(self) -> str:
        """Return what people call it."""
        where = f"space {self.space[:12]}, in relay" if self.space else f"no space, {self.cache}"
        count = len(self.holdings)
        return f"{where}: {count} environment{'' if count == 1 else 's'}"


def contexts_of(holdings: Sequence[Holding]) -> tuple[Context, ...]:
    """Return what operators were measured in, spaces before the rest, each with the newest measurements first."""
    found: dict[tuple[str, str], list[Holding]] = {}
    for each in holdings:
        found.setdefault((each.cache, each.space), []).append(each)
    whole = [
        Context(*key, tuple(sorted(group, key=lambda each: each.newest.rstrip("Z"), reverse=True)))
        for key, group in found.items()
    ]
    whole.sort(key=lambda each: each.holdings[0].newest.rstrip("Z"), reverse=True)
    return tuple(sorted(whole, key=lambda each: not each.space))


@dataclass(frozen=True, slots=True)
class _Matrix:
    """The states of all operators: by environment and operator; what nobody timed in an environment is left out."""

    environments: tuple[Environment, ...]
    states: Mapping[str, Mapping[str, str]]
    operators: tuple[str, ...]

    def state(self, environment: str, operator: str) -> str:
        found = self.states[environment].get(operator, _MISSING)
        return _WORDS.get(found, found)

    def counts(self, environment: str) -> dict[str, int]:
        """Return how many operators are in which of the counted states."""
        found = dict.fromkeys(_STATES, 0)
        for operator in self.operators:
            found[_counted(self.state(environment, operator))] += 1
        return found


def _counted(state: str) -> str:
    return state if state in _STATES else "failed"


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which rows of the matrix are shown."""

    group: str
    state: str
    environment: str
    text: str
    after: str

    def href(self, **changed: str) -> str:
        fields = {
            "group": self.group,
            "state": self.state,
            "environment": self.environment,
            "text": self.text,
        }
        return "/coverage?" + urlencode(
            {name: value for name, value in {**fields, **changed}.items() if value}
        )


@router.get("/coverage")
def coverage(
    hub: Here,
    visitor: Seen,
    group: Name = "",
    state: State = "",
    environment: Place = "",
    text: Plain = "",
    after: After = "",
) -> HTMLResponse:
    """Return the operators of a space against the environments they were measured in."""
    contexts = contexts_of(hub.holdings.get())
    context = next((each for each in contexts if each.name == group), contexts[0] if contexts else None)
    if context is None:
        body = '<p class="todo">Nothing is measured yet: <code>lanaprof push</code></p>'
        return render("base.html", visitor, title="Coverage", body=body, here="/coverage")
    matrix = _matrix(hub, context)
    asked = _Asked(context.name, state, environment, text.strip(), after)
    body = _totals(hub, matrix, asked) + "<h2>Operators</h2>" + _rows(hub, matrix, asked)
    left_out = len(context.holdings) - len(matrix.environments)
    note = "Missing: measured in another of these environments. What could not be timed counts as failed."
    if left_out > 0:
        note += (
            f" The {_COLUMNS} environments with the newest measurements are shown, {left_out} more are not."
        )
    places = [(each.id, _heading(hub, each)) for each in matrix.environments]
    fields = [
        Field("group", "Space", context.name, [(each.name, each.text) for each in contexts]),
        Field("state", "State", state, [("", "any"), *((each, each) for each in _STATES)]),
        Field("environment", "in environment", environment, [("", "any"), *places]),
        Field("text", "What it is, or the beginning of its key", asked.text),
    ]
    return render(
        "listing.html", visitor, title="Coverage", here="/coverage", body=body, action="/coverage", fields=fields,
        note=note,
    )  # fmt: skip


def _matrix(hub: Hub, context: Context) -> _Matrix:
    known = {each.id: each for each in hub.store.environments()}
    shown = tuple(
        known[each.environment] for each in context.holdings[:_COLUMNS] if each.environment in known
    )
    states = {each.id: hub.standings.states(each.id, context.cache, context.space) for each in shown}
    operators = sorted({operator for found in states.values() for operator in found})
    return _Matrix(shown, states, tuple(operators))


def _heading(hub: Hub, environment: Environment) -> str:
    names = devices_of_environment(environment, known_here(hub.folder))
    what = ", ".join(names) or environment.gpu_model or environment.cpu_model
    return f"{what}, {environment.backend} {environment.backend_version}, {environment.id[:8]}"


def _totals(hub: Hub, matrix: _Matrix, asked: _Asked) -> str:
    rows: list[list[Cell]] = []
    for each in matrix.environments:
        counts = matrix.counts(each.id)
        cells: list[Cell] = [
            Link(f"{counts[state]:,}", asked.href(state=state, environment=each.id)) if counts[state] else "0"
            for state in _STATES
        ]
        rows.append([Link(_heading(hub, each), f"/environments/{each.id}"), *cells])
    columns = ["environment", *(f"#{state}" for state in _STATES)]
    return table(columns, rows, label="Environments", sortable=True)


def _rows(hub: Hub, matrix: _Matrix, asked: _Asked) -> str:
    looked_at = [each.id for each in matrix.environments if asked.environment in ("", each.id)]
    found = [
        operator
        for operator in matrix.operators
        if not asked.state or any(_counted(matrix.state(each, operator)) == asked.state for each in looked_at)
    ]
    if asked.text:
        words = asked.text.lower()
        texts = hub.store.operator_descriptions(found)
        found = [each for each in found if words in texts[each].lower() or each.startswith(words)]
    page = [operator for operator in found if operator > asked.after][:_ROWS]
    texts = hub.store.operator_descriptions(page)
    rows: list[list[Cell]] = [
        [
            Link(operator[:12], f"/operators/{operator}"),
            texts[operator],
            *(matrix.state(each.id, operator) for each in matrix.environments),
        ]
        for operator in page
    ]
    said = f"<p>{len(found):,} of {len(matrix.operators):,} operators.</p>"
    columns = ["operator", "what it is", *(_heading(hub, each) for each in matrix.environments)]
    body = said + table(columns, rows, label="Operators", sortable=True, marked=True, whole=False)
    if page and page[-1] != found[-1]:
        body += f'<p><a href="{escape(asked.href(after=page[-1]))}">More operators</a></p>'
    return body
