"""Import, merge, push and pull are set unions: idempotent, commutative, associative, by every route, anywhere."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lanaprof.lut import Operator, Record, Score, export_file, import_files, merge, open_store, transfer

Address = str | Path
Route = Callable[[Address, Address, Path], None]
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what is tested here is not the disk


def lines_of(database: Address, folder: Path) -> list[str]:
    """Return a database's export after the manifest: equal lists mean equal content."""
    out = folder / "compare.jsonl"
    with open_store(database) as store:
        export_file(store, out)
    return out.read_text().splitlines()[1:]


@st.composite
def populations(draw: st.DrawFn, make: Any) -> list[list[Record]]:
    """Draw three databases' records from one pool, so that they overlap, with retractions by anyone."""
    finite = st.floats(min_value=1e-9, max_value=10.0)
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4)
    teams = st.sampled_from(["vision", "robots"])
    operators: list[Operator] = [make.operator(channels) for channels in (1, 2)]
    environments = [make.environment(), make.environment(options=dict([draw(st.tuples(text, text))]))]
    measurements = [
        make.measurement(
            operator=draw(st.sampled_from(operators)).id,
            environment=draw(st.sampled_from(environments)).id,
            latency_s=latency_s,
            ci_low_s=latency_s,
            ci_high_s=latency_s,
            samples=draw(st.lists(finite, min_size=2, max_size=2)),
            rounds=(0, draw(st.integers(0, 65535))),
            team=draw(teams),
            load=draw(st.none() | st.floats(0, 1e9)),
            message=draw(text),
        )
        for latency_s in draw(st.lists(finite, min_size=1, max_size=4))
    ]
    targets = [*(each.id for each in measurements), "f" * 32]
    retractions = [
        make.retraction(target, team=team, reason=reason + "x")
        for target, team, reason in draw(
            st.lists(st.tuples(st.sampled_from(targets), teams, text), max_size=4)
        )
    ]
    scores: list[Score] = [
        make.score(score=score, operation=name)
        for score, name in draw(
            st.lists(st.tuples(st.floats(allow_nan=False, allow_infinity=False), text), max_size=2)
        )
    ]
    others = [make.calibration(), make.selection(), make.recipe(operator=operators[0].id)]
    pool: list[Record] = [*measurements, *retractions, *scores, *others]
    return [
        [*operators, *environments, *draw(st.lists(st.sampled_from(pool), max_size=len(pool)))]
        for _ in range(3)
    ]


def by_merge(source: Address, destination: Address, folder: Path) -> None:
    merge(source, destination)


def by_transfer(source: Address, destination: Address, folder: Path) -> None:
    with open_store(source, readonly=True) as store, open_store(destination, create=True) as other:
        transfer(store, other)


def by_file(ending: str) -> Route:
    def route(source: Address, destination: Address, folder: Path) -> None:
        file = folder / f"route{next(COUNTER)}.{ending}"
        with open_store(source) as store, open_store(destination, create=True) as other:
            export_file(store, file)
            import_files(other, [file])

    return route


COUNTER = itertools.count()
ROUTES: dict[str, Route] = {
    "merge": by_merge,
    "transfer": by_transfer,
    **{ending: by_file(ending) for ending in ("jsonl", "jsonl.zst", "parquet", "sqlite")},
}


def unions(data: st.DataObject, make: Any, folder: Path, place: Callable[[str], Address]) -> list[list[str]]:
    """Return the exports of three unions of the same three databases, made in different orders by any routes.

    Args:
        data: draws the content and the routes.
        make: makes records.
        folder: for files.
        place: gives an empty database by name.
    """
    a, b, c = (place(name) for name in "abc")
    for address, records in zip((a, b, c), data.draw(populations(make)), strict=True):
        with open_store(address) as store:
            store.add(records)
    routes = st.sampled_from(sorted(ROUTES))

    def unite(target: str, *sources: Address) -> Address:
        destination = place(target)
        for source in sources:
            ROUTES[data.draw(routes)](source, destination, folder)
        return destination

    return [
        lines_of(unite("1", a, unite("1bc", b, c)), folder),
        lines_of(unite("2", unite("2cb", c, b), a), folder),
        lines_of(unite("3", a, a, b, c, b), folder),
    ]


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_union_does_not_depend_on_order_or_route(
    make: Any, empty_database: Path, data: st.DataObject
) -> None:
    """A ∪ (B ∪ C), (C ∪ B) ∪ A and A ∪ A ∪ B ∪ C, by any mix of routes, export the same bytes."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:

        def place(base: str) -> Path:
            return Path(shutil.copy(empty_database, Path(name) / f"{base}.db"))

        exports = unions(data, make, Path(name), place)

        assert exports[0] == exports[1] == exports[2]


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_union_is_the_same_on_a_server(
    make: Any, empty_database: Path, databases: Any, data: st.DataObject
) -> None:
    """The same where some of the databases, the results' too, are on a server and others are files."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        number = itertools.count(1)

        def place(base: str) -> Address:
            if base in "13" or data.draw(st.booleans()):
                return str(databases.empty(next(number)))
            return Path(shutil.copy(empty_database, Path(name) / f"{base}.db"))

        exports = unions(data, make, Path(name), place)

        assert exports[0] == exports[1] == exports[2]
