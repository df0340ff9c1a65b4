"""What the benchmarks share: options, a work folder that outlives a stop, and results with where they come from.

Results are a JSON file that only grows: ``{"format": "lanaprof-benchmark/1", "runs": [...]}``, one run of one part
(a space, a size) a line. A benchmark writes a part when it ends; started again with the same options after a stop, it
goes on with the parts that are missing. A part that broke off is resumed in its work folder.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lanaprof import LanaprofError
from lanaprof.digest import digest
from lanaprof.errors import BadInput
from lanaprof.flows.demo import run_command
from lanaprof.profiler.environment import (
    available_cores,
    cpu_model_from_cpuinfo,
    find_load,
)
from lanaprof.units import format_duration

FORMAT = "lanaprof-benchmark/1"
HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
_VERSIONS = ("lanaprof", "onnxruntime", "torch", "timm", "numpy")


def say(text: str) -> None:
    """Tell a person how it goes; standard output is for the table."""
    print(text, file=sys.stderr, flush=True)


def find_machine() -> dict[str, Any]:
    """Return what this machine is, without its name."""
    cpuinfo = _text(Path("/proc/cpuinfo"))
    memory = [line.split() for line in _text(Path("/proc/meminfo")).splitlines()[:1]]
    return {
        "cpu_model": cpu_model_from_cpuinfo(cpuinfo) or platform.processor() or platform.machine(),
        "virtual": "hypervisor" in cpuinfo,
        "cores": os.cpu_count(),
        "cores_allowed": len(available_cores()),
        "memory_bytes": int(memory[0][1]) * 1024 if memory else None,
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
    }


def find_versions() -> dict[str, str]:
    """Return the versions of what the figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _VERSIONS}}


def steal_between(before: str, after: str) -> float | None:
    r"""Return the share of time that the hypervisor took between two texts of /proc/stat; None without them.

    >>> steal_between("cpu 0 0 0 0 0 0 0 0 0 0\n", "cpu 80 0 0 10 0 0 0 10 0 0\n")
    0.1
    """
    if not before or not after:
        return None
    first, second = ([int(part) for part in text.split("\n", 1)[0].split()[1:9]] for text in (before, after))
    passed = sum(second) - sum(first)
    return round((second[7] - first[7]) / passed, 5) if passed > 0 else 0.0


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Return the runs in a results file, the oldest first; none when there is no file.

    Raises:
        BadInput: it is something else.
    """
    if not path.exists():
        return []
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"its format is {document['format']!r}, not {FORMAT!r}")
        runs: list[dict[str, Any]] = document["runs"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{path} is not a file of benchmark results: {error}", hint="choose another --out"
        ) from None
    return runs


def write_runs(path: Path, runs: Sequence[Mapping[str, Any]]) -> None:
    """Write a results file, one run a line, whole or not at all."""
    lines = [json.dumps(run, ensure_ascii=False, separators=(", ", ": ")) for run in runs]
    text = f'{{"format": "{FORMAT}", "runs": [\n' + ",\n".join(lines) + "\n]}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def rounded(value: Any, digits: int = 6) -> Any:
    """Return the value with its floats, however deep, cut to significant digits: the rest is noise in a diff.

    >>> rounded({"latency_s": [0.00123456789, 2]})
    {'latency_s': [0.00123457, 2]}
    """
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {key: rounded(item, digits) for key, item in value.items()}
    return [rounded(item, digits) for item in value] if isinstance(value, list | tuple) else value


def typed_command(name: str, words: Sequence[str]) -> str:
    """Return the command to type for the same run; where its files lie is nobody else's business.

    >>> typed_command("proving", ["--budgets", "3", "--out=/tmp/x.json", "--work", "/tmp/y"])
    'python benchmarks/proving.py --budgets 3'
    """
    kept: list[str] = []
    skipping = False
    for word in words:
        if not skipping and word.split("=", 1)[0] not in ("--out", "--work"):
            kept.append(word)
        skipping = word in ("--out", "--work")
    return shlex.join(["python", f"benchmarks/{name}.py", *kept])


@dataclass(slots=True)
class Harness:
    """One benchmark with its options: where it works, where its results go, and what it did already.

    Attributes:
        name: of the benchmark.
        out: the results file.
        work: folder of what may be resumed; removed when all parts are done.
        options: what tells one run from another; goes into the results.
        quick: a smoke run, whose figures mean nothing.
        run: id that the parts of one run share, also across stops.
    """

    name: str
    out: Path
    work: Path
    options: dict[str, Any]
    quick: bool
    run: str = ""
    _took_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up the run that was stopped, if it had the same options; refuse results that cannot be added to."""
        read_runs(self.out)
        state = self.work / "run.json"
        wanted = digest([self.name, self.options])
        if state.exists():
            kept = json.loads(state.read_text(encoding="utf-8"))
            if kept["options"] == wanted:
                self.run = kept["run"]
                say(f"going on with run {self.run}, which was stopped")
                return
            shutil.rmtree(self.work)
        self.run = secrets.token_hex(4)
        self.work.mkdir(parents=True, exist_ok=True)
        state.write_text(json.dumps({"run": self.run, "options": wanted}), encoding="utf-8")

    def found(self, part: str | None = None) -> list[dict[str, Any]]:
        """Return what this run has written so far, of one part or of all."""
        return [
            run
            for run in read_runs(self.out)
            if run["run"] == self.run and part in (None, run["part"]) and run["benchmark"] == self.name
        ]

    def folder(self, part: str) -> Path:
        """Return the part's own folder in the work folder."""
        path = self.work / part.replace("/", "_").replace(":", "_")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def stage(self, folder: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return what a stage gives with its ``wall_s``; a stage that ended before a stop is not done again."""
        kept = folder / f"stage-{name.replace('/', '_')}.json"
        if kept.exists():
            found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
            return found
        began_s = time.monotonic()
        result = {**work(), "wall_s": round(time.monotonic() - began_s, 2)}
        temporary = kept.with_suffix(".tmp")
        temporary.write_text(json.dumps(result), encoding="utf-8")
        temporary.replace(kept)
        return result

    def parts(self, names: Sequence[str], work: Callable[[str], Sequence[dict[str, Any]]]) -> None:
        """Do each part that this run has not done and write what it gives.

        Args:
            names: of the parts.
            work: returns the part's results. A part that fails is left to be resumed, the others are done.

        Raises:
            LanaprofError: of the first part that failed, when all others are done.
        """
        failed: LanaprofError | None = None
        for number, name in enumerate(names):
            if self.found(name):
                continue
            left_s = (len(names) - number) * sum(self._took_s) / max(1, len(self._took_s))
            left = f", about {format_duration(left_s, digits=2)} left" if self._took_s else ""
            say(f"[{number + 1}/{len(names)}] {name}{left}")
            before, stat, began_s = find_load(), _text(Path("/proc/stat")), time.monotonic()
            try:
                results = work(name)
            except LanaprofError as error:
                say(f"{name} failed: {error.message}")
                failed = failed or error
                continue
            seconds = time.monotonic() - began_s
            self._took_s.append(seconds)
            load = {
                "before": before,
                "after": find_load(),
                "steal": steal_between(stat, _text(Path("/proc/stat"))),
            }
            self._write(name, results, seconds, load)
            shutil.rmtree(self.folder(name))
        if failed is not None:
            raise failed

    def _write(
        self, part: str, results: Sequence[dict[str, Any]], seconds: float, load: Mapping[str, Any]
    ) -> None:
        common = {
            "benchmark": self.name,
            "run": self.run,
            "part": part,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(seconds, 1),
            "command": typed_command(self.name, sys.argv[1:]),
            "quick": self.quick,
            "options": self.options,
            "machine": find_machine(),
            "versions": find_versions(),
            "load": load,
        }
        write_runs(self.out, [*read_runs(self.out), *({**common, "result": rounded(r)} for r in results)])

    def finish(self) -> list[dict[str, Any]]:
        """Return all results of this run and forget what could be resumed."""
        found = self.found()
        shutil.rmtree(self.work)
        return found


def parser_for(text: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, help="results are added to it [default: benchmarks/results/NAME.json]"
    )
    parser.add_argument(
        "--work", type=Path, help="where it works, for going on [default: build/benchmarks/NAME]"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke run: a toy network, meaningless figures"
    )
    return parser


def harness_from(name: str, given: argparse.Namespace, options: dict[str, Any]) -> Harness:
    """Return the harness of a benchmark from its parsed options."""
    quick: bool = given.quick
    if quick:
        os.environ.setdefault("LANAPROF_SPREAD_S", "0.2")  # pauses between rounds serve precision alone
    folder = "build/benchmarks/quick" if quick else "build/benchmarks"
    default = Path(folder) / f"{name}.json" if quick else RESULTS / f"{name}.json"
    out: Path = (given.out or default).resolve()
    work: Path = (given.work or Path(folder) / name).resolve()
    return Harness(name, out, work, {**options, "quick": quick}, quick)


def command(folder: Path, *words: str) -> dict[str, Any]:
    """Run a lanaprof command in a folder, as a user would, and return its JSON."""
    say(f"  $ lanaprof {shlex.join(words)}")
    return run_command(folder, *words)


def ended(main: Callable[[], None]) -> None:
    """Run a benchmark; an error of lanaprof or a stop ends it with one line instead of a traceback."""
    try:
        main()
    except LanaprofError as error:
        sys.exit(f"{error.message}\n  → {error.hint}")
    except KeyboardInterrupt:
        sys.exit("\nstopped; the same command goes on from here")
