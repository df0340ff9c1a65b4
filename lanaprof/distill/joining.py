"""Becoming part of a Ray cluster, or starting one on this machine."""

from __future__ import annotations

import os
from typing import Any

from lanaprof.distill.nodes import check_reachable, last_line
from lanaprof.errors import BackendUnavailable, UserError

__all__ = ["QUIET", "connect", "head_of", "import_ray"]

QUIET = {  # environment variables that Ray reads when it is imported
    "RAY_USAGE_STATS_ENABLED": "0",  # no reports to anyone, no prompt about them
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else every task without a GPU warns of a change to come
}


def import_ray() -> Any:
    """Return Ray's module, told to be quiet.

    Raises:
        BackendUnavailable: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            "distilling over several machines needs Ray, which is not installed",
            hint="pip install 'lanaprof[ray]', here and on every node",
        ) from error
    return ray


def connect(ray: Any, address: str) -> None:
    """Connect this process.

    Raises:
        UserError: nobody answers, other versions of Ray or Python, or this machine does not belong to it.
    """
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ray.init(address="local", num_cpus=cores, include_dashboard=False, **settings)
        return
    target = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if target != "auto":
        check_reachable(target)
    try:
        ray.init(address=target, **settings)
    except ConnectionError as error:
        raise UserError(
            f"there is no Ray cluster for {address!r}: {last_line(error)}",
            hint="start one on this machine: ray start --head; then join it from others with the command it prints",
        ) from error
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        hint = f"make this machine a node of it: ray start --address {target}"
        if "ersion mismatch" in text:
            hint = "install the versions of the cluster here, or ours there"
        raise UserError(f"cannot work with the Ray cluster at {target}: {text}", hint=hint) from error


def head_of(ray: Any, address: str) -> str:
    """Return where the head of the cluster listens, ``HOST:PORT``."""
    return address if ":" in address else str(ray.get_runtime_context().gcs_address)
