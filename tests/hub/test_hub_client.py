"""Push and pull through the command line, against a real hub: incremental, resumable, and in plain words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import lanaprof.cli.base
from lanaprof.cli import main
from lanaprof.lut import open_store


@dataclass(frozen=True)
class Ran:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a working folder of the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM", "LANAPROF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli() -> Callable[..., Ran]:
    """Return what runs a command."""

    def run(*words: str | Path) -> Ran:
        lanaprof.cli.base._noticed.clear()
        result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(main, [str(word) for word in words])
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


def known(hub: Any, cli: Any, who: str, name: str = "lab") -> None:
    """Keep a hub as a remote, with one of its tokens."""
    Path("token").write_text(hub.tokens[who] + "\n")
    assert cli("remote", "add", name, hub.url, "--token-file", "token").code == 0


def database(path: str, *records: Any) -> None:
    with open_store(path, create=True) as store:
        assert not store.add(records).refused


def test_pushed_by_one_and_pulled_by_another(hub: Any, make: Any, cli: Any) -> None:
    """A team's table reaches another's file, whole; again nothing is sent."""
    database("lanaprof.db", *make.base(), make.measurement())
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
