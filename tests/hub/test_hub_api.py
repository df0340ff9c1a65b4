"""The hub's API over a real server: lists, pages, filters, what is refused and how that is said."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import zstandard

from lanaprof.hub.limits import Limits
from lanaprof.lut import export_file, import_files, open_store


def _filled(hub: Any, make: Any, *records: Any) -> None:
    assert not hub.store.add([*make.base(), *records]).refused


def test_a_bundle_comes_back_as_it_went(hub: Any, make: Any) -> None:
    """What a team submits is stored; again changes nothing; the download holds the same records."""
    body = make.bundle(make.measurement(), *make.base())

    first = hub.push("vision", body)
    second = hub.push("vision", body)
    with hub.client("reader") as client:
        lines = client.get("/api/v1/bundle", params={"format": "jsonl"}).text.splitlines()

    assert (first.status_code, first.json()) == (200, {"added": 5, "known": 0, "refused": 0, "refusals": []})
    assert second.json()["known"] == 5
    assert sorted(lines[1:]) == sorted(body.decode().splitlines()[1:])


def test_lists_say_what_is_there(hub: Any, make: Any) -> None:
    """Environments with what is measured there, operators with their size, one operator whole."""
    _filled(hub, make, make.measurement(), make.measurement(16, team="robots"))
    key = make.operator(16).id

    with hub.client("reader") as client:
        environments = client.get("/api/v1/environments").json()["items"]
        operators = client.get("/api/v1/operators").json()["items"]
        whole = client.get(f"/api/v1/operators/{key}").json()
        rows = client.get(f"/api/v1/operators/{key}/measurements").json()["items"]
        devices = client.get("/api/v1/devices").json()["items"]

    holding = {
        "cache": "hot",
        "space": "",
        "operators": 2,
        "statuses": {"ok": 2},
        "teams": ["robots", "vision"],
    }
    assert holding.items() <= environments[0]["holdings"][0].items()
    assert {each["id"]: each["params"] for each in operators}[key] == 256
    assert whole == make.operator(16).to_json()
    assert [(each["team"], "samples" in each) for each in rows] == [("robots", False)]
    assert [each["environments"] for each in devices] == [[make.environment().id]]


def test_measurements_come_in_pages_and_parts(hub: Any, make: Any) -> None:
    """Pages join without gap or repetition; a filter chooses; samples come when asked for; retracted is marked."""
    own = [make.measurement(latency_s=1e-3 + step / 1e5) for step in range(5)]
    _filled(hub, make, *own, make.measurement(team="robots"), make.retraction(own[0].id))
    seen: list[Any] = []

    with hub.client("reader") as client:
        after = ""
        while after is not None:
            page = client.get(
                "/api/v1/measurements", params={"team": "vision", "limit": 2, "after": after}
            ).json()
            seen += page["items"]
            after = page["next"]
        robots = client.get("/api/v1/measurements", params={"team": "robots", "samples": True}).json()[
            "items"
        ]

    assert [each["id"] for each in seen] == sorted(each.id for each in own)
    assert {each["id"] for each in seen if each["retracted"]} == {own[0].id}
    assert [each["samples"] for each in robots] == [[1e-3, 1.1e-3]]


def test_coverage_counts_operators_by_device(hub: Any, make: Any) -> None:
    """Wanted are all operators there are."""
    _filled(hub, make, make.measurement())

    with hub.client("reader") as client:
        devices = client.get("/api/v1/coverage").json()["devices"]

    numbers = [
        {name: each[name] for name in ("wanted", "present", "failed", "missing")} for each in devices.values()
    ]
    assert numbers == [{"wanted": 3, "present": 1, "failed": 0, "missing": 2}]


def test_two_teams_side_by_side(hub: Any, make: Any) -> None:
    """The same operators of two teams are compared, B over A."""
    _filled(hub, make, make.measurement(), make.measurement(team="robots", latency_s=2e-3))

    with hub.client("reader") as client:
        found = client.get("/api/v1/compare", params={"a_team": "vision", "b_team": "robots"}).json()
        absent = client.get("/api/v1/compare", params={"a_team": "vision", "b_team": "nobody"})

    assert [(each["operator"], each["ratio"]) for each in found["operators"]] == [(make.operator().id, 2.0)]
    assert absent.status_code == 400
    assert hub.store.name not in absent.text


@pytest.mark.parametrize("form", ["jsonl", "jsonl.zst", "parquet"])
def test_a_download_is_an_export(hub: Any, make: Any, form: str, tmp_path: Any, empty_database: Any) -> None:
    """What is downloaded can be imported, whole or in part."""
    _filled(hub, make, make.measurement(), make.measurement(16, team="robots"))
    database, file = shutil.copy(empty_database, tmp_path / "own.db"), tmp_path / f"part.{form}"

    with hub.client("reader") as client:
        file.write_bytes(client.get("/api/v1/bundle", params={"format": form, "team": "robots"}).content)
    with open_store(database) as own:
        report = import_files(own, [file])

    assert (report.added, report.known, report.refused) == (3, 0, ())


def test_compressed_bundles_are_taken(hub: Any, make: Any) -> None:
    """A bundle may be zstd, in several frames."""
    body = make.bundle(*make.base())
    packed = zstandard.ZstdCompressor().compress(body[:99]) + zstandard.ZstdCompressor().compress(body[99:])

    assert hub.push("admin", packed).json()["added"] == 4


def test_a_parquet_file_is_a_bundle(hub: Any, make: Any, tmp_path: Any) -> None:
    """Parquet is judged row by row, as JSON lines are."""
    rows = [make.measurement(), make.measurement(16, team="robots")]
    make.database(str(tmp_path / "own.db"), *make.base(), *rows)
    with open_store(str(tmp_path / "own.db")) as own:
        file = export_file(own, tmp_path / "own.parquet").path

    found = hub.push("vision", file.read_bytes()).json()

    assert (found["added"], found["known"], [each["id"] for each in found["refusals"]]) == (
        5,
        0,
        [rows[1].id],
    )


def test_an_admin_submits_for_every_team(hub: Any, make: Any) -> None:
    """Rows of any team are taken from an admin."""
    body = make.bundle(*make.base(), make.measurement(team="robots"), make.measurement(team="vision"))

    assert hub.push("admin", body).json()["added"] == 6


def test_what_is_stored_already_is_known_whoever_sends_it(hub: Any, make: Any) -> None:
    """A team that sends everything it has, another's rows included, hears no complaint about what is there."""
    foreign = make.measurement(team="robots")
    _filled(hub, make, foreign)

    assert hub.push("vision", make.bundle(*make.base(), foreign)).json() == {
        "added": 0, "known": 5, "refused": 0, "refusals": []
    }  # fmt: skip


def test_of_many_refused_rows_the_first_are_listed(start: Any, make: Any) -> None:
    """All are counted."""
    hub = start(limits=Limits(refusals_listed=2))

    found = hub.push("vision", make.lines("1", "2", "3")).json()

    assert (found["refused"], [each["row"] for each in found["refusals"]]) == (3, [2, 3])


def test_the_log_says_who_pushed_what(hub: Any, make: Any) -> None:
    """A push is a line with its counts, for admins alone; the newest comes first."""
    hub.push("vision", make.bundle(*make.base(), make.measurement(team="robots")))

    with hub.client("admin") as client:
        line = client.get("/api/v1/log", params={"limit": 1}).json()["items"][0]
    with hub.client("vision") as client:
        denied = client.get("/api/v1/log")

    expected = {
        "action": "push",
        "name": "ann",
        "team": "vision",
        "address": "127.0.0.1",
        "added": 4,
        "refused": 1,
    }
    assert expected.items() <= line.items()
    assert denied.status_code == 403


def test_health_is_open_and_metrics_are_not(hub: Any, make: Any) -> None:
    """Health needs no token; metrics count requests by route, submitted records, and what is stored."""
    hub.push("vision", make.bundle(*make.base()))
    with hub.client() as client:
        health = client.get("/healthz")
    with hub.client("reader") as client:
        client.get(f"/api/v1/operators/{'0' * 32}")
        text = client.get("/metrics").text

    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert 'lanaprof_hub_submitted_records_total{outcome="added"} 4' in text
    assert 'lanaprof_hub_stored_records{kind="operator"} 3' in text
    assert (
        'lanaprof_hub_requests_total{route="/api/v1/operators/{identity}",method="GET",status="404"} 1'
        in text
    )


def test_every_answer_bears_the_headers_that_protect_browsers(hub: Any) -> None:
    """Also errors, and what is not found."""
    with hub.client() as client:
        answers = [client.get(path) for path in ("/healthz", "/api/v1/devices", "/nothing")]

    for each in answers:
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in each.headers["Content-Security-Policy"]
        assert each.headers["Cache-Control"] == "no-store"
        assert "server" not in each.headers


def test_a_database_that_fails_is_told_without_its_name(hub: Any) -> None:
    """The visitor hears that it cannot be used; why is for the owner's log."""
    with hub.store._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE recipes")

    with hub.client("reader") as client:
        answer = client.get("/api/v1/counts")

    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "Unavailable")
    assert str(hub.store.path) not in answer.text


def test_errors_say_nothing_of_the_hubs_machine(hub: Any) -> None:
    """A reader's mistake is answered without the path of the database."""
    with hub.client("reader") as client:
        said = client.get("/api/v1/measurements", params={"environment": "abc"})

    assert said.status_code == 400
    assert "the hub's database" in said.json()["error"]["message"]
    assert str(hub.store.path) not in said.text


@pytest.mark.parametrize("path", ["/api/v1/coverage?team=x", "/api/v1/compare", "/api/v1/bundle"])
def test_long_computations_wait_outside(start: Any, path: str) -> None:
    """Where as many as allowed are under way, and as many wait, the next one is told when to come again."""
    hub = start(limits=Limits(heavy_at_once=0, heavy_waiting=0), public=True)

    with hub.client("reader") as client:
        answer = client.get(path)

    assert (answer.status_code, answer.json()["error"]["type"], answer.headers["Retry-After"]) == (
        503, "Unavailable", "5"
    )  # fmt: skip


def test_the_same_over_postgresql(start: Any, make: Any, tmp_path: Any) -> None:
    """A hub over a PostgreSQL server: two teams push at once, pages and filters hold, a stranger's row is refused."""
    from concurrent.futures import ThreadPoolExecutor
    from contextlib import ExitStack

    from lanaprof.errors import StoreError
    from lanaprof.lut.testing import throw_away_server

    with ExitStack() as stack:
        try:
            server = stack.enter_context(throw_away_server(tmp_path))
        except StoreError as error:
            pytest.skip(f"no PostgreSQL server: {error.message}")
        open_store(server.url(), create=True).close()
        hub = start(server.url())
        stack.callback(hub.store.close)  # before the server is gone
        body = make.bundle(*make.base(), make.measurement(), make.measurement(team="robots"))
        with ThreadPoolExecutor(2) as pool:
            found = [each.json() for each in pool.map(lambda who: hub.push(who, body), ("vision", "robots"))]
        with hub.client("reader") as client:
            robots = client.get("/api/v1/measurements", params={"team": "robots' --"}).json()["items"]
            counts = client.get("/api/v1/counts").json()["counts"]
            page = client.get("/api/v1/measurements", params={"limit": 1}).json()
            strange = [
                client.get("/api/v1/measurements", params={"team": text}) for text in ("\0", "\ud7ff" * 9)
            ]

    assert [each.status_code for each in strange] == [400, 200]
    assert page["next"] == page["items"][0]["id"]
    assert sum(each["added"] for each in found) == 6
    assert (robots, counts["measurement"], counts["operator"]) == ([], 2, 3)
