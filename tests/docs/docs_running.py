"""Runs what a page shows, in folders of its own, and compares what comes out with what the page says."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from docs_blocks import Block, Command, blocks
from docs_files import READERS, read_operations_file
from docs_pages import DEFAULTS, OVERRIDES, Page, is_compared, is_typed, reason_for

import lanaprof.cli.base
from lanaprof.cli import main

DONE = (0, 3)  # 3: done but incomplete, as where a loaded machine makes a measurement noisy or a budget fail
_REDIRECTED = re.compile(r"^(?P<typed>.*\S) > (?P<file>[\w./-]+)$")
_SERVING = re.compile(r"at (http://127\.0\.0\.1:\d+);")
_EXPORTED = re.compile(r"^export (?P<name>\w+)=(?P<value>.*)$")
_MASKS = (  # what differs from run to run, from machine to machine, and from the small networks here to the reader's
    (re.compile(r"; \d+ given up early|; \d+ are shown, .*$"), ""),
    (re.compile(r"verified|over_budget|unverified"), "STATUS"),
    (re.compile(r"(?<![\w.])/?(?:[\w.~-]+/)+(?=[\w.-]+)"), ""),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,}\b|(?<=token )[0-9a-f]{8}(?= of)"), "#"),
    (re.compile(r"https?://[\w.:]+"), "URL"),
    (re.compile(r"[-−+±]?\d[\d.,]*(e-?\d+)?"), "#"),
    (re.compile(r"#\s?(?:ns|µs|ms|s|min|h)\b(?: #\s?s\b)?"), "TIME"),
    (re.compile(r"#\s?(?:k|M|G)?B?\b(?=\s|$)"), "#"),
    (re.compile(r"─+"), "─"),
    (re.compile(r"\s+"), " "),
)
_ROW = re.compile(r"^\s*(blocks\.\d+)\s.*")  # of a table of layers: what was chosen and measured differs


def shape_of(line: str) -> str:
    """Return a line without what differs between two runs: numbers, times, ids, addresses, folders."""
    row = _ROW.match(line)
    if row is not None:
        return f"{row[1]} …"
    for pattern, mask in _MASKS:
        line = pattern.sub(mask, line)
    return line.strip()


def missing_lines(shown: Sequence[str], printed: str) -> list[str]:
    """Return the lines of the page that the output lacks, or has in another order; ``…`` is anything."""
    waiting = [re.split("…", shape_of(line)) for line in shown if line.strip() and line.strip() != "…"]
    wanted = [re.compile(".*".join(re.escape(part) for part in parts)) for parts in waiting]
    at = 0
    for line in map(shape_of, printed.splitlines()):
        if at < len(wanted) and wanted[at].fullmatch(line):
            at += 1
    return [pattern.pattern for pattern in wanted[at:]]


def shrunk(words: Sequence[str]) -> list[str]:
    """Return a command's words with the options that make it small, where it takes any."""
    name = next(
        (name for name in (*OVERRIDES, *DEFAULTS) if list(words[: len(name.split())]) == name.split()), ""
    )
    done = list(words)
    for option, value in OVERRIDES.get(name, {}).items():
        if option in done:
            done[done.index(option) + 1] = value
        else:
            done += [option, value]
    for option, value in DEFAULTS.get(name, {}).items():
        done += [] if option in done else [option, value]
    return done


@dataclass
class Reader:
    """Types what a page shows. Each person of the page has a folder; all see the same names for things elsewhere.

    Attributes:
        page: what is known of the page.
        folder: where those without a name work; others work beside it.
        elsewhere: texts of the page and what stands for them here, such as addresses.
    """

    page: Page
    folder: Path
    elsewhere: dict[str, str]
    stack: ExitStack
    scope: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self, block: Block) -> None:
        """Run one block, whatever it is; ``text`` is no code."""
        if block.file:
            (self.folder / block.file).write_text(self.replaced(block.text), encoding="utf-8")
            if block.file == "ops.txt":
                read_operations_file(self.folder / block.file)
            elif block.file.endswith(".py"):
                exec(compile(block.text, block.place, "exec"), {"__name__": block.file})
        elif block.language == "console":
            for command in block.commands:
                self.type(block, command)
        elif block.language == "python":
            self.execute(block)
        elif block.language != "text":
            assert block.language in READERS, f"{block.place}: nobody knows how to run {block.language!r}"
            READERS[block.language](block.text, self.folder)

    def execute(self, block: Block) -> None:
        """Execute Python in the page's folder; names stay for the page's later blocks."""
        source = self.replaced(block.text)
        with chdir(self.folder), self.environment(""):
            if ">>>" not in source:
                exec(compile(source, block.place, "exec"), self.scope)
                return
            parsed = doctest.DocTestParser().get_doctest(
                source, self.scope, block.place, block.page, block.line
            )
            said: list[str] = []
            ran = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
                parsed, out=said.append, clear_globs=False
            )
            self.scope.update(parsed.globs)
            assert ran.failed == 0, "".join(said)

    def type(self, block: Block, command: Command) -> None:
        """Type one line, and compare what is printed with what the page shows."""
        where = f"{block.page}:{command.line}"
        typed = self.replaced(command.text)
        if not is_typed(typed):
            return
        exported = _EXPORTED.match(typed)
        if exported is not None:
            with chdir(self.place_of(command.who)):
                value = subprocess.run(
                    ["bash", "-c", f"printf %s {exported['value']}"],
                    stdout=subprocess.PIPE,
                    check=True,
                    text=True,
                ).stdout
            self.variables.setdefault(command.who, {})[exported["name"]] = value
            return
        with chdir(self.place_of(command.who)), self.environment(command.who):
            code, printed = self.printed(typed)
        assert code in DONE, f"{where}: {typed}\nended with {code}:\n{printed}"
        if code or not is_compared(typed):
            return  # what is not done to the end says other things
        lacking = missing_lines(command.shown, printed)
        assert lacking == [], f"{where}: {typed}\nprinted\n{printed}\nwhich lacks {lacking}"

    def place_of(self, who: str) -> Path:
        """Return the folder a person works in; one that is made for them has the operations of the tests."""
        if not who or who in self.page.people:
            return self.folder
        made = self.folder.parent / who
        made.mkdir(exist_ok=True)
        shutil.copy(self.folder / "few.txt", made)
        return made

    def printed(self, typed: str) -> tuple[int, str]:
        """Return the exit code and the output of a line; lanaprof's commands run in this process."""
        redirected = _REDIRECTED.match(typed)
        line, file = (redirected["typed"], redirected["file"]) if redirected else (typed, "")
        words = shlex.split(line)
        if words[0] != "lanaprof":
            done = subprocess.run(
                ["bash", "-c", typed],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
                text=True,
            )
            return done.returncode, done.stdout
        words = shrunk(words[1:])
        if words[:2] == ["hub", "serve"]:
            return self.serve(words)
        lanaprof.cli.base._noticed.clear()  # a process tells each notice once
        result = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(main, words)
        if file:
            Path(file).write_text(result.stdout, encoding="utf-8")
            return result.exit_code, result.stderr
        return result.exit_code, result.output

    def serve(self, words: Sequence[str]) -> tuple[int, str]:
        """Start a hub in a process that ends with the page, and let its address stand for the page's."""
        server = self.stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "lanaprof", *words, "--port", "0"],
                stderr=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                text=True,
            )
        )
        self.stack.callback(server.terminate)  # before it is waited for
        assert server.stderr is not None
        said = ""
        for line in server.stderr:
            said += line
            address = _SERVING.search(line)
            if address is not None:
                self.elsewhere["http://127.0.0.1:8765"] = address[1]
                return 0, said
        return 1, said

    def replaced(self, text: str) -> str:
        """Return a text with what stands here for the page's addresses and large things."""
        for old, new in {**self.page.replace, **self.elsewhere}.items():
            text = text.replace(old, new)
        return text

    @contextmanager
    def environment(self, who: str) -> Iterator[None]:
        """Set the variables that a person has exported, or a prompt without a name: that is everybody."""
        exported = {**self.variables.get("", {}), **self.variables.get(who, {})}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in exported.items():
                patch.setenv(name, value)
            yield


def read_page(
    page: Page, folder: Path, *, elsewhere: Mapping[str, str], only: Sequence[Block] = ()
) -> Reader:
    """Run a page's blocks, or only some of them, in a folder."""
    with ExitStack() as stack:
        path = list(sys.path)
        stack.callback(sys.path.__setitem__, slice(None), path)  # factories are imported from the folder
        reader = Reader(page, folder, dict(elsewhere), stack)
        for block in only or [block for block in blocks(page.name) if reason_for(block) is None]:
            reader.run(block)
        return reader


def clean_environment(patch: pytest.MonkeyPatch, home: Path, data: Path) -> None:
    """Set what commands read of the environment: nothing of the developer's, and no pauses between rounds."""
    for name in [name for name in os.environ if name.startswith("LANAPROF_")]:
        patch.delenv(name)
    patch.setenv("LANAPROF_SPREAD_S", "0.2")  # pauses between rounds serve precision alone
    patch.setenv("LANAPROF_FASHION_MNIST", str(data))
    patch.setenv("XDG_CONFIG_HOME", str(home))
