"""lanaprof lut ls and show."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lanaprof.lut import open_store

# ------------------------------------------------------------ ls


def test_ls_lists_environments(lut: Any, cli: Any) -> None:
    """Per environment: its devices, and per cache state operators, statuses, teams and the newest time."""
    lut.database(
        "lanaprof.db",
        lut.measurement(),
        lut.measurement(team="audio", status="failed", time="2026-04-01T00:00:00Z"),
        lut.measurement(cache="relay", space="5" * 32),
    )

    document = cli("lut", "ls", "--json").json

    (environment,) = document["environments"]
    assert environment["id"] == lut.environment().id
    assert environment["devices"] == ["cpu"]
    assert [(h["cache"], h["space"], h["operators"], h["statuses"]) for h in environment["holdings"]] == [
        ("hot", "", 1, {"failed": 1, "ok": 1}), ("relay", "5" * 32, 1, {"ok": 1})
    ]  # fmt: skip
    assert environment["holdings"][0]["teams"] == ["audio", "vision"]
    assert environment["holdings"][0]["newest"] == "2026-04-01T00:00:00Z"
    assert document["records"]["measurement"] == 3


def test_ls_for_people(lut: Any, cli: Any) -> None:
    """The same as a table; brackets in names are no markup."""
    lut.database("lanaprof.db", lut.measurement(team="[bold]vision[/bold]"))

    ran = cli("lut", "ls")

    assert ran.code == 0
    assert f"cpu: {lut.environment().id[:12]} (Example CPU [9], onnxruntime 1.22.0, 1 thread)" in ran.out
    assert "[bold]vision[/bold]" in ran.out
    assert "lanaprof.db: 1 environment, 1 measurement, 1 operator" in ran.out


@pytest.mark.parametrize(
    ("part", "statuses"),
    [("team=audio", {"noisy": 1}), ("since=2026-04-01", {"noisy": 1}), ("device=cpu", {"ok": 1, "noisy": 1})],
)
def test_ls_of_a_part(lut: Any, cli: Any, part: str, statuses: dict[str, int]) -> None:
    """SOURCE narrows what is counted, by team, time and device."""
    two = lut.environment(threads=2)
    other = lut.measurement(team="video", environment=two.id, time="2026-02-01T00:00:00Z")
    later = lut.measurement(team="audio", status="noisy", time="2026-04-02T00:00:00Z")
    lut.database("lanaprof.db", lut.measurement(), later, two, other)

    document = cli("lut", "ls", f"lanaprof.db#{part}", "--json").json

    assert [h["statuses"] for e in document["environments"] for h in e["holdings"]] == [statuses]


def test_ls_of_an_empty_database(lut: Any, cli: Any) -> None:
    """Nothing is there, and that is said."""
    with open_store("empty.db", create=True):
        pass

    assert cli("lut", "ls", "empty.db").out == "no measurements\nempty.db: no records\n"
    assert cli("lut", "ls", "empty.db", "--json").json["environments"] == []


# ------------------------------------------------------------ show


def test_show_an_operator(lut: Any, cli: Any) -> None:
    """Description, sizes, and per environment the number that counts, who measured, and how they disagree."""
    mine = lut.measurement(latency_s=2e-3)
    theirs = lut.measurement(team="audio", latency_s=3e-3, time="2026-04-01T00:00:00Z")
    lut.database("lanaprof.db", mine, theirs)

    document = cli("lut", "show", lut.operator().id[:8], "--team", "vision", "--json").json
    shown = cli("lut", "show", lut.operator().id, "--team", "vision").out

    (entry,) = document["environments"]
    assert (document["kind"], document["operator"]) == ("operator", lut.operator().id)
    assert document["statistics"]["params"] == 64
    assert (entry["latency_s"], entry["measurement"], entry["cache"]) == (2e-3, mine.id, "hot")
    assert entry["disagreement"] == pytest.approx(0.5)
    assert [row["id"] for row in entry["measurements"]] == [theirs.id, mine.id]
    assert document["description"] in shown
    assert "2 ms" in shown
    assert "1.98 ms … 2.02 ms" in shown
    assert "teams and hosts differ by 50.0%" in shown


def test_show_a_failure_with_its_reason(lut: Any, cli: Any) -> None:
    """A failed row has no latency; its message stands in the interval's place."""
    lut.database("lanaprof.db", lut.measurement(status="failed", message="no kernel [Conv]"))

    ran = cli("lut", "show", lut.operator().id)

    assert ran.code == 0
    assert "no kernel [Conv]" in ran.out


def test_show_an_operator_nobody_measured(lut: Any, cli: Any) -> None:
    """It is described all the same."""
    lut.database("lanaprof.db")

    assert "not measured" in cli("lut", "show", lut.operator().id).out
    assert cli("lut", "show", lut.operator().id, "--json").json["environments"] == []


def test_show_a_measurement(lut: Any, cli: Any) -> None:
    """The whole record with its samples, where it was taken, and whether it counts."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)

    document = cli("lut", "show", row.id, "--json").json
    shown = cli("lut", "show", row.id).out

    assert document["measurement"] == json.loads(json.dumps(row.to_json()))
    assert (document["kind"], document["counts"], document["retractions"]) == ("measurement", True, [])
    assert document["environment"]["cpu_model"] == "Example CPU [9]"
    assert "2 in 2 rounds" in shown
    assert "this one counts" in shown


def test_show_what_was_retracted(lut: Any, cli: Any) -> None:
    """A retracted measurement is found by its id and by its operator, with team and reason, and counts no more."""
    row = lut.measurement()
    lut.database("lanaprof.db", row)
    cli("lut", "retract", row.id, "--reason", "fan broken", "--team", "vision")

    one = cli("lut", "show", row.id, "--json").json
    operator = cli("lut", "show", lut.operator().id, "--json").json

    assert (one["counts"], one["retractions"][0]["reason"]) == (False, "fan broken")
    assert operator["environments"] == []
    assert operator["retracted"][0]["measurement"]["id"] == row.id
    assert "retracted by vision" in cli("lut", "show", row.id).out
    assert "fan broken" in cli("lut", "show", lut.operator().id).out


def test_show_an_environment(lut: Any, cli: Any) -> None:
    """Every field behind its key, and what was measured in it."""
    lut.database("lanaprof.db", lut.measurement())

    document = cli("lut", "show", lut.environment().id[:10], "--json").json
    shown = cli("lut", "show", lut.environment().id).out

    assert (document["kind"], document["environment"]["threads"]) == ("environment", 1)
    assert document["holdings"][0]["operators"] == 1
    assert "Example CPU [9]" in shown
    assert "1 ok" in shown


@pytest.mark.parametrize("key", ["xyz", "", "0" * 32, "%"])
def test_show_nothing(lut: Any, cli: Any, key: str) -> None:
    """A key of nothing: exit 2, and where keys are listed."""
    lut.database("lanaprof.db", lut.measurement())

    ran = cli("lut", "show", key, "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadInput")
    assert "lanaprof lut ls" in ran.json["error"]["hint"]


def test_show_an_ambiguous_beginning(lut: Any, cli: Any) -> None:
    """Every kind of thing that starts so is named."""
    operators = [lut.operator(channels) for channels in range(1, 40)]
    starts = [operator.id[0] for operator in operators]
    prefix = max(starts, key=starts.count)
    lut.database("lanaprof.db", *operators)

    ran = cli("lut", "show", prefix)

    assert ran.code == 2
    assert (
        "operator " + next(o.id for o in sorted(operators, key=lambda o: o.id) if o.id[0] == prefix)
        in ran.err
    )
