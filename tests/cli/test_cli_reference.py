"""The written pages and the commands say the same."""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from lanaprof.cli import COMMANDS
from lanaprof.cli.farm import farm
from lanaprof.cli.hub import token
from lanaprof.cli.lut import COMMANDS as LUT_COMMANDS
from lanaprof.cli.reference import cli_markdown
from lanaprof.cli.remote import remote

ROOT = Path(__file__).resolve().parents[2]


def test_reference_page_is_what_the_commands_say() -> None:
    """docs/cli.md is the generated page; write it anew: python -m lanaprof.cli.reference > docs/cli.md."""
    expected = cli_markdown()

    assert expected == (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_reference_names_every_command_and_option_once() -> None:
    """Each command has one section; an option stands in the section of its command."""
    lines = cli_markdown().splitlines()
    sections = [line.lstrip("#").strip() for line in lines if line.startswith("##")]

    inner = {"lut": list(LUT_COMMANDS), "farm": sorted(farm.commands), "remote": sorted(remote.commands)}
    inner["hub"] = ["log", "serve", "token", *(f"token {each}" for each in sorted(token.commands))]
    expected = []
    for name in COMMANDS:
        expected += [f"lanaprof {name}", *(f"lanaprof {name} {each}" for each in inner.get(name, []))]
    assert expected == sections
    assert "| `--plan` | Say what would be trained and how long it takes. |" in lines


def test_reference_is_printed_by_its_module() -> None:
    """The module prints the page, so that a shell can write it."""
    done = subprocess.run(
        [sys.executable, "-m", "lanaprof.cli.reference"], check=True, stdout=subprocess.PIPE, cwd=ROOT
    )

    assert cli_markdown() == done.stdout.decode("utf-8")


@pytest.mark.parametrize(
    "name", ["LANAPROF_DATABASE", "LANAPROF_FASHION_MNIST", "LANAPROF_SPREAD_S", "LANAPROF_TEAM"]
)
def test_reference_names_the_environment_variables(name: str) -> None:
    """Every environment variable that changes what lanaprof does is documented."""
    assert f"`{name}`" in (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


def test_examples_in_the_python_page_hold() -> None:
    """What docs/python.md shows after >>> is what Python prints."""
    failed, tried = doctest.testfile(
        str(ROOT / "docs" / "python.md"), module_relative=False, optionflags=doctest.ELLIPSIS
    )

    assert (0, True) == (failed, tried > 10)
