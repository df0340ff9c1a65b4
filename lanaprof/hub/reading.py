"""Lists and tables as JSON: devices, environments, operators, measurements, coverage, two sources side by side."""

from __future__ import annotations

from typing import Annotated, Any, Literal, cast

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from lanaprof.flows.comparing import SourceComparison, compare_sources
from lanaprof.flows.sources import devices_of_environment, known_here
from lanaprof.hub.asking import After, Chosen, Here, Identity, Limit, Plain, Since
from lanaprof.hub.gate import API, token_of
from lanaprof.hub.problems import RequestProblem
from lanaprof.lut import Operator, Source
from lanaprof.lut.policy import POLICIES
from lanaprof.lut.records import Environment
from lanaprof.version import VERSION

__all__ = ["compare_sides", "router"]

router = APIRouter(prefix=API, tags=["reading"])
Policy = Annotated[str, Query(pattern=f"^({'|'.join(POLICIES)})?$")]
Cache = Annotated[Literal["relay", "hot", "cold"] | None, Query()]


class Page(BaseModel):
    """A page of records; ``next`` is what the next page comes after, null on the last one."""

    items: list[dict[str, Any]]
    next: str | None


class Items(BaseModel):
    """All there is."""

    items: list[dict[str, Any]]


class Who(BaseModel):
    """What a token may do; ``expires_s`` in seconds since 1970."""

    name: str
    scope: Literal["read", "write", "admin"]
    team: str
    expires_s: float | None
    tool_version: str


class Counts(BaseModel):
    """How many records are chosen, by kind."""

    counts: dict[str, int]


class Coverage(BaseModel):
    """How much is measured, by device."""

    devices: dict[str, dict[str, Any]]


@router.get("/whoami")
def whoami(request: Request) -> Who:
    """Return what the token may do."""
    token = token_of(request)
    return Who(
        name=token.name, scope=cast("Any", token.scope), team=token.team, expires_s=token.expires_s,
        tool_version=VERSION,
    )  # fmt: skip


@router.get("/devices")
def devices(hub: Here) -> Items:
    """Return the devices that something was measured on, each with its environments."""
    known = known_here(hub.folder)
    used = {holding.environment for holding in hub.holdings.get()}
    found: dict[str, list[str]] = {}
    for environment in hub.store.environments():
        if environment.id in used:
            for name in devices_of_environment(environment, known) or ("",):
                found.setdefault(name, []).append(environment.id)
    return Items(items=[{"device": name, "environments": keys} for name, keys in sorted(found.items())])


@router.get("/environments")
def environments(hub: Here) -> Items:
    """Return every environment with what is measured there."""
    known = known_here(hub.folder)
    holdings: dict[str, list[dict[str, Any]]] = {}
    for each in hub.holdings.get():
        holdings.setdefault(each.environment, []).append(
            {
                "cache": each.cache, "space": each.space, "operators": each.operators,
                "statuses": dict(each.statuses), "teams": list(each.teams), "newest": each.newest,
            }
        )  # fmt: skip

    def item(environment: Environment) -> dict[str, Any]:
        names = list(devices_of_environment(environment, known))
        return {**environment.to_json(), "devices": names, "holdings": holdings.get(environment.id, [])}

    return Items(items=[item(each) for each in hub.store.environments()])


@router.get("/operators")
def operators(hub: Here, after: After = "", limit: Limit = 200) -> Page:
    """Return a page of operators: what each is and how large, without its graph."""
    ids = hub.store.ids("operator", after=after, limit=limit)
    texts, numbers = hub.store.operator_descriptions(ids), hub.store.operator_statistics(ids)
    items = [
        {
            "id": key,
            "description": texts[key],
            **{name: getattr(numbers[key], name) for name in type(numbers[key]).__slots__},
        }
        for key in ids
    ]
    return Page(items=items, next=ids[-1] if len(ids) == limit else None)


@router.get("/operators/{identity}")
def operator(hub: Here, identity: Identity) -> dict[str, Any]:
    """Return an operator's record, its graph included."""
    return _whole(hub.store.find_operator(identity), identity).to_json()


@router.get("/operators/{identity}/measurements")
def measurements_of(hub: Here, identity: Identity) -> Items:
    """Return the measurements of an operator that stand, everywhere, without their samples."""
    _whole(hub.store.find_operator(identity), identity)
    return Items(items=[_brief(each.to_json()) for each in hub.store.measurements(operators=[identity])])


@router.get("/measurements")
def measurements(
    hub: Here, chosen: Chosen, after: After = "", limit: Limit = 200, *, samples: bool = False
) -> Page:
    """Return a page of measurements; those that their team took back are marked ``retracted``."""
    ids = hub.store.ids("measurement", chosen, after=after, limit=limit)
    found = hub.store.find_measurements(ids, with_samples=samples)
    retracted = hub.store.retracted(ids)
    items = []
    for key in ids:
        document = found[key].to_json() if samples else _brief(found[key].to_json())
        items.append({**document, "retracted": key in retracted})
    return Page(items=items, next=ids[-1] if len(ids) == limit else None)


@router.get("/counts")
def counts(hub: Here, chosen: Chosen) -> Counts:
    """Return how many records are chosen, by kind."""
    return Counts(counts=hub.store.counts(chosen) if chosen else hub.counts.get())


@router.get("/coverage")
def coverage(hub: Here, team: Plain = "", since: Since = "", protocol: Plain = "") -> Coverage:
    """Return how many operators are wanted, present, failed and missing, by device."""
    found = hub.covered(team=team, since=since, protocol=protocol)
    return Coverage(
        devices={
            name: {**each.counts(), "environment": each.environment.id if each.environment else None}
            for name, each in found.items()
        }
    )


@router.get("/compare")
def compare(
    hub: Here,
    a_environment: Plain = "",
    b_environment: Plain = "",
    a_team: Plain = "",
    b_team: Plain = "",
    cache: Cache = None,
    policy: Policy = "",
) -> dict[str, Any]:
    """Return how the same operators differ between two environments or teams: ratios b / a."""
    found = compare_sides(hub, (a_environment, a_team), (b_environment, b_team), cache=cache, policy=policy)
    texts = dict(found.descriptions)
    return {
        "operators": [
            {
                "operator": row.operator, "description": texts.get(row.operator, ""), "cache": part.cache,
                "ratio": row.ratio, "low": row.low, "high": row.high, "relative": row.relative, "q": row.q,
                "changed": row.changed, "disagree": row.disagree, "noisy": row.noisy,
            }
            for part, row in found.rows
        ],
        "common_ratio": found.common_ratio,
        "median": found.deviation(0.5),
        "p95": found.deviation(0.95),
        "a": {"environment": found.a.id, "team": a_team, "only": found.only_a},
        "b": {"environment": found.b.id, "team": b_team, "only": found.only_b},
        "differences": [{"field": each.field, "a": each.a, "b": each.b} for each in found.differences],
        "warnings": list(found.warnings),
    }  # fmt: skip


def compare_sides(
    hub: Here, a: tuple[str, str], b: tuple[str, str], *, cache: str | None = None, policy: str = ""
) -> SourceComparison:
    """Return two sides of the hub's database side by side; each is an environment and a team, either may be empty."""
    first, second = (
        Source(database=hub.store.url, environment=environment, team=team) for environment, team in (a, b)
    )

    hub.holdings.get()  # so that what came since counts
    question, versions = (a, b, cache, policy), tuple(hub.standings.version(each[0]) for each in (a, b))

    def find() -> SourceComparison:
        with hub.heavy():  # who had the place before may have asked the same
            return hub.comparisons.find(question, versions) or compare_sources(
                first, second, hub.folder, cache=cache, policy=policy, store=hub.store
            )

    if None in versions or not (a[0] and b[0]):
        return find()
    return hub.comparisons.get(question, versions, find)


def _whole(found: Operator | None, identity: str) -> Operator:
    if found is None:
        raise RequestProblem(404, f"the hub has no operator {identity}")
    return found


def _brief(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("samples", "rounds")}
