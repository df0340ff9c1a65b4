"""The store: what is added comes back, whole, once, and only what may be added is."""

from __future__ import annotations

import sqlite3
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import BadInput, MissingMeasurement, StoreError, UnknownSelection
from lanaprof.lut import AddReport, RecordFilter, Store, graph_statistics, open_store


def test_every_kind_comes_back(store: Store, make: Any) -> None:
    """Records of all kinds, given at once in an impossible order, are stored and read unchanged."""
    records = make.one_of_each()

    assert store.add(records) == AddReport(added=8)
    assert list(store.iter_records()) == sorted(records, key=lambda each: (each.record, each.id))


def test_adding_twice_changes_nothing(store: Store, make: Any) -> None:
    """A record that is there is known, within one call and between calls."""
    assert store.add([*make.one_of_each(), *make.one_of_each()]) == AddReport(added=8, known=8)
    assert store.add(make.one_of_each()) == AddReport(known=8)


@pytest.mark.parametrize(
    ("kind", "lacks"), [("measurement", "operator"), ("calibration", "environment"), ("recipe", "operator")]
)
def test_dangling_record_is_refused_alone(store: Store, make: Any, kind: str, lacks: str) -> None:
    """What refers to nothing is refused with the reason; the rest of the call is added."""
    dangling = getattr(make, kind)(**{lacks: "0" * 32})
    given = [make.operator(), make.environment(), dangling, make.measurement()]

    report = store.add(given)

    assert report.added == 3
    assert [(each.id, each.reason) for each in report.refused] == [
        (dangling.id, f"its {lacks} {'0' * 32} is not in the database")
    ]


def test_huge_shapes_are_refused(store: Store, make: Any) -> None:
    """Sizes that multiply beyond SQL's integers are refused, not stored wrongly."""
    graph = make.graph()
    graph["inputs"] = [{"type": "float32", "shape": [2**62, 2**62]}]
    operator = type(make.operator())(graph=graph)

    assert "more than 2^63 - 1" in store.add([operator]).refused[0].reason


def test_samples_are_kept_bit_for_bit(store: Store, make: Any, database: Path) -> None:
    """Samples are zlib of float64 then uint16, little-endian: readable without lanaprof."""
    measurement = make.measurement(samples=(0.1 + 0.2, 5e-324, 1e300), rounds=(0, 1, 65535))
    store.add([make.operator(), make.environment(), measurement])

    assert store.measurements(with_samples=True) == (measurement,)
    connection = sqlite3.connect(database)
    (blob,) = connection.execute("SELECT samples FROM measurements").fetchone()
    connection.close()
    assert struct.unpack("<3d3H", zlib.decompress(blob)) == (0.1 + 0.2, 5e-324, 1e300, 0, 1, 65535)


def test_measurement_read_without_samples_keeps_its_id(store: Store, make: Any, tmp_path: Path) -> None:
    """Such a record is known by its id, but cannot be added elsewhere: it is not whole."""
    store.add(make.one_of_each()[1:])
    (light,) = store.measurements()

    assert (light.samples, light.id) == ((), make.measurement().id)
    with open_store(tmp_path / "other.db", create=True) as other:
        report = other.add([make.operator(), make.environment(), light])
    assert "read without its samples" in report.refused[0].reason


def test_operator_columns_are_derived(store: Store, make: Any) -> None:
    """Statistics and description follow from the graph and are read without it."""
    store.add([make.operator(8), make.operator(16)])
    key = make.operator(16).id

    assert store.operator_statistics([key, "0" * 32]) == {key: graph_statistics(make.graph(16))}
    assert store.operator_descriptions([key]) == {key: "Conv 3x3 ×1, Clip ×1, 16×4×4 → 16×4×4"}
    assert set(store.operator_statistics()) == set(store.operator_keys())


def test_operators_are_found_by_key(store: Store, make: Any) -> None:
    """find gives None where get raises; iter leaves out what is absent."""
    store.add([make.operator(8), make.operator(16)])

    assert store.find_operator(make.operator(8).id) == make.operator(8)
    assert store.find_operator("0" * 32) is None
    assert store.get_operator(make.operator(8).id) == make.operator(8)
    with pytest.raises(MissingMeasurement, match="has no operator 0000"):
        store.get_operator("0" * 32)
    assert list(store.iter_operators([make.operator(16).id, "0" * 32])) == [make.operator(16)]
    assert [each.id for each in store.iter_operators()] == list(store.operator_keys())


def test_environment_is_found_by_the_start_of_its_key(store: Store, make: Any) -> None:
    """A prefix is enough where it is unique; otherwise the error lists what is there."""
    one, other = make.environment(), make.environment(threads=2)
    store.add([one, other])

    assert store.get_environment(one.id[:8]) == one
    assert {each.id for each in store.environments()} == {one.id, other.id}
    with pytest.raises(BadInput, match="is not the key of an environment") as caught:
        store.get_environment("x%")
    assert one.id[:12] in caught.value.message
    with pytest.raises(BadInput):
        store.get_environment("")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "abcd"),
        ({"cache": "hot"}, "acd"),
        ({"space": "s1"}, "b"),
        ({"space": ""}, "acd"),
        ({"team": "robots"}, "c"),
        ({"protocol": "hot/2"}, "d"),
        ({"since": "2026-03-02"}, "cd"),
        ({"since": "2026-03-02T10:30:00+05:00"}, "c"),
        ({"cache": "hot", "team": "vision"}, "ad"),
    ],
)
def test_measurements_are_filtered(store: Store, make: Any, arguments: dict[str, Any], expected: str) -> None:
    """Every condition narrows what is read."""
    rows = {
        "a": make.measurement(message="a"),
        "b": make.measurement(message="b", cache="relay", space="s1"),
        "c": make.measurement(message="c", team="robots", time="2026-03-02T12:00:00.5Z"),
        "d": make.measurement(message="d", protocol="hot/2", time="2026-03-02T05:00:00Z"),
    }
    store.add([make.operator(), make.environment(), *rows.values()])

    assert "".join(sorted(each.message for each in store.measurements(**arguments))) == expected


def test_measurements_of_many_operators(store: Store, make: Any) -> None:
    """More operators than fit in one SQL list are no obstacle."""
    operators = [make.operator(channels) for channels in range(1, 7)]
    rows = [make.measurement(operator=operator.id) for operator in operators]
    store.add([make.environment(), *operators, *rows])
    wanted = [operators[2].id, *(f"{index:032x}" for index in range(1200))]

    assert [each.id for each in store.measurements(operators=wanted)] == [rows[2].id]
    assert [each.id for each in store.measurements(operators=[operators[2].id])] == [rows[2].id]
    assert store.measurements(operators=[]) == ()


def test_bad_since_is_refused(store: Store) -> None:
    """A time that is none gives an error with an example."""
    with pytest.raises(BadInput, match="'soon' is not a date") as caught:
        store.measurements(since="soon")
    assert "2026-01-31" in caught.value.hint


def test_retracted_measurement_does_not_count(store: Store, make: Any) -> None:
    """It stays stored and known by id, but no query gives it."""
    store.add([make.operator(), make.environment(), make.measurement()])

    report = store.retract([make.measurement().id], team="vision", reason="throttled")

    assert report == AddReport(added=1)
    assert store.measurements() == ()
    assert store.holdings() == ()
    assert store.find_measurements([make.measurement().id]) == {make.measurement().id: make.measurement()}
    assert store.counts()["measurement"] == 1
    assert store.retract([make.measurement().id], team="vision", reason="again") == AddReport(known=1)


def test_another_team_cannot_retract(store: Store, make: Any) -> None:
    """A retraction by another team is refused with the reason and has no effect."""
    store.add([make.operator(), make.environment(), make.measurement()])

    report = store.retract([make.measurement().id], team="robots", reason="envy")

    assert "is of team 'vision': team 'robots' cannot retract it" in report.refused[0].reason
    assert len(store.measurements()) == 1


def test_foreign_retraction_that_came_first_is_void(store: Store, make: Any) -> None:
    """It is accepted while the measurement is unknown, and without effect, hence hidden, once it is there."""
    foreign = make.retraction(make.measurement().id, team="robots")

    assert store.add([foreign]) == AddReport(added=1)
    assert store.retractions() == (foreign,)
    store.add([make.operator(), make.environment(), make.measurement()])

    assert len(store.measurements()) == 1
    assert store.retractions() == ()
    assert store.counts()["retraction"] == 0
    assert [each.record for each in store.iter_records()] == ["environment", "measurement", "operator"]


def test_retraction_may_come_before_its_measurement(store: Store, make: Any) -> None:
    """The order of arrival does not matter."""
    store.add([make.retraction(make.measurement().id)])
    store.add([make.operator(), make.environment(), make.measurement()])

    assert store.measurements() == ()


def test_holdings_count_per_environment_and_cache(store: Store, make: Any) -> None:
    """What `lut ls` shows: operators, rows by status, teams, the newest time."""
    rows = [
        make.measurement(),
        make.measurement(team="robots", status="failed", message="no kernel", time="2026-03-03T00:00:00Z"),
        make.measurement(operator=make.operator(16).id, status="noisy"),
        make.measurement(cache="relay", space="s1"),
    ]
    store.add([make.operator(8), make.operator(16), make.environment(), *rows])
    hot, relay = store.holdings()

    assert (hot.cache, hot.operators, hot.teams) == ("hot", 2, ("robots", "vision"))
    assert hot.statuses == (("failed", 1), ("noisy", 1), ("ok", 1))
    assert hot.newest == "2026-03-03T00:00:00Z"
    assert (relay.cache, relay.space, relay.statuses) == ("relay", "s1", (("ok", 1),))


def test_scores_are_filtered_and_ordered(store: Store, make: Any) -> None:
    """The last score of a candidate is its newest."""
    old, new = make.score(), make.score(time="2026-04-01T00:00:00Z", score=-0.2)
    other = make.score(metric="loss")
    store.add([new, other, old])

    assert store.scores(teacher="t1", data="d1", metric="kl") == (old, new)
    assert store.scores(metric="loss") == (other,)
    assert store.scores(teacher="t2") == ()


def test_selection_is_found_by_prefix_or_latest(store: Store, make: Any) -> None:
    """latest is the newest by time; an ambiguous or unknown prefix lists what is there."""
    many = [make.selection(rounds=rounds) for rounds in range(40)]
    newest = make.selection(time="2026-05-01T00:00:00Z")
    store.add([newest, *many])
    shared = next(each.id[0] for each in many if sum(one.id[0] == each.id[0] for one in many) > 1)

    assert store.find_selection() == newest
    assert store.find_selection(many[3].id) == many[3]
    assert len(store.selections()) == 41
    with pytest.raises(UnknownSelection, match="stands for several selections"):
        store.find_selection(shared)
    with pytest.raises(UnknownSelection, match="is no selection"):
        store.find_selection("zz")


def test_proved_selections_are_listed_first(store: Store, make: Any) -> None:
    """Ten are named, those that were proved and the newest first; how many more there are is said."""
    proved = make.selection(time="2026-01-01T00:00:00Z", status="verified")
    others = [make.selection(time=f"2026-05-{day:02}T00:00:00Z", status="unverified") for day in range(1, 13)]
    store.add([proved, *others])
    with pytest.raises(UnknownSelection) as caught:
        store.find_selection("zz")

    assert f"has {proved.id[:12]} (" in caught.value.message
    assert others[-1].id[:12] in caught.value.message
    assert others[0].id[:12] not in caught.value.message
    assert caught.value.message.endswith("and 3 more")


def test_no_selection_yet_says_what_to_type(store: Store) -> None:
    """An empty database names the command that makes a selection."""
    with pytest.raises(UnknownSelection) as caught:
        store.find_selection()
    assert "lanaprof select" in caught.value.hint


def test_calibrations_are_filtered(store: Store, make: Any) -> None:
    """By environment and space, the newest last."""
    old, new = make.calibration(), make.calibration(time="2026-04-01T00:00:00Z")
    store.add([make.environment(), new, old, make.calibration(space="s2")])

    assert store.calibrations(make.environment().id, "s1") == (old, new)
    assert len(store.calibrations()) == 3


def test_disputed_recipe_has_one_answer(store: Store, make: Any) -> None:
    """Where two generators disagree, the first by name counts, whichever came first."""
    old = make.recipe(generator="export/1")
    new = make.recipe(generator="export/2", operator=make.operator(16).id)
    store.add([make.operator(8), make.operator(16), new, old])

    assert store.find_recipes(["r1", "r2"]) == {"r1": make.operator(8).id}


def test_filtered_records_hold_together(store: Store, make: Any, tmp_path: Path) -> None:
    """What a filter chooses can be added elsewhere: nothing it refers to is missing."""
    other = make.environment(threads=4)
    kept = make.measurement(environment=other.id, operator=make.operator(16).id, team="robots")
    extra = [
        other,
        make.operator(16),
        kept,
        make.retraction(kept.id, team="robots"),
        make.recipe(operator=make.operator(16).id),
        make.retraction("f" * 32),
    ]
    store.add([*make.one_of_each(), *extra])

    chosen = list(store.iter_records(RecordFilter(environments=(other.id,))))

    with open_store(tmp_path / "part.db", create=True) as part:
        assert part.add(chosen) == AddReport(added=5)
    assert {each.id for each in chosen} == {each.id for each in extra[:-1]}


def test_filter_by_team_and_time(store: Store, make: Any) -> None:
    """Team and time choose measurements, scores and retractions."""
    theirs = make.measurement(team="robots")
    store.add(
        [*make.one_of_each(), theirs, make.score(team="robots"), make.retraction("f" * 32, team="robots")]
    )

    by_team = [each.record for each in store.iter_records(RecordFilter(team="robots"))]
    by_time = [each.record for each in store.iter_records(RecordFilter(since="2027-01-01"))]

    assert by_team == ["environment", "measurement", "operator", "recipe", "retraction", "score"]
    assert by_time == []


def test_kinds_come_in_the_order_asked_for(store: Store, make: Any) -> None:
    """Kinds are read in the given order."""
    store.add(make.one_of_each())

    kinds = [each.record for each in store.iter_records(kinds=["operator", "environment"])]

    assert kinds == ["operator", "environment"]


def test_views_are_for_people(store: Store, make: Any, database: Path) -> None:
    """Any SQLite tool shows latencies in milliseconds with names; retracted rows are not shown."""
    gone = make.measurement(team="robots")
    store.add([make.operator(), make.environment(), make.measurement(), gone, make.score()])
    store.retract([gone.id], team="robots", reason="x")
    connection = sqlite3.connect(database)
    latency = connection.execute("SELECT description, cpu_model, latency_ms, team FROM v_latency").fetchall()
    covered = connection.execute("SELECT cache, status, operators FROM v_coverage").fetchall()
    scores = connection.execute("SELECT layer, operation, score FROM v_score").fetchall()
    connection.close()

    assert latency == [("Conv 3x3 ×1, Clip ×1, 8×4×4 → 8×4×4", "AMD EPYC", 1.0, "vision")]
    assert covered == [("hot", "ok", 1)]
    assert scores == [("blocks.0", "skip", -0.31)]


def test_measurement_ids_are_found_by_prefix(store: Store, make: Any) -> None:
    """People type the first digits; a retracted row is found too."""
    store.add(make.one_of_each())

    assert store.measurement_ids(make.measurement().id[:6]) == (make.measurement().id,)
    assert store.measurement_ids("_") == ()


def test_large_calls_are_split(store: Store, make: Any) -> None:
    """More records than one transaction takes are all added."""
    rows = [make.score(images=images) for images in range(10_050)]

    assert store.add(rows).added == 10_050
    assert store.counts()["score"] == 10_050


def test_size_grows_with_content(store: Store, make: Any) -> None:
    """The size is that of what is stored, on either kind of database."""
    before = store.size_bytes()
    store.add([make.score(images=images) for images in range(2_000)])

    assert 0 < before < store.size_bytes()


def test_readonly_store_cannot_write(store: Store, make: Any, database: Path) -> None:
    """A store opened for reading refuses to add, with a plain message."""
    with open_store(database, readonly=True) as reader, pytest.raises(StoreError, match="is read-only"):
        reader.add([make.score()])
