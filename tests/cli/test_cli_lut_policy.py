"""Which measurement counts, and who disagrees: lanaprof lut show and compare under a policy."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.mark.parametrize(
    ("words", "latency_s", "why"),
    [
        ((), 2e-3, "of one's own team"),
        (("--policy", "newest"), 3e-3, "the newest good one"),
        (("--policy", "pooled"), pytest.approx(6e-6**0.5), "2 measurements of 2 hosts are pooled"),
    ],
)
def test_show_says_which_counts_and_why(lut: Any, cli: Any, words: Any, latency_s: Any, why: str) -> None:
    """The entry is the policy's, with the reason, beside all rows there are."""
    mine = lut.measurement(latency_s=2e-3)
    theirs = lut.measurement(team="audio", host="h2", latency_s=3e-3, time="2026-04-01T00:00:00Z")
    lut.database("lanaprof.db", mine, theirs)

    document = cli("lut", "show", lut.operator().id, "--team", "vision", *words, "--json").json
    shown = cli("lut", "show", lut.operator().id, "--team", "vision", *words).out

    (entry,) = document["environments"]
    assert entry["latency_s"] == latency_s
    assert entry["why"].startswith(why)
    assert entry["disagree"] is True
    assert f"policy {entry['policy']}: {why}" in shown
    assert "differ by 50.0%, more than their intervals allow" in shown


def test_show_follows_the_projects_policy(lut: Any, cli: Any) -> None:
    """lanaprof.toml names it once for all commands."""
    lut.project(policy="newest")
    newest = lut.measurement(team="audio", host="h2", time="2026-04-01T00:00:00Z")
    lut.database("lanaprof.db", lut.measurement(), newest)

    document = cli("lut", "show", lut.operator().id, "--team", "vision", "--json").json

    assert document["environments"][0]["measurement"] == newest.id


def test_unknown_policy_in_the_project(lut: Any, cli: Any) -> None:
    """Refused with the policies there are."""
    lut.project(policy="best")
    lut.database("lanaprof.db", lut.measurement())

    ran = cli("lut", "show", lut.operator().id)

    assert ran.code == 2
    assert "policy 'best' is unknown" in ran.err
    assert "own-host, own-team, newest, pooled" in ran.err


def test_show_has_retracted_rows_apart(lut: Any, cli: Any) -> None:
    """What was retracted is shown, and neither counts nor disagrees."""
    wrong = lut.measurement(latency_s=9e-3, host="h2")
    lut.database("lanaprof.db", lut.measurement(), wrong)
    cli("lut", "retract", wrong.id, "--team", "vision", "--reason", "throttled")

    document = cli("lut", "show", lut.operator().id, "--policy", "pooled", "--json").json

    (entry,) = document["environments"]
    assert (entry["latency_s"], entry["disagree"], entry["why"]) == (1e-3, False, "the only one")
    assert [each["measurement"]["id"] for each in document["retracted"]] == [wrong.id]


def test_compare_two_teams_of_one_database(lut: Any, cli: Any) -> None:
    """Six operators agree within 1 %, one is 10 % apart: it disagrees, and by that much."""
    records = []
    for channels in range(1, 8):
        records += [lut.operator(channels), lut.measurement(channels, team="a", host="h1")]
        records += [
            lut.measurement(channels, team="b", host="h2", latency_s=1.1e-3 if channels == 7 else 1.005e-3)
        ]
    lut.database("lab.db", *records)

    document = cli("lut", "compare", "lab.db#team=a", "lab.db#team=b", "--json").json
    shown = cli("lut", "compare", "lab.db#team=a", "lab.db#team=b").out

    (part,) = document["parts"]
    assert [row["operator"] for row in document["operators"] if row["disagree"]] == [lut.operator(7).id]
    assert (part["operators"], part["disagree"]) == (7, 1)
    assert part["disagreement"] == pytest.approx(0.1)
    assert "hot: 1 of 7 operators disagree by more than the intervals allow, typically by 10.00%" in shown


@pytest.mark.parametrize("pinned", [False, True])
def test_compare_with_a_team_that_measured_nothing(lut: Any, cli: Any, pinned: bool) -> None:
    """Refused; the message lists the teams."""
    lut.database("lab.db", lut.measurement())
    part = f",environment={lut.environment().id}" if pinned else ""

    ran = cli("lut", "compare", "lab.db#team=vision", f"lab.db#team=visoin{part}")

    assert ran.code == 2
    assert "no such measurements of team 'visoin'" in ran.err
    assert "teams there: vision" in ran.err
