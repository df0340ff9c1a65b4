"""The blocks of code on the pages, as readers see them; nothing here runs any."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
GENERATED = (
    "docs/cli.md",
)  # its blocks are usages, compared with the code by tests/cli/test_cli_reference.py

_FENCE = re.compile(r"^```(\w*)\s*$")
_PROMPT = re.compile(r"^(?:(?P<who>[a-z]+) )?\$ (?P<text>.*)$")
_FILE = re.compile(r"\bas `([\w./]+)`:$")  # the paragraph before a block says which file it is
_COMMENT = re.compile(r"\s+# .*$")
_SPAN = re.compile(r"(?<!`)`(lanaprof [a-z][^`]*)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Command:
    """One line after a prompt, and what the page shows below it. ``who`` is the name before the prompt."""

    who: str
    text: str
    shown: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. ``file`` is the name that the paragraph before it gives it, or empty."""

    page: str
    line: int
    language: str
    text: str
    file: str

    @property
    def place(self) -> str:
        """Return where it is, for messages."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> tuple[Command, ...]:
        """Return what a reader types; a comment at the end of a line is not typed."""
        found: list[Command] = []
        for number, line in enumerate(self.text.splitlines(), start=self.line + 1):
            prompt = _PROMPT.match(line)
            if prompt is not None:
                typed = _COMMENT.sub("", prompt["text"]).strip()
                found.append(Command(prompt["who"] or "", typed, (), number))
            elif found:
                last = found[-1]
                found[-1] = Command(last.who, last.text, (*last.shown, line), last.line)
        return tuple(found)


def pages() -> tuple[str, ...]:
    """Return every page for people that has blocks to run, by its path in the repository."""
    found = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    names = sorted(path.relative_to(ROOT).as_posix() for path in found)
    return tuple(name for name in names if name not in GENERATED)


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Return a page's blocks in order."""
    return tuple(_blocks(page))


def _blocks(page: str) -> Iterator[Block]:
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        opening = _FENCE.match(lines[number])
        if opening is None:
            number += 1
            continue
        end = next(i for i in range(number + 1, len(lines)) if lines[i].rstrip() == "```")
        before = next((line for line in reversed(lines[:number]) if line.strip()), "")
        named = _FILE.search(before)
        text = "\n".join(lines[number + 1 : end]) + "\n"
        yield Block(page, number + 1, opening[1], text, named[1] if named else "")
        number = end + 1


def spans(page: str) -> tuple[str, ...]:
    """Return what stands in the prose as ``lanaprof …`` between backticks, lines joined."""
    text = "\n".join(_prose(page))
    return tuple(" ".join(found.split()) for found in _SPAN.findall(text))


def links(page: str) -> tuple[str, ...]:
    """Return where a page's links lead, those to other sites left out."""
    found = _LINK.findall("\n".join(_prose(page)))
    return tuple(link for link in found if "://" not in link and not link.startswith("mailto:"))


def anchors(page: str) -> frozenset[str]:
    """Return the anchors of a page's headings, made as GitHub makes them."""
    headings = [line.lstrip("#").strip() for line in _prose(page) if re.match(r"#{1,6} ", line)]
    plain = [re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading.lower())) for heading in headings]
    return frozenset(heading.replace(" ", "-") for heading in plain)


def _prose(page: str) -> list[str]:
    """Return a page's lines outside its blocks."""
    kept, inside = [], False
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        fence = line.startswith("```")
        if not fence and not inside:
            kept.append(line)
        inside = inside != fence
    return kept
