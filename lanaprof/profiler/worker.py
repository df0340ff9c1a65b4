"""The process that measures: pinned, alone on its cores, dead when its parent is.

Speaks JSON lines: one request in, one reply out. Started as ``python -m lanaprof.profiler.worker``.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from lanaprof.errors import LanaprofError, UnsupportedOperator, UserError
from lanaprof.profiler.backends import Settings, backend_class
from lanaprof.profiler.circuit import circuit_from_json
from lanaprof.profiler.corelock import hold_cores
from lanaprof.profiler.gpu.failures import DeviceLost, OutOfDeviceMemory
from lanaprof.profiler.gpu.fixing import fixed_clock
from lanaprof.profiler.gpu.locks import hold_gpu
from lanaprof.profiler.rig import LocalRig
from lanaprof.profiler.sampling import PlannedVisit, Run

__all__ = ["main"]

_HIGHEST_PRIORITY = -20
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def main() -> None:
    """Serve requests until the parent closes the pipe."""
    parent = os.getppid()
    _die_with_parent()
    if os.getppid() != parent:
        return  # it died before we could ask to follow
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a runtime prints must not look like a reply
    with contextlib.ExitStack() as held:
        rig: LocalRig | None = None
        for line in sys.stdin:
            request = json.loads(line)
            try:
                if request["do"] == "start":
                    rig, reply = _start(request, held, replies)
                elif rig is None:
                    raise LanaprofError("the worker was not started")
                else:
                    reply = _serve(rig, request)
            except DeviceLost as error:  # every later operator would fail in this process
                reply = {"error": "lost", "message": error.message}
            except UserError as error:  # a runtime that lacks something, or options it does not have
                reply = {"error": "unavailable", "message": error.message, "hint": error.hint}
            except OutOfDeviceMemory as error:
                reply = {"error": "memory", "message": error.message}
            except UnsupportedOperator as error:
                reply = {"error": "unsupported", "message": error.message}
            except LanaprofError as error:
                reply = {"error": "failed", "message": error.message}
            except (
                Exception
            ) as error:  # whatever a runtime raises is the operator's failure, told to the parent
                reply = {"error": "failed", "message": f"{type(error).__name__}: {error}"}
            replies.write(json.dumps(reply) + "\n")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _start(
    request: dict[str, Any], held: contextlib.ExitStack, replies: IO[str]
) -> tuple[LocalRig, dict[str, Any]]:
    cores = tuple(request["cores"])

    def waiting(holder: str) -> None:
        replies.write(json.dumps({"waiting": holder}) + "\n")

    if request["locks"] is not None:
        held.enter_context(hold_cores(cores, Path(request["locks"]), waiting))
        if request["gpu"]:
            held.enter_context(hold_gpu(request["gpu"], waiting, Path(request["locks"])))
            fixed = fixed_clock(request["gpu"], request["sm_clock_mhz"], Path(request["locks"]))
            held.enter_context(fixed)
    if cores:
        os.sched_setaffinity(0, cores)
    settings = Settings(
        threads=request["threads"],
        cores=cores,
        gpu=request["gpu"],
        sm_clock_mhz=request["sm_clock_mhz"],
        options=tuple((name, text) for name, text in request["options"]),
    )
    backend = backend_class(request["backend"])(settings)
    circuit = circuit_from_json(request["circuit"]) if request["circuit"] else None
    rig = LocalRig(backend, backend.clock(), circuit)
    priority = _raise_priority()
    gc.collect()
    gc.freeze()
    return rig, {"priority": priority, "pid": os.getpid(), "device_bytes": rig.device_bytes}


def _raise_priority() -> str:
    with contextlib.suppress(OSError):  # without the permission we measure at the priority we have
        os.setpriority(os.PRIO_PROCESS, 0, _HIGHEST_PRIORITY)
    return f"nice {os.getpriority(os.PRIO_PROCESS, 0)}"


def _serve(rig: LocalRig, request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "build":
        rig.build(request["operator"], request["graph"], seed=request["seed"], inside=request["inside"])
        return {"built": request["operator"], "notes": rig.notes.get(request["operator"], [])}
    if request["do"] == "forget":
        rig.forget()
        gc.collect()
        return {}
    if request["do"] == "run":
        visits = [
            PlannedVisit(tuple(Run(*run) for run in runs), warmups, recorded)
            for runs, warmups, recorded in request["visits"]
        ]
        return {"runs": list(_rows(rig, visits)), "conditions": dict(rig.conditions)}
    raise LanaprofError(f"the worker knows no request {request['do']!r}")


def _rows(rig: LocalRig, visits: list[PlannedVisit]) -> Iterator[list[Any]]:
    for timed in rig.run(visits):
        sample = timed.sample
        yield [timed.operator, sample.start_ns, sample.wall_ns, sample.cpu_ns, sample.switches]


if __name__ == "__main__":
    main()
