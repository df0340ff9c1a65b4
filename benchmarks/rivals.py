"""What one would do without a table of lanaprof: sum operators timed by other means, or count arithmetic.

Run by latency_accuracy.py in a process of its own, on the same operators and the same networks, on the cores that
lanaprof measures on:

- ``torch``: ``torch.utils.benchmark``'s blocked_autorange on the PyTorch modules in eval mode, summed; what is outside
  the layers is the teacher's own time less its layers'.
- ``onnxruntime``: the mean of 50 runs after 10 to warm up, in a fresh session with default options but the threads,
  per operator, summed, stem and head with them.
- ``macs``: multiply-accumulates of the whole network times a constant, fitted to the calibration's networks.

Each also with a fit a + b·x to the networks that lanaprof is calibrated on. To their favour the fits use these
networks' latencies as measured beside the networks that are predicted, so no drift is between them. A network's truth
is its latency as ``lanaprof verify`` measured it. The fits and constants minimise the squared relative error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lanaprof.flows.networks import calibration_networks
from lanaprof.flows.operators import OperatorMap, find_networks, find_operators
from lanaprof.flows.predicting import open_predictor
from lanaprof.flows.project import Project, load_project
from lanaprof.lut import Store, open_store
from lanaprof.ops import SKIP, TEACHER
from lanaprof.profiler.corelock import default_lock_folder, hold_cores
from lanaprof.profiler.environment import choose_cores, local_environment
from lanaprof.space import Architecture

Floats = npt.NDArray[np.float64]
Choices = tuple[str, ...]
WARM_UPS, RUNS = 10, 50
BY_RUNTIME = f"ONNX Runtime, mean of {RUNS}"
_TORCH_LEAST_S = 0.2  # blocked_autorange's own default


def rivals_afresh(
    project: Path, rows: Sequence[Mapping[str, Any]], networks: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the rivals make of the networks that ``verify`` timed, from a new process.

    Args:
        project: its folder, measured and calibrated.
        rows: ``architectures`` of ``lanaprof verify --json``.
        networks: file that tells the new process of them.
        options: ``anchors`` of them are fitted to, with ``threads``.
    """
    kept = [{"choices": row["choices"], "measured_s": row["measured_s"]} for row in rows]
    networks.write_text(json.dumps({"rows": kept, "anchors": options["anchors"]}), encoding="utf-8")
    command = [sys.executable, str(Path(__file__).resolve()), str(project), str(networks)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fit_constant(x: Floats, measured_s: Floats) -> Floats:
    """Return (0, b): the constant that minimises Σ (b·x / measured − 1)²."""
    relative = x / measured_s
    return np.array([0.0, relative.sum() / (relative @ relative)])


def fit_affine(x: Floats, measured_s: Floats) -> Floats:
    """Return (a, b) that minimise Σ ((a + b·x) / measured − 1)²."""
    design = np.stack([1 / measured_s, x / measured_s], axis=1)
    return np.asarray(np.linalg.lstsq(design, np.ones(len(x)), rcond=None)[0], dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Rival:
    """One way to a number per network.

    Attributes:
        name: for people.
        tested: its number for each network that is predicted.
        anchors: likewise for each network that is fitted to.
        seconds: what it took to time or count.
        is_latency: whether the number is a latency as it stands; else a constant is fitted.
    """

    name: str
    tested: Floats
    anchors: Floats
    seconds: float
    is_latency: bool

    def predictors(self, anchors_s: Floats, measured_s: Floats) -> list[dict[str, Any]]:
        """Return the errors as it stands, and with an affine fit.

        Args:
            anchors_s: measured latencies of the networks that are fitted to.
            measured_s: of the networks that are predicted.
        """
        plain = np.array([0.0, 1.0]) if self.is_latency else fit_constant(self.anchors, anchors_s)
        name = f"{self.name}, summed" if self.is_latency else f"{self.name} × constant"
        fits = [(name, plain, not self.is_latency)]
        fits.append((f"{self.name}, a + b·x", fit_affine(self.anchors, anchors_s), True))
        found = []
        for label, (a, b), fitted in fits:
            predicted_s = a + b * self.tested
            error = predicted_s / measured_s - 1
            found.append(
                {
                    "name": label,
                    "fitted": fitted,
                    "bias": float(np.median(error)),
                    "median": float(np.median(np.abs(error))),
                    "p95": float(np.quantile(np.abs(error), 0.95)),
                    "seconds": self.seconds,
                    "predicted_s": predicted_s.tolist(),
                }
            )
        return found


def time_by_onnxruntime(
    store: Store, keys: Sequence[str], *, threads: int, batch_seed: int = 0
) -> dict[str, float]:
    """Return the mean latency of each operator, as a short script would time it."""
    import onnxruntime

    from lanaprof.profiler.rebuild import model_from_graph

    onnxruntime.set_default_logger_severity(4)
    found = {}
    for key in keys:
        graph = store.get_operator(key).graph
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        model = model_from_graph(graph, seed=batch_seed).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        rng = np.random.default_rng(batch_seed)
        feed = {
            f"x{index}": rng.standard_normal(described["shape"], dtype=np.float32)
            for index, described in enumerate(graph["inputs"])
        }
        for _ in range(WARM_UPS):
            session.run(None, feed)
        began_s = time.perf_counter()
        for _ in range(RUNS):
            session.run(None, feed)
        found[key] = (time.perf_counter() - began_s) / RUNS
    return found


def time_by_torch(
    project: Project, operators: OperatorMap, *, threads: int
) -> tuple[dict[str, float], float]:
    """Return the median latency of each operator's module, and of the teacher as a whole."""
    import torch
    from torch.utils.benchmark import Timer

    from lanaprof.teachers import build_candidate

    torch.set_num_threads(threads)
    teacher = project.load_teacher()

    def timed(module: torch.nn.Module, shape: tuple[int, ...]) -> float:
        x = torch.randn(1, *shape)
        timer = Timer("module(x)", globals={"module": module.eval(), "x": x}, num_threads=threads)
        return float(timer.blocked_autorange(min_run_time=_TORCH_LEAST_S).median)

    found: dict[str, float] = {}
    with torch.inference_mode():
        whole_s = timed(teacher.module, project.space.input_shape)
        for (name, operation), key in operators.candidates.items():
            if key and key not in found:
                layer = project.space.get_layer(name)
                covered = project.space.covered(name)
                module = build_candidate(teacher, layer, operation, covered=covered, seed=project.config.seed)
                found[key] = timed(module, layer.input_shape)
    return found, whole_s


def sums_over(
    project: Project,
    operators: OperatorMap,
    latency_s: Mapping[str, float],
    fixed_s: float,
    networks: Sequence[Choices],
) -> Floats:
    """Return, per network, the fixed part and its operators' latencies added up."""

    def of(layer: str, operation: str) -> float:
        key = operators.operator(layer, operation)
        return latency_s[key] if key and operation != SKIP else 0.0

    named = map(project.space.named, networks)  # a span has an operator of its own, what it covers has none
    return np.array([fixed_s + sum(of(*choice) for choice in choices) for choices in named])


def timed_seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what some work gives, and the seconds it took."""
    began_s = time.monotonic()
    result = work()
    return result, time.monotonic() - began_s


def measured_networks(project: Project, store: Store, networks: Sequence[Choices]) -> tuple[Floats, Floats]:
    """Return the newest latency of each network in this environment, and its multiply-accumulates."""
    device = project.device(None)
    keys = find_networks(project, device, store, networks)
    environment = local_environment(device).id
    rows = store.measurements(environment=environment, operators=list(keys.values()), cache="hot")
    newest = {row.operator: row.latency_s for row in sorted(rows, key=lambda row: row.time)}
    sizes = store.operator_statistics(list(keys.values()))
    latencies = np.array([newest[keys[choices]] for choices in networks], dtype=np.float64)
    return latencies, np.array([sizes[keys[choices]].macs for choices in networks], dtype=np.float64)


def compare(project: Project, rows: Sequence[Mapping[str, Any]], anchors: int) -> dict[str, Any]:
    """Return the rivals' errors; times their operators on the cores that lanaprof measures on."""
    device = project.device(None)
    tested = [Architecture("", tuple(row["choices"].items())).complete(project.space) for row in rows]
    measured_s = np.array([row["measured_s"] for row in rows])
    cores = choose_cores(device)
    os.sched_setaffinity(0, cores)
    with open_store(project.database(None)) as store:
        operators = find_operators(project, device, store)
        team = project.config.team or "local"
        beside = calibration_networks(
            open_predictor(project, device, store, team=team), anchors, project.config.seed
        )
        anchors_s, anchors_macs = measured_networks(project, store, beside)
        (_, macs), macs_s = timed_seconds(lambda: measured_networks(project, store, tested))
        segments = operators.circuit.segments if operators.circuit else ()
        with hold_cores(
            cores, default_lock_folder(), lambda who: print(f"waiting: {who} is measuring", file=sys.stderr)
        ):
            by_runtime, runtime_s = timed_seconds(
                lambda: time_by_onnxruntime(store, [*operators.keys, *segments], threads=device.threads)
            )
            (by_torch, whole_s), torch_s = timed_seconds(
                lambda: time_by_torch(project, operators, threads=device.threads)
            )
    teacher = (TEACHER,) * len(project.space.layers)
    rest_s = whole_s - float(sums_over(project, operators, by_torch, 0.0, [teacher])[0])
    ends_s = sum(by_runtime[key] for key in segments)
    rivals = [
        Rival(
            "torch.utils.benchmark",
            sums_over(project, operators, by_torch, rest_s, tested),
            sums_over(project, operators, by_torch, rest_s, beside),
            torch_s,
            is_latency=True,
        ),
        Rival(
            BY_RUNTIME,
            sums_over(project, operators, by_runtime, ends_s, tested),
            sums_over(project, operators, by_runtime, ends_s, beside),
            runtime_s,
            is_latency=True,
        ),
        Rival("MACs", macs, anchors_macs, macs_s, is_latency=False),
    ]
    return {
        "operators": len(operators.keys),
        "anchors": len(beside),
        "predictors": [found for rival in rivals for found in rival.predictors(anchors_s, measured_s)],
    }


def main() -> None:
    """Print the rivals' errors as JSON: ``rivals.py PROJECT NETWORKS.json``."""
    folder, networks = map(Path, sys.argv[1:3])
    asked = json.loads(networks.read_text(encoding="utf-8"))
    print(json.dumps(compare(load_project(folder), asked["rows"], asked["anchors"])))


if __name__ == "__main__":
    main()
