"""What is kept up to date, counted by index or listed in pages is what reading everything finds."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lanaprof.lut import GOOD_STATUSES, STATUSES, Measurement, RecordFilter, Store, Viewpoint
from lanaprof.lut.policy import statuses_from
from lanaprof.lut.standing import Standings

CHANNELS = (8, 16, 24)
TEAMS = ("vision", "robots")
VIEWPOINT = Viewpoint(host="h1", team="robots")


def random_rows(make: Any, chance: random.Random, count: int) -> list[Measurement]:
    """Return measurements of few operators in few environments, so that many are of one thing."""
    made = []
    for _ in range(count):
        cache = chance.choice(["relay", "hot"])
        made.append(
            make.measurement(
                operator=make.operator(chance.choice(CHANNELS)).id,
                environment=make.environment(threads=chance.randint(1, 4)).id,
                status=chance.choice(STATUSES), cache=cache,
                space=chance.choice(["s1", "s2"]) if cache == "relay" else "", protocol=f"{cache}/1",
                team=chance.choice(TEAMS), host=chance.choice(["h1", "h2"]),
                rejected=chance.randint(0, 10**9),
                time=f"2026-03-01T12:00:0{chance.randint(0, 9)}{chance.choice(['', '.5'])}Z",
            )
        )  # fmt: skip
    return made


def fill(store: Store, make: Any) -> None:
    """Add what measurements refer to."""
    store.add([make.operator(channels) for channels in CHANNELS])
    store.add([make.environment(threads=threads) for threads in range(1, 5)])


def plain(statuses: Mapping[str, str]) -> dict[str, str]:
    """Return statuses by operator; which of several failures counts is not told."""
    return {key: status if status in GOOD_STATUSES else "failed" for key, status in statuses.items()}


def found(standings: Standings, store: Store) -> tuple[Any, ...]:
    """Return all that is told."""
    used = standings.used_environments()
    statuses = {key: plain(standings.statuses(key)) for key in used}
    measured = {key: dict(times) for key, times in standings.measured_operators(used).items()}
    return standings.holdings(), used, measured, statuses


def counted(store: Store) -> tuple[Any, ...]:
    """Return the same from the whole database."""
    used = store.used_environments()
    statuses = {key: plain(statuses_from(store.measurements(environment=key), VIEWPOINT)) for key in used}
    return store.holdings(), used, store.measured_operators(used), statuses


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_is_what_counting_anew_finds(store: Store, make: Any, seed: int) -> None:
    """After pushes, retractions before and after what they retract, and pushes of what is known."""
    chance = random.Random(seed)
    fill(store, make)
    standings = Standings(store, VIEWPOINT, clock=lambda: 0.0)  # no look is over before all is read
    rows: list[Measurement] = []
    for _ in range(6):
        fresh = random_rows(make, chance, chance.randint(0, 8))
        early = [make.retraction(row.id, team=row.team) for row in fresh if chance.random() < 0.2]
        late = [make.retraction(row.id, team=row.team) for row in rows if chance.random() < 0.2]
        store.add(early)
        store.add([*fresh, *chance.sample(rows, len(rows) // 2), *late])
        rows += fresh
        standings.look()

        assert found(standings, store) == counted(store)


def test_only_environments_in_which_something_changed_are_read_again(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push to one and a retraction in another cost two readings; nothing new costs none."""
    fill(store, make)
    first = [make.measurement(environment=make.environment(threads=threads).id) for threads in range(1, 5)]
    store.add(first)
    standings = Standings(store, VIEWPOINT, clock=lambda: 0.0)
    standings.look()
    read: list[str] = []
    sums = store.sums

    def counting(key: str, *given: Any, **more: Any) -> Any:
        read.append(key)
        return sums(key, *given, **more)

    monkeypatch.setattr(store, "sums", counting)

    standings.look()
    assert read == []
    store.add([make.retraction(first[0].id), make.measurement(environment=first[1].environment, host="h2")])
    standings.look()
    assert sorted(read) == sorted(each.environment for each in first[:2])


def test_a_look_ends_when_its_time_is_over(store: Store, make: Any) -> None:
    """Many environments changed: each look reads one at least, and until all are read it says how many are not."""
    fill(store, make)
    standings = Standings(store, VIEWPOINT, clock=lambda: 0.0)
    standings.look()
    store.add([make.measurement(environment=make.environment(threads=threads).id) for threads in range(1, 5)])
    pending: list[int] = []
    while not pending or pending[-1]:
        standings.look(0.0)
        pending.append(standings.pending)

    assert pending == [3, 2, 1, 0]
    assert found(standings, store) == counted(store)


def test_who_asks_during_the_first_look_is_told_all(
    store: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of what stands would look like all of it."""
    fill(store, make)
    store.add([make.measurement(environment=make.environment(threads=threads).id) for threads in range(1, 5)])
    standings = Standings(store, VIEWPOINT)
    entered, go_on = threading.Event(), threading.Event()
    sums = store.sums

    def slowly(*given: Any, **more: Any) -> Any:
        entered.set()
        assert go_on.wait(600)
        return sums(*given, **more)

    def told() -> int:
        standings.look()
        return len(standings.used_environments())

    monkeypatch.setattr(store, "sums", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(told)
        assert entered.wait(600)
        second = pool.submit(told)
        go_on.set()

        assert (first.result(), second.result()) == (4, 4)


@pytest.mark.parametrize(
    "chosen", [{"team": "vision"}, {"since": "2026-03-01T12:00:05"}, {"protocol": "hot/1"}, {"cache": "hot"}]
)
def test_a_part_is_what_reading_that_part_finds(store: Store, make: Any, chosen: dict[str, Any]) -> None:
    """By team, time, protocol or cache state."""
    fill(store, make)
    store.add(random_rows(make, random.Random(5), 60))
    standings = Standings(store, VIEWPOINT, **chosen)
    standings.look()

    for key in store.used_environments():
        rows = store.measurements(environment=key, **chosen)
        assert plain(standings.statuses(key)) == plain(statuses_from(rows, VIEWPOINT))


def test_states_are_the_best_of_anybody(store: Store, make: Any) -> None:
    """Whoever asks: one team's failure does not hide another's number, but of another cache state it does not tell."""
    fill(store, make)
    own = make.measurement(status="failed", team="robots", host="h1")
    other = make.measurement(status="noisy", host="h2")
    store.add([own, other, make.measurement(cache="relay", space="s1", protocol="relay/1")])
    standings = Standings(store, VIEWPOINT, clock=lambda: 0.0)
    standings.look()

    assert standings.states(own.environment, "hot", "") == {own.operator: "noisy"}
    assert standings.states(own.environment, "relay", "s1") == {own.operator: "ok"}
    assert standings.states(own.environment, "cold", "") == {}


def test_another_database_at_its_place_is_read_whole(store: Store, make: Any) -> None:
    """A backup that was put back has fewer rows: nothing of what was known counts."""
    fill(store, make)
    store.add(random_rows(make, random.Random(7), 20))
    standings = Standings(store, VIEWPOINT, clock=lambda: 0.0)
    standings.look()
    with store._engine.begin() as connection:  # what nobody does but by putting another file there
        connection.exec_driver_sql("DELETE FROM measurements")
    store.add([make.measurement()])
    standings.look()

    assert found(standings, store) == counted(store)


PARTS: list[dict[str, Any]] = [
    {"team": "vision"}, {"since": "2026-03-01T12:00:05"}, {"protocol": "hot/1"}, {"team": "nobody"},
    {"team": "robots", "since": "2026-03-01T12:00:08"},
]  # fmt: skip


@pytest.mark.parametrize("chosen", PARTS)
def test_a_part_has_as_many_records_as_are_read_of_it(
    store: Store, make: Any, chosen: dict[str, Any]
) -> None:
    """What is counted by index is what an export of the same part writes, kind by kind."""
    chance = random.Random(11)
    fill(store, make)
    rows = random_rows(make, chance, 40)
    store.add(
        [*rows, *(make.retraction(row.id, team=row.team) for row in rows[::5]), make.retraction("0" * 32)]
    )
    store.add([make.recipe(operator=make.operator(channels).id) for channels in CHANNELS])
    store.add([make.calibration(environment=make.environment(threads=4).id), make.score(), make.selection()])
    records = RecordFilter(**chosen)

    read = Counter(each.record for each in store.iter_records(records))
    assert {kind: count for kind, count in store.counts(records).items() if count} == read


@pytest.mark.parametrize("chosen", PARTS)
@pytest.mark.parametrize("limit", [1, 7])
def test_pages_of_a_part_are_the_part(store: Store, make: Any, chosen: dict[str, Any], limit: int) -> None:
    """Page by page, where a part is dense and where it is sparse, every id comes once, in order."""
    fill(store, make)
    store.add(random_rows(make, random.Random(13), 200))
    records = RecordFilter(**chosen)
    pages: list[list[str]] = []
    while not pages or len(pages[-1]) == limit:
        pages.append(store.ids("measurement", records, after=pages[-1][-1] if pages else "", limit=limit))

    read = [each.id for each in store.iter_records(records, kinds=["measurement"])]
    assert [key for page in pages for key in page] == read
