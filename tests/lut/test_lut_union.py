"""Import and merge are set unions: idempotent, commutative, associative, by every route."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lanaprof.lut import Operator, Record, Score, export_file, import_files, merge, open_store

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # what is tested here is not the disk


def lines_of(database: Path, folder: Path) -> list[str]:
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


def by_merge(source: Path, destination: Path, folder: Path) -> None:
    merge(source, destination)


def by_file(ending: str) -> Callable[[Path, Path, Path], None]:
    def route(source: Path, destination: Path, folder: Path) -> None:
        file = folder / f"route{next(COUNTER)}.{ending}"
        with open_store(source) as store, open_store(destination, create=True) as other:
            export_file(store, file)
            import_files(other, [file])

    return route


COUNTER = itertools.count()
ROUTES: dict[str, Callable[[Path, Path, Path], None]] = {
    "merge": by_merge,
    **{ending: by_file(ending) for ending in ("jsonl", "jsonl.zst", "parquet", "sqlite")},
}


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_union_does_not_depend_on_order_or_route(
    make: Any, empty_database: Path, data: st.DataObject
) -> None:
    """A ∪ (B ∪ C), (C ∪ B) ∪ A and A ∪ A ∪ B ∪ C, by any mix of routes, export the same bytes."""
    populated = data.draw(populations(make))
    routes = st.sampled_from(sorted(ROUTES))
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        paths = []
        for index, records in enumerate(populated):
            paths.append(folder / f"{index}.db")
            shutil.copy(empty_database, paths[-1])
            with open_store(paths[-1]) as store:
                store.add(records)
        a, b, c = paths

        def unite(target: str, *sources: Path) -> Path:
            for source in sources:
                ROUTES[data.draw(routes)](source, folder / target, folder)
            return folder / target

        exports = [
            lines_of(unite("1.out.db", a, unite("1.bc.db", b, c)), folder),
            lines_of(unite("2.out.db", unite("2.cb.db", c, b), a), folder),
            lines_of(unite("3.out.db", a, a, b, c, b), folder),
        ]

        assert exports[0] == exports[1] == exports[2]
