"""lanaprof lut coverage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import parse_device
from lanaprof.lut import open_store
from lanaprof.profiler.environment import local_environment


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
