"""What the hub's owner and its users keep: tokens, the log, remotes; and the command that serves."""

from __future__ import annotations

import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from lanaprof.errors import BadInput
from lanaprof.hub.remotes import add_remote, check_url, find_remote, remotes_path

pytestmark = pytest.mark.usefixtures("home")


def test_tokens_are_kept_for_their_owner_alone(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has mode 600, is refused when others may read it, and no command shows what is in it."""
    add_remote("lab", "https://hub.lab/", "lanaprof_secret")
    listed = cli("remote", "ls", "--json")

    assert stat.S_IMODE(remotes_path().stat().st_mode) == 0o600
    assert listed.json["remotes"] == [{"name": "lab", "url": "https://hub.lab", "token": True}]
    assert "lanaprof_secret" not in repr(find_remote("lab"))
    monkeypatch.setenv("LANAPROF_TOKEN", "lanaprof_other")
    assert find_remote(None).token == "lanaprof_other"
    remotes_path().chmod(0o644)
    with pytest.raises(BadInput, match="others may read it"):
        find_remote("lab")


@pytest.mark.parametrize(
    "url", ["https://hub.lab", "http://localhost:8765", "http://127.0.0.1:1/hub", "http://[::1]:80"]
)
def test_addresses_that_keep_a_token_secret_are_taken(url: str) -> None:
    """Https, or this very machine."""
    assert check_url(url) == url


def test_tokens_are_made_listed_and_revoked(cli: Any) -> None:
    """By the hub's owner; the secret is shown once, and what happened is in the log."""
    made = cli("hub", "token", "new", "ann", "--team", "vision", "--expires", "90d", "--json").json
    reader = cli("hub", "token", "new", "dashboard")
    revoked = cli("hub", "token", "revoke", made["id"], "--json")
    listed = cli("hub", "token", "ls")
    log = cli("hub", "log", "--json")

    assert (made["scope"], made["team"], made["expires_s"] - made["created_s"]) == (
        "write",
        "vision",
        90 * 86_400.0,
    )
    assert reader.out.startswith("lanaprof_")
    assert revoked.json == {"revoked": made["id"]}
    assert "write for vision" in listed.out
    assert "revoked" in listed.out
    assert [each["action"] for each in log.json["events"]] == ["token revoke", "token new", "token new"]
    assert made["token"] not in listed.out + log.out
    assert stat.S_IMODE(Path("lanaprof-hub.db").stat().st_mode) == 0o600


def test_the_log_says_what_each_push_brought(hub: Any, make: Any, cli: Any) -> None:
    """In one line each; what was neither known nor refused is not counted, nor the one address there is."""
    for _ in range(2):
        hub.push("vision", make.bundle(*make.base(), make.measurement(), make.measurement(16, team="robots")))

    shown = cli("hub", "log", "--ledger", hub.hub.folder / "hub.db").out

    assert "5 new, 1 refused" in shown
    assert "0 new, 5 known, 1 refused" in shown
    assert "127.0.0.1" not in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("token", "new", "ann", "--team", "v", "--admin"), "no team"),
        (("token", "new", ""), "name ''"),
        (("token", "new", "ann", "--expires", "0d"), "expires '0d'"),
        (("token", "new", "ann", "--expires", "3"), "days or hours, as 90d or 12h"),
        (("token", "ls"), "there is no ledger"),
        (("token", "ls", "--ledger", "other.db"), "no ledger this lanaprof can read"),
        (("log", "--ledger", "text"), "failed"),
    ],
)
def test_mistakes_of_the_owner_are_told(make: Any, cli: Any, words: tuple[str, ...], message: str) -> None:
    """In plain words, and no file of another kind is touched."""
    make.database("other.db")
    Path("text").write_text("no database " * 100)

    ran = cli("hub", *words, "--json")

    assert ran.code == 2
    assert message in ran.json["error"]["message"]
    assert Path("text").read_text() == "no database " * 100


def test_serve_serves_until_it_is_stopped() -> None:
    """The command itself: it says where, answers, and ends by Ctrl-C without a traceback."""
    command = [sys.executable, "-c", "from lanaprof.cli import main; main()", "hub", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        said = [serving.stderr.readline() for _ in range(2)]
        url = re.search(r"http://127.0.0.1:\d+", said[1])
        assert url is not None
        with httpx.Client(transport=httpx.HTTPTransport(retries=5), timeout=300.0, trust_env=False) as client:
            health = client.get(f"{url[0]}/healthz").json()
        serving.send_signal(signal.SIGINT)
        rest = serving.stderr.read()
        assert serving.wait(300) in (0, 130)

    assert "no tokens yet" in said[0]
    assert health == {"status": "ok"}
    assert "Traceback" not in rest
