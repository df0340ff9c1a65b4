"""How many operators a second, all told: from the space to the stored estimate.

    python benchmarks/throughput.py [--spaces quick large]

``quick`` is the default catalogue on EfficientNet-Lite0; ``large`` has about 250 operations a layer (LANA's has 197) on
MobileNetV3-Large at 64 × 64: some 3,000 distinct operators that are cheap to run, so that it is the overhead that is
measured. Export and measuring are timed as a user sees them, start of the commands included; meanwhile the memory of
the command and of its measuring process is read once a second.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness import Harness, command, ended, harness_from, parser_for, say
from spaces import QUICK, SPACES, Space, make_project

from lanaprof.errors import BadInput, LanaprofError

NAME = "throughput"
_SAMPLE_S = 1.0
_KEPT = 120  # samples of memory in the results: enough to see whether it grows


def large_catalogue() -> list[str]:
    """Return about 250 operations that fit any image layer, all from the families that come with lanaprof."""
    acts = ("relu", "hswish")
    kernels = (3, 5, 7)
    found = [f"conv(kernel={k},act={a})" for k in (1, *kernels) for a in (*acts, "none")]
    found += [f"ds(kernel={k},act={a},out={o})" for k in kernels for a in acts for o in ("none", "relu")]
    found += [
        f"mbconv(expand={e},kernel={k},se={s},act={a})"
        for e, k, s, a in itertools.product(
            (0.5, 1, 1.5, 2, 2.5, 3, 4, 5, 6), kernels, (0, 0.25), (*acts, "silu")
        )
    ]
    found += [
        f"fused_mbconv(expand={e},kernel={k},act={a})"
        for e, k, a in itertools.product((0.25, 0.5, 1, 1.5, 2), (3, 5), acts)
    ]
    found += [
        f"basic(kernel={k},width={w},act={a},out=none)"
        for w, k, a in itertools.product((0.125, 0.25, 0.5, 0.75, 1), (3, 5), acts)
    ]
    found += [
        f"bottleneck(width={w},kernel={k},act={a},out=none)"
        for w, k, a in itertools.product((0.125, 0.25, 0.375, 0.5, 0.75, 1), (3, 5), acts)
    ]
    return ["skip", *found, *(f"repvgg(act={a})" for a in acts)]


# Small images: the operators are cheap, so that it is the overhead that is measured.
SIZES: dict[str, tuple[str, Space, list[str]]] = {
    "quick": ("efficientnet_lite0", SPACES["efficientnet_lite0"], []),
    "large": (
        "mobilenetv3_large_100",
        Space(teacher="timm:mobilenetv3_large_100", size="3x64x64"),
        large_catalogue(),
    ),
}


def rss_from_status(text: str) -> tuple[int, int]:
    r"""Return the parent's process id and the resident bytes in the text of /proc/PID/status.

    >>> rss_from_status("Name:\tpython\nPPid:\t12\nVmRSS:\t    2048 kB\n")
    (12, 2097152)
    """
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    resident = fields.get("VmRSS", "0 kB").split()  # absent once a process is a zombie
    return int(fields.get("PPid", "0")), int(resident[0]) * 1024


def _statuses() -> Iterator[tuple[int, int, int]]:
    """Yield (process, parent, resident bytes) of everything that runs."""
    for path in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parent, resident = rss_from_status(path.read_text(encoding="utf-8"))
            yield int(path.parent.name), parent, resident


def memory_of(process: int) -> tuple[int, int]:
    """Return the resident bytes of a process and of all its descendants, which measure for it."""
    rows = list(_statuses())
    family, own, below = {process}, 0, 0
    grown = True
    while grown:
        new = {pid for pid, parent, _ in rows if parent in family} - family
        family |= new
        grown = bool(new)
    for pid, _, resident in rows:
        if pid == process:
            own = resident
        elif pid in family:
            below += resident
    return own, below


def watched(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command like :func:`command`; add ``memory``: [seconds, its bytes, its workers' bytes] over time."""
    say(f"  $ lanaprof {shlex.join(words)}")
    began_s = time.monotonic()
    samples: list[list[float]] = []
    done = threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "lanaprof", *words, "--json"], cwd=folder, stdout=subprocess.PIPE, text=True
    )

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            samples.append([round(time.monotonic() - began_s, 1), *memory_of(process.pid)])

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        text, _ = process.communicate()
    finally:
        done.set()
        watcher.join()
        process.kill()
        process.wait()
    document: dict[str, Any] = json.loads(text or "{}")
    if "error" in document or not document:
        raise LanaprofError(f"lanaprof {words[0]} failed: {document.get('error', {}).get('message', text)}")
    return document | {"memory": samples}


def growth(samples: Sequence[Sequence[float]], column: int) -> float | None:
    """Return the peak of the last third over the peak of the middle third; None with too few samples.

    The first third is start-up. A program that leaks would grow; 1 is flat.
    """
    third = len(samples) // 3
    if third < 3:
        return None
    middle = max(row[column] for row in samples[third : 2 * third])
    last = max(row[column] for row in samples[2 * third :])
    return last / middle if middle else None


def memory_summary(samples: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Return peaks, growth and a thinned curve of the memory."""
    step = max(1, -(-len(samples) // _KEPT))
    return {
        "parent_peak_bytes": max((row[1] for row in samples), default=None),
        "worker_peak_bytes": max((row[2] for row in samples), default=None),
        "parent_growth": growth(samples, 1),
        "worker_growth": growth(samples, 2),
        "columns": ["seconds", "parent_bytes", "worker_bytes"],
        "samples": list(samples[::step]),
    }


def prepare(harness: Harness, folder: Path, size: str) -> Path:
    """Make the project of a size; returns its folder."""
    project = folder / "project"
    if size == QUICK:
        make_project(project, QUICK)
        return project
    _, space, catalogue = SIZES[size]
    if (project / "lanaprof.toml").exists():
        return project
    project.mkdir(parents=True, exist_ok=True)
    ops = "quick"
    if catalogue:
        (project / "ops.txt").write_text("\n".join(catalogue) + "\n", encoding="utf-8")
        ops = "ops.txt"
    words = ("--teacher", space.teacher, "--input", space.size, "--ops", ops, "--device", "cpu")
    harness.stage(folder, "init", lambda: command(project, "init", *words))
    return project


def run_size(harness: Harness, size: str) -> list[dict[str, Any]]:
    """Return the result of one size."""
    folder = harness.folder(size)
    project = prepare(harness, folder, size)
    exported = harness.stage(folder, "export", lambda: watched(project, "measure", "--plan"))
    measured = harness.stage(folder, "measure", lambda: watched(project, "measure"))
    covered = command(project, "lut", "coverage", "--device", "cpu")
    space = command(project, "space")
    seconds = exported["wall_s"] + measured["wall_s"]
    return [
        {
            "size": size,
            "teacher": space["teacher"],
            "layers": len(space["layers"]),
            "candidates": sum(len(layer["candidates"]) for layer in space["layers"]),
            "operators": exported["operators"],
            "stored": covered["present"],
            "failed": covered["failed"],
            "noisy": measured["noisy"],
            "export_s": exported["wall_s"],
            "measure_s": measured["wall_s"],
            "resumed": measured["reused"] > 0
            or exported["exported"] < exported["operators"],  # then the seconds are not those of the whole
            "operators_per_second": covered["present"] / seconds,
            "export_memory": memory_summary(exported["memory"]),
            "measure_memory": memory_summary(measured["memory"]),
        }
    ]


def _bytes(value: float | None) -> str:
    return f"{value / 1e6:.0f} MB" if value else "–"


def show(runs: Sequence[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"{'size':8} {'operators':>9} {'stored':>7} {'failed':>7} {'export':>8} {'measure':>9} {'per second':>10} "
        f"{'parent peak':>11} {'worker peak':>11} {'growth':>13}"
    )
    for run in runs:
        result = run["result"]
        memory = result["measure_memory"]
        grew = " / ".join(
            f"{value:.3f}" if value else "–" for value in (memory["parent_growth"], memory["worker_growth"])
        )
        note = "  (resumed: its seconds are not those of the whole)" if result["resumed"] else ""
        print(
            f"{result['size']:8} {result['operators']:9} {result['stored']:7} {result['failed']:7} "
            f"{result['export_s']:7.0f}s {result['measure_s']:8.0f}s {result['operators_per_second']:10.2f} "
            f"{_bytes(memory['parent_peak_bytes']):>11} {_bytes(memory['worker_peak_bytes']):>11} {grew:>13}{note}"
        )


def main() -> None:
    """Run the benchmark."""
    parser = parser_for(__doc__)
    parser.add_argument("--spaces", nargs="+", default=list(SIZES), metavar="SIZE", help=", ".join(SIZES))
    given = parser.parse_args()
    if given.quick:
        given.spaces = [QUICK]
    unknown = [size for size in given.spaces if size not in SIZES and size != QUICK]
    if unknown:
        raise BadInput(
            f"there is no size {unknown[0]!r}; there are {', '.join(SIZES)}", hint="--spaces quick"
        )
    harness = harness_from(NAME, given, {})
    harness.parts(given.spaces, lambda size: run_size(harness, size))
    show(harness.finish())
    say(f"results: {harness.out}")


if __name__ == "__main__":
    ended(main)
