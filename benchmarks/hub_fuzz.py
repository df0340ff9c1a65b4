"""A hub under requests made from its own OpenAPI, and under pushes and pulls: does it break or leak, how fast is it?

    python benchmarks/hub_fuzz.py [--examples 100] [--rows 10000]

``fuzz``: so many requests of each operation, well-formed and not, without a token and with one of each kind. Counts
answers that are a fault of the hub, errors in another form, answers without a token, writes by who may not, and
secrets in answers. ``transfer/N``: N measurements of 64 samples each pushed, pushed again and pulled through a running
hub, beside the same between two files.

The hub and its visitors share this machine.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from harness import Harness, ended, harness_from, parser_for, say
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode
from shared_store import environment, measurements, operators, timed

from lanaprof.hub.ledger import open_ledger
from lanaprof.hub.limits import Limits
from lanaprof.hub.remotes import add_remote
from lanaprof.hub.serving import bound, make_server
from lanaprof.hub.state import Hub
from lanaprof.lut import open_store
from lanaprof.lut.adding import chunked

NAME = "hub_fuzz"
OPEN = ("/healthz", "/api/v1/openapi.json")
WIDE = Limits(
    token_per_s=1e6, token_burst=10**9, address_per_s=1e6, address_burst=10**9, failures_burst=10**9
)
SCOPES = ("", "read", "write", "admin")


@dataclass
class Tally:
    """What was seen."""

    statuses: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    other_form: list[str] = field(default_factory=list)
    let_in: list[str] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)

    def look(self, case: Any, answer: Any, who: str, secrets: Sequence[str]) -> None:
        """Count one answer, and note what it should not be."""
        told = f"{case.method} {case.formatted_path} as {who or 'nobody'}: {answer.status_code}"
        self.statuses[f"{answer.status_code // 100}xx"] += 1
        if answer.status_code >= 500 and answer.status_code != 503:
            self.faults.append(told)
        if answer.status_code >= 400 and not _in_form(answer):
            self.other_form.append(told)
        if not who and answer.status_code < 400 and case.path not in OPEN:
            self.let_in.append(told)
        if any(secret.encode() in answer.content for secret in secrets):
            self.leaks.append(told)


def _in_form(answer: Any) -> bool:
    try:
        return set(answer.json()["error"]) == {"type", "message", "hint"}
    except (ValueError, KeyError, TypeError):
        return False


@contextmanager
def running(hub: Hub) -> Iterator[str]:
    """Yield the address of a hub in this process."""
    server, listening = make_server(hub, host="127.0.0.1", port=0), bound("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def run_fuzz(examples: int, folder: Path) -> list[dict[str, Any]]:
    """Return what became of requests made from the OpenAPI."""
    for name in ("shared.db", "hub.db"):
        (folder / name).unlink(missing_ok=True)
    tally = Tally()
    with (
        open_store(folder / "shared.db", create=True) as store,
        open_ledger(folder / "hub.db", create=True) as ledger,
        running(Hub(store=store, ledger=ledger, folder=folder, limits=WIDE)) as url,
    ):
        store.add([*operators(), environment(), *measurements("team 0", 0, 50)])
        before = store.counts()
        tokens = {
            who: ledger.new_token(who, scope=who, team="t" * (who == "write"))[1] for who in SCOPES if who
        }
        schema: Any = schemathesis.openapi.from_dict(httpx.get(f"{url}/api/v1/openapi.json").json())
        schema.config.update(base_url=url)
        for who in SCOPES:
            headers = {"Authorization": f"Bearer {tokens[who]}"} if who else {}
            for operation in (each.ok() for each in schema.get_all_operations()):
                for mode in GenerationMode:
                    check = _checker(tally, operation, mode, headers, (who, examples, tuple(tokens.values())))
                    with suppress(Unsatisfiable):  # what has no parameters cannot be asked wrongly
                        check()
            say(f"as {who or 'nobody'}: {sum(tally.statuses.values())} requests so far")
        changed = {
            kind: count - before[kind] for kind, count in store.counts().items() if count != before[kind]
        }
        alive = httpx.get(f"{url}/healthz").status_code == 200
    return [
        {
            "requests": sum(tally.statuses.values()), "statuses": dict(sorted(tally.statuses.items())),
            "faults": tally.faults, "other_form": tally.other_form, "let_in": tally.let_in, "leaks": tally.leaks,
            "changed": changed, "alive": alive,
        }
    ]  # fmt: skip


def _checker(
    tally: Tally,
    operation: Any,
    mode: GenerationMode,
    headers: dict[str, str],
    asked: tuple[str, int, tuple[str, ...]],
) -> Callable[[], None]:
    """Return what asks one operation many times."""
    who, examples, secrets = asked

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: Any) -> None:
        tally.look(case, case.call(headers=headers), who, secrets)

    return ask


def run_transfer(rows: int, folder: Path) -> list[dict[str, Any]]:
    """Return how long so many measurements take through a hub, and between two files."""
    for path in folder.glob("*.db*"):
        path.unlink()
    with open_store(folder / "local.db", create=True) as store:
        store.add([*operators(), environment()])
        for chunk in chunked(measurements("team 0", 0, rows), 5_000):
            store.add(chunk)
    with open_ledger(folder / "hub.db", create=True) as ledger:
        _, secret = ledger.new_token("benchmark", scope="write", team="team 0")
    serve = ["hub", "serve", "--database", "shared.db", "--ledger", "hub.db", "--port", "0"]
    command = [sys.executable, "-m", "lanaprof", *serve]
    os.environ["XDG_CONFIG_HOME"] = str(folder / "settings")  # of the commands below too
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://[\d.:]+\d", process.stderr.readline())
            assert address is not None
            add_remote("lab", address[0], secret)
            commands = {
                "push": ("push", "lab", "local.db"),
                "push_again": ("push", "lab", "local.db"),
                "pull": ("pull", "lab", "--database", "pulled.db"),
                "file_push": ("lut", "push", "file.db", "local.db", "--create"),
                "file_pull": ("lut", "pull", "file.db", "--database", "file_pulled.db"),
            }
            took = {name: timed(folder, *words) for name, words in commands.items()}
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    with open_store(folder / "pulled.db", readonly=True) as pulled, open_store(folder / "local.db") as local:
        same = pulled.counts() == local.counts()
    return [{"rows": rows, "same": same, "hub_peak_bytes": peak_kib * 1024.0, **took}]


def run_part(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return the results of one part."""
    if part == "fuzz":
        return run_fuzz(harness.options["examples"], harness.folder(part))
    return run_transfer(int(part.partition("/")[2]), harness.folder(part))


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    for result in (run["result"] for run in runs):
        if "requests" in result:
            print(
                f"{result['requests']} requests ({result['statuses']}): {len(result['faults'])} faults, "
                f"{len(result['other_form'])} errors in another form, {len(result['let_in'])} let in without a token, "
                f"{len(result['leaks'])} with a secret; changed: {result['changed'] or 'nothing'}"
            )
            continue
        print(f"{result['rows']} measurements; the hub took {result['hub_peak_bytes'] / 1e6:.0f} MB")
        for name in ("push", "push_again", "pull", "file_push", "file_pull"):
            each = result[name]
            rate = result["rows"] / each["wall_s"]
            print(
                f"  {name:10} {each['wall_s']:7.1f} s, {rate:8.0f} rows/s, {each['peak_bytes'] / 1e6:5.0f} MB"
            )


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--examples", type=int, default=100, help="requests of each operation, kind and token"
    )
    parser.add_argument("--rows", type=int, default=10_000, help="measurements that are pushed and pulled")
    asked = parser.parse_args()
    if asked.quick:
        asked.examples, asked.rows = 2, 200
    harness = harness_from(NAME, asked, {"examples": asked.examples, "rows": asked.rows})
    harness.parts(["fuzz", f"transfer/{asked.rows}"], lambda part: run_part(harness, part))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
