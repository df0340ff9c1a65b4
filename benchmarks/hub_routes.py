"""What `hub_scale` asks of a hub: every page and every route that is read, taken from the application's own routes.

A route whose path or query this module does not know how to fill stops the benchmark: none is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi.routing import APIRoute

from lanaprof.errors import BadInput
from lanaprof.hub.app import make_app
from lanaprof.hub.ledger import open_ledger
from lanaprof.hub.state import Hub
from lanaprof.lut import Store, open_store

API = "/api/v1"
# Not read by anybody who waits for an answer: forms, a session's end, a download of everything, what others are sent.
_LEFT_OUT = frozenset(["/signin", "/signout", f"{API}/bundle", f"{API}/lacking", f"{API}/records"])
_PARTS = ("a team", "a team that is not there", "the last month", "nothing since")
Query = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of one kind: its name in the results, its addresses (another one each time), and the bare SQL it needs.

    Attributes:
        name: the route, and what is asked of it.
        paths: addresses.
        page: for people; else for programs, with a token.
        common: what many ask for; not a program's list of a part, which looks at every row, nor what admins read.
        sql: statements with ``:environment``, ``:other``, ``:operator``, ``:after`` and ``:team``, empty where it needs
            next to none.
    """

    name: str
    paths: tuple[str, ...]
    page: bool
    common: bool
    sql: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """Keys of what is in the database, a few of each."""

    environments: tuple[str, ...]
    operators: tuple[str, ...]
    measurements: tuple[str, ...]
    spaces: tuple[str, ...]
    teams: tuple[str, ...]


def contents(store: Store, count: int = 12) -> Contents:
    """Return keys from all over a database."""

    def spread(kind: str) -> tuple[str, ...]:
        starts = [f"{number * 256 // count:02x}" for number in range(count)]
        found = [store.ids(kind, after=start, limit=1) for start in starts]
        return tuple(dict.fromkeys(key for keys in found for key in keys))

    held = list(store.used_environments())
    rows = store.find_measurements(spread("measurement"), with_samples=False).values()
    return Contents(
        environments=tuple(sorted(held)[:count]),
        operators=spread("operator"),
        measurements=tuple(row.id for row in rows),
        spaces=tuple(sorted({row.space for row in rows if row.space})),
        teams=tuple(sorted({row.team for row in rows})),
    )


def paths_of(folder: Path) -> list[str]:
    """Return the patterns of what a hub can be asked for, from the application itself."""
    with (
        open_store(folder / "none.db", create=True) as store,
        open_ledger(folder / "none-hub.db", create=True) as ledger,
    ):
        app = make_app(Hub(store=store, ledger=ledger, folder=folder))
        return [each.path for each in _flat(app.routes) if "GET" in (each.methods or ())]


def _flat(routes: Sequence[Any]) -> Iterator[APIRoute]:
    for each in routes:
        if isinstance(each, APIRoute):
            yield each
        elif hasattr(each, "original_router"):  # newer FastAPI keeps routers whole
            yield from _flat(each.original_router.routes)


_ROWS = "FROM measurements m WHERE"
_KEPT = "NOT EXISTS (SELECT 1 FROM retractions r WHERE r.target = m.id AND r.team = m.team)"
_HELD = (
    f"SELECT environment, cache, space, status, team, count(*), max(time) {_ROWS} {_KEPT} GROUP BY 1, 2, 3, 4, 5",
    f"SELECT environment, cache, space, count(DISTINCT operator) {_ROWS} {_KEPT} GROUP BY 1, 2, 3",
)
_STATES = (f"SELECT environment, operator, min(status) {_ROWS} {_KEPT} GROUP BY 1, 2",)
_COUNTS = tuple(
    f"SELECT count(*) FROM {name}"
    for name in (
        "measurements",
        "operators",
        "environments",
        "retractions",
        "selections",
        "scores",
        "recipes",
    )
)
_BRIEF = "SELECT id, operator, environment, cache, status, latency_s, ci_low_s, ci_high_s, team, host, time"
_SQL: Mapping[str, tuple[str, ...]] = {
    "/": (*_HELD, *_COUNTS),
    "/devices": _STATES,
    "/environments": _HELD,
    "/environments/{identity}": (
        f"{_BRIEF} {_ROWS} m.environment = :environment AND m.id > :after ORDER BY m.id LIMIT 100",
    ),
    "/operators": (
        "SELECT id, description, params, macs, peak_bytes FROM operators WHERE id > :after ORDER BY id LIMIT 100",
    ),
    "/operators/{identity}": (f"{_BRIEF} {_ROWS} m.operator = :operator AND {_KEPT}",),
    "/compare": tuple(
        f"SELECT operator, status, latency_s, ci_low_s, ci_high_s, team, host, time {_ROWS} m.environment = {side} "
        f"AND {_KEPT}"
        for side in (":environment", ":other")
    ),
    "/frontier": ("SELECT * FROM selections",),
    f"{API}/devices": _HELD,
    f"{API}/environments": _HELD,
    f"{API}/coverage": _STATES,
    f"{API}/counts": _COUNTS,
    f"{API}/measurements": (f"{_BRIEF} {_ROWS} m.id > :after ORDER BY m.id LIMIT 200",),
}


def variants(path: str, there: Contents) -> list[tuple[str, list[Query]]]:
    """Return what is asked of a route beside its plain address: a name, and queries in turns."""
    places, teams = there.environments, there.teams
    others = [*places[1:], *places[:1]]
    pairs: list[Query] = [
        {"a_environment": one, "b_environment": other} for one, other in zip(places, others, strict=True)
    ]
    sides: list[Query] = [
        {"a_environment": one, "a_team": teams[0], "b_environment": one, "b_team": teams[-1]}
        for one in places
    ]
    deep: list[Query] = [{"after": f"{number:x}f"} for number in range(8, 16)]
    if path in ("/compare", f"{API}/compare"):
        return [("two environments", pairs), ("two teams", sides)]
    if path in ("/environments/{identity}", "/operators", f"{API}/operators"):
        return [("", [{}]), ("deep", deep)]
    if path in (f"{API}/measurements", f"{API}/ids", f"{API}/counts", f"{API}/coverage"):
        base: Query = {"kind": "measurement"} if path.endswith("ids") else {}
        by_team: list[Query] = [{**base, "team": team} for team in teams]
        parts: list[list[Query]] = [
            by_team, [{**base, "team": "nobody"}], [{**base, "since": "2026-05-01"}], [{**base, "since": "2030-01-01"}],
        ]  # fmt: skip
        found = [("", [base]), *zip(_PARTS, parts, strict=True)]
        if path != f"{API}/coverage":
            found.append(("an environment", [{**base, "environment": key} for key in places]))
        if path in (f"{API}/measurements", f"{API}/ids"):
            found.append(("deep", [{**base, **each} for each in deep]))
        return found
    return [("", [{}])]


def everything(folder: Path, there: Contents) -> list[Asked]:
    """Return all that is asked, pages first.

    Raises:
        BadInput: a route has a parameter that nothing here fills.
    """
    found = []
    for path in paths_of(folder):
        if path in _LEFT_OUT or path.startswith("/static/"):
            continue
        page = not path.startswith(("/api/", "/metrics", "/healthz"))
        for name, queries in variants(path, there):
            filled = _filled(path, queries, there)
            common = name not in _PARTS and path not in ("/metrics", f"{API}/log")
            whole = f"{path} ({name})" if name else path
            found.append(Asked(whole, filled, page, common, _SQL.get(path, ())))
    return sorted(found, key=lambda each: (not each.page, each.name))


def _filled(path: str, queries: Sequence[Query], there: Contents) -> tuple[str, ...]:
    bare = path.removeprefix(API)
    kinds = {
        "/environments": there.environments,
        "/operators": there.operators,
        "/measurements": there.measurements,
        "/spaces": there.spaces,
    }
    keys: Iterable[str] = [""]
    if "{" in path:
        start = bare.partition("/{")[0]
        if start not in kinds or path.count("{") != 1:
            raise BadInput(
                f"the benchmark does not know what to ask of {path}", hint="add it to hub_routes.py"
            )
        keys = kinds[start]
    addresses = [path.partition("{")[0] + key + path.partition("}")[2] for key in keys]
    count = max(len(addresses), len(queries))
    pairs: Any = zip(cycle(addresses), cycle(queries), range(count), strict=False)
    return tuple(address + (f"?{urlencode(query)}" if query else "") for address, query, _ in pairs)
