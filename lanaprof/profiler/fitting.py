"""How many operators may be loaded at once, by estimate: what really fits shows when they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lanaprof.lut.graph import graph_statistics
from lanaprof.profiler.batch import Target
from lanaprof.profiler.environment import find_free_bytes

__all__ = ["BATCH_OPERATORS", "Room", "fitting"]

BATCH_OPERATORS = 768  # sessions alive at once
_WEIGHTS_SHARE = 0.2  # of the free memory for the weights of a batch; the runtime keeps about twice as much
_WEIGHTS_BYTES = 512 << 20  # for those of operators at most: more at once gains no time
_DEVICE_SHARE = 0.8  # of a GPU's free memory; what it is short of is found out when operators are built
_ENGINE_BYTES = 1 << 20  # of a GPU beside an operator's weights and buffers; a guess, as nothing was measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a batch has room for.

    Attributes:
        operators: at most so many.
        weight_bytes: of all weights together, in the host's memory.
        device_bytes: free on the GPU; None without one.
    """

    operators: int = BATCH_OPERATORS
    weight_bytes: float = float("inf")
    device_bytes: int | None = None

    @classmethod
    def here(cls, operators: int, *, share: float, networks: bool, device_bytes: int | None) -> Room:
        """Return the room of this machine.

        Args:
            operators: at most so many.
            share: of the free memory, that the campaign may take.
            networks: whether whole networks are to be loaded, which all have to be timed together.
            device_bytes: free on the GPU; None without one.
        """
        weight_bytes = _WEIGHTS_SHARE * share * find_free_bytes()
        if not networks:
            weight_bytes = min(weight_bytes, _WEIGHTS_BYTES)
        return cls(operators=operators, weight_bytes=weight_bytes, device_bytes=device_bytes)


def fitting(
    targets: Sequence[Target], graph_of: Callable[[str], Mapping[str, Any]], room: Room
) -> list[Target]:
    """Return as many of the targets, in order, as may be loaded at once; at least one.

    On a GPU an operator keeps its weights and the buffers it is timed on; the memory it works in is shared.
    """
    chosen: list[Target] = []
    weight_bytes = loaded_bytes = peak_bytes = 0
    device_bytes = float("inf") if room.device_bytes is None else _DEVICE_SHARE * room.device_bytes
    for target in targets[: room.operators]:
        found = graph_statistics(graph_of(target.operator))
        weight_bytes += found.weight_bytes
        loaded_bytes += found.weight_bytes + found.input_bytes + found.output_bytes + _ENGINE_BYTES
        peak_bytes = max(peak_bytes, found.peak_bytes)
        if chosen and (weight_bytes > room.weight_bytes or loaded_bytes + peak_bytes > device_bytes):
            break
        chosen.append(target)
    return chosen
