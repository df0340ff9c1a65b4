"""Builds operators on a backend and runs planned visits on them, in this process."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from lanaprof.errors import BackendError
from lanaprof.profiler.backends import Backend, Edges, Program
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import Clock, RawSample
from lanaprof.profiler.sampling import PlannedVisit, Run

__all__ = ["LocalRig", "Rig", "TimedRun", "WorkerDied", "add_note"]

_FIRST_RUNS = 2  # the runtime plans its memory on the first
_WAKE_S = 0.01  # unrecorded work at a round's begin: a core that paused runs slowly at first


class WorkerDied(BackendError):
    """The process that ran the operators is gone; all its sessions with it."""


@dataclass(frozen=True, slots=True)
class TimedRun:
    """One recorded run."""

    operator: str
    sample: RawSample


class Rig(Protocol):
    """Where operators run: in this process, or in a child that may die."""

    def build(self, operator: str, graph: Mapping[str, Any], *, seed: int, inside: bool = False) -> None:
        """Compile an operator, or compile it anew, and run it once or twice.

        Args:
            operator: its key.
            graph: its canonical graph.
            seed: of its weights.
            inside: whether it is to run in the circuit, as a layer or a segment.

        Raises:
            BackendError: the runtime refused it, took too long, or died of it (WorkerDied).
        """
        ...

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        """Return the recorded runs of the visits, in order.

        Raises:
            WorkerDied: the runtime crashed or hung.
        """
        ...

    def forget(self) -> None:
        """Drop every operator."""
        ...

    def kill(self) -> None:
        """Make whatever runs here end with WorkerDied, at once where it can; may be called from any thread."""
        ...

    def close(self) -> None:
        """Release everything; the rig is of no further use."""
        ...

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return how it is measured: the process's priority, and what its clock says of the samples so far."""
        ...

    @property
    def notes(self) -> Mapping[str, Sequence[str]]:
        """Return what the runtime says of each operator's builds, each text once, oldest first."""
        ...

    @property
    def device_bytes(self) -> int | None:
        """Return how much of the GPU's memory was free at the start; None on a CPU."""
        ...


def add_note(notes: dict[str, list[str]], operator: str, note: str) -> None:
    """Keep a note; nothing for an empty one, or one that is there."""
    if note and note not in notes.setdefault(operator, []):
        notes[operator].append(note)


class LocalRig:
    """Runs operators in this process."""

    def __init__(self, backend: Backend, clock: Clock, circuit: Circuit | None = None) -> None:
        self._backend, self._clock, self._circuit = backend, clock, circuit
        self._programs: dict[str, Program] = {}
        self._graphs: dict[str, Mapping[str, Any]] = {}
        self._edges: dict[str, Edges | None] = {}
        self._calls: dict[Run, Callable[[], object]] = {}
        self._buffers: dict[str, Any] = {}
        self._notes: dict[str, list[str]] = {}
        if circuit is not None:
            for index, (name, kind, shape) in enumerate(circuit.buffers):
                make = backend.edge_buffer if name in circuit.edges else backend.buffer
                self._buffers[name] = make(kind, shape, seed=index)

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return what the clock says; this process was not set up for measuring."""
        return self._clock.conditions

    @property
    def notes(self) -> Mapping[str, Sequence[str]]:
        """Return what the runtime says of the builds so far, those of dropped operators included."""
        return self._notes

    @property
    def device_bytes(self) -> int | None:
        """Return what the backend says."""
        return self._backend.free_bytes()

    def build(self, operator: str, graph: Mapping[str, Any], *, seed: int, inside: bool = False) -> None:
        """Compile an operator and run it on buffers of its own."""
        edges = self._edges_of(operator, graph) if inside else None
        if edges is None:
            program = self._backend.compile(graph, seed=seed)
        else:
            program = self._backend.compile_inside(graph, seed=seed, edges=edges)
        self._programs[operator], self._graphs[operator], self._edges[operator] = program, graph, edges
        self._calls = {run: call for run, call in self._calls.items() if run.operator != operator}
        add_note(self._notes, operator, program.note)
        try:
            call = self._bound(operator)
            for _ in range(_FIRST_RUNS):
                call()
        except Exception as error:
            del self._programs[operator]  # and what it keeps of the device's memory
            if isinstance(error, BackendError):
                raise
            raise BackendError(f"the operator does not run: {error}") from error

    def _edges_of(self, operator: str, graph: Mapping[str, Any]) -> Edges | None:
        """Return where an operator meets neighbours: a layer everywhere, a segment as it is wired."""
        circuit = self._circuit
        if circuit is None:
            return None
        for step in circuit.steps:
            if step.operator == operator:
                return Edges(
                    tuple(name in circuit.edges for name in step.inputs),
                    tuple(name in circuit.edges for name in step.outputs),
                )
        return Edges((True,) * len(graph["inputs"]), (True,) * len(graph["outputs"]))

    def _bound(self, operator: str) -> Callable[[], object]:
        """Return a call of an operator on buffers of its own."""
        graph, edges = self._graphs[operator], self._edges[operator]
        inputs = [
            self._own_buffer(described, index, is_edge=edges is not None and edges.inputs[index])
            for index, described in enumerate(graph["inputs"])
        ]
        outputs = []
        for index, reference in enumerate(graph["outputs"]):
            node, slot = reference[1:].split(".")
            described = graph["nodes"][int(node)]["outputs"][int(slot)]
            outputs.append(self._own_buffer(described, 0, is_edge=edges is not None and edges.outputs[index]))
        return self._programs[operator].bind(inputs, outputs)

    def _own_buffer(self, described: Mapping[str, Any], seed: int, *, is_edge: bool) -> Any:
        make = self._backend.edge_buffer if is_edge else self._backend.buffer
        return make(described["type"], described["shape"], seed=seed)

    def _call(self, run: Run) -> Callable[[], object]:
        call = self._calls.get(run)
        if call is None:
            if run.step < 0:
                call = self._bound(run.operator)
            else:
                assert self._circuit is not None
                steps = self._circuit.steps
                last = steps[run.end if run.end >= 0 else run.step]
                inputs = [self._buffers[name] for name in steps[run.step].inputs]
                outputs = [self._buffers[name] for name in last.outputs]
                call = self._programs[run.operator].bind(inputs, outputs)
            self._calls[run] = call
        return call

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        """Run the visits with the garbage collector off."""
        rows = [[(run.operator, self._call(run)) for run in visit.runs] for visit in visits]
        sample = self._clock.sample
        timed: list[TimedRun] = []
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._wake([call for _, call in rows[0]] if rows else [])
            for visit, row in zip(visits, rows, strict=True):
                for _ in range(visit.warmups):
                    for _, call in row:
                        call()
                for _ in range(visit.recorded):
                    timed.extend([TimedRun(operator, sample(call)) for operator, call in row])
        finally:
            if collecting:
                gc.enable()
        return timed

    def _wake(self, calls: Sequence[Callable[[], object]]) -> None:
        end_s = self._clock.now_s() + _WAKE_S
        while calls and self._clock.now_s() < end_s:
            for call in calls:
                call()

    def forget(self) -> None:
        """Drop every operator."""
        self._programs.clear()
        self._graphs.clear()
        self._edges.clear()
        self._calls.clear()

    def kill(self) -> None:
        """Do nothing: what runs in this process ends by itself."""

    def close(self) -> None:
        """Drop every operator and buffer."""
        self.forget()
        self._buffers.clear()
