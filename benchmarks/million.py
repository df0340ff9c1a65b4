"""A million measurements: how long do import, export, merge and a query take, and how much room and memory?

    python benchmarks/million.py [--rows 1000000] [--parts make export/jsonl.zst import/sqlite/jsonl.zst]

Fifty environments times 4,000 operators times five rows (three hosts, two teams) with 64 samples each, rounded to 1 ns
as a campaign does. ``make`` writes them into a database in pieces, and goes on where it was stopped; ``export/…``
writes the files; ``import/KIND/FORMAT`` adds them to an empty database; ``merge`` adds one database to another. A query
reads one environment's table as select does, under each policy, beside a bare SELECT of the same rows, in turns.
With fewer ``--rows`` there are fewer environments, but no fewer operators in each.

The server is a throw-away one that waits for the disk like a real one; it and the command share this machine. All
lies in one folder under the system's temporary one, and is removed at the end.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from harness import Harness, ended, harness_from, parser_for, say
from shared_store import timed

from lanaprof.lut import (
    POLICIES,
    Environment,
    Measurement,
    Operator,
    Store,
    Viewpoint,
    open_store,
    open_table,
)
from lanaprof.lut.records import Timing
from lanaprof.lut.testing import throw_away_server
from lanaprof.units import format_duration

NAME = "million"
SAMPLES = 64
OPERATORS = 4_000
ROWS_EACH = 5  # of one operator in one environment
SPACE = "5" * 32
FORMATS = ("jsonl.zst", "parquet")
KINDS = ("sqlite", "postgresql")
REPEATS = 15  # of each query, in turns


def operators(count: int) -> list[Operator]:
    """Return different operators of a convolution and an activation each, 200 to an image size."""
    return [_operator(number % 200 + 1, number // 200 + 4) for number in range(count)]


def _operator(channels: int, pixels: int) -> Operator:
    image = {"type": "float32", "shape": [1, channels, pixels, pixels]}
    weights = [
        {"type": "float32", "shape": [channels, channels, 3, 3]},
        {"type": "float32", "shape": [channels]},
    ]
    attributes = {"group": 1, "pads": [1, 1, 1, 1], "strides": [1, 1]}
    nodes = [
        {"op": "Conv", "attributes": attributes, "inputs": ["i0", "c0", "c1"], "outputs": [image]},
        {"op": "Relu", "attributes": {}, "inputs": ["n0.0"], "outputs": [image]},
    ]
    graph = {
        "format": "lanaprof-graph/1", "opset": 18, "inputs": [image], "constants": weights, "nodes": nodes,
        "outputs": ["n1.0"],
    }  # fmt: skip
    return Operator(graph=graph)


def environment(number: int) -> Environment:
    """Return an environment by number: a processor each."""
    return Environment(
        backend="onnxruntime", backend_version="1.22.0", cpu_model=f"benchmark {number:02}", isa="x86_64 avx2", cores=1,
        smt=False, threads=1,
    )  # fmt: skip


def measurements(number: int, keys: Sequence[str]) -> Iterator[Measurement]:
    """Yield all measurements of one environment; the same number gives the same records."""
    import numpy as np

    chance = np.random.default_rng(number)
    place = environment(number).id
    bases_s = chance.lognormal(-8.0, 1.0, len(keys))
    hosts = chance.normal(0.0, 0.015, 3)
    rounds = tuple(index // 4 for index in range(SAMPLES))
    for turn in range(ROWS_EACH):
        host = turn % 3
        shifts = np.exp(hosts[host] + chance.normal(0.0, 0.005, len(keys)))
        noise = np.exp(np.abs(chance.normal(0.0, 0.03, (len(keys), SAMPLES))))
        samples = np.round((bases_s * shifts)[:, None] * noise, 9)
        for key, row in zip(keys, samples.tolist(), strict=True):
            ordered = sorted(row)
            yield Measurement(
                operator=key, environment=place, cache="relay", space=SPACE, protocol="relay/2",
                status="ok" if turn or ordered[0] % 1e-7 > 1e-9 else "noisy", latency_s=ordered[6],
                ci_low_s=ordered[4], ci_high_s=ordered[8], samples=tuple(row), rounds=rounds, rejected=3,
                team=f"team {turn % 2}", host=f"{number:08x}{host:08x}", time=f"2026-0{turn + 1}-01T00:00:00Z",
                tool_version="0.1.0", load=0.5, priority="nice -20",
            )  # fmt: skip


class Bench:
    """The files of one run, which outlive its parts."""

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.rows: int = harness.options["rows"]
        self.operators = min(OPERATORS, max(1, self.rows // ROWS_EACH))
        self.environments = max(1, self.rows // (ROWS_EACH * self.operators))
        self.folder = harness.work / "files"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.source = self.folder / "source.db"

    def make(self) -> list[dict[str, Any]]:
        """Fill the database, an environment at a time; what is there already is not made again."""
        made = operators(self.operators)
        keys = [each.id for each in made]
        began_s = time.monotonic()
        with open_store(self.source, create=True) as store:
            if store.counts()["operator"] < len(made):
                store.add([*made, *(environment(number) for number in range(self.environments))])
            there = {each.environment for each in store.holdings()}
            for number in range(self.environments):
                if environment(number).id not in there:
                    store.add(measurements(number, keys))
                    say(f"  environment {number + 1} of {self.environments}")
            count = store.counts()["measurement"]
            size_bytes = store.size_bytes()
        return [
            {"what": "make", "rows": count, "size_bytes": size_bytes, "wall_s": time.monotonic() - began_s}
        ]

    def file(self, form: str) -> Path:
        """Return where the file of a format lies."""
        return self.folder / f"out.{form}"

    def export(self, form: str) -> list[dict[str, Any]]:
        """Write a file, as a user would."""
        took = timed(self.folder, "lut", "export", "source.db", "--out", self.file(form).name)
        return [{"what": "export", "format": form, "size_bytes": self.file(form).stat().st_size, **took}]

    def merge(self) -> list[dict[str, Any]]:
        """Add one file's records to an empty one, and again."""
        took = timed(self.folder, "lut", "merge", "source.db", "merged.db")
        again = timed(self.folder, "lut", "merge", "source.db", "merged.db")
        remove(self.folder / "merged.db")
        return [{"what": "merge", **took}, {"what": "merge again", **again}]

    def sqlite(self, form: str) -> list[dict[str, Any]]:
        """Import into an empty file."""
        database = self.folder / "imported.db"
        remove(database)
        took = timed(self.folder, "lut", "import", self.file(form).name, "--database", database.name)
        with open_store(database) as store:
            result = {
                "what": "import",
                "kind": "sqlite",
                "format": form,
                "size_bytes": store.size_bytes(),
                **took,
            }
        remove(database)
        return [result]

    def ask_sqlite(self) -> list[dict[str, Any]]:
        """Ask the database that was made."""
        with open_store(self.source, readonly=True) as store:
            return self.ask(store, "sqlite", bare_sqlite(self.source))

    def postgresql(self, form: str) -> list[dict[str, Any]]:
        """Import into a server's empty database; of the first format ask, too."""
        with throw_away_server(durable=True) as server:
            url = server.url()
            with open_store(url, create=True) as store:
                empty_bytes = store.size_bytes()
                took = timed(self.folder, "lut", "import", self.file(form).name, "--database", url)
                size_bytes = store.size_bytes() - empty_bytes
                result = {
                    "what": "import",
                    "kind": "postgresql",
                    "format": form,
                    "size_bytes": size_bytes,
                    **took,
                }
                asked = []
                if form == FORMATS[0]:
                    vacuum(url)
                    asked = self.ask(store, "postgresql", bare_postgresql(url))
        return [result, *asked]

    def ask(self, store: Store, kind: str, bare: Callable[[str], int]) -> list[dict[str, Any]]:
        """Read tables of one environment after the other, and the same rows by a bare SELECT, in turns."""
        taken: dict[str, list[float]] = {name: [] for name in ("select", *POLICIES)}
        worked: dict[str, list[float]] = {name: [] for name in taken}
        for turn in range(REPEATS):
            key = environment(turn % self.environments).id
            for name, times in taken.items():
                began_s, began_cpu_s = time.perf_counter(), time.process_time()
                if name == "select":
                    count = bare(key)
                else:
                    seen = Viewpoint(host=f"{turn:08x}{0:08x}", team="team 1", policy=name)
                    table = open_table(store, environment=key, viewpoint=seen)
                    assert len(table) == self.operators
                times.append(time.perf_counter() - began_s)
                worked[name].append(time.process_time() - began_cpu_s)
            assert count == self.operators * ROWS_EACH
        bare_s = taken.pop("select")
        return [
            {
                "what": "query", "kind": kind, "policy": name, "operators": self.operators, "median_s": median(times),
                "least_s": min(times), "most_s": max(times), "bare_s": median(bare_s),
                "cpu_s": median(worked[name]), "bare_cpu_s": median(worked["select"]),
                "ratio": median(one / other for one, other in zip(times, bare_s, strict=True)),
            }
            for name, times in taken.items()
        ]  # fmt: skip


def remove(database: Path) -> None:
    """Remove a SQLite file with its logs."""
    for end in ("", "-wal", "-shm"):
        database.with_name(database.name + end).unlink(missing_ok=True)


def _statement(mark: str) -> str:
    return f"SELECT {', '.join(Timing._fields)} FROM measurements WHERE environment = {mark}"


def bare_sqlite(database: Path) -> Callable[[str], int]:
    """Return what reads an environment's rows by the driver alone, and counts them."""
    connection = sqlite3.connect(database)
    return lambda key: len(connection.execute(_statement("?"), (key,)).fetchall())


def bare_postgresql(url: str) -> Callable[[str], int]:
    """Return what reads an environment's rows by the driver alone, and counts them."""
    import psycopg

    connection = psycopg.connect(url, autocommit=True)
    return lambda key: len(connection.execute(_statement("%s").encode(), (key,)).fetchall())


def vacuum(url: str) -> None:
    """Do what a server does by itself within a minute or so of such an import."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE measurements")


def run_part(bench: Bench, part: str) -> list[dict[str, Any]]:
    """Return the results of one part."""
    what, _, rest = part.partition("/")
    kind, _, form = rest.partition("/")
    if what == "import":
        return bench.sqlite(form) if kind == "sqlite" else bench.postgresql(form)
    if what == "export":
        return bench.export(rest)
    return {"make": bench.make, "query": bench.ask_sqlite, "merge": bench.merge}[what]()


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    for result in (run["result"] for run in runs):
        name = " ".join(str(result[key]) for key in ("what", "kind", "format", "policy") if key in result)
        if result["what"] == "query":
            print(
                f"{name:28} {format_duration(result['median_s']):>9} (bare SELECT {format_duration(result['bare_s'])}, "
                f"ratio {result['ratio']:.1f})"
            )
            continue
        size = f", {result['size_bytes'] / 1e9:.2f} GB" if "size_bytes" in result else ""
        cpu = (
            f" ({result['cpu_s']:.0f} s of a core, {result['peak_bytes'] / 1e6:.0f} MB)"
            if "cpu_s" in result
            else ""
        )
        print(f"{name:28} {result['wall_s']:7.0f} s{cpu}{size}")


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="measurements; 20,000 are one environment"
    )
    parser.add_argument("--parts", nargs="+", help="only these, ``make`` among them")
    given = parser.parse_args()
    if given.quick:
        given.rows = 50
    if given.work is None:
        given.work = Path(tempfile.gettempdir()) / f"lanaprof-{NAME}-{given.rows}"
    harness = harness_from(NAME, given, {"rows": given.rows, "samples": SAMPLES})
    bench = Bench(harness)
    parts = ["make", "query/sqlite"]
    for form in FORMATS:
        parts += [f"export/{form}", *(f"import/{kind}/{form}" for kind in KINDS)]
    parts.append("merge")
    harness.parts(given.parts or parts, lambda part: run_part(bench, part))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
