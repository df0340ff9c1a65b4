"""A real hub on a free port, and small records to push to it."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

import lanaprof.cli.base
from lanaprof.cli import main
from lanaprof.digest import canonical_json
from lanaprof.hub.ledger import Ledger, open_ledger
from lanaprof.hub.limits import Limits
from lanaprof.hub.serving import make_server
from lanaprof.hub.state import Hub
from lanaprof.lut import (
    Environment,
    Measurement,
    Operator,
    Recipe,
    Record,
    Retraction,
    Score,
    Selection,
    Store,
    open_store,
)

MANIFEST = {
    "format": "lanaprof-lut/1",
    "schema": "0002_views",
    "time": "2026-03-01T12:00:00Z",
    "tool_version": "1",
}


class Clock:
    """Seconds since 1970 that only the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Make:
    """Makes records; every argument overrides a field."""

    def operator(self, channels: int = 8) -> Operator:
        image = {"type": "float32", "shape": [1, channels, 4, 4]}
        graph = {
            "format": "lanaprof-graph/1",
            "opset": 18,
            "inputs": [image],
            "constants": [{"type": "float32", "shape": [channels, channels, 1, 1]}],
            "nodes": [{"op": "Conv", "attributes": {}, "inputs": ["i0", "c0"], "outputs": [image]}],
            "outputs": ["n0.0"],
        }
        return Operator(graph=graph)

    def environment(self, **fields: Any) -> Environment:
        given = {
            "backend": "onnxruntime", "backend_version": "1.22.0", "cpu_model": "Example CPU", "isa": "avx2",
            "cores": 1, "smt": False, "threads": 1, "options": {},
        }  # fmt: skip
        return Environment(**{**given, **fields})

    def measurement(self, channels: int = 8, **fields: Any) -> Measurement:
        latency_s = fields.get("latency_s", 1e-3)
        given = {
            "operator": self.operator(channels).id, "environment": self.environment().id, "cache": "hot",
            "protocol": "hot/1", "status": "ok", "latency_s": latency_s, "ci_low_s": latency_s * 0.99,
            "ci_high_s": latency_s * 1.01, "samples": (1e-3, 1.1e-3), "rounds": (0, 1), "team": "vision",
            "host": "h1", "time": "2026-03-01T12:00:00Z",
        }  # fmt: skip
        return Measurement(**{**given, **fields})

    def retraction(self, target: str, **fields: Any) -> Retraction:
        given = {"target": target, "team": "vision", "reason": "fan broken", "time": "2026-03-01T12:00:00Z"}
        return Retraction(**{**given, **fields})

    def recipe(self, operator: str, recipe: str = "r1") -> Recipe:
        return Recipe(recipe=recipe, operator=operator, generator="export/1")

    def selection(self, **fields: Any) -> Selection:
        given = {
            "teacher": "t1", "space": "s1", "device": "cpu", "budgets": {"latency_s@cpu": 0.005},
            "choices": {"a": "teacher"}, "score": -0.4, "status": "verified", "predicted_s": 0.005,
            "team": "vision", "time": "2026-03-01T12:00:00Z",
        }  # fmt: skip
        return Selection(**{**given, **fields})

    def score(self, layer: str, operation: str, score: float, **fields: Any) -> Score:
        given = {
            "teacher": "t1", "candidate": f"{layer} {operation}", "data": "d1", "metric": "kl", "images": 64,
            "team": "vision", "time": "2026-03-01T12:00:00Z",
        }  # fmt: skip
        return Score(**{**given, **fields}, layer=layer, operation=operation, score=score)

    def bundle(self, *records: Record) -> bytes:
        """Return JSON lines with these records, in this order."""
        return self.lines(*(canonical_json(each.to_json()) for each in records))

    def lines(self, *lines: str) -> bytes:
        """Return JSON lines with a manifest in front."""
        return "".join(f"{line}\n" for line in (json.dumps(MANIFEST), *lines)).encode()

    def database(self, path: str, *records: Record) -> None:
        """Make a database with these records."""
        with open_store(path, create=True) as store:
            assert not store.add(records).refused

    def base(self) -> list[Record]:
        """Return the operators and the environment that measurements refer to."""
        return [self.environment(), *(self.operator(channels) for channels in (8, 16, 24))]


@pytest.fixture
def make() -> Make:
    return Make()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; copying it is faster than making one."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    open_store(path, create=True).close()
    return path


@dataclass(frozen=True)
class Running:
    """A hub that answers at ``url``, with a token of each kind; ``paths`` are pages that a test visits."""

    url: str
    hub: Hub
    tokens: dict[str, str]
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.hub.store

    @property
    def ledger(self) -> Ledger:
        return self.hub.ledger

    def uploading(self, who: str) -> int:
        """Return how many bundles of a token are on their way."""
        token = self.ledger.find_token(self.tokens[who])
        assert token is not None
        return self.hub.uploading(token.id)

    def client(self, who: str = "") -> httpx.Client:
        """Return a client with a token of `tokens`; empty: with none."""
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=300.0, trust_env=False)

    def anybody(self) -> httpx.Client:
        """Return a client that behaves like a browser: cookies, redirects, Origin with forms."""
        headers = {"Origin": self.url, "Accept": "text/html"}
        return httpx.Client(
            base_url=self.url, headers=headers, follow_redirects=True, trust_env=False, timeout=300.0
        )

    @contextmanager
    def browse(self, who: str = "reader") -> Iterator[httpx.Client]:
        """Yield such a client that is signed in."""
        with self.anybody() as visitor:
            assert visitor.post("/signin", data={"token": self.tokens[who]}).status_code == 200
            yield visitor

    def push(self, who: str, body: bytes) -> httpx.Response:
        """Submit a bundle."""
        with self.client(who) as client:
            return client.post("/api/v1/bundle", content=body)


Start = Callable[..., Running]


def _free_socket() -> socket.socket:
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    return listening


@pytest.fixture
def start(tmp_path: Path, empty_database: Path) -> Iterator[Start]:
    """Return what starts a hub; all end with the test."""
    with ExitStack() as stack:

        def begin(
            database: str | None = None, *, clock: Any = time.time, proxy: str = "", **fields: Any
        ) -> Running:
            folder = tmp_path / f"hub{time.monotonic_ns()}"
            folder.mkdir()
            if database is None:
                database = str(shutil.copy(empty_database, folder / "shared.db"))
            store = stack.enter_context(open_store(database))
            ledger = stack.enter_context(open_ledger(folder / "hub.db", create=True, clock=clock))
            # Nothing is kept beyond its time: how long that is would depend on how slow the machine is.
            fields["limits"] = replace(fields.get("limits", Limits()), kept_share=0.0)
            hub = Hub(store=store, ledger=ledger, folder=folder, **fields)
            server = make_server(hub, host="127.0.0.1", port=0, proxy=proxy)
            server.config.timeout_keep_alive = 3600  # or a client that was paused finds its connection closed
            listening = _free_socket()
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            stack.callback(thread.join)
            stack.callback(setattr, server, "should_exit", True)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            while not server.started and thread.is_alive():
                time.sleep(0.01)
            assert server.started
            tokens = {
                "reader": ledger.new_token("reader", scope="read")[1],
                "vision": ledger.new_token("ann", scope="write", team="vision")[1],
                "robots": ledger.new_token("bob", scope="write", team="robots")[1],
                "admin": ledger.new_token("root", scope="admin")[1],
            }
            return Running(url, hub, tokens)

        yield begin


@pytest.fixture
def hub(start: Start) -> Running:
    """A hub over an empty SQLite database."""
    return start()


@pytest.fixture
def tight() -> Limits:
    """Limits that a test can reach."""
    return Limits(body_bytes=20_000, content_bytes=60_000, line_bytes=10_000, request_bytes=10_000)


@dataclass(frozen=True)
class Ran:
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home and a working folder of the test's own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("LANAPROF_DATABASE", "LANAPROF_TEAM", "LANAPROF_TOKEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(home: None) -> Callable[..., Ran]:
    """Return what runs a command."""

    def run(*words: str | Path) -> Ran:
        lanaprof.cli.base._noticed.clear()
        result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(main, [str(word) for word in words])
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def page_of(browser: Any) -> Callable[..., AbstractContextManager[Any]]:
    """Return what opens a page of a hub that is signed in; the browser's complaints are kept in ``page.complaints``."""

    @contextmanager
    def opened(hub: Running, **options: Any) -> Iterator[Any]:
        given = {"base_url": hub.url, "viewport": {"width": 1100, "height": 900}, **options}
        context = browser.new_context(**given)
        context.set_default_timeout(300_000)  # milliseconds: a busy machine is slow, not broken
        page = context.new_page()
        page.complaints = []
        page.on("console", lambda said: page.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto("/signin")
        page.fill("#token", hub.tokens["reader"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{hub.url}/")
        yield page
        context.close()

    return opened


@pytest.fixture
def sights(start: Start, make: Make) -> Running:
    """A hub with something on every page: two teams, an upgrade, a stored frontier; ``paths`` leads to all of them."""
    hub = start()
    samples = tuple(1e-3 + step * 1e-6 for step in range(64))
    later = make.environment(backend_version="1.23.0")
    rows = [make.measurement(samples=samples, rounds=tuple(step // 4 for step in range(64)))]
    rows += [
        make.measurement(channels, team=team, latency_s=channels * 1e-4 * factor)
        for channels in (8, 16, 24)
        for team, factor in (("vision", 1.0), ("robots", 1.1))
    ]
    rows += [
        make.measurement(channels, environment=later.id, latency_s=channels * 9e-5) for channels in (8, 24)
    ]
    chosen = [
        make.selection(
            score=-1 / step, predicted_s=step * 1e-3, status="frontier",
            choices={"a": "teacher", "b": "teacher" if step == 5 else f"slim(width=0.{step})"},
        )
        for step in range(1, 6)
    ]  # fmt: skip
    assert not hub.store.add([*make.base(), later, *rows, *chosen]).refused
    here = make.environment().id
    paths = {
        "overview": "/", "operators": "/operators", "operator": f"/operators/{make.operator().id}",
        "environments": "/environments", "environment": f"/environments/{here}", "devices": "/devices",
        "measurement": f"/measurements/{rows[0].id}", "frontier": "/frontier", "coverage": "/coverage",
        "compare": "/compare?a_team=vision&b_team=robots", "drift": f"/drift?a={here}&b={later.id}",
        "missing": f"/measurements/{'0' * 32}",
    }  # fmt: skip
    return replace(hub, paths=paths)
