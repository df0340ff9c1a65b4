"""Push and pull through the command line, against a real hub: incremental, resumable, and in plain words."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from lanaprof.cli import main
from lanaprof.errors import StoreError
from lanaprof.hub.client import open_remote
from lanaprof.hub.limits import Limits
from lanaprof.hub.remotes import Remote, add_remote
from lanaprof.lut import open_store, transfer

pytestmark = pytest.mark.usefixtures("home")


def known(hub: Any, cli: Any, who: str, name: str = "lab") -> None:
    """Keep a hub as a remote, with one of its tokens."""
    Path("token").write_text(hub.tokens[who] + "\n")
    assert cli("remote", "add", name, hub.url, "--token-file", "token").code == 0


def test_pushed_by_one_and_pulled_by_another(hub: Any, make: Any, cli: Any) -> None:
    """A team's table reaches another's file, whole; again nothing is sent."""
    make.database("lanaprof.db", *make.base(), make.measurement())
    known(hub, cli, "vision")

    pushed = cli("push", "--json")
    again = cli("push", "lab", "--json")
    pulled = cli("pull", "--database", "other.db", "--json")

    assert (pushed.code, pushed.json["added"], pushed.json["refusals"]) == (0, 3, [])
    assert (again.json["added"], again.json["known"]) == (0, 3)
    assert (pulled.code, pulled.json["added"]) == (0, 3)
    with open_store("other.db") as other, open_store("lanaprof.db") as own:
        assert list(other.iter_records(kinds=["measurement"])) == list(
            own.iter_records(kinds=["measurement"])
        )


def test_a_team_sends_its_own_records(hub: Any, make: Any, cli: Any) -> None:
    """What it pulled of others, or measured for them, stays; a SOURCE that asks for it is told row by row."""
    foreign = make.measurement(team="robots")
    make.database("lanaprof.db", *make.base(), make.measurement(16), foreign)
    known(hub, cli, "vision")

    own = cli("push", "--json")
    asked = cli("push", "lab", "lanaprof.db#team=robots", "--json")

    assert (own.code, own.json["added"], own.json["refused"]) == (0, 3, 0)
    assert (asked.code, [each["id"] for each in asked.json["refusals"]]) == (3, [foreign.id])
    assert hub.store.lacking("measurement", [foreign.id]) == [foreign.id]


def test_a_push_of_nothing_says_whose_the_records_are(hub: Any, make: Any, cli: Any) -> None:
    """Nothing bears the name of the token's team; no error, for that may well be."""
    make.database("lanaprof.db", *make.base(), make.measurement(team="local"))
    known(hub, cli, "vision")

    ran = cli("push")

    assert ran.code == 0
    assert "lanaprof.db has nothing of team 'vision'; it has measurements of local" in ran.err
    assert "lanaprof measure --force" in ran.err


def test_a_forgotten_team_is_told(hub: Any, make: Any, cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that works under another name than the token's team learns where to write it."""
    make.database("lanaprof.db", *make.base(), make.measurement())
    Path("lanaprof.toml").write_text('teacher = "timm:resnet18"\n')
    known(hub, cli, "vision")

    forgotten = cli("push")
    monkeypatch.setenv("LANAPROF_TEAM", "vision")
    named = cli("push")

    assert (forgotten.code, 'write team = "vision" in lanaprof.toml' in forgotten.err) == (0, True)
    assert "lanaprof.toml" not in named.err


def test_a_part_that_is_not_there_says_who_measured(hub: Any, make: Any, cli: Any) -> None:
    """As with a mistyped team."""
    hub.store.add([*make.base(), make.measurement(), make.measurement(16, team="robots")])
    known(hub, cli, "reader")

    ran = cli("pull", "lab#team=visoin")

    assert (ran.code, "nothing of this part; it has measurements of robots, vision" in ran.err) == (0, True)


def test_a_remote_is_added_with_what_its_token_may(hub: Any, cli: Any) -> None:
    """The hub is asked; one that is away is kept all the same, and a token it does not take is not."""
    Path("token").write_text(hub.tokens["vision"])
    Path("wrong").write_text("lanaprof_wrong")

    good = cli("remote", "add", "lab", hub.url, "--token-file", "token")
    wrong = cli("remote", "add", "lab", hub.url, "--token-file", "wrong")
    away = cli("remote", "add", "away", "http://127.0.0.1:9", "--token-file", "token")
    listed = cli("remote", "ls", "--json")

    assert (good.code, "writes for team vision" in good.out) == (0, True)
    assert (wrong.code, "this token is unknown" in wrong.err) == (2, True)
    assert (away.code, "its token was not tried" in away.err) == (0, True)
    assert [each["name"] for each in listed.json["remotes"]] == ["away", "lab"]
    assert cli("pull", "lab").code == 0


def test_a_token_that_reads_pushes_nothing(hub: Any, make: Any, cli: Any) -> None:
    """It is told before anything is sent, with what to ask for."""
    make.database("lanaprof.db", *make.base(), make.measurement())
    known(hub, cli, "reader")

    ran = cli("push", "--json")

    assert (ran.code, "may read only" in ran.json["error"]["message"]) == (2, True)
    assert ran.json["error"]["hint"].startswith("ask the hub's owner")


def test_a_part_is_pulled(hub: Any, make: Any, cli: Any) -> None:
    """The #… of a remote chooses, as that of a SOURCE does."""
    hub.store.add([*make.base(), make.measurement(), make.measurement(16, team="robots")])
    known(hub, cli, "reader")

    pulled = cli("pull", "lab#team=robots", "--json")

    with open_store("lanaprof.db") as own:
        assert [each.team for each in own.measurements()] == ["robots"]
    assert pulled.json["added"] == 3


def test_a_stopped_transfer_goes_on(
    hub: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived before a push or pull was stopped is not sent again."""
    monkeypatch.setattr("lanaprof.lut.sending.BATCH", 2)
    records = [make.measurement(latency_s=1e-3 + step / 1e5) for step in range(10)]
    make.database("lanaprof.db", *make.base(), *records)
    remote = Remote("lab", hub.url, hub.tokens["vision"])

    def stop(done: int, total: int, kind: str) -> None:
        if kind == "measurement" and done >= 8:
            raise KeyboardInterrupt

    with open_store("lanaprof.db") as own, open_store("new.db", create=True) as new:
        with open_remote(remote) as lab, pytest.raises(KeyboardInterrupt):
            transfer(own, lab, follow=stop)
        arrived = hub.store.counts()["measurement"]
        with open_remote(remote) as lab:
            rest = transfer(own, lab)
        with open_remote(remote) as lab, pytest.raises(KeyboardInterrupt):
            transfer(lab, new, follow=stop)
        pulled = new.counts()["measurement"]
        with open_remote(remote) as lab:
            last = transfer(lab, new)

    assert 0 < arrived < 10
    assert (rest.added, rest.known) == (10 - arrived, 4 + arrived)
    assert 0 < pulled < 10
    assert (last.added, last.known) == (10 - pulled, 4 + pulled)


def test_a_hub_that_is_busy_is_asked_again(start: Any, make: Any) -> None:
    """Too many requests, or a lost connection, end nothing within the time to try again."""
    hub = start(limits=Limits(token_burst=10, token_per_s=4.0))
    hub.store.add([*make.base(), make.measurement()])

    with (
        open_remote(Remote("lab", hub.url, hub.tokens["reader"])) as lab,
        open_store("own.db", create=True) as own,
    ):
        assert transfer(lab, own).added == 5


def test_a_hub_that_is_waited_for_is_told() -> None:
    """Once, from the second attempt in vain on: a push that hangs in silence looks broken."""
    states = iter((200, 503, 503, 503, 200))

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state = next(states)
            answer = (
                {"scope": "read", "counts": {}}
                if state == 200
                else {"error": {"message": "busy", "hint": ""}}
            )
            body = json.dumps(answer).encode()
            self.send_response(state)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    told: list[str] = []
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        remote = Remote("lab", f"http://127.0.0.1:{server.server_port}", "t")
        with open_remote(remote, again_s=600.0, tell=told.append) as lab:
            assert lab.counts() == {}
        server.shutdown()

    assert told == [f"the hub lab ({remote.url}): busy; trying again for 600 s"]


def test_damaged_records_are_refused_and_the_rest_arrives(make: Any) -> None:
    """A hub that sends something else than it was asked for, or changed it, is not believed."""
    good, other = make.operator(8), make.operator(16)
    forged = {**make.operator(24).to_json(), "id": "0" * 32}

    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(json.dumps({"scope": "read", "team": ""}).encode())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(
                "\n".join(
                    [*(json.dumps(each) for each in (good.to_json(), other.to_json(), forged)), "{"]
                ).encode()
            )

        def reply(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with open_remote(Remote("liar", f"http://127.0.0.1:{server.server_port}", "t")) as lab:
            found = lab.records_of("operator", [good.id, "0" * 32])
            reasons = [each.reason for each in lab.damaged]
        server.shutdown()

    assert [each.id for each in found] == [good.id]
    assert reasons[0] == "it was not asked for"
    assert len(reasons) == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("push",), "which remote is not said; known: none"),
        (("pull", "nowhere"), "there is no remote 'nowhere'"),
        (("push", "lab#device=cpu"), "'lab#device=cpu' is no remote's name"),
        (("remote", "remove", "nowhere"), "there is no remote 'nowhere'"),
        (("remote", "add", "lab", "http://hub.lab"), "everybody on the way can read the token"),
        (("remote", "add", "lab", "https://ann:secret@hub.lab"), "no user and no password"),
        (("remote", "add", "lab", "ftp://hub.lab"), "not the address of a hub"),
        (("remote", "add", "a/b", "https://hub.lab"), "not a name for a remote"),
    ],
)
def test_what_cannot_be_done_is_a_plain_error(
    make: Any, cli: Any, words: tuple[str, ...], message: str
) -> None:
    """It says what is there and what to type; no database is made."""
    make.database("lanaprof.db", *make.base())

    ran = cli(*words, "--json")

    assert ran.code == 2
    assert message in ran.json["error"]["message"]
    assert ran.json["error"]["hint"]


@pytest.mark.parametrize(
    ("token", "message"),
    [("lanaprof_wrong", "this token is unknown"), ("", "no token")],
    ids=["wrong", "none"],
)
def test_a_token_that_does_not_count_is_told_at_once(hub: Any, cli: Any, token: str, message: str) -> None:
    """Not after a minute of trying; and no database is made for nothing."""
    add_remote("lab", hub.url, token)

    ran = cli("pull", "--json")

    assert (ran.code, message in ran.json["error"]["message"]) == (2, True)
    assert not Path("lanaprof.db").exists()


def test_a_hub_that_is_not_there_is_told(make: Any) -> None:
    """With its name, and at once."""
    with pytest.raises(StoreError, match=r"lab \(http://127.0.0.1:9\) cannot be reached"):
        open_remote(Remote("lab", "http://127.0.0.1:9", "t"))


def free_port() -> int:
    """Return a port that nobody is given who asks for any: it stays free while nobody listens."""
    while True:
        port = random.randrange(20_000, 32_000)  # Linux gives those from 32768 on
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def test_a_hub_that_is_killed_loses_nothing_it_acknowledged(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the middle of a push and started again, it gets the rest; the push itself goes on."""
    monkeypatch.setattr("lanaprof.lut.sending.BATCH", 5)
    rows = [make.measurement(latency_s=1e-3 + step / 1e5) for step in range(60)]
    make.database("lanaprof.db", *make.base(), *rows)
    made = CliRunner().invoke(main, ["hub", "token", "new", "ann", "--team", "vision"])
    port = free_port()
    words = ["hub", "serve", "--database", "shared.db", "--port", str(port)]
    command = [sys.executable, "-c", "from lanaprof.cli import main; main()", *words]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))

    def kill(done: int, total: int, kind: str) -> None:
        if kind == "measurement" and done > 20 and len(started) == 1:
            started[0].kill()
            started[0].wait()
            start()

    try:
        start()
        remote = Remote("lab", f"http://127.0.0.1:{port}", made.stdout.strip())
        with httpx.Client(transport=httpx.HTTPTransport(), timeout=300.0, trust_env=False) as client:
            while started[0].poll() is None:
                with suppress(httpx.ConnectError):
                    client.get(f"{remote.url}/healthz")
                    break
                time.sleep(0.1)
        with open_store("lanaprof.db") as own, open_remote(remote, again_s=600.0) as lab:
            report = transfer(own, lab, follow=kill)
    finally:
        for each in started:
            each.kill()
            each.wait()

    with open_store("shared.db") as shared:
        ids = {each.id for each in shared.measurements()}
    assert (len(started), report.refused, report.added + report.known) == (2, (), 64)
    assert ids == {each.id for each in rows}


def test_an_unknown_certificate_is_told_and_a_named_one_is_taken(
    start: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token goes to nobody whose certificate this machine does not know; SSL_CERT_FILE names another authority."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    import uvicorn

    from lanaprof.hub.app import make_app
    from lanaprof.hub.state import Hub

    plain = start()
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    made += [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(tmp_path / "key"),
        "-out",
        str(tmp_path / "pem"),
    ]
    subprocess.run(made, check=True, capture_output=True)
    hub = Hub(store=plain.store, ledger=plain.ledger, folder=tmp_path)
    settings = uvicorn.Config(
        make_app(hub), host="localhost", port=0, log_level="critical", ws="none",
        ssl_keyfile=tmp_path / "key", ssl_certfile=tmp_path / "pem",
    )  # fmt: skip
    server, listening = uvicorn.Server(settings), socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    remote = Remote("lab", f"https://localhost:{listening.getsockname()[1]}", plain.tokens["reader"])
    try:
        with pytest.raises(StoreError, match="CERTIFICATE_VERIFY_FAILED") as refused:
            open_remote(remote)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "pem"))
        with open_remote(remote) as lab:
            assert lab.scope == "read"
    finally:
        server.should_exit = True
        thread.join()

    assert "SSL_CERT_FILE" in refused.value.hint
