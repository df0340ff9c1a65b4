"""Hardware without hardware: a backend whose latencies follow from the graph, and a clock that tests move.

Public, for tests of whoever builds on the profiler. With a FakeClock every number is exact; without one the backend
spends real time, so that it also serves in worker processes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lanaprof.errors import BackendError, UnsupportedOperator
from lanaprof.profiler.backends.base import Array, Backend, Program, Settings, random_array
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.gpu.failures import DeviceLost, OutOfDeviceMemory

__all__ = ["FakeClock", "ScriptedBackend", "scripted_latency_s"]

_PER_NODE_S = 1e-6
_PER_ELEMENT_S = 1e-9


def scripted_latency_s(graph: Mapping[str, Any]) -> float:
    """Return the latency the scripted backend gives a graph: 1 µs a node and 1 ns an output element.

    >>> scripted_latency_s({"nodes": [{"op": "Relu", "outputs": [{"type": "float32", "shape": [1, 1000]}]}]})
    2e-06
    """
    elements = 0
    for node in graph["nodes"]:
        for output in node["outputs"]:
            size = 1
            for dimension in output["shape"]:
                size *= dimension
            elements += size
    return round(_PER_NODE_S * len(graph["nodes"]) + _PER_ELEMENT_S * elements, 12)


class FakeClock:
    """A clock that stands still until something advances it.

    Attributes:
        disturb: called with the sample's number, returns what is added to its wall time in seconds, and how many
            context switches happened meanwhile.
    """

    def __init__(self, disturb: Callable[[int], tuple[float, int]] = lambda _number: (0.0, 0)) -> None:
        self._now_ns = 0
        self._samples = 0
        self.disturb = disturb

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now_ns += round(seconds * 1e9)

    def sample(self, run: Callable[[], object]) -> RawSample:
        """Return what the run advanced the clock by, and the disturbance."""
        start_ns = self._now_ns
        run()
        cpu_ns = self._now_ns - start_ns
        extra_s, switches = self.disturb(self._samples)
        self._samples += 1
        self.advance(extra_s)
        return RawSample(start_ns, self._now_ns - start_ns, cpu_ns, switches)

    def now_s(self) -> float:
        """Return the time."""
        return self._now_ns / 1e9

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.advance(seconds)

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return nothing."""
        return {}


class ScriptedBackend(Backend):
    """Runs nothing: a run takes what :func:`scripted_latency_s` says.

    Graphs with a node ``Unsupported`` are refused, and those in which a node reads what no earlier one writes;
    ``Crash`` ends the process, ``Hang`` never returns, ``Lost`` breaks the device for everything after it, which has
    no room for ``Large``; builds of ``Noted`` have a note that names their seed.

    Args:
        settings: as for every backend.
        clock: advanced by each run; without one, real time is spent.
    """

    name = "scripted"

    def __init__(self, settings: Settings, clock: FakeClock | None = None) -> None:
        super().__init__(settings)
        self.fake_clock = clock
        self.runs: list[str] = []
        self._lost = False

    @classmethod
    def version(cls) -> str:
        """Return the version of the script."""
        return "1"

    @classmethod
    def options(cls, threads: int) -> tuple[tuple[str, str], ...]:
        """Return no options."""
        del threads
        return ()

    def buffer(self, kind: str, shape: Sequence[int], *, seed: int) -> Any:
        """Return an array."""
        return random_array(kind, shape, seed=seed)

    def read(self, buffer: Any) -> Array:
        """Return a copy of the array."""
        values: Array = buffer.copy()
        return values

    def write(self, buffer: Any, values: Array) -> None:
        """Put values into the array."""
        buffer[...] = values

    def compile(self, graph: Mapping[str, Any], *, seed: int) -> Program:
        """Return a program that advances the clock."""
        ops = {node["op"] for node in graph["nodes"]}
        if "Unsupported" in ops:
            raise UnsupportedOperator("the script has no kernel for Unsupported")
        _check_references(graph)
        if "Crash" in ops:
            os._exit(70)
        if "Hang" in ops:
            time.sleep(3600)
        if "Large" in ops:
            raise OutOfDeviceMemory("the script's device has no room for Large")
        self._lost = self._lost or "Lost" in ops
        if self._lost:
            raise DeviceLost("the script lost its device")
        return _Script(self, scripted_latency_s(graph), f"seed {seed}" if "Noted" in ops else "")


def _check_references(graph: Mapping[str, Any]) -> None:
    known = {f"i{index}" for index in range(len(graph["inputs"]))}
    known.update(f"c{index}" for index in range(len(graph["constants"])))
    for index, node in enumerate(graph["nodes"]):
        for name in node["inputs"]:
            if name and name not in known:
                raise BackendError(
                    f"node {index} ({node['op']}) reads {name!r}, which nothing before it writes"
                )
        known.update(f"n{index}.{slot}" for slot in range(len(node["outputs"])))


class _Script(Program):
    def __init__(self, backend: ScriptedBackend, latency_s: float, note: str) -> None:
        self._backend, self._latency_s, self._note = backend, latency_s, note

    @property
    def note(self) -> str:
        return self._note

    def bind(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> Callable[[], object]:
        del inputs, outputs
        return self._run

    def _run(self) -> None:
        if self._backend.fake_clock is not None:
            self._backend.fake_clock.advance(self._latency_s)
            return
        end_s = time.perf_counter() + self._latency_s
        while time.perf_counter() < end_s:
            pass
