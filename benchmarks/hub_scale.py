"""A hub over a million measurements: how long does every page take, alone and with fifty readers while teams push?

    python benchmarks/hub_scale.py [--rows 1000000] [--readers 50] [--seconds 60]

``make`` writes the database as `million.py` does and adds retractions and selections. ``alone`` starts a hub in its own
process and asks for every page and every route that is read, one request at a time: first after the start, first after
a push, then several times, with the page's bare SQL by the driver alone in turns. ``readers``: so many readers at once,
each with a token and a connection of its own and 1 to 3 seconds between two requests, while two teams push bundles of
500 measurements without a pause. What is counted is the time at the server, from its Server-Timing header.

Hub, readers and pushing teams share one machine.
"""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from harness import Harness, ended, harness_from, parser_for, say
from hub_routes import Asked, Contents, contents, everything
from hub_visitors import Answer, Crowd, Served, wait_until_served
from million import Bench, environment, operators

from lanaprof.digest import canonical_json
from lanaprof.hub.ledger import open_ledger
from lanaprof.lut import Measurement, Record, Retraction, Selection, open_store
from lanaprof.units import format_duration

NAME = "hub_scale"
TEAMS = ("team 0", "team 1")
REPEATS = 4  # of each request, beyond the first
PUSHES = 2  # after each of which every page is asked for first
BUNDLE = 500  # measurements, as `lanaprof push` sends them
SLOW_S = 0.3  # the goal at the server; what takes longer is told at once
RETRACTED = 100  # one measurement in so many
SELECTIONS = 5_000


def bundle(number: int, team: str, keys: Sequence[str], place: int, chance: random.Random) -> bytes:
    """Return a bundle of new measurements in one environment."""
    host, day = f"{number:08x}{team[-1]}", f"2026-06-{1 + number % 28:02}"
    lines = [
        '{"format":"lanaprof-lut/1","schema":"0002_views","time":"2026-06-01T00:00:00Z","tool_version":"1"}'
    ]
    for key in chance.sample(keys, min(BUNDLE, len(keys))):
        samples = sorted(chance.lognormvariate(-8.0, 0.05) for _ in range(64))
        made = Measurement(
            operator=key, environment=environment(place).id, cache="relay", space="5" * 32, protocol="relay/2",
            status="ok", latency_s=samples[6], ci_low_s=samples[4], ci_high_s=samples[8], samples=tuple(samples),
            rounds=tuple(index // 4 for index in range(64)), team=team, host=host, time=f"{day}T00:00:00Z",
            tool_version="0.1.0",
        )  # fmt: skip
        lines.append(canonical_json(made.to_json()))
    return "".join(f"{line}\n" for line in lines).encode()


class Scale:
    """The database of one run, and the hub over it."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.bench = Bench(harness)
        self.database = self.bench.source

    def make(self) -> list[dict[str, Any]]:
        """Make the database, as far as it is not there, and add what million measurements alone do not have."""
        began_s = time.monotonic()
        self.bench.make()
        with open_store(self.database) as store:
            store.add(self._more(store.ids("measurement", limit=10**9)))
            counts, size_bytes = store.counts(), store.size_bytes()
        return [
            {"what": "make", "counts": counts, "size_bytes": size_bytes, "wall_s": time.monotonic() - began_s}
        ]

    def _more(self, ids: Sequence[str]) -> Iterator[Record]:
        time_text = "2026-05-02T00:00:00Z"
        for key in ids[::RETRACTED]:
            for team in TEAMS:  # whose it is; the other's is refused
                yield Retraction(target=key, team=team, reason="fan broken", time=time_text)
        chance = random.Random(1)
        for number in range(min(SELECTIONS, len(ids))):
            latency_s = chance.uniform(1e-3, 1e-2)
            yield Selection(
                teacher="t" * 32, space=f"{number % 5}" * 32, device=f"cpu,threads={1 + number % 4}",
                environment=environment(0).id, budgets=(("latency_s@cpu", latency_s),),
                choices=tuple((f"blocks.{layer:02}", "mbconv(expand=4,kernel=5)") for layer in range(20)),
                score=-1e-3 / latency_s + chance.gauss(0.0, 0.01), bound=0.0, proved=True, status="verified",
                predicted_s=latency_s, measured_s=latency_s, ci_low_s=latency_s, ci_high_s=latency_s, rounds=1,
                method="exact", team=TEAMS[number % 2], time=f"2026-05-01T00:{number // 60 % 60:02}:{number % 60:02}Z",
            )  # fmt: skip

    @contextmanager
    def serving(self) -> Iterator[Served]:
        """Start a hub, and yield it when it answers."""
        folder = self.harness.folder("hub")
        with open_ledger(folder / "hub.db", create=True) as ledger:
            tokens = {team: ledger.new_token(team, scope="write", team=team)[1] for team in TEAMS}
            made, tokens["admin"] = ledger.new_token("admin", scope="admin")
            session = ledger.sign_in(made)
            tokens |= {
                f"reader {number}": ledger.new_token(f"reader {number}", scope="read")[1]
                for number in range(self.harness.options["readers"])
            }
        serve = ["hub", "serve", "--database", str(self.database), "--ledger", "hub.db", "--port", "0"]
        command = [sys.executable, "-m", "lanaprof", *serve]
        with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                said = process.stderr.readline()
                address = re.search(r"http://[\d.]+:(\d+)", said)
                assert address is not None, said
                threading.Thread(target=process.stderr.read, daemon=True).start()
                served = Served(int(address[1]), tokens, session, process.pid)
                wait_until_served(served.visitor("admin"))
                yield served
            finally:
                process.terminate()

    def there(self) -> Contents:
        """Return what can be asked for."""
        with open_store(self.database, readonly=True) as store:
            return contents(store)

    def alone(self) -> list[dict[str, Any]]:
        """Ask for everything, one request at a time."""
        there = self.there()
        asked = everything(self.harness.folder("routes"), there)
        keys = [each.id for each in operators(self.bench.operators)]
        bare = Bare(self.database, there)
        results = {each.name: Times(each) for each in asked}
        with self.serving() as hub:
            admin, team = hub.visitor("admin"), hub.visitor(TEAMS[0])
            for each in asked:
                results[each.name].take("first_s", admin.get(each.paths[0], page=each.page))
            quick = self.harness.quick
            for number in range(1 if quick else PUSHES):
                for each in asked:
                    place = number % self.bench.environments
                    pushed = team.push(
                        bundle(number, TEAMS[0], keys, place, random.Random(f"{number} {each.name}"))
                    )
                    assert pushed.status == 200, pushed
                    results[each.name].take("pushed_s", admin.get(each.paths[0], page=each.page))
            for turn in range(1 if quick else REPEATS):
                for each in asked:
                    path, before_s = each.paths[turn % len(each.paths)], hub.cpu_s()
                    results[each.name].take("later_s", admin.get(path, page=each.page))
                    results[each.name].cpu_s += hub.cpu_s() - before_s
                    results[each.name].bare_s.append(bare.run(each, turn))
                say(f"  round {turn + 1}")
            memory = hub.peak_bytes()
        return [{"what": "alone", "hub_peak_bytes": memory, **each.result()} for each in results.values()]

    def together(self) -> list[dict[str, Any]]:
        """Let many read while two teams push."""
        asked = everything(self.harness.folder("routes"), self.there())
        keys = [each.id for each in operators(self.bench.operators)]
        options = self.harness.options
        crowd = Crowd(asked)
        with self.serving() as hub:
            end_s = time.monotonic() + options["seconds"]
            threads = [
                threading.Thread(target=crowd.read, args=(hub.visitor(f"reader {number}"), number, end_s))
                for number in range(options["readers"])
            ]
            for number, team in enumerate(TEAMS):
                bodies = [
                    bundle(
                        100 + turn, team, keys, (turn + number) % self.bench.environments, random.Random(turn)
                    )
                    for turn in range(20)
                ]
                threads.append(threading.Thread(target=crowd.push, args=(hub.visitor(team), bodies, end_s)))
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            memory = hub.peak_bytes()
        return [
            {
                "what": "readers", "readers": options["readers"], "seconds": options["seconds"],
                "hub_peak_bytes": memory, **result,
            }
            for result in crowd.results()
        ]  # fmt: skip


class Times:
    """What one request took, by when it was asked."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.taken: dict[str, list[float]] = {"first_s": [], "pushed_s": [], "later_s": []}
        self.bare_s: list[float] = []
        self.cpu_s = 0.0

    def take(self, when: str, answer: Answer) -> None:
        """Note an answer, which must be one."""
        assert answer.status == 200, (self.asked.name, answer)
        if answer.server_s > SLOW_S:
            say(f"  {self.asked.name}: {format_duration(answer.server_s)} ({when.removesuffix('_s')})")
        self.taken[when].append(answer.server_s)

    def result(self) -> dict[str, Any]:
        """Return the figures."""
        later_s, bare_s = self.taken["later_s"], self.bare_s
        ratios = [one / other for one, other in zip(later_s, bare_s, strict=True) if other]
        return {
            "name": self.asked.name, "page": self.asked.page, "first_s": self.taken["first_s"][0],
            "pushed_s": median(self.taken["pushed_s"]), "pushed_most_s": max(self.taken["pushed_s"]),
            "median_s": median(later_s), "most_s": max(later_s), "cpu_s": self.cpu_s / len(later_s),
            "bare_s": median(bare_s) if ratios else None, "ratio": median(ratios) if ratios else None,
        }  # fmt: skip


class Bare:
    """The SQL that pages need, by the driver alone."""

    def __init__(self, database: Path, there: Contents) -> None:
        self._connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
        self._there = there

    def run(self, asked: Asked, turn: int) -> float:
        """Return how long a request's statements take; 0 when it needs none."""
        places = self._there.environments
        given = {
            "environment": places[turn % len(places)], "other": places[(turn + 1) % len(places)],
            "operator": self._there.operators[turn % len(self._there.operators)], "after": "",
        }  # fmt: skip
        began_s = time.perf_counter()
        for statement in asked.sql:
            self._connection.execute(statement, given).fetchall()
        return time.perf_counter() - began_s if asked.sql else 0.0


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    for result in (run["result"] for run in runs):
        if result["what"] == "make":
            print(
                f"made in {result['wall_s']:.0f} s: {result['counts']}, {result['size_bytes'] / 1e9:.2f} GB"
            )
        elif result["what"] == "alone":
            times = [
                result[name]
                for name in ("first_s", "pushed_s", "pushed_most_s", "median_s", "most_s", "cpu_s")
            ]
            ratio = f", {result['ratio']:.2f} of bare SQL" if result["ratio"] is not None else ""
            print(f"{result['name']:52} {' '.join(f'{1e3 * each:7.0f}' for each in times)} ms{ratio}")
        else:
            times = [result[name] for name in ("median_s", "p95_s", "most_s")]
            shown = " ".join(f"{format_duration(each):>9}" for each in times)
            print(f"{result['name']:52} {result['requests']:5} {shown}, {result['failed']} failed")


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="measurements; 20,000 are one environment"
    )
    parser.add_argument("--readers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0, help="that they read")
    given = parser.parse_args()
    if given.quick:
        given.rows, given.readers, given.seconds = 200, 5, 2.0
    if given.work is None:
        given.work = Path(tempfile.gettempdir()) / f"lanaprof-{NAME}-{given.rows}"
    names = ("rows", "readers", "seconds")
    harness = harness_from(NAME, given, {name: getattr(given, name) for name in names})
    scale = Scale(harness)
    work = {"make": scale.make, "alone": scale.alone, "readers": scale.together}
    harness.parts(list(work), lambda part: work[part]())
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
