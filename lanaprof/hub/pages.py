"""The pages: what is measured where, one operator, one measurement with its samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from lanaprof.flows.drawing import svg_from_drawing
from lanaprof.flows.pages import Cell, Link, facts, figure, table, tiles
from lanaprof.flows.sources import devices_of_environment, known_here
from lanaprof.hub.asking import After, Here, Identity, Plain
from lanaprof.hub.charts import histogram, rounds_chart
from lanaprof.hub.problems import RequestProblem
from lanaprof.hub.rendering import Field, render
from lanaprof.hub.state import Hub
from lanaprof.hub.visiting import Seen
from lanaprof.lut import CACHES, STATUSES, Environment, Measurement
from lanaprof.units import format_count, format_duration, format_size

__all__ = ["router"]

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_ROWS = 100  # a page
_NONE = '<p class="todo">None.</p>'
Status = Annotated[Literal["", "ok", "noisy", "failed", "unsupported", "timeout"], Query()]
Cache = Annotated[Literal["", "relay", "hot", "cold"], Query()]


@router.get("/")
def overview(hub: Here, visitor: Seen) -> HTMLResponse:
    """Return what there is, and the devices it was measured on."""
    counts, holdings = hub.counts.get(), hub.holdings.get()
    teams = sorted({team for each in holdings for team in each.teams})
    numbers = [
        ("environments", counts["environment"]), ("operators", counts["operator"]),
        ("measurements", counts["measurement"]), ("teams", len(teams)),
    ]  # fmt: skip
    named = [(name.removesuffix("s") if count == 1 else name, f"{count:,}") for name, count in numbers]
    body = tiles(named) + "<h2>Environments</h2>"
    body += _environments(hub)
    return render(
        "base.html",
        visitor,
        title="What is measured here",
        body=body,
        here="/",
        lead=(*_said_teams(teams), *hub.said_age()),
    )


def _said_teams(teams: list[str]) -> tuple[str, ...]:
    return (f"Teams: {', '.join(teams)}",) if teams else ("Nothing is measured yet: lanaprof push",)


@router.get("/devices")
def devices(hub: Here, visitor: Seen) -> HTMLResponse:
    """Return how much of the operators is measured on each device."""
    found = hub.coverage.get()
    rows: list[list[Cell]] = []
    shown = ("wanted", "present", "noisy", "failed", "missing")  # as `lut coverage` says it
    for name, each in found.items():
        numbers = each.counts()
        key = each.environment.id if each.environment is not None else ""
        counts: list[Cell] = [(f"{numbers[word]:,}", float(numbers[word])) for word in shown]
        rows.append([name, *counts, Link(key[:12], f"/environments/{key}") if key else "–"])
    columns = ["device", *(f"#{word}" for word in shown), "environment"]
    said = "Of all operators here, noisy ones are present, too; Coverage says which, in a space."
    lead = (said, *hub.said_age())
    body = table(columns, rows, label="Devices", sortable=True)
    return render("base.html", visitor, title="Devices", lead=lead, body=body, here="/devices")


@router.get("/environments")
def environments(hub: Here, visitor: Seen) -> HTMLResponse:
    """Return all environments."""
    body = _environments(hub)
    lead = hub.said_age()
    return render("base.html", visitor, title="Environments", lead=lead, body=body, here="/environments")


def _environments(hub: Hub) -> str:
    known = known_here(hub.folder)
    found = {each.id: each for each in hub.store.environments()}
    rows: list[list[Cell]] = []
    for each in hub.holdings.get():
        environment = found[each.environment]
        statuses = ", ".join(f"{count} {status}" for status, count in each.statuses)
        rows.append(
            [
                Link(each.environment[:12], f"/environments/{each.environment}"),
                ", ".join(devices_of_environment(environment, known)) or "–",
                environment.gpu_model or environment.cpu_model,
                f"{environment.backend} {environment.backend_version}",
                (str(environment.threads), float(environment.threads)),
                each.cache,
                (f"{each.operators:,}", float(each.operators)),
                statuses,
                ", ".join(each.teams),
                each.newest[:10],
            ]
        )
    columns = [
        "environment",
        "device",
        "hardware",
        "runtime",
        "#threads",
        "cache",
        "#operators",
        "measurements",
    ]
    return table([*columns, "teams", "newest"], rows, label="Environments", sortable=True)


@router.get("/environments/{identity}")
def environment(
    hub: Here,
    visitor: Seen,
    identity: Identity,
    status: Status = "",
    cache: Cache = "",
    team: Plain = "",
    after: After = "",
) -> HTMLResponse:
    """Return one environment with a page of what was measured there, by status, cache state and team."""
    found = next((each for each in hub.store.environments() if each.id == identity), None)
    if found is None:
        raise RequestProblem(404, f"the hub has no environment {identity}")
    here, asked = f"/environments/{identity}", {"status": status, "cache": cache, "team": team}
    ids = hub.store.measurement_ids_in(identity, **asked, after=after, limit=_ROWS)
    rows = list(hub.store.find_measurements(ids, with_samples=False).values())
    teams = sorted(
        {name for each in hub.holdings.get() if each.environment == identity for name in each.teams}
    )
    fields = [
        Field("status", "Status", status, _any_of(STATUSES)), Field("cache", "Cache", cache, _any_of(CACHES)),
        Field("team", "Team", team, _any_of(dict.fromkeys([*teams, *filter(None, [team])]))),
    ]  # fmt: skip
    return render(
        "listing.html", visitor, title=f"Environment {identity[:12]}", here="/environments", action=here,
        top=facts(_about(found)) + "<h2>Measurements</h2>", fields=fields,
        body=_measurements(hub, rows, whole=False) + _more("More measurements", here, ids, asked),
    )  # fmt: skip


def _any_of(values: Iterable[str]) -> list[tuple[str, str]]:
    return [("", "any"), *((value, value) for value in values)]


def _more(text: str, path: str, ids: Sequence[str], asked: Mapping[str, str]) -> str:
    """Return the link to what follows a full page."""
    if len(ids) < _ROWS:
        return ""
    query = urlencode({name: value for name, value in {**asked, "after": ids[-1]}.items() if value})
    return f'<p><a href="{escape(f"{path}?{query}")}">{text}</a></p>'


def _about(found: Environment) -> list[tuple[str, str]]:
    texts = [
        ("key", found.id), ("processor", found.cpu_model), ("GPU", found.gpu_model), ("driver", found.driver),
        ("runtime", f"{found.backend} {found.backend_version}"), ("instructions", found.isa),
        ("cores used", str(found.cores)), ("threads", str(found.threads)),
    ]  # fmt: skip
    return [*texts, *((f"option {name}", value) for name, value in found.options)]


def _measurements(hub: Hub, rows: list[Measurement], *, whole: bool = True) -> str:
    """Return a table of measurements, each leading to its samples."""
    if not rows:
        return '<p class="todo">No measurements.</p>'
    texts = hub.store.operator_descriptions({row.operator for row in rows})
    taken_back = hub.store.retracted(row.id for row in rows)
    lines: list[list[Cell]] = []
    for row in rows:
        status = "retracted" if row.id in taken_back else row.status
        interval = f"{_time(row.ci_low_s)} … {_time(row.ci_high_s)}" if row.latency_s is not None else "–"
        lines.append(
            [
                Link(row.id[:12], f"/measurements/{row.id}"),
                Link(row.operator[:12], f"/operators/{row.operator}"),
                texts.get(row.operator, ""),
                Link(row.environment[:12], f"/environments/{row.environment}"),
                (_time(row.latency_s), row.latency_s),
                interval,
                status,
                row.cache,
                row.team,
                row.time[:10],
            ]
        )
    columns = ["measurement", "operator", "what it is", "environment", "#latency", "95 % interval", "status"]
    return table([*columns, "cache", "team", "day"], lines, label="Measurements", sortable=True, whole=whole)


def _time(seconds: float | None) -> str:
    return "–" if seconds is None else format_duration(seconds, digits=4) if seconds > 0 else "0 s"


@router.get("/operators")
def operators(hub: Here, visitor: Seen, text: Plain = "", after: After = "") -> HTMLResponse:
    """Return a page of operators, by what they are."""
    ids = hub.store.operator_ids(text.strip(), after=after, limit=_ROWS)
    texts, numbers = hub.store.operator_descriptions(ids), hub.store.operator_statistics(ids)
    rows: list[list[Cell]] = [
        [
            Link(key[:12], f"/operators/{key}"),
            texts[key],
            (format_count(numbers[key].params), float(numbers[key].params)),
            (format_count(numbers[key].macs), float(numbers[key].macs)),
            (format_size(numbers[key].peak_bytes), float(numbers[key].peak_bytes)),
        ]
        for key in ids
    ]
    columns = ["operator", "what it is", "#parameters", "#multiply-adds", "#peak memory"]
    body = table(columns, rows, label="Operators", sortable=True, whole=False) if rows else _NONE
    return render(
        "listing.html", visitor, title="Operators", here="/operators", action="/operators",
        fields=[Field("text", "What it is, or the beginning of its key", text)],
        body=body + _more("More operators", "/operators", ids, {"text": text}),
    )  # fmt: skip


@router.get("/operators/{identity}")
def operator(hub: Here, visitor: Seen, identity: Identity) -> HTMLResponse:
    """Return one operator and its measurements everywhere."""
    numbers = hub.store.operator_statistics([identity]).get(identity)
    if numbers is None:
        raise RequestProblem(404, f"the hub has no operator {identity}")
    about = [
        ("key", identity), ("what it is", hub.store.operator_descriptions([identity])[identity]),
        ("parameters", format_count(numbers.params)), ("multiply-adds", format_count(numbers.macs)),
        ("weights", format_size(numbers.weight_bytes)), ("peak memory", format_size(numbers.peak_bytes)),
    ]  # fmt: skip
    rows = sorted(hub.store.measurements(operators=[identity]), key=lambda row: (row.environment, row.time))
    body = facts(about) + "<h2>Measurements</h2>" + _measurements(hub, rows[:_ROWS])
    if len(rows) > _ROWS:
        body += f"<p>{len(rows) - _ROWS} more are not shown; the API has them.</p>"
    return render("base.html", visitor, title=f"Operator {identity[:12]}", body=body, here="/operators")


@router.get("/measurements/{identity}")
def measurement(hub: Here, visitor: Seen, identity: Identity) -> HTMLResponse:
    """Return one measurement with the distribution of its samples."""
    row = hub.store.find_measurements([identity]).get(identity)
    if row is None:
        raise RequestProblem(404, f"the hub has no measurement {identity}")
    about = [
        ("id", row.id), ("latency", _time(row.latency_s)), ("status", row.status), ("protocol", row.protocol),
        ("team", row.team), ("host", row.host), ("time", row.time), ("clean samples", str(len(row.samples))),
        ("disturbed samples", str(row.rejected)), ("clock", row.clock), ("message", row.message),
    ]  # fmt: skip
    body = facts(about)
    body += f'<p><a href="/operators/{row.operator}">Its operator</a>, '
    body += f'<a href="/environments/{row.environment}">its environment</a></p><h2>Samples</h2>'
    if row.samples:
        caption = "Solid: the latency that counts, a low quantile. Broken: its 95 % interval."
        body += figure(svg_from_drawing(histogram(row)), caption)
        body += figure(svg_from_drawing(rounds_chart(row)), "The same samples, round by round.")
    else:
        body += '<p class="todo">No samples: it could not be timed.</p>'
    return render("base.html", visitor, title=f"Measurement {identity[:12]}", body=body)
