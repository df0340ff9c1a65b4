"""A shared database on a PostgreSQL server: does it lose anything, how large is it, how fast is it filled and read?

    python benchmarks/shared_store.py [--writers 8] [--records 20000] [--rows 50000] [--kinds sqlite postgresql]

``writers``: processes write measurements at once, each its own; writers are killed (kill -9) at random and started
again, and once the server crashes and comes back. Counts what was acknowledged and is not there, and what is there
twice. ``writers/sqlite``: the same with one file, which no server's crash can hit. ``size/N``: N measurements of 64
samples each, in a file and on the server, pushed, pushed again, pulled and exported, with the peak memory of each
command.

The server is a throw-away one that waits for the disk like a real one; it and the writers share this machine.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from harness import Harness, ended, harness_from, parser_for, say

from lanaprof.errors import StoreError
from lanaprof.lut import Environment, Measurement, Operator, Store, check, open_store
from lanaprof.lut.adding import chunked
from lanaprof.lut.testing import throw_away_server

NAME = "shared_store"
KINDS = ("sqlite", "postgresql")
SAMPLES = 64
OPERATORS = 200


def operators() -> list[Operator]:
    """Return operators as large as those of a real space: a convolution and an activation each."""
    made = []
    for channels in range(1, OPERATORS + 1):
        image = {"type": "float32", "shape": [1, channels, 14, 14]}
        weights = [
            {"type": "float32", "shape": [channels, channels, 3, 3]},
            {"type": "float32", "shape": [channels]},
        ]
        limits = [{"type": "float32", "shape": [], "value": value} for value in (0.0, 6.0)]
        attributes = {"group": 1, "pads": [1, 1, 1, 1], "strides": [1, 1]}
        nodes = [
            {"op": "Conv", "attributes": attributes, "inputs": ["i0", "c0", "c1"], "outputs": [image]},
            {"op": "Clip", "attributes": {}, "inputs": ["n0.0", "c2", "c3"], "outputs": [image]},
        ]
        graph = {
            "format": "lanaprof-graph/1", "opset": 18, "inputs": [image], "constants": weights + limits,
            "nodes": nodes, "outputs": ["n1.0"],
        }  # fmt: skip
        made.append(Operator(graph=graph))
    return made


def environment() -> Environment:
    """Return the environment of all measurements."""
    return Environment(
        backend="onnxruntime-cpu", backend_version="1.0", cpu_model="benchmark", isa="avx2", cores=1, smt=False,
        threads=1,
    )  # fmt: skip


def measurements(writer: str, first: int, last: int) -> Iterator[Measurement]:
    """Yield a writer's measurements by number: the same number gives the same record."""
    keys = [each.id for each in operators()]
    place = environment().id
    for number in range(first, last):
        chance = random.Random(f"{writer}/{number}")
        samples = sorted(chance.lognormvariate(-7.0, 0.02) for _ in range(SAMPLES))
        yield Measurement(
            operator=keys[number % OPERATORS], environment=place, cache="hot", protocol="hot/1", status="ok",
            latency_s=samples[6], ci_low_s=samples[3], ci_high_s=samples[9], samples=tuple(samples),
            rounds=tuple(index // 4 for index in range(SAMPLES)), rejected=3, team=writer, host="benchmark",
            time="2026-01-01T00:00:00Z", tool_version="0.1.0", load=0.5,
        )  # fmt: skip


def write(url: str, writer: str, records: int, batch: int, acknowledged: Path) -> None:
    """Write from where the file of acknowledged ids ends; note each batch when the database has taken it."""
    done = acknowledged.read_text().count("\n") if acknowledged.exists() else 0
    with opened(url) as store, acknowledged.open("a") as file:
        for chunk in chunked(measurements(writer, done, records), batch):
            report = store.add(chunk)
            assert not report.refused
            file.write("".join(f"{each.id}\n" for each in chunk))
            file.flush()


def opened(url: str, limit_s: float = 60.0) -> Store:
    """Return the open store; a writer that is started while the server is down tries again, as its owner would."""
    end = time.monotonic() + limit_s
    while True:
        try:
            return open_store(url)
        except StoreError:
            if time.monotonic() > end:
                raise
        time.sleep(0.5)


def start_writer(url: str, index: int, options: dict[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    """Start a writer, or start it again."""
    given = (
        url,
        f"team {index}",
        str(options["records"]),
        str(options["batch"]),
        str(folder / f"{index}.txt"),
    )
    return subprocess.Popen([sys.executable, __file__, "--write", *given])


def run_writers(options: dict[str, Any], folder: Path, *, server: bool) -> list[dict[str, Any]]:
    """Return what became of all that was written while writers were killed and, if there is one, the server crashed."""
    count, wanted = options["writers"], options["writers"] * options["records"]
    chance = random.Random(0)
    for path in folder.glob("*.txt"):
        path.unlink()  # of a server that is no more
    kills = crashes = 0
    for path in folder.glob("shared.db*"):
        path.unlink()
    with ExitStack() as stack:
        place = stack.enter_context(throw_away_server(durable=True)) if server else None
        url = place.url() if place is not None else str(folder / "shared.db")
        with open_store(url, create=True) as store:
            store.add([*operators(), environment()])
        began_s = time.monotonic()
        running = {index: start_writer(url, index, options, folder) for index in range(count)}
        while running:
            time.sleep(chance.uniform(0.5, 1.5))
            done = (
                sum(path.stat().st_size for path in folder.glob("*.txt")) // 33
            )  # 32 digits and a line's end
            if place is not None and not crashes and done >= wanted / 2:
                place.stop("immediate")
                place.start()
                crashes += 1
            elif kills < options["kills"] and done >= wanted * kills / options["kills"]:
                index = chance.choice(sorted(running))
                running[index].send_signal(signal.SIGKILL)
            for index, process in list(running.items()):
                code = process.poll()
                if code == -signal.SIGKILL:
                    kills += 1
                    running[index] = start_writer(url, index, options, folder)
                elif code == 0:
                    del running[index]
                elif code is not None:
                    raise RuntimeError(f"writer {index} ended with {code}")
        seconds = time.monotonic() - began_s
        noted = [line for path in folder.glob("*.txt") for line in path.read_text().splitlines()]
        with open_store(url, readonly=True) as store:
            stored = [each.id for each in store.measurements()]
        report = check(url)
    return [
        {
            "kind": "postgresql" if server else "sqlite", "writers": count, "records": options["records"],
            "batch": options["batch"], "samples": SAMPLES, "kills": kills, "crashes": crashes,
            "acknowledged": len(set(noted)), "stored": len(stored), "lost": len(set(noted) - set(stored)),
            "twice": len(stored) - len(set(stored)),
            "problems": len(report.problems), "wall_s": seconds, "records_per_s": len(stored) / seconds,
        }
    ]  # fmt: skip


def timed(folder: Path, *words: str) -> dict[str, float]:
    """Run a lanaprof command; return its seconds, its processor's seconds and the most memory it took."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "lanaprof", *words, "--json"], cwd=folder, stdout=subprocess.DEVNULL
    )
    peak_kib = 0
    # Not getrusage: what this process held when it forked would count.
    while not (over := os.wait4(process.pid, os.WNOHANG))[0]:
        text = Path(f"/proc/{process.pid}/status").read_text()
        peak_kib = max(
            [peak_kib, *(int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM"))]
        )
        time.sleep(0.02)
    _, status, used = over
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}")
    return {
        "wall_s": time.monotonic() - began_s,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": peak_kib * 1024.0,
    }


def run_size(rows: int, folder: Path) -> list[dict[str, Any]]:
    """Return how large a database of so many measurements is, and what filling and reading it takes."""
    local = folder / "local.db"
    local.unlink(missing_ok=True)
    (folder / "pulled.db").unlink(missing_ok=True)
    with open_store(local, create=True) as store:
        store.add([*operators(), environment()])
        for chunk in chunked(measurements("team 0", 0, rows), 5_000):
            store.add(chunk)
        file_bytes = store.size_bytes()
    with throw_away_server(durable=True) as server:
        url = server.url()
        with open_store(url, create=True) as store:
            empty_bytes = store.size_bytes()
        commands = {
            "push": ("lut", "push", url, "local.db"),
            "push_again": ("lut", "push", url, "local.db"),
            "pull": ("lut", "pull", url, "--database", "pulled.db"),
            "export": ("lut", "export", url, "--out", "out.jsonl.zst"),
        }
        took = {name: timed(folder, *words) for name, words in commands.items()}
        with open_store(url, readonly=True) as store:
            server_bytes = store.size_bytes()
    per_row = (server_bytes - empty_bytes) / rows
    return [
        {
            "rows": rows, "samples": SAMPLES, "file_bytes": file_bytes, "empty_bytes": empty_bytes,
            "server_bytes": server_bytes, "server_bytes_per_million": per_row * 1e6,
            "export_bytes": (folder / "out.jsonl.zst").stat().st_size, **took,
        }
    ]  # fmt: skip


def run_part(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return the results of one part."""
    if part.startswith("writers"):
        return run_writers(harness.options, harness.folder(part), server=part == "writers")
    return run_size(int(part.partition("/")[2]), harness.folder(part))


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print what was found."""
    for result in (run["result"] for run in runs):
        if "writers" in result:
            print(
                f"{result['kind']}: {result['writers']} × {result['records']} records, "
                f"{result['kills']} writers killed, "
                f"{result['crashes']} crash of the server: {result['acknowledged']} acknowledged, "
                f"{result['lost']} lost, {result['twice']} twice, {result['records_per_s']:.0f} records/s"
            )
            continue
        print(
            f"{result['rows']} measurements: {result['server_bytes_per_million'] / 1e9:.2f} GB per million on the "
            f"server, {result['file_bytes'] / result['rows'] / 1e3:.2f} GB in a file"
        )
        for name in ("push", "push_again", "pull", "export"):
            each = result[name]
            rate = result["rows"] / each["wall_s"]
            print(
                f"  {name:10} {each['wall_s']:7.1f} s, {rate:8.0f} rows/s, {each['peak_bytes'] / 1e6:5.0f} MB"
            )


def main() -> None:
    """Run the benchmark, or be one of its writers."""
    parser = parser_for(__doc__)
    parser.add_argument("--writers", type=int, default=8, help="processes that write at once")
    parser.add_argument("--records", type=int, default=20_000, help="measurements each of them writes")
    parser.add_argument("--batch", type=int, default=20, help="measurements in one transaction")
    parser.add_argument("--kills", type=int, default=8, help="how often a writer is killed")
    parser.add_argument(
        "--rows", type=int, default=50_000, help="measurements whose size is taken, and a fifth of it"
    )
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS, help="which databases")
    parser.add_argument("--write", nargs=5, help="(a writer of this benchmark)")
    given = parser.parse_args()
    if given.write:
        url, writer, records, batch, acknowledged = given.write
        write(url, writer, int(records), int(batch), Path(acknowledged))
        return
    if given.quick:
        given.writers, given.records, given.kills, given.rows = 2, 100, 1, 200
    names = ("writers", "records", "batch", "kills")
    parts = ["writers/sqlite"] if "sqlite" in given.kinds else []
    if "postgresql" in given.kinds:
        parts += ["writers", f"size/{given.rows // 5}", f"size/{given.rows}"]
    harness = harness_from(NAME, given, {name: getattr(given, name) for name in names} | {"rows": given.rows})
    harness.parts(parts, lambda part: run_part(harness, part))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
