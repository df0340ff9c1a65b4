"""Policies: which of several measurements counts, and whether those who measured disagree."""

from __future__ import annotations

from typing import Any

import pytest

from lanaprof.errors import BadInput
from lanaprof.lut import POLICIES, Store, Viewpoint, open_table
from lanaprof.lut.policy import choose, disagree, estimate_from, why_it_counts


@pytest.fixture
def rows(make: Any) -> dict[str, Any]:
    """The same operator by this host, by a team mate, and by another team."""
    return {
        "mine": make.measurement(host="me", team="vision", time="2020-01-01T00:00:00Z", latency_s=1.00e-3),
        "mate": make.measurement(host="x", team="vision", time="2021-01-01T00:00:00Z", latency_s=1.01e-3),
        "other": make.measurement(host="y", team="robots", time="2022-01-01T00:00:00Z", latency_s=1.02e-3),
    }


@pytest.mark.parametrize(
    ("policy", "expected"), [("own-host", "mine"), ("own-team", "mate"), ("newest", "other")]
)
def test_each_policy_prefers_its_own(rows: dict[str, Any], policy: str, expected: str) -> None:
    """Of one's own host, of one's own team, or the newest whoever measured it."""
    me = Viewpoint(host="me", team="vision", policy=policy)

    assert choose(rows.values(), me) == rows[expected]
    assert estimate_from(list(rows.values()), me).measurement == rows[expected].id


def test_own_failure_comes_before_others_numbers_unless_newest_is_asked(make: Any) -> None:
    """What fails here fails here; ``newest`` means the newest good one."""
    failed = make.measurement(host="me", status="failed", time="2026-05-01T00:00:00Z")
    good = make.measurement(host="x", team="robots")

    assert choose([failed, good], Viewpoint(host="me")) == failed
    assert choose([failed, good], Viewpoint(host="me", policy="newest")) == good


def test_pooled_takes_all_good_ones(rows: dict[str, Any], make: Any) -> None:
    """The latency lies among them, the ids of all are behind it, and failures have no part."""
    failed = make.measurement(host="z", status="failed")

    found = estimate_from([*rows.values(), failed], Viewpoint(host="me", policy="pooled"))

    assert found.latency_s == pytest.approx(1.01e-3, rel=1e-3)
    assert found.measurements == tuple(sorted(row.id for row in rows.values()))
    assert (found.measurement, found.team, found.host) == (rows["other"].id, "robots, vision", "me, x, y")
    assert found.status == "ok"


def test_pooled_keeps_a_single_one(make: Any) -> None:
    """One good row is what the other policies make of it, and names no pool."""
    only = make.measurement()
    failed = make.measurement(host="z", status="failed")

    found = estimate_from([failed, only], Viewpoint(policy="pooled"))

    assert (found.latency_s, found.ci_low_s, found.measurements) == (
        only.latency_s,
        only.ci_low_s,
        (only.id,),
    )
    assert estimate_from([failed], Viewpoint(policy="pooled")).status == "failed"


def test_pooled_means_one_protocol(make: Any) -> None:
    """Another way of timing means another thing: the newest protocol's rows alone are pooled."""
    old = [make.measurement(host=host, protocol="hot/1", latency_s=2e-3) for host in "ab"]
    new = [make.measurement(host=host, protocol="hot/2", time="2026-04-01T00:00:00Z") for host in "ab"]

    found = estimate_from([*old, *new], Viewpoint(policy="pooled"))

    assert found.measurements == tuple(sorted(row.id for row in new))


def test_wide_disagreement_makes_a_pooled_entry_noisy(make: Any) -> None:
    """Hosts 20 % apart: an interval wider than ±10 % is called what it is."""
    rows = [make.measurement(host="a", latency_s=1.0e-3), make.measurement(host="b", latency_s=1.2e-3)]

    assert estimate_from(rows, Viewpoint(policy="pooled")).status == "noisy"


def test_pooling_does_not_depend_on_the_order(rows: dict[str, Any]) -> None:
    """The same set of rows gives the same bits."""
    given = list(rows.values())
    pooled = Viewpoint(policy="pooled")

    assert estimate_from(given, pooled) == estimate_from(given[::-1], pooled)


def test_retracted_rows_are_not_pooled(store: Store, make: Any, rows: dict[str, Any]) -> None:
    """A table pools what stands."""
    store.add([make.operator(), make.environment(), *rows.values()])
    store.retract([rows["other"].id], team="robots", reason="throttled")

    (entry,) = open_table(store, viewpoint=Viewpoint(policy="pooled"))

    assert entry.measurements == tuple(sorted([rows["mine"].id, rows["mate"].id]))


def test_table_digest_follows_the_policy(store: Store, make: Any, rows: dict[str, Any]) -> None:
    """A calibration names the rows that counted, so under another policy it is stale."""
    store.add([make.operator(), make.environment(), *rows.values()])

    tables = [
        open_table(store, viewpoint=Viewpoint(host="me", team="vision", policy=each)) for each in POLICIES
    ]

    assert len({table.digest for table in tables}) == len(POLICIES)


def test_pandas_has_every_pooled_measurement(store: Store, make: Any, rows: dict[str, Any]) -> None:
    """The measurements behind a pooled entry are all of them."""
    store.add([make.operator(), make.environment(), *rows.values()])

    frame = open_table(store, viewpoint=Viewpoint(policy="pooled")).to_pandas()

    assert sorted(frame["id"]) == sorted(row.id for row in rows.values())


def test_source_chooses_the_policy(store: Store, address: str, make: Any, rows: dict[str, Any]) -> None:
    """What a SOURCE says comes before the viewpoint."""
    store.add([make.operator(), make.environment(), *rows.values()])

    (entry,) = open_table(f"{address}#policy=newest", viewpoint=Viewpoint(host="me"))

    assert entry.measurement == rows["other"].id


def test_source_chooses_by_protocol(store: Store, address: str, make: Any) -> None:
    """A table of one way of timing."""
    old, new = make.measurement(protocol="hot/1"), make.measurement(protocol="hot/2", latency_s=2e-3)
    store.add([make.operator(), make.environment(), old, new])

    (entry,) = open_table(f"{address}#protocol=hot/1")

    assert entry.measurement == old.id


def test_unknown_policies_are_refused() -> None:
    """The message lists those there are."""
    with pytest.raises(BadInput, match="'best' is unknown") as caught:
        Viewpoint(policy="best")

    assert "own-host, own-team, newest, pooled" in caught.value.hint


@pytest.mark.parametrize(("second_s", "expected"), [(1.00e-3, False), (1.02e-3, False), (1.06e-3, True)])
def test_disagreement_heeds_the_intervals(make: Any, second_s: float, expected: bool) -> None:
    """Intervals of ±1 % and campaigns that scatter by 0.5 % allow 2 %, and not 6 %."""
    rows = [make.measurement(host="a"), make.measurement(host="b", latency_s=second_s)]

    assert disagree(rows) is expected


def test_one_host_cannot_disagree(make: Any) -> None:
    """Its own choice is one number; failures have no say."""
    rows = [
        make.measurement(latency_s=1e-3),
        make.measurement(latency_s=2e-3),
        make.measurement(status="failed"),
    ]

    assert disagree(rows) is False


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ("own-host", "of this host"),
        ("own-team", "of one's own team"),
        ("newest", "the newest good one"),
        ("pooled", "3 measurements of 3 hosts are pooled"),
    ],
)
def test_why_one_counts(rows: dict[str, Any], policy: str, words: str) -> None:
    """In words, for people who look at an operator."""
    me = Viewpoint(host="me", team="vision", policy=policy)

    assert why_it_counts(list(rows.values()), me).startswith(words)
