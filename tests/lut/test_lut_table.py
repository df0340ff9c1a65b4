"""Which number counts, in which environment, and how two tables compare."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from lanaprof.errors import BadInput, MissingMeasurement, StoreError
from lanaprof.lut import (
    Environment,
    Estimate,
    Source,
    Store,
    Table,
    Viewpoint,
    compare_tables,
    coverage,
    open_store,
    open_table,
    parse_source,
)
from lanaprof.lut.policy import choose, disagreement


def test_own_host_then_own_team_then_newest_good(make: Any) -> None:
    """The order of preference, whatever the order of the rows."""
    rows = {
        "mine": make.measurement(host="me", team="vision", time="2020-01-01T00:00:00Z"),
        "team": make.measurement(host="x", team="vision", time="2021-01-01T00:00:00Z"),
        "newest": make.measurement(host="y", team="robots", time="2026-01-01T00:00:00Z"),
        "noisy": make.measurement(host="y", team="robots", status="noisy", time="2026-02-01T00:00:00Z"),
        "failed": make.measurement(host="y", team="robots", status="failed", time="2026-03-01T00:00:00Z"),
    }
    me = Viewpoint(host="me", team="vision")
    for order in itertools.islice(itertools.permutations(rows), 0, None, 11):
        left = [rows[name] for name in order]
        chosen = []
        while left:
            best = choose(left, me)
            chosen.append(next(name for name, row in rows.items() if row == best))
            left.remove(best)
        assert chosen == ["mine", "team", "newest", "noisy", "failed"]


def test_without_viewpoint_the_newest_good_counts(make: Any) -> None:
    """Nobody's rows come first when nobody asks; fractions of a second count; ties go by id."""
    old = make.measurement(time="2026-01-01T00:00:00Z")
    new = make.measurement(time="2026-01-01T00:00:00.5Z", host="")
    tied = [make.measurement(host=f"h{index}") for index in range(5)]

    assert choose([old, new]) == choose([new, old]) == new
    assert choose(tied) == choose(tied[::-1]) == min(tied, key=lambda each: each.id)


def test_disagreement_is_between_teams_and_hosts(make: Any) -> None:
    """Each host is represented by its own choice; failures have no say; one host cannot disagree."""
    one = make.measurement(host="a", latency_s=1.0e-3)
    outdated = make.measurement(host="b", latency_s=9.0e-3, time="2019-01-01T00:00:00Z")
    other = make.measurement(host="b", latency_s=1.5e-3)
    failed = make.measurement(host="c", status="failed")

    assert disagreement([one, outdated, other, failed]) == pytest.approx(0.5)
    assert disagreement([other, outdated]) is None


def test_table_gives_estimates_by_operator(store: Store, make: Any) -> None:
    """get, find, in, len, iter; a missing entry names the operator and the command."""
    rows = [make.measurement(), make.measurement(operator=make.operator(16).id, status="timeout")]
    store.add([make.operator(8), make.operator(16), make.environment(), *rows])
    table = open_table(store)

    estimate = table.get(make.operator(8).id)
    assert (estimate.latency_s, estimate.status, estimate.measurement) == (1e-3, "ok", rows[0].id)
    assert table.get(make.operator(16).id).latency_s is None
    assert table.cache_of(make.operator(8).id) == "hot"
    assert len(table) == len(list(table)) == 2
    assert make.operator(8).id in table
    assert table.find("0" * 32) is None
    assert table.environment == make.environment()
    with pytest.raises(MissingMeasurement, match="operator 0000") as caught:
        table.get("0" * 32)
    assert "lanaprof measure" in caught.value.hint


def test_relay_numbers_of_the_space_else_hot(store: Store, make: Any) -> None:
    """A relay row serves its own space only; a failed one does not hide a hot one that worked."""
    both, hot_only, elsewhere, broken = (make.operator(channels) for channels in (1, 2, 3, 4))
    rows = [
        make.measurement(operator=both.id, latency_s=1e-3),
        make.measurement(operator=both.id, latency_s=2e-3, cache="relay", space="s1"),
        make.measurement(operator=both.id, latency_s=9e-3, cache="cold"),
        make.measurement(operator=hot_only.id, latency_s=3e-3),
        make.measurement(operator=elsewhere.id, latency_s=4e-3, cache="relay", space="s2"),
        make.measurement(operator=broken.id, status="failed", cache="relay", space="s1"),
        make.measurement(operator=broken.id, latency_s=5e-3),
    ]
    store.add([both, hot_only, elsewhere, broken, make.environment(), *rows])

    table = open_table(store, space="s1")
    found = {operator.id: table.find(operator.id) for operator in (both, hot_only, elsewhere, broken)}

    assert [each and each.latency_s for each in found.values()] == [2e-3, 3e-3, None, 5e-3]
    assert [each and each.cache for each in found.values()] == ["relay", "hot", None, "hot"]
    assert len(open_table(store, space="")) == 3
    assert [each.latency_s for each in open_table(store, cache="cold")] == [9e-3]
    assert "several spaces" in open_table(store).warning
    with pytest.raises(BadInput, match="'warm' is unknown"):
        open_table(store, cache="warm")


def test_only_space_is_found(store: Store, make: Any) -> None:
    """With one space in the environment there is no need to name it."""
    store.add([make.operator(), make.environment(), make.measurement(cache="relay", space="s1")])
    table = open_table(store)

    assert (table.space, len(table), table.warning) == ("s1", 1, "")


def fill_environments(store: Store, make: Any) -> tuple[Environment, Environment, Environment]:
    """Add an old environment with two operators, a newer with two, and the newest with one."""
    old, new, partial = (make.environment(threads=threads) for threads in (1, 2, 4))
    one, two = make.operator(8), make.operator(16)
    rows = [
        make.measurement(operator=operator.id, environment=environment.id, time=time)
        for environment, operators, time in (
            (old, (one, two), "2024-01-01T00:00:00Z"),
            (new, (one, two), "2025-01-01T00:00:00Z"),
            (partial, (one,), "2026-01-01T00:00:00Z"),
        )
        for operator in operators
    ]
    store.add([one, two, old, new, partial, *rows])
    return old, new, partial


def test_own_environment_comes_first(store: Store, make: Any) -> None:
    """This machine's environment is used when the database has it, without a warning."""
    old, *_ = fill_environments(store, make)

    table = open_table(store, device="cpu", matches=lambda _: True, viewpoint=Viewpoint(environment=old.id))

    assert (table.environment, table.warning) == (old, "")


def test_else_the_newest_with_full_coverage(store: Store, make: Any) -> None:
    """A partly measured environment loses to an older complete one; the warning names the choice."""
    _, new, partial = fill_environments(store, make)

    table = open_table(store, device="cpu", matches=lambda _: True, viewpoint=Viewpoint(environment="0" * 32))
    assert table.environment == new
    assert new.id[:12] in table.warning
    assert "full coverage" in table.warning

    wanted = Viewpoint(wanted=(make.operator(8).id,))
    assert open_table(store, device="cpu", matches=lambda _: True, viewpoint=wanted).environment == partial


def test_environment_is_pinned_by_prefix(store: Store, make: Any) -> None:
    """A key's start is enough, in the argument and in the source."""
    old, *_ = fill_environments(store, make)

    assert open_table(store, environment=old.id[:10]).environment == old
    assert open_table(f"{store.name}#environment={old.id[:10]}").environment == old


def test_device_needs_a_rule(store: Store, make: Any) -> None:
    """The database does not know devices; several environments need a choice; the error lists them."""
    old, new, _ = fill_environments(store, make)

    with pytest.raises(BadInput, match="several environments") as caught:
        open_table(store)
    assert old.id[:12] in caught.value.message
    with pytest.raises(BadInput, match="device 'cpu' means is not known here"):
        open_table(store, device="cpu")
    with pytest.raises(BadInput, match=r"nothing in .* was measured on device v100"):
        open_table(store, device="v100", matches=lambda _: False)
    assert open_table(store, device="cpu", matches=lambda each: each.threads == 2).environment == new


def test_empty_database_has_no_table(store: Store) -> None:
    """The error says what to type."""
    with pytest.raises(BadInput, match="no such measurements") as caught:
        open_table(store)
    assert "lanaprof measure" in caught.value.hint


def test_missing_database_is_an_error(tmp_path: Path) -> None:
    """Opening a table creates nothing."""
    with pytest.raises(StoreError, match="there is no database"):
        open_table(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []


def test_source_narrows_by_team_and_time(store: Store, make: Any) -> None:
    """Only rows of the team, or from a time on, are in the table."""
    late = make.measurement(
        operator=make.operator(16).id, team="robots", time="2026-06-01T00:00:00Z", latency_s=2e-3
    )
    store.add([make.operator(8), make.operator(16), make.environment(), make.measurement(), late])

    assert [each.operator for each in open_table(f"{store.name}#team=vision")] == [make.operator(8).id]
    assert [each.operator for each in open_table(f"{store.name}#since=2026-05-01")] == [make.operator(16).id]
    assert len(open_table(store.name, team="robots")) == 1


def test_table_digest_depends_on_the_entries_alone(store: Store, make: Any, tmp_path: Path) -> None:
    """Equal entries, equal digest, wherever they are stored; another row that counts changes it."""
    store.add([make.operator(), make.environment(), make.measurement()])
    before = open_table(store).digest
    with open_store(tmp_path / "other.db", create=True) as other:
        other.add(store.iter_records())
        assert open_table(other).digest == before

    store.add([make.measurement(time="2027-01-01T00:00:00Z")])

    assert open_table(store).digest != before


def test_pandas_has_the_measurements_columns(store: Store, make: Any) -> None:
    """One row per entry, samples included, as in a measurement record."""
    store.add([make.operator(), make.environment(), make.measurement()])
    frame = open_table(store.name).to_pandas()

    assert frame.to_dict("records") == [make.measurement().to_json()]
    store.retract([make.measurement().id], team="vision", reason="x")
    store.add([make.operator(16), make.measurement(operator=make.operator(16).id, cache="cold")])
    empty = open_table(store.name).to_pandas()
    assert (len(empty), list(empty.columns)) == (0, list(make.measurement().to_json()))


def test_coverage_counts_done_and_missing(store: Store, make: Any) -> None:
    """noisy is present; failed, unsupported and timeout are failed; a key wanted twice counts once."""
    statuses = ["ok", "noisy", "failed", "unsupported", "timeout"]
    operators = [make.operator(channels) for channels in range(1, 8)]
    rows = [
        make.measurement(operator=operator.id, status=status)
        for operator, status in zip(operators, statuses, strict=False)
    ]
    other = make.measurement(operator=operators[5].id, cache="relay", space="s1")
    store.add([make.environment(), *operators, *rows, other])
    keys = [operator.id for operator in operators]

    found = coverage(store, [*keys, keys[0]], environment=make.environment().id, cache="hot")

    assert (found.wanted, found.present, found.noisy, found.failed, found.missing) == (7, 2, 1, 3, 2)
    assert found.failed_operators == tuple(sorted(keys[2:5]))
    assert found.missing_operators == tuple(sorted(keys[5:]))
    relay = coverage(store, keys, environment=make.environment().id, cache="relay", space="s1")
    assert (relay.present, relay.missing) == (1, 6)


def estimate(operator: str, latency_s: float | None = 1e-3, **fields: Any) -> Estimate:
    given = {
        "status": "ok" if latency_s else "failed", "latency_s": latency_s,
        "ci_low_s": latency_s and latency_s * 0.9, "ci_high_s": latency_s and latency_s * 1.1, "cache": "hot",
        "measurement": "m", "team": "t", "host": "h", "time": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    return Estimate(operator=operator, **{**given, **fields})


def test_ratios_are_b_over_a_with_their_range(make: Any) -> None:
    """B twice as slow: 2, its limits on the log scale; deviations 1.0 and 0.5 give median 0.75, p95 0.975."""
    a = Table(make.environment(), [estimate("x"), estimate("y", 2e-3, status="noisy")])
    b = Table(make.environment(), [estimate("y", 1e-3), estimate("x", 2e-3)])

    result = compare_tables(a, b)

    x, y = sorted(result.operators, key=lambda row: row.operator)
    assert (x.operator, x.ratio, x.noisy, x.cache) == ("x", 2.0, False, "hot")
    # Down: B to 0.9, A to 1.1; up: B to 1.1, A to 0.9. Distances in logs add up in squares.
    half = math.hypot(math.log(0.9), math.log(1.1))
    assert x.low == pytest.approx(2 * math.exp(-half))
    assert x.high == pytest.approx(2 * math.exp(half))
    assert (y.ratio, y.noisy) == (0.5, True)
    assert result.median == pytest.approx(0.75)
    assert result.p95 == pytest.approx(0.975)
    assert result.skipped == 0


def test_only_like_is_compared_with_like(make: Any) -> None:
    """Other cache states, other spaces, failures and operators in one table only are skipped."""
    a = Table(
        make.environment(),
        [estimate("cache"), estimate("space", cache="relay"), estimate("failed"), estimate("only a")],
        space="s1",
    )
    b = Table(
        make.environment(),
        [estimate("cache", cache="relay"), estimate("space", cache="relay"), estimate("failed", None)],
        space="s2",
    )

    result = compare_tables(a, b)

    assert (result.operators, result.median, result.p95, result.skipped) == ((), None, None, 4)


def test_interval_down_to_zero_has_no_upper_ratio(make: Any) -> None:
    """The ratio is then unbounded, which JSON cannot write as a number."""
    a = Table(make.environment(), [estimate("x", ci_low_s=0.0)])

    assert compare_tables(a, a).operators[0].high is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lab.db", Source(database="lab.db")),
        ("a#b.db", Source(database="a#b.db")),
        ("lab.db#team=vision", Source(database="lab.db", team="vision")),
        (
            "lab.db#device=gpu,batch=8,precision=fp16",
            Source(database="lab.db", device="gpu,batch=8,precision=fp16"),
        ),
        (
            "postgresql://u:p%23w@h/lut#environment=ab12, since=2026-01-31",
            Source(database="postgresql://u:p%23w@h/lut", environment="ab12", since="2026-01-31"),
        ),
    ],
)
def test_sources_are_parsed(text: str, expected: Source) -> None:
    """Path or URL, then what to take from it."""
    assert parse_source(text) == expected


@pytest.mark.parametrize(
    "text", ["x#planet=mars", "x#team=a,team=b", "x#since=soon", "x#team=a,batch=8", "x#team=a,b"]
)
def test_wrong_sources_are_refused(text: str) -> None:
    """Unknown, repeated and unreadable parts are plain errors with an example."""
    with pytest.raises(BadInput) as caught:
        parse_source(text)
    assert caught.value.hint


def test_existing_file_is_taken_by_its_whole_name(tmp_path: Path) -> None:
    """A file may have a # and a = in its name."""
    path = tmp_path / "lab#team=a"
    path.touch()

    assert parse_source(path) == Source(database=str(path))


def test_used_environments_are_those_with_rows_that_stand(store: Store, make: Any) -> None:
    """By cache state, space and team; what was retracted, and what nobody measured, does not count."""
    space = "5" * 32
    hot, relayed, retracted, unused = (make.environment(threads=threads) for threads in (1, 2, 3, 4))
    gone = make.measurement(environment=retracted.id)
    rows = [
        make.measurement(environment=hot.id),
        make.measurement(environment=relayed.id, cache="relay", space=space, team="robots"),
        gone,
    ]
    store.add([make.operator(), hot, relayed, retracted, unused, *rows])
    store.retract([gone.id], team="vision", reason="fan broken")

    assert store.used_environments() == {hot.id, relayed.id}
    assert store.used_environments([hot.id, unused.id]) == {hot.id}
    assert store.used_environments(cache="relay") == {relayed.id}
    assert store.used_environments(space="6" * 32) == {hot.id}
    assert store.used_environments(team="robots") == {relayed.id}
