"""lanaprof lut compare."""

from __future__ import annotations

from typing import Any

import pytest


def test_compare_two_databases(lut: Any, cli: Any) -> None:
    """The ratio is B / A with its interval; median and p95 are of its distance from 1."""
    lut.database("a.db", lut.measurement(latency_s=1e-3), lut.operator(1), lut.measurement(1, latency_s=1e-3))
    lut.database(
        "b.db",
        lut.measurement(latency_s=2e-3),
        lut.operator(1),
        lut.measurement(1, latency_s=1.5e-3, status="noisy"),
    )

    document = cli("lut", "compare", "a.db", "b.db", "--json").json

    rows = {row["operator"]: row for row in document["operators"]}
    row = rows[lut.operator().id]
    assert (row["ratio"], row["cache"], row["noisy"]) == (2.0, "hot", False)
    assert (row["low"], row["high"]) == (pytest.approx(2 * 0.99 / 1.01), pytest.approx(2 * 1.01 / 0.99))
    assert rows[lut.operator(1).id]["noisy"] is True
    # The distances are 0.5 and 1: half way, and 0.95 of the way.
    assert (document["median"], document["p95"]) == (pytest.approx(0.75), pytest.approx(0.975))


def test_compare_for_people(lut: Any, cli: Any) -> None:
    """Both environments, the operators that differ most first, and the summary."""
    lut.database("a.db", lut.measurement(latency_s=1e-3))
    lut.database("b.db", lut.measurement(latency_s=2e-3), lut.operator(1), lut.measurement(1))

    ran = cli("lut", "compare", "a.db", "b.db")

    assert ran.code == 0
    assert ran.out.startswith(f"A: {lut.environment().id[:12]} (Example CPU [9]")
    assert "2.000" in ran.out
    assert "1 compared: they differ by 100.00% (median)" in ran.out
    assert "1 operator only in B" in ran.out


def test_compare_per_cache_state(lut: Any, cli: Any) -> None:
    """Each cache state that both have is compared with its own like; --cache picks one."""
    space, other = "5" * 32, "6" * 32
    rows = [lut.measurement(), lut.measurement(cache="relay", space=space), lut.measurement(cache="cold")]
    lut.database("a.db", *rows, lut.measurement(cache="relay", space=other))
    lut.database(
        "b.db", lut.measurement(latency_s=2e-3), lut.measurement(cache="relay", space=space, latency_s=3e-3)
    )

    every = cli("lut", "compare", "a.db", "b.db", "--json").json["operators"]
    hot = cli("lut", "compare", "a.db", "b.db", "--cache", "hot", "--json").json["operators"]

    assert [(row["cache"], row["space"], row["ratio"]) for row in every] == [
        ("relay", space, 3.0), ("hot", "", 2.0)
    ]  # fmt: skip
    assert [row["cache"] for row in hot] == ["hot"]


def test_compare_devices_in_one_database(lut: Any, cli: Any) -> None:
    """SOURCE picks the device on each side; --device serves the side that names none."""
    two = lut.environment(threads=2)
    lut.database("lab.db", lut.measurement(), two, lut.measurement(environment=two.id, latency_s=5e-4))

    named = cli("lut", "compare", "lab.db#device=cpu", "lab.db#device=cpu,threads=2", "--json").json
    option = cli("lut", "compare", "lab.db", "lab.db#device=cpu,threads=2", "--device", "cpu", "--json").json

    assert [row["ratio"] for row in named["operators"]] == [0.5]
    assert option["operators"] == named["operators"]
    assert (named["a"]["environment"], named["b"]["environment"]) == (lut.environment().id, two.id)


def test_compare_teams(lut: Any, cli: Any) -> None:
    """SOURCE picks the team on each side."""
    lut.database("lab.db", lut.measurement(), lut.measurement(team="audio", latency_s=4e-3))

    document = cli("lut", "compare", "lab.db#team=vision", "lab.db#team=audio", "--json").json

    assert [row["ratio"] for row in document["operators"]] == [4.0]


def test_compare_with_an_interval_that_reaches_zero(lut: Any, cli: Any) -> None:
    """There is no largest ratio then: null in JSON, a sign for people."""
    lut.database("a.db", lut.measurement(ci_low_s=0.0))

    assert cli("lut", "compare", "a.db", "a.db", "--json").json["operators"][0]["high"] is None
    assert "∞" in cli("lut", "compare", "a.db", "a.db").out


def test_compare_without_anything_in_common(lut: Any, cli: Any) -> None:
    """No ratios, null quantiles, and the user is told."""
    lut.database("a.db", lut.measurement())
    lut.database("b.db", lut.measurement(cache="cold"))

    ran = cli("lut", "compare", "a.db", "b.db", "--json")

    assert (ran.code, ran.json["operators"], ran.json["median"], ran.json["p95"]) == (0, [], None, None)
    assert "no operator" in ran.err


def test_compare_names_the_environments_it_could_mean(lut: Any, cli: Any) -> None:
    """Several environments and no device: exit 2, all are listed, and how to name one."""
    two = lut.environment(threads=2)
    lut.database("lab.db", lut.measurement(), two, lut.measurement(environment=two.id))

    ran = cli("lut", "compare", "lab.db", "lab.db")

    assert ran.code == 2
    assert lut.environment().id[:12] in ran.err
    assert two.id[:12] in ran.err
    assert "lab.db#environment=" in ran.err


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("a.db", "absent.db"), "StoreError"),
        (("absent.db", "a.db"), "StoreError"),
        (("a.db", "empty.db"), "BadInput"),
        (("a.db#device=toaster", "a.db"), "UnknownDevice"),
        (("a.db", "a.db#device=v100"), "BadInput"),
        (("a.db", "a.db", "--cache", "warm"), "UsageError"),
        (("a.db", "a.db", "--cache", "cold"), "BadInput"),
        (("a.db",), "UsageError"),
    ],
)
def test_compare_with_what_there_is_not(lut: Any, cli: Any, words: tuple[str, ...], kind: str) -> None:
    """Missing or empty databases, unknown devices, states nobody measured: exit 2."""
    lut.database("a.db", lut.measurement())
    lut.database("empty.db")

    ran = cli("lut", "compare", *words, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, kind)
