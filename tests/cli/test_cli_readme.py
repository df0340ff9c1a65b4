"""Every command is described: in its --help, in the list of commands and in the README."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lanaprof.cli import COMMANDS

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help(cli: Any, name: str) -> None:
    """--help prints the usage, a sentence and every option with its own text."""
    ran = cli(name, "--help", columns=100)

    assert ran.code == 0
    assert ran.out.startswith(f"Usage: lanaprof {name}")
    assert len(ran.out.splitlines()[2].strip()) > len("Usage")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("lut", "farm", "hub", "remote")])
def test_command_takes_json_and_debug(cli: Any, name: str) -> None:
    """--json and --debug are options of every command."""
    out = cli(name, "--help").out

    assert "--json" in out
    assert "--debug" in out


def test_list_names_every_command(cli: Any) -> None:
    """``lanaprof`` alone lists the commands and exits with 2, ``--help`` with 0."""
    listed = cli("--help")

    assert listed.code == 0
    assert [name for name in COMMANDS if not re.search(rf"^  {name}\b", listed.out, re.MULTILINE)] == []
    assert cli().code == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_command_is_in_the_readme(name: str) -> None:
    """README.md names the command."""
    assert re.search(rf"\b{name}\b", README.read_text(encoding="utf-8"))
