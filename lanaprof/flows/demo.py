"""What the examples share: running commands in a project, and judging the exported files from outside.

``python -m lanaprof.flows.demo FILE.onnx …`` prints one JSON document: per file the latency of one run on one core, in
seconds, with its 95 % interval. The files take turns in short visits, so that both meet the same moments of the
machine, and it is a process of its own: nothing that chose the networks has run in it.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lanaprof.errors import LanaprofError, UserError
from lanaprof.profiler.clock import RawSample, SystemClock
from lanaprof.profiler.statistics import clean_samples, estimate

__all__ = ["accuracy_of", "export_teacher", "run_command", "time_files", "time_files_afresh"]

_ROUNDS = 40  # visits of each file
_RUNS = 5  # timed runs of a visit


def run_command(folder: Path, *words: str) -> dict[str, Any]:
    """Run a lanaprof command in a folder and return its JSON; its progress goes to the terminal.

    Raises:
        UserError: the command failed; carries its message and hint.
    """
    command = [sys.executable, "-m", "lanaprof", *words, "--json"]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, check=False, text=True)
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise LanaprofError(f"lanaprof {words[0]} ended with code {done.returncode} and no answer") from None
    if "error" in document:
        raise UserError(
            f"lanaprof {words[0]}: {document['error']['message']}", hint=document["error"]["hint"]
        )
    return document


def export_teacher(project: Path, out: Path) -> None:
    """Write the project's teacher as ONNX, the same way as a student."""
    keep = out.with_suffix(".architecture.json")
    keep.write_text('{"format": "lanaprof-architecture/1", "teacher": "", "choices": {}}', encoding="utf-8")
    try:
        run_command(project, "export", "--architecture", str(keep), "--out", str(out))
    finally:
        keep.unlink()


def _open_session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _bound_run(path: Path) -> Callable[[], object]:
    import onnxruntime

    session = _open_session(path)
    binding = session.io_binding()
    described = session.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal(described.shape).astype(np.float32)
    binding.bind_ortvalue_input(described.name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(session.get_outputs()[0].name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def time_files(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the latency of each ONNX file with its real weights, all interleaved, on one core."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs = {str(path): _bound_run(path) for path in paths}
    clock, order = SystemClock(), random.Random(0)
    samples: dict[str, list[tuple[int, RawSample]]] = {name: [] for name in runs}
    for number in range(_ROUNDS):
        names = list(runs)
        order.shuffle(names)
        for name in names:
            runs[name]()
            samples[name] += [(number, clock.sample(runs[name])) for _ in range(_RUNS)]
    found = {}
    for name, rows in samples.items():
        clean = clean_samples(rows, threads=1)
        interval = estimate(clean.seconds, clean.rounds)
        found[name] = {
            "latency_s": interval.latency_s,
            "ci_low_s": interval.ci_low_s,
            "ci_high_s": interval.ci_high_s,
        }
    return found


def time_files_afresh(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return :func:`time_files` of a new process."""
    command = [sys.executable, "-m", "lanaprof.flows.demo", *map(str, paths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, dict[str, float]] = json.loads(done.stdout)
    return found


def accuracy_of(path: Path, x: npt.NDArray[np.float32], labels: npt.NDArray[Any]) -> float:
    """Return the share of images (count, channels, height, width) that a batch-1 ONNX file classifies right."""
    session = _open_session(path)
    name = session.get_inputs()[0].name
    guesses = [int(session.run(None, {name: x[i : i + 1]})[0].argmax()) for i in range(len(x))]
    return float(np.mean(np.asarray(guesses) == labels))


if __name__ == "__main__":
    print(json.dumps(time_files([Path(text) for text in sys.argv[1:]])))  # noqa: T201 (its only output)
