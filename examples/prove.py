"""Time ONNX files beside each other and judge them on labelled images, with nothing but ONNX Runtime.

    python examples/prove.py time teacher.onnx student.onnx

prints one JSON document: per file the latency of one run on one core, in seconds, with its 95 % interval. The files
take turns in short visits, so that both meet the same moments of the machine. It is a process of its own: nothing
that chose the networks has run in it.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from lanaprof.profiler.clock import RawSample, SystemClock
from lanaprof.profiler.statistics import clean_samples, estimate

ROUNDS = 40  # visits of each file
RUNS = 5  # timed runs of a visit


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def bound_run(session: onnxruntime.InferenceSession) -> Any:
    """Return a call that runs the session on bound buffers."""
    binding = session.io_binding()
    described = session.get_inputs()[0]
    x = np.random.default_rng(0).standard_normal(described.shape).astype(np.float32)
    binding.bind_ortvalue_input(described.name, onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(session.get_outputs()[0].name, "cpu")
    return lambda: session.run_with_iobinding(binding)


def time_files(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Return the latency of each file, all interleaved."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    runs = {str(path): bound_run(open_session(path)) for path in paths}
    clock, order = SystemClock(), random.Random(0)
    samples: dict[str, list[tuple[int, RawSample]]] = {name: [] for name in runs}
    for number in range(ROUNDS):
        names = list(runs)
        order.shuffle(names)
        for name in names:
            runs[name]()
            samples[name] += [(number, clock.sample(runs[name])) for _ in range(RUNS)]
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


def accuracy(path: Path, x: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the share of images (count, channels, height, width) a batch-1 ONNX file classifies right."""
    session = open_session(path)
    name = session.get_inputs()[0].name
    guesses = [int(session.run(None, {name: x[i : i + 1]})[0].argmax()) for i in range(len(x))]
    return float(np.mean(np.asarray(guesses) == labels))


if __name__ == "__main__":
    if sys.argv[1:2] != ["time"]:
        sys.exit("usage: python examples/prove.py time FILE.onnx …")
    print(json.dumps(time_files([Path(text) for text in sys.argv[2:]])))
