"""A rig in a child process: a crash or hang of the runtime costs one operator, not the campaign."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lanaprof.errors import BackendError, BackendUnavailable, OperatorTimeout, UnsupportedOperator
from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.clock import RawSample
from lanaprof.profiler.corelock import default_lock_folder
from lanaprof.profiler.gpu.failures import OutOfDeviceMemory
from lanaprof.profiler.gpu.fixing import free_forgotten_clock
from lanaprof.profiler.rig import TimedRun, WorkerDied, add_note
from lanaprof.profiler.sampling import PlannedVisit

__all__ = ["RemoteRig", "WorkerSettings"]

_START_TIMEOUT_S = 120.0  # importing the runtime on a busy machine
_BUILD_TIMEOUT_S = 120.0  # building and first running one operator
_END_TIMEOUT_S = 5.0  # giving back what it fixed
_ROUND_TIMEOUT_S = 600.0  # one whole round of a batch
# What the worker calls them; all others are plain.
_ERRORS = {"unsupported": UnsupportedOperator, "memory": OutOfDeviceMemory}


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is started.

    Attributes:
        backend: the runtime's name.
        threads: of one run.
        cores: it is pinned to them.
        gpu: the UUID of the GPU it measures; empty on a CPU.
        options: name and text of what devices.yaml chose of the runtime's options.
        locks: folder of the locks of cores and GPUs; None where whoever starts it holds them.
        build_timeout_s: for one operator.
        sm_clock_mhz: the GPU's clock is fixed at this while the worker lives; 0 leaves it alone.
    """

    backend: str
    threads: int
    cores: tuple[int, ...]
    gpu: str = ""
    options: tuple[tuple[str, str], ...] = ()
    locks: Path | None = field(default_factory=default_lock_folder)
    build_timeout_s: float = _BUILD_TIMEOUT_S
    sm_clock_mhz: int = 0


class RemoteRig:
    """Runs operators in a child process.

    Args:
        settings: what the worker runs on.
        circuit: the wiring under relay.
        waiting: called with a text when the cores are held by another measuring process.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        circuit: Circuit | None = None,
        waiting: Callable[[str], None] = lambda _holder: None,
    ) -> None:
        self._settings, self._waiting = settings, waiting
        environment = {**os.environ, "OMP_NUM_THREADS": str(settings.threads), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lanaprof.profiler.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert self._process.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._pending = b""
        try:
            reply = self._ask(
                {
                    "do": "start",
                    "backend": settings.backend,
                    "threads": settings.threads,
                    "cores": list(settings.cores),
                    "gpu": settings.gpu,
                    "options": list(settings.options),
                    "sm_clock_mhz": settings.sm_clock_mhz,
                    "locks": str(settings.locks) if settings.locks is not None else None,
                    "circuit": circuit.to_json() if circuit is not None else None,
                },
                _START_TIMEOUT_S,
            )
        except BaseException:
            self.close()
            raise
        self._notes: dict[str, list[str]] = {}
        self._conditions = {"priority": str(reply["priority"])}
        self._device_bytes: int | None = reply["device_bytes"]

    @property
    def conditions(self) -> Mapping[str, str]:
        """Return the worker's priority, and what its clock said after the latest round."""
        return self._conditions

    @property
    def notes(self) -> Mapping[str, Sequence[str]]:
        """Return what the worker's runtime says of the builds so far."""
        return self._notes

    @property
    def device_bytes(self) -> int | None:
        """Return what the worker's backend said when it started."""
        return self._device_bytes

    def build(self, operator: str, graph: Mapping[str, Any], *, seed: int, inside: bool = False) -> None:
        """Compile an operator in the worker."""
        request = {"do": "build", "operator": operator, "graph": graph, "seed": seed, "inside": inside}
        for note in self._ask(request, self._settings.build_timeout_s).get("notes", ()):
            add_note(self._notes, operator, note)

    def run(self, visits: Sequence[PlannedVisit]) -> list[TimedRun]:
        """Run the visits in the worker."""
        rows = [
            [[(run.operator, run.step, run.end) for run in v.runs], v.warmups, v.recorded] for v in visits
        ]
        try:
            reply = self._ask({"do": "run", "visits": rows}, _ROUND_TIMEOUT_S)
        except OperatorTimeout as error:
            raise WorkerDied("the worker did not finish a round in time") from error
        self._conditions.update(reply["conditions"])
        return [TimedRun(key, RawSample(*numbers)) for key, *numbers in reply["runs"]]

    def forget(self) -> None:
        """Drop every operator in the worker."""
        self._ask({"do": "forget"}, _BUILD_TIMEOUT_S)

    def kill(self) -> None:
        """End the worker's process at once; may be called from another thread."""
        self._process.kill()

    def close(self) -> None:
        """End the worker."""
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._settings.sm_clock_mhz:  # it gives the clock back itself, where it still can
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_TIMEOUT_S)
        self._process.kill()
        self._process.wait()
        if self._settings.sm_clock_mhz and self._settings.locks is not None:
            free_forgotten_clock(self._settings.gpu, self._settings.locks)

    def _ask(self, request: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise WorkerDied("the measuring process is gone") from error
        while True:
            reply: dict[str, Any] = json.loads(self._line(timeout_s))
            if "waiting" in reply:
                self._waiting(reply["waiting"])
                timeout_s = float("inf")
                continue
            if reply.get("error") == "lost":
                self._process.kill()
                raise WorkerDied(reply["message"])
            if reply.get("error") == "unavailable":
                raise BackendUnavailable(reply["message"], hint=reply["hint"])
            if "error" in reply:
                raise _ERRORS.get(reply["error"], BackendError)(reply["message"])
            return reply

    def _line(self, timeout_s: float) -> bytes:
        """Return the next line of the worker's output."""
        assert self._process.stdout is not None
        while b"\n" not in self._pending:
            wait = None if timeout_s == float("inf") else timeout_s
            if not self._selector.select(wait):
                self._process.kill()
                raise OperatorTimeout(f"no answer within {timeout_s:g} s; the measuring process was ended")
            piece = os.read(self._process.stdout.fileno(), 1 << 20)
            if not piece:
                code = self._process.wait()
                raise WorkerDied(f"the measuring process ended with code {code}")
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line
