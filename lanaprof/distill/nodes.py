"""The machines of a cluster: what one is asked before it gets work, where on it work can run, how far it is.

Imports no torch: these functions answer at once, in processes of their own.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lanaprof import __version__
from lanaprof.errors import BadInput, UserError

__all__ = [
    "Board",
    "Slot",
    "Word",
    "answer_probe",
    "check_reachable",
    "find_trouble",
    "last_line",
    "slots_of",
]

Word = tuple[int, int, float | None]  # done, of so many, seconds left

REACH_S = 5.0  # for a first connection to an address


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where one part runs at a time: a GPU with its share of the node's cores, or a whole node without one.

    Attributes:
        node: Ray's id of the node.
        host: the node for people.
        threads: cores to compute on.
        gpus: 0 or 1.
        per_node: how many slots share the node and its memory.
    """

    node: str
    host: str
    threads: int
    gpus: int = 0
    per_node: int = 1


class Board:
    """Where parts write how far they are: an actor on the machine that spreads them."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Word, Word]] = {}

    def tell(self, key: str, word: Word) -> None:
        """Note what an attempt at a part says."""
        self._heard[key] = self._heard.get(key, (word, word))[0], word

    def read(self) -> dict[str, tuple[Word, Word]]:
        """Return the first and the last word of every attempt."""
        return self._heard


def answer_probe(path: str) -> dict[str, str]:
    """Tell, on a node, what it runs and whether it reads and writes the folder."""
    probe = Path(path)
    found = {
        "lanaprof": __version__,
        "torch": version("torch"),
        "read": "",
        "written": "",
    }
    try:
        found["read"] = probe.read_text(encoding="utf-8")
        own = probe.with_name(f"{probe.name}-{secrets.token_hex(4)}")
        own.write_text(found["read"], encoding="utf-8")
        own.unlink()
        found["written"] = found["read"]
    except OSError as error:
        found["error"] = error.strerror or str(error)
    return found


def find_trouble(host: str, seen: Mapping[str, str], probe: Path) -> UserError | None:
    """Return why a node cannot be used, from its answer."""
    if seen["lanaprof"] != __version__:
        return UserError(
            f"the node {host} runs lanaprof {seen['lanaprof']}, this machine {__version__}",
            hint="install the same version on all nodes",
        )
    if not probe.name.endswith(seen["read"] or "nothing"):
        return UserError(
            f"the node {host} does not see {probe.parent}: {seen.get('error', 'another folder lies there')}",
            hint="keep the project on storage that all nodes share, mounted under the same path",
        )
    if not seen["written"]:
        return UserError(
            f"the node {host} cannot write to {probe.parent}: {seen['error']}",
            hint="start Ray there as a user who may",
        )
    return None


def slots_of(node: str, host: str, resources: Mapping[str, float]) -> tuple[Slot, ...]:
    """Return a node's slots: one per GPU, at least one.

    >>> [slot.threads for slot in slots_of("4d3c", "trainer", {"CPU": 16.0, "GPU": 2.0})]
    [8, 8]
    """
    cores, gpus = int(resources["CPU"]), int(resources.get("GPU", 0))
    count = max(1, min(gpus, cores))
    return tuple(
        Slot(
            node=node,
            host=host if count == 1 else f"{host} GPU {place}",
            threads=cores // count,
            gpus=min(1, gpus),
            per_node=count,
        )
        for place in range(count)
    )


def last_line(error: BaseException) -> str:
    """Return what an error says at its end: Ray puts the node's traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def check_reachable(address: str) -> None:
    """Check that somebody listens at an address; Ray itself would try for two minutes, then end the process."""
    host, colon, port = address.rpartition(":")
    if address.startswith("ray://") or not (host and colon and port.isdecimal()):
        raise BadInput(
            f"{address!r} is not the address of a Ray cluster",
            hint="HOST:PORT as `ray start --head` prints it, such as 10.0.0.1:6379; or auto, or local",
        )
    try:
        socket.create_connection((host, int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"nobody answers at {address}: {getattr(error, 'strerror', None) or error}",
            hint=f"start the cluster on {host}: ray start --head --port {port}; "
            f"then on each other machine: ray start --address {address}",
        ) from error
