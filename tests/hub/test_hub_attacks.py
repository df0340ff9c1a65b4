"""What hostile visitors try, with what they get. docs/hub.md has the same list as a table; a test compares the two."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from http.client import HTTPConnection
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard

from lanaprof.digest import canonical_json
from lanaprof.hub.ledger import open_ledger
from lanaprof.hub.limits import Limits

DOCS = Path(str(resources.files("lanaprof"))).parent / "docs" / "hub.md"
TIGHT = Limits(body_bytes=20_000, content_bytes=60_000, line_bytes=10_000, request_bytes=10_000)


@dataclass(frozen=True)
class Case:
    """A hub under attack."""

    start: Callable[..., Any]
    make: Any


@dataclass(frozen=True)
class Attack:
    """One attack: what is tried, what becomes of it, and the trial itself."""

    what: str
    outcome: str
    run: Callable[[Case], None]


ATTACKS: list[Attack] = []


def attack(what: str, outcome: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    def keep(run: Callable[[Case], None]) -> Callable[[Case], None]:
        ATTACKS.append(Attack(what, outcome, run))
        return run

    return keep


def refused(answer: httpx.Response, status: int, part: str = "") -> bool:
    """Return whether an answer is an error in the one form, and says so."""
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "hint"}
    return answer.status_code == status and part in error["message"]


@attack("SQL in a filter", "a name nobody has: nothing is found, nothing is harmed")
def sql_in_filters(case: Case) -> None:
    hub = case.start()
    hub.store.add([*case.make.base(), case.make.measurement()])
    with hub.client("reader") as client:
        for name in ("team", "protocol"):
            answer = client.get(
                "/api/v1/measurements", params={name: "x' OR '1'='1'; DROP TABLE operators;--"}
            )
            assert (answer.status_code, answer.json()["items"]) == (200, [])
        for name in ("environment", "device"):
            assert refused(client.get("/api/v1/measurements", params={name: "%' OR 1=1 --"}), 400)
    assert hub.store.counts()["operator"] == 3


@attack("SQL in an id, a kind or a cursor", "400: not an id")
def sql_in_ids(case: Case) -> None:
    with case.start().client("reader") as client:
        assert refused(client.get("/api/v1/operators/1' OR '1'='1"), 400)
        assert refused(client.get("/api/v1/ids", params={"kind": "operators; --"}), 400)
        assert refused(client.get("/api/v1/ids", params={"kind": "operator", "after": "' --"}), 400)
        assert refused(client.post("/api/v1/lacking", json={"kind": "operator", "ids": ["' --"]}), 400)


@attack("NUL and other control characters in a filter", "400, also over PostgreSQL, which keeps none")
def control_characters(case: Case) -> None:
    with case.start().client("reader") as client:
        for text in ("a\0b", "a\nb", "\x7f"):
            assert refused(client.get("/api/v1/measurements", params={"team": text}), 400)


@attack("paths that lead out of the hub", "404 or 400: no file is ever named by a request")
def path_traversal(case: Case) -> None:
    hub = case.start(public=True)
    for path in (
        "/../../etc/passwd",
        "/static/../hub.db",
        "/static/..%2fhub.db",
        "/%2e%2e/hub.db",
        "//etc/passwd",
    ):
        with closing(HTTPConnection(hub.url.removeprefix("http://"))) as plain:  # it sends paths as they are
            plain.request("GET", path)
            assert plain.getresponse().status == 404
    with hub.client("reader") as client:
        assert refused(client.get("/api/v1/operators/..%2f..%2fhub.db"), 404)
        assert refused(client.get("/api/v1/bundle", params={"format": "../../hub.db"}), 400)


@attack("no token, an unknown one, one in the address, a form or a cookie", "401")
def no_token(case: Case) -> None:
    hub = case.start()
    secret = hub.tokens["admin"]
    with hub.client() as client:
        tries = (
            client.get("/api/v1/environments"),
            client.get("/api/v1/environments", headers={"Authorization": "Bearer lanaprof_unknown"}),
            client.get("/api/v1/environments", headers={"Authorization": f"Basic {secret}"}),
            client.get("/api/v1/environments", params={"token": secret}),
            client.get("/api/v1/environments", headers={"Cookie": f"token={secret}"}),
            client.post("/api/v1/bundle", data={"token": secret}),
            client.get("/api/v1/no/such/thing"),
            client.get("/metrics"),
        )
    assert [each.status_code for each in tries] == [401] * 8
    assert all(secret not in each.text for each in tries)


@attack("an expired token", "401, and it says so")
def expired(case: Case) -> None:
    now_s = [1_000_000.0]
    hub = case.start(clock=lambda: now_s[0])
    hub.tokens["brief"] = hub.ledger.new_token("brief", scope="read", lifetime_s=60.0)[1]
    with hub.client("brief") as client:
        assert client.get("/api/v1/whoami").status_code == 200
        now_s[0] += 61.0
        assert refused(client.get("/api/v1/whoami"), 401, "expired")


@attack("a revoked token", "401 from that moment on")
def revoked(case: Case) -> None:
    hub = case.start()
    identity = next(each.id for each in hub.ledger.tokens() if each.name == "ann")
    with hub.client("vision") as client:
        assert client.get("/api/v1/whoami").status_code == 200
        with open_ledger(hub.ledger.path) as owners:  # as the owner's command does, beside the running hub
            owners.revoke(identity)
        assert refused(client.get("/api/v1/whoami"), 401, "revoked")


@attack("guessing tokens", "429 after 20 wrong ones of one address; then one every 5 s")
def guessing(case: Case) -> None:
    hub = case.start(limits=Limits(failures_per_s=1e-9))  # none flows back, however slow this is
    with hub.client() as client:
        tries = [
            client.get("/api/v1/whoami", headers={"Authorization": f"Bearer lanaprof_{number}"}).status_code
            for number in range(21)
        ]
    assert tries == [*[401] * 20, 429]
    assert Limits().failures_per_s == 0.2


@attack("an address of one's own choice (X-Forwarded-For)", "believed of the named proxy alone")
def forged_address(case: Case) -> None:
    body, seen = case.make.bundle(*case.make.base()), []
    for proxy in ("", "127.0.0.1", "10.0.0.1"):
        hub = case.start(proxy=proxy)
        with hub.client("vision") as client:
            client.post("/api/v1/bundle", content=body, headers={"X-Forwarded-For": "203.0.113.9"})
        seen.append(hub.ledger.events(limit=1)[0].address)
    assert seen == ["127.0.0.1", "203.0.113.9", "127.0.0.1"]


@attack("more requests than one token may make", "429 with Retry-After")
def flooding(case: Case) -> None:
    hub = case.start(limits=Limits(token_burst=5, token_per_s=1e-9))
    with hub.client("reader") as client:
        answers = [client.get("/api/v1/whoami") for _ in range(6)]
    assert [each.status_code for each in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 0


@attack("writing with a token that reads", "403, nothing is stored")
def writing_unasked(case: Case) -> None:
    hub = case.start()
    assert refused(hub.push("reader", case.make.bundle(*case.make.base())), 403)
    assert hub.store.counts()["operator"] == 0


@attack("another team's measurement", "that row is refused, the others are added")
def foreign_measurement(case: Case) -> None:
    make, hub = case.make, case.start()
    foreign, own = make.measurement(team="robots"), make.measurement()
    found = hub.push("vision", make.bundle(*make.base(), foreign, own)).json()
    assert (found["added"], found["refused"], found["refusals"][0]["id"]) == (5, 1, foreign.id)
    assert hub.store.lacking("measurement", [foreign.id, own.id]) == [foreign.id]


@attack(
    "taking back another team's measurement, under either name", "that row is refused, the measurement stands"
)
def foreign_retraction(case: Case) -> None:
    make, hub = case.make, case.start()
    victim = make.measurement(team="robots")
    hub.store.add([*make.base(), victim])
    for team in ("robots", "vision"):
        found = hub.push("vision", make.bundle(make.retraction(victim.id, team=team))).json()
        assert (found["added"], found["refused"]) == (0, 1)
    assert [each.id for each in hub.store.measurements()] == [victim.id]


@attack("taking back a measurement before its team sends it", "stored, and without effect for ever")
def early_retraction(case: Case) -> None:
    make, hub = case.make, case.start()
    victim = make.measurement(team="robots")
    assert hub.push("vision", make.bundle(make.retraction(victim.id))).json()["added"] == 1
    assert hub.push("robots", make.bundle(*make.base(), victim)).json()["added"] == 5
    assert [each.id for each in hub.store.measurements()] == [victim.id]


@attack("a recipe that leads others to another operator", "that row is refused; only an admin may add it")
def poisoned_recipe(case: Case) -> None:
    make, hub = case.make, case.start()
    true, false = make.recipe(make.operator(8).id), make.recipe(make.operator(16).id)
    hub.store.add([*make.base(), true])
    found = hub.push("vision", make.bundle(false)).json()
    assert (found["added"], found["refused"]) == (0, 1)
    assert hub.store.find_recipes(["r1"]) == {"r1": make.operator(8).id}


@attack("a time in the future, to be the newest for ever", "that row is refused: at most a day ahead")
def future(case: Case) -> None:
    make, hub = case.make, case.start()
    found = hub.push(
        "vision", make.bundle(*make.base(), make.measurement(time="9999-01-01T00:00:00Z"))
    ).json()
    assert (found["added"], found["refused"]) == (4, 1)
    assert "future" in found["refusals"][0]["reason"]


@attack("a record changed under its old id", "that row is refused: the id is not the digest of the content")
def changed(case: Case) -> None:
    make, hub = case.make, case.start()
    forged = {**make.measurement().to_json(), "latency_s": 1e-9, "ci_low_s": 1e-9}
    found = hub.push("vision", make.lines(canonical_json(forged))).json()
    assert (found["added"], found["refused"]) == (0, 1)


@attack("the same bundle again (replay)", "nothing is added")
def replay(case: Case) -> None:
    make, hub = case.make, case.start()
    body = make.bundle(*make.base(), make.measurement())
    assert [hub.push("vision", body).json()["added"] for _ in range(3)] == [5, 0, 0]


@attack("conflicting pushes at the same moment", "each record is added once, by one of them")
def concurrent(case: Case) -> None:
    make, hub = case.make, case.start()
    body = make.bundle(*make.base(), *(make.measurement(latency_s=1e-3 + step / 1e6) for step in range(30)))
    with ThreadPoolExecutor(4) as pool:
        found = [each.json() for each in pool.map(lambda who: hub.push(who, body), ["vision", "admin"] * 2)]
    assert sum(each["added"] for each in found) == 34
    assert hub.store.counts()["measurement"] == 30


@attack("a body larger than allowed", "413, by what it says of itself or as soon as it is")
def oversize(case: Case) -> None:
    hub = case.start(limits=TIGHT)
    body = b"x" * 30_000
    with hub.client("vision") as client:
        assert refused(client.post("/api/v1/bundle", content=body), 413)
        assert refused(client.post("/api/v1/bundle", content=iter([body[:15_000]] * 2)), 413)
        assert refused(client.post("/api/v1/lacking", content=body), 413)


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait for what must come, however slow the machine is; far too late, fail."""
    until_s = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < until_s, "it never came"
        time.sleep(0.01)


@attack("bundles that are begun and never end", "a token holds four at most, then 429; nobody else waits")
def slow_uploads(case: Case) -> None:
    hub = case.start()
    head = f"POST /api/v1/bundle HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {hub.tokens['vision']}\r\n"
    host, _, port = hub.url.removeprefix("http://").partition(":")
    with ExitStack() as stack:
        for _ in range(4):
            held = stack.enter_context(socket.create_connection((host, int(port))))
            held.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
        body = case.make.bundle(*case.make.base())
        wait_until(lambda: hub.uploading("vision") == 4)
        assert refused(hub.push("vision", body), 429, "several bundles")
        assert hub.push("robots", body).status_code == 200
    wait_until(lambda: hub.uploading("vision") == 0)
    assert hub.push("vision", body).json()["known"] == 4
    with hub.client("reader") as client:
        assert 'status="500"' not in client.get("/metrics").text  # who goes away is no failure of the hub


@attack("a zstd bomb", "413 at the limit of unpacked bytes; nothing is added")
def zstd_bomb(case: Case) -> None:
    hub = case.start(limits=TIGHT)
    text = case.make.bundle(*case.make.base()) + (b" " * 99 + b"\n") * 100_000
    packed = zstandard.ZstdCompressor().compress(text)
    assert len(packed) < 5_000
    assert refused(hub.push("vision", packed), 413)
    assert hub.store.counts()["operator"] == 0


@attack("compression that asks for gigabytes of memory, or is damaged", "400")
def zstd_window(case: Case) -> None:
    hub = case.start()
    # RFC 8878: no checksum, no size; window of 2^31 bytes; one raw block of a byte, the last.
    wide = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([(31 - 10) << 3]) + b"\x09\x00\x00" + b"x"
    assert refused(hub.push("vision", wide), 400)
    assert refused(hub.push("vision", b"\x28\xb5\x2f\xfd" + b"\xff" * 50), 400)


@attack("a line without end", "413")
def endless_line(case: Case) -> None:
    assert refused(case.start(limits=TIGHT).push("vision", case.make.lines("x" * 12_000)), 413)


@attack("JSON nested a thousand deep, or a number of ten thousand digits", "that row is refused")
def json_bombs(case: Case) -> None:
    hub = case.start()
    deep, long = "[" * 100_000 + "]" * 100_000, "9" * 10_000
    found = hub.push(
        "vision", case.make.lines(deep, long, '{"record":"operator","graph":' + deep + "}")
    ).json()
    assert (found["added"], found["refused"]) == (0, 3)
    with hub.client("reader") as client:
        headers = {"Content-Type": "application/json"}
        assert refused(client.post("/api/v1/lacking", content=deep, headers=headers), 400)


@attack(
    "a SQLite file, an archive, noise or half a Parquet file as a bundle", "400: JSON lines or Parquet only"
)
def other_formats(case: Case) -> None:
    hub = case.start()
    for body in (b"SQLite format 3\0", b"PAR1\0\0\0\0", b"PK\x03\x04", b"\x1f\x8b\x08", b"", b"\xff" * 9):
        assert refused(hub.push("vision", body), 400)


@attack(
    "a Parquet file that unfolds into more than memory",
    "400 or 413, by a process that may fall over; the hub stays",
)
def parquet_bomb(case: Case) -> None:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    limits = Limits(reader_bytes=2**29, content_bytes=2**40, line_bytes=2**40)
    hub, file = case.start(limits=limits), io.BytesIO()
    schema = pa.schema(
        [("record", pa.string()), ("id", pa.string()), ("json", pa.dictionary(pa.int32(), pa.string()))],
        metadata={b"lanaprof": case.make.bundle().strip()},
    )
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1_500, pa.int32()), pa.array(["x" * 2**20]))
    kind = pa.array(["operator"] * 1_500)
    with ParquetWriter(file, schema, compression="zstd") as writer:
        writer.write_table(pa.Table.from_arrays([kind, kind, text], schema=schema))
    assert len(file.getvalue()) < 10_000
    assert hub.push("vision", file.getvalue()).status_code in (400, 413)
    assert hub.push("vision", case.make.bundle(*case.make.base())).status_code == 200


@attack("names that are scripts, in a browser", "shown as text; no script but the hub's own may run")
def scripts(case: Case) -> None:
    make, hub = case.make, case.start(public=True)
    evil = "<script>alert(1)</script>"
    row = make.measurement(team=evil, message=evil)
    assert not hub.store.add([*make.base(), row]).refused
    with hub.client() as client:
        answers = [client.get(path) for path in ("/", "/compare", f"/measurements/{row.id}")]
    assert all(evil not in each.text and "&lt;script&gt;" in each.text for each in answers)
    assert all("script-src 'self';" in each.headers["Content-Security-Policy"] for each in answers)


@attack("forms of another site, and the hub in another site's frame", "403; no browser frames it")
def other_sites(case: Case) -> None:
    hub = case.start()
    with hub.client() as client:
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}):
            answer = client.post("/signin", data={"token": hub.tokens["admin"]}, headers=headers)
            assert refused(answer, 403)
            assert "set-cookie" not in answer.headers
        assert "frame-ancestors 'none'" in client.get("/signin").headers["Content-Security-Policy"]


@attack("a browser's cookie at the API", "401: it opens pages, and only reads")
def cookie_at_the_api(case: Case) -> None:
    hub = case.start()
    with hub.client() as client:
        client.post("/signin", data={"token": hub.tokens["admin"]}, headers={"Origin": hub.url})
        assert client.get("/").status_code == 200
        assert refused(client.get("/api/v1/whoami"), 401)
        assert refused(client.post("/api/v1/bundle", content=case.make.bundle(*case.make.base())), 401)


@attack("reading secrets where they might lie", "the ledger and every answer hold digests or nothing")
def secrets(case: Case) -> None:
    hub = case.start()
    hub.push("vision", case.make.bundle(*case.make.base()))
    with hub.client("admin") as client:
        said = "".join(
            client.get(f"/api/v1/{path}").text for path in ("log", "whoami", "openapi.json", "environments")
        )
        said += client.get("/metrics").text
    kept = hub.ledger.path.read_bytes()
    assert all(secret not in said and secret.encode() not in kept for secret in hub.tokens.values())
    assert str(hub.store.path) not in said


@pytest.mark.parametrize("each", ATTACKS, ids=lambda each: each.what.replace(" ", "_"))
def test_attack(each: Attack, start: Any, make: Any) -> None:
    """What is tried has the outcome that the table states."""
    each.run(Case(start, make))


def test_the_table_in_the_docs_is_this_list() -> None:
    """docs/hub.md lists these attacks with these outcomes, and no others."""
    text = DOCS.read_text(encoding="utf-8")
    rows = [f"| {each.what} | {each.outcome} |" for each in ATTACKS]
    table = [line for line in text.partition("| attack | outcome |")[2].splitlines() if line.startswith("| ")]

    assert rows == [line for line in table if not line.startswith("| ---")]
