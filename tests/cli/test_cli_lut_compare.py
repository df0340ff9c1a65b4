"""lanaprof lut compare."""

from __future__ import annotations

import math
from pathlib import Path
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
    # On the log scale B reaches ln 0.99 down and A ln 1.01 up: together the root of their squares.
    half = math.hypot(math.log(0.99), math.log(1.01))
    assert (row["low"], row["high"]) == (
        pytest.approx(2 * math.exp(-half)),
        pytest.approx(2 * math.exp(half)),
    )
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


def many(lut: Any, latencies_s: dict[int, float], **fields: Any) -> list[Any]:
    """Return operators and their measurements."""
    rows = [lut.measurement(n, latency_s=value, **fields) for n, value in latencies_s.items()]
    return [*(lut.operator(n) for n in latencies_s), *rows]


def test_one_slower_operator_stands_out_of_a_slower_machine(lut: Any, cli: Any) -> None:
    """All became 3 % slower, one of them by half more: it comes first and it alone is called changed."""
    lut.database("a.db", *many(lut, dict.fromkeys(range(1, 11), 1e-3)))
    lut.database("b.db", *many(lut, {n: 1.03e-3 * (1.5 if n == 4 else 1.0) for n in range(1, 11)}))

    document = cli("lut", "compare", "a.db", "b.db", "--json").json
    first, *others = document["operators"]

    assert document["common_ratio"] == pytest.approx(1.03)
    assert (first["operator"], first["changed"]) == (lut.operator(4).id, True)
    assert first["relative"] == pytest.approx(1.5)
    assert first["q"] < 0.05
    assert {row["changed"] for row in others} == {False}
    assert document["parts"][0]["changed"] == 1
    people = cli("lut", "compare", "a.db", "b.db").out
    assert "as a whole B is 3.00% slower; beyond that 1 operator became slower, 0 faster" in people


def test_what_differs_between_two_environments(lut: Any, cli: Any) -> None:
    """Field by field, options included, in words for people."""
    new = lut.environment(backend_version="1.23.0", options={"denormals": "flushed"})
    lut.database("a.db", lut.measurement())
    lut.database("b.db", new, lut.measurement(environment=new.id))

    environments = cli("lut", "compare", "a.db", "b.db", "--json").json["environments"]

    assert (environments["a"], environments["b"]) == (lut.environment().id, new.id)
    assert environments["differences"] == [
        {"field": "backend_version", "a": "1.22.0", "b": "1.23.0"},
        {"field": "options.denormals", "a": "", "b": "flushed"},
    ]
    people = cli("lut", "compare", "a.db", "b.db").out
    assert "runtime version 1.22.0 → 1.23.0" in people
    assert "option denormals not set → flushed" in people


def test_equal_environments_differ_in_nothing(lut: Any, cli: Any) -> None:
    """Two campaigns in one environment: the list is empty, and people are told what is left."""
    lut.database("a.db", lut.measurement())

    assert cli("lut", "compare", "a.db", "a.db", "--json").json["environments"]["differences"] == []
    assert "the same environment" in cli("lut", "compare", "a.db", "a.db").out


def test_few_operators_are_not_judged(lut: Any, cli: Any) -> None:
    """With one operator its change and the machine's are the same thing."""
    lut.database("a.db", lut.measurement())
    lut.database("b.db", lut.measurement(latency_s=3e-3))

    (row,) = cli("lut", "compare", "a.db", "b.db", "--json").json["operators"]

    assert (row["relative"], row["changed"], row["q"]) == (1.0, False, 1.0)
    assert "none can be told from the rest" in cli("lut", "compare", "a.db", "b.db").out


def test_a_project_names_its_operators(lut: Any, cli: Any) -> None:
    """Inside a project an operator is called by the layers and operations it serves."""
    space = lut.project(devices=("cpu",))
    lut.exported(space, a=lut.operator().id)
    lut.database("a.db", lut.measurement())

    (row,) = cli("lut", "compare", "a.db", "a.db", "--json").json["operators"]

    assert row["candidates"] == [
        {"layer": "a", "operation": "teacher"}, {"layer": "b", "operation": "teacher"}
    ]  # fmt: skip
    assert "a teacher and 1 more" in cli("lut", "compare", "a.db", "a.db").out


@pytest.mark.parametrize("name", ["ratios.html", "ratios.svg", "ratios.png"])
def test_ratios_are_drawn(lut: Any, cli: Any, name: str) -> None:
    """A page, a drawing or a picture, with every operator on it."""
    lut.database("a.db", *many(lut, dict.fromkeys(range(1, 9), 1e-3)))
    lut.database("b.db", *many(lut, {n: 1e-3 * (2 if n == 3 else 1) for n in range(1, 9)}))

    assert cli("lut", "compare", "a.db", "b.db", "--plot", name).code == 0
    data = Path(name).read_bytes()
    if name.endswith(".png"):
        assert data.startswith(b"\x89PNG")
    else:
        assert data.decode().count("<circle") == 7 + 1  # and one in the legend
        assert data.decode().count("<polygon") == 1 + 1  # what changed of its own, likewise
        assert "1 changed of their own" in data.decode()


def test_a_drawing_of_nothing_is_refused(lut: Any, cli: Any) -> None:
    """Nothing in common, or a format nobody knows: exit 2."""
    lut.database("a.db", lut.measurement())
    lut.database("b.db", lut.measurement(cache="cold"))

    assert cli("lut", "compare", "a.db", "b.db", "--plot", "r.html").code == 2
    assert cli("lut", "compare", "a.db", "a.db", "--plot", "r.doc").code == 2
