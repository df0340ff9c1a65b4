"""lanaprof lut ls, show, coverage and compare."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import parse_device
from lanaprof.lut import open_store
from lanaprof.profiler.environment import local_environment

# ------------------------------------------------------------------------------------------------------- ls


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


# ----------------------------------------------------------------------------------------------------- show


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


# ------------------------------------------------------------------------------------------------- coverage


def test_coverage_outside_a_project(lut: Any, cli: Any) -> None:
    """All operators of the database are wanted; noisy ones are present, failures are done but not present."""
    lut.database(
        "lanaprof.db", lut.operator(1), lut.operator(2), lut.operator(3), lut.operator(4),
        lut.measurement(1), lut.measurement(2, status="noisy"), lut.measurement(3, status="timeout"),
    )  # fmt: skip

    document = cli("lut", "coverage", "--device", "cpu", "--json").json

    counts = {name: document[name] for name in ("wanted", "present", "failed", "missing", "noisy")}
    assert counts == {"wanted": 5, "present": 2, "failed": 1, "missing": 2, "noisy": 1}
    assert {each["operator"] for each in document["missing_operators"]} == {
        lut.operator(4).id, lut.operator().id
    }  # fmt: skip
    assert document["failed_operators"] == [
        {"operator": lut.operator(3).id, "status": "timeout", "candidates": []}
    ]


def test_coverage_says_what_to_type(lut: Any, cli: Any) -> None:
    """What is missing and what failed is listed, each with its command."""
    lut.database("own lab.db", lut.operator(3), lut.measurement(3, status="timeout"))

    ran = cli("lut", "coverage", "own lab.db", "--device", "cpu")

    assert ran.code == 0
    assert lut.operator().id[:12] in ran.out
    assert "measure them: lanaprof measure --device cpu --database 'own lab.db'\n" in ran.out
    assert "lanaprof measure --device cpu --database 'own lab.db' --retry timeout\n" in ran.out


def test_coverage_of_all_devices(lut: Any, cli: Any) -> None:
    """Without a device: a row per device measured, and one per environment that no device names."""
    two, other = lut.environment(threads=2), lut.environment(backend="something")
    lut.database(
        "lanaprof.db", lut.measurement(), two, lut.measurement(environment=two.id), lut.operator(16), other,
        lut.measurement(16, environment=other.id),
    )  # fmt: skip

    document = cli("lut", "coverage", "--json").json
    shown = cli("lut", "coverage").out

    counts = {
        name: (each["wanted"], each["present"], each["missing"]) for name, each in document["devices"].items()
    }
    assert counts == {
        "cpu": (2, 1, 1), "cpu,threads=2": (2, 1, 1), f"environment {other.id[:12]}": (2, 1, 1)
    }  # fmt: skip
    assert "cpu,threads=2" in shown
    assert "what is missing: lanaprof lut coverage --device cpu\n" in shown


def test_coverage_names_what_to_look_into(lut: Any, cli: Any) -> None:
    """The command after the table fits: an environment that no device names is named by its key."""
    other = lut.environment(backend="something")
    lut.database("lab.db", other, lut.measurement(environment=other.id), lut.operator(16))

    ran = cli("lut", "coverage", "lab.db")

    hint = f"lanaprof lut coverage --environment {other.id[:12]} --database lab.db"
    assert ran.out.endswith(f"what is missing: {hint}\n")
    assert cli(*hint.split()[1:], "--json").json["missing"] == 1


def test_coverage_of_an_empty_database(lut: Any, cli: Any) -> None:
    """No device was measured."""
    lut.database("lanaprof.db")

    assert cli("lut", "coverage", "--json").json == {"devices": {}}
    assert cli("lut", "coverage").out == "lanaprof.db has no measurements\n"


def test_coverage_of_a_device_nobody_measured(lut: Any, cli: Any) -> None:
    """Everything is missing; that is no error."""
    lut.database("lanaprof.db", lut.measurement())

    document = cli("lut", "coverage", "--device", "v100", "--json").json

    assert (document["wanted"], document["missing"], document["environment"]) == (1, 1, None)


def test_coverage_of_one_cache_state(lut: Any, cli: Any) -> None:
    """--cache counts only measurements under it."""
    lut.database("lanaprof.db", lut.measurement(cache="cold"))

    found = {
        c: cli("lut", "coverage", "--device", "cpu", "--cache", c, "--json").json for c in ("cold", "hot")
    }

    assert {cache: each["present"] for cache, each in found.items()} == {"cold": 1, "hot": 0}


def test_coverage_of_a_pinned_environment(lut: Any, cli: Any) -> None:
    """--environment, or SOURCE's, needs no device."""
    lut.database("lanaprof.db", lut.measurement())
    key = lut.environment().id[:10]

    option = cli("lut", "coverage", "--environment", key, "--json").json
    part = cli("lut", "coverage", f"lanaprof.db#environment={key}", "--json").json

    assert (option["present"], part["present"], option["environment"]) == (1, 1, lut.environment().id)


def test_coverage_names_another_machines_environment(lut: Any, cli: Any) -> None:
    """Numbers from elsewhere are used with a warning; this machine's own come first and without one."""
    lut.database("lanaprof.db", lut.measurement())
    own = local_environment(parse_device("cpu"))

    other = cli("lut", "coverage", "--device", "cpu", "--json")
    with open_store("lanaprof.db") as store:
        store.add([own, lut.measurement(environment=own.id)])
    mine = cli("lut", "coverage", "--device", "cpu", "--json")

    assert (other.json["environment"], mine.json["environment"]) == (lut.environment().id, own.id)
    assert lut.environment().id[:12] in other.err
    assert mine.err == ""


@pytest.mark.parametrize("words", [("--device", "toaster"), ("--cache", "warm"), ("--environment", "ffff")])
def test_coverage_of_what_there_is_not(lut: Any, cli: Any, words: tuple[str, str]) -> None:
    """Unknown devices, cache states and environments: exit 2."""
    lut.database("lanaprof.db", lut.measurement())

    assert cli("lut", "coverage", *words).code == 2


def test_coverage_in_a_project_before_any_export(lut: Any, cli: Any) -> None:
    """Each recipe counts as one missing operator, alike layers once, and skip not at all."""
    lut.project()
    lut.database("lanaprof.db", lut.measurement())

    document = cli("lut", "coverage", "--device", "cpu", "--json").json

    assert [document[name] for name in ("wanted", "present", "failed", "missing")] == [3, 0, 0, 3]
    assert [[who["layer"] for who in each["candidates"]] for each in document["not_exported"]] == [
        ["a", "b"], ["c"], ["d"]
    ]  # fmt: skip


def test_coverage_in_a_project(lut: Any, cli: Any) -> None:
    """The project's operators are wanted, not the database's others; what cannot be exported has failed."""
    space = lut.project(devices=("cpu",))
    lut.exported(space, a=lut.operator(1).id, c=lut.operator(2).id, d="")
    digest = space.relay_digest(1)
    lut.database(
        "lanaprof.db", lut.operator(1), lut.operator(2), lut.measurement(),
        lut.measurement(1, cache="relay", space=digest),
    )  # fmt: skip

    document = cli("lut", "coverage", "--device", "cpu", "--json").json
    devices = cli("lut", "coverage", "--json").json["devices"]
    shown = cli("lut", "coverage", "--device", "cpu").out

    assert [document[name] for name in ("wanted", "present", "failed", "missing")] == [3, 1, 1, 1]
    assert document["missing_operators"][0]["candidates"] == [{"layer": "c", "operation": "teacher"}]
    assert document["unexportable"][0]["message"] == "no such kernel"
    assert [devices["cpu"][name] for name in ("wanted", "present", "failed", "missing")] == [3, 1, 1, 1]
    assert "c teacher" in shown
    assert "measure them: lanaprof measure --device cpu\n" in shown


@pytest.mark.parametrize(
    ("cache", "own_space", "present"),
    [("relay", True, 1), ("relay", False, 0), ("hot", False, 1), ("cold", False, 0)],
)
def test_what_predictions_can_use_is_present(
    lut: Any, cli: Any, cache: str, own_space: bool, present: int
) -> None:
    """In a project: relay numbers of its own space and hot ones; not another space's, and not cold ones."""
    space = lut.project()
    lut.exported(space, a=lut.operator(1).id)
    used = (space.relay_digest(1) if own_space else "5" * 32) if cache == "relay" else ""
    lut.database("lanaprof.db", lut.operator(1), lut.measurement(1, cache=cache, space=used))

    assert cli("lut", "coverage", "--device", "cpu", "--json").json["present"] == present


def test_a_failure_does_not_hide_a_number(lut: Any, cli: Any) -> None:
    """An operator that failed under relay and was timed hot is present."""
    space = lut.project()
    lut.exported(space, a=lut.operator(1).id)
    failed = lut.measurement(1, cache="relay", space=space.relay_digest(1), status="failed")
    lut.database("lanaprof.db", lut.operator(1), failed, lut.measurement(1))

    document = cli("lut", "coverage", "--device", "cpu", "--json").json

    assert (document["present"], document["failed"]) == (1, 0)


def test_coverage_in_a_broken_project(lut: Any, cli: Any) -> None:
    """A lanaprof.toml that cannot be read is an error of the user's, not a folder without a project."""
    Path("lanaprof.toml").write_text("teacher = ")
    lut.database("lanaprof.db")

    ran = cli("lut", "coverage", "--json")

    assert (ran.code, ran.json["error"]["type"]) == (2, "BadProject")


# -------------------------------------------------------------------------------------------------- compare


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
