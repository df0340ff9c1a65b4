"""The pages as texts: every block is run or excused, every command and link on them exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from docs_blocks import ROOT, anchors, blocks, links, pages, spans
from docs_pages import DEFAULTS, NOT_COMPARED, NOT_RUN, NOT_TYPED, OVERRIDES, PAGES, is_typed
from docs_running import missing_lines

from lanaprof.cli import main


def _command(words: list[str]) -> tuple[click.Command, list[str]]:
    """Return the command that words call, and what is left of them."""
    found: click.Command = main
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(click.Context(found), words[0]) if words[0] in found.list_commands(
            click.Context(found)
        ) else None  # fmt: skip
        assert inner is not None, f"no command {words[0]!r}"
        found, words = inner, words[1:]
    return found, words


def _parse(text: str) -> None:
    """Parse a line as the command line of today does, without running or looking for its files."""
    command, words = _command(shlex.split(re.sub(r" [|>] .*$", "", text))[1:])
    context = click.Context(command, info_name="lanaprof", ignore_unknown_options=False)
    command.make_parser(context).parse_args(list(words))


def test_pages_are_found() -> None:
    """README.md, the documentation and the examples are among the pages."""
    assert {"README.md", "docs/README.md", "docs/howto/new-device.md", "examples/detector/README.md"} <= set(
        pages()
    )


@pytest.mark.parametrize("page", [name for name in pages() if blocks(name)])
def test_every_command_is_one_of_today(page: str) -> None:
    """Commands, subcommands and options in blocks exist, in those that are not run, too."""
    for block in blocks(page):
        for command in block.commands if block.language == "console" else ():
            if command.text.startswith("lanaprof "):
                try:
                    _parse(command.text)
                except (click.UsageError, AssertionError) as error:
                    pytest.fail(f"{page}:{command.line}: {command.text}: {error}")


@pytest.mark.parametrize("page", [name for name in pages() if spans(name)])
def test_every_command_in_the_prose_is_one_of_today(page: str) -> None:
    """Commands, subcommands and options between backticks exist."""
    for text in spans(page):
        try:
            _parse(text)
        except (click.UsageError, AssertionError) as error:
            pytest.fail(f"{page}: {text}: {error}")


@pytest.mark.parametrize("page", [name for name in pages() if links(name)])
def test_every_link_leads_somewhere(page: str) -> None:
    """Files that are linked are there, and headings in them."""
    lost = []
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        name = target.relative_to(ROOT).as_posix()
        if not target.exists() or (anchor and anchor not in anchors(name)):
            lost.append(link)

    assert [] == lost


def test_every_page_can_be_found() -> None:
    """Each page of the documentation is linked from its index, each decision from the page about the code."""
    found = {
        page: {Path(link.partition("#")[0]) for link in links(page)}
        for page in ("docs/README.md", "docs/building.md")
    }
    decisions = {path.relative_to(ROOT / "docs") for path in ROOT.glob("docs/decisions/*.md")}
    others = (
        {path.relative_to(ROOT / "docs") for path in ROOT.glob("docs/**/*.md")}
        - decisions
        - {Path("README.md")}
    )

    assert set() == decisions - found["docs/building.md"]
    assert set() == others - found["docs/README.md"]


@pytest.mark.parametrize(("page", "start"), NOT_RUN)
def test_an_exception_is_of_one_block(page: str, start: str) -> None:
    """Who removes or changes a block removes its exception; none excuses two."""
    assert 1 == sum(block.text.startswith(start) for block in blocks(page))


def test_what_is_known_of_pages_is_of_pages() -> None:
    """Nothing is said of pages that are gone."""
    assert set() == set(PAGES) - set(pages())


def test_exceptions_name_tests_that_are_there() -> None:
    """A reason that names a test which does the work names one of today."""
    named = {path for reason in NOT_RUN.values() for path in re.findall(r"tests/[\w/]+(?:\.py)?", reason)}

    assert [] == [path for path in sorted(named) if not (ROOT / path).exists()]


def test_replaced_texts_are_on_their_pages() -> None:
    """Nothing stands in the place of a text that no block of the page has."""
    lost = []
    for page in PAGES.values():
        text = "".join(block.text for block in blocks(page.name))
        lost += [(page.name, old) for old in page.replace if old not in text]

    assert [] == lost


def test_shrunk_commands_are_there() -> None:
    """The options that make commands small are theirs."""
    for table in (OVERRIDES, DEFAULTS):
        for name, options in table.items():
            _parse(" ".join(["lanaprof", name, *(word for option in options.items() for word in option)]))


def test_lines_that_are_not_typed_are_there() -> None:
    """Each pattern of lines not typed, or not compared, has such a line on a page."""
    lines = [command.text for page in pages() for block in blocks(page) for command in block.commands]

    assert [] == [
        pattern
        for pattern in (*NOT_TYPED, *NOT_COMPARED)
        if not any(re.match(pattern, line) for line in lines)
    ]


def test_lanaprof_is_typed() -> None:
    """The list of lines not typed leaves out none of lanaprof's commands but those it says."""
    assert is_typed("lanaprof measure")
    assert not is_typed("pip install .")


def test_output_is_compared_but_for_what_differs() -> None:
    """Numbers, times, ids and folders may differ; words may not, nor the order of lines."""
    printed = "wrote /tmp/x/student.onnx: 5 of 9 layers\nselection 0f3a9b12c4de\nverified: measured 1.2 ms"

    assert [] == missing_lines(
        ["wrote student.onnx: 8 of 9 layers", "…", "verified: measured 413 µs"], printed
    )
    assert [] != missing_lines(["read student.onnx: 8 of 9 layers"], printed)
    assert [] != missing_lines(["verified: measured 413 µs", "selection fa8c42d2b621"], printed)
