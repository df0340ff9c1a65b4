"""Push and pull: what is lacking is sent, once, in any direction, and a stopped transfer goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import StoreError
from lanaprof.lut import ImportReport, RecordFilter, Store, open_store, transfer


@pytest.fixture
def other(tmp_path: Path) -> Any:
    """Another team's database, a file."""
    with open_store(tmp_path / "other.db", create=True) as opened:
        yield opened


def content(store: Store) -> list[Any]:
    return list(store.iter_records())


def test_what_is_lacking_is_sent_once(store: Store, other: Store, make: Any) -> None:
    """Both ways, everything arrives whole; again, nothing is sent."""
    other.add(make.one_of_each())
    store.add([make.operator(), make.score(images=7)])

    assert transfer(other, store) == ImportReport(added=7, known=1)
    assert transfer(store, other) == ImportReport(added=1, known=8)
    assert transfer(store, other) == ImportReport(known=9)
    assert content(store) == content(other)


def test_only_missing_records_are_read(
    store: Store, other: Store, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is known on both sides only ids are asked for; new records go in small transactions."""
    other.add([make.score(images=images) for images in range(1200)])
    store.add([make.score(images=images) for images in range(100)])
    read: list[int] = []
    whole = Store.records_of

    def counting(self: Store, kind: str, ids: Any) -> Any:
        read.append(len(ids))
        return whole(self, kind, ids)

    monkeypatch.setattr(Store, "records_of", counting)
    transfer(other, store)
    transfer(other, store)

    assert read == [500, 500, 100]


def test_stopped_transfer_goes_on(store: Store, other: Store, make: Any) -> None:
    """What had arrived is not sent again, and in the end nothing is lacking."""
    other.add([*make.one_of_each(), *(make.score(images=images) for images in range(1, 1100))])

    class StoppedError(Exception):
        pass

    def stop(done: int, total: int, kind: str) -> None:
        if kind == "score":
            raise StoppedError

    with pytest.raises(StoppedError):
        transfer(other, store, follow=stop)
    arrived = sum(store.counts().values())
    report = transfer(other, store)

    assert arrived >= 500
    assert (report.known, report.added) == (arrived, sum(other.counts().values()) - arrived)
    assert content(store) == content(other)


def test_failure_says_how_to_go_on(store: Store, make: Any, tmp_path: Path) -> None:
    """A destination that cannot be written leaves what arrived, and the hint says so."""
    store.add(make.one_of_each())
    open_store(tmp_path / "full.db", create=True).close()

    with open_store(tmp_path / "full.db", readonly=True) as full, pytest.raises(StoreError) as caught:
        transfer(store, full)

    assert "is read-only" in caught.value.message
    assert "goes on from there" in caught.value.hint
    assert caught.value.exit_code == 2


def test_far_is_told(store: Store, other: Store, make: Any) -> None:
    """Progress ends at the whole number and never runs backwards or beyond it."""
    other.add(make.one_of_each())
    heard: list[tuple[int, int]] = []

    transfer(other, store, follow=lambda done, total, kind: heard.append((done, total)))

    assert heard == sorted(heard)
    assert heard[-1] == (8, 8)


@pytest.mark.parametrize(
    ("records", "kinds"),
    [
        (
            RecordFilter(protocol="relay/2"),
            {"environment": 1, "measurement": 1, "operator": 1, "recipe": 1, "retraction": 1},
        ),
        (
            RecordFilter(team="robots"),
            {"environment": 1, "measurement": 1, "operator": 1, "recipe": 1, "retraction": 1},
        ),
        (RecordFilter(protocol="cold/1"), {}),
        (RecordFilter(since="2030-01-01"), {}),
    ],
)
def test_filter_chooses_what_is_sent(
    store: Store, other: Store, make: Any, records: RecordFilter, kinds: dict[str, int]
) -> None:
    """Team, time and protocol choose; what the chosen need comes along, and counts agree with what is sent."""
    chosen = make.measurement(cache="relay", space="s1", protocol="relay/2", team="robots")
    other.add([*make.one_of_each(), chosen, make.retraction(chosen.id, team="robots")])

    report = transfer(other, store, records=records)

    assert {kind: count for kind, count in store.counts().items() if count} == kinds
    assert report.added == sum(kinds.values()) == sum(other.counts(records).values())


def test_refused_records_are_reported(store: Store, other: Store, make: Any) -> None:
    """A retraction of somebody else's measurement does not arrive; the rest does."""
    store.add([make.operator(), make.environment(), make.measurement()])
    foreign = make.retraction(make.measurement().id, team="robots")
    other.add([foreign, make.score()])

    report = transfer(other, store)

    assert report.added == 1
    assert [(row.id, row.row) for row in report.refused] == [(foreign.id, 0)]
    assert "cannot retract" in report.refused[0].reason
