"""Which cores several measuring processes may take at once: disjoint sets that share as little as the machine allows.

The kernel's own texts say which cores are hardware threads of one physical core, which share a cache and which belong
to one memory node. Where they say nothing, every core counts as one of its own, on one node.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lanaprof.config.devices import Device
from lanaprof.errors import DeviceUnavailable
from lanaprof.profiler.conditions import cores_from_list, take_snapshot
from lanaprof.profiler.environment import available_cores

__all__ = ["Core", "choose_core_sets", "deal_core_sets", "find_cores"]

_NO_CACHE = -1


@dataclass(frozen=True, slots=True)
class Core:
    """A core as the kernel numbers them, which may be one of several hardware threads.

    Attributes:
        number: the kernel's.
        siblings: all hardware threads of its physical core, itself included.
        node: the memory node it belongs to.
        cache: the lowest core that shares its last cache; -1 where the system does not say.
    """

    number: int
    siblings: tuple[int, ...]
    node: int = 0
    cache: int = _NO_CACHE


def find_cores(numbers: Iterable[int], root: Path = Path("/")) -> tuple[Core, ...]:
    """Return these cores with what they share.

    Args:
        numbers: of the cores.
        root: where sys lies; another machine's copy in tests.
    """
    system = root / "sys/devices/system"
    nodes = {
        core: int(path.parent.name.removeprefix("node"))
        for path in sorted(system.glob("node/node[0-9]*/cpulist"))
        for core in cores_from_list(_text(path))
    }
    found = []
    for number in numbers:
        folder = system / f"cpu/cpu{number}"
        siblings = cores_from_list(_text(folder / "topology/thread_siblings_list"))
        cache = cores_from_list(_text(folder / "cache/index3/shared_cpu_list"))
        found.append(Core(number, siblings or (number,), nodes.get(number, 0), min(cache, default=_NO_CACHE)))
    return tuple(found)


def _text(path: Path) -> str:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return ""


def deal_core_sets(cores: Iterable[Core], *, threads: int) -> tuple[tuple[int, ...], ...]:
    """Return disjoint sets of ``threads`` cores, so ordered that the first few share least.

    Of each physical core one hardware thread is taken. A set lies on one memory node, and behind one cache where enough
    of its cores do. Neighbours in the order are on different nodes, or behind different caches, as far as there are
    any; the last cores come first, for the first serve interrupts.

    >>> deal_core_sets([Core(0, (0, 2)), Core(1, (1, 3)), Core(2, (0, 2)), Core(3, (1, 3))], threads=1)
    ((3,), (2,))
    """
    physical: dict[int, Core] = {}
    for core in sorted(cores, key=lambda each: each.number):
        physical[min(core.siblings)] = core
    nodes: dict[int, dict[int, list[int]]] = {}
    for core in physical.values():
        nodes.setdefault(core.node, {}).setdefault(core.cache, []).append(core.number)
    of_nodes = []
    for caches in nodes.values():
        rows = [_cut(numbers, threads) for numbers in caches.values()]
        taken = {core for row in rows for each in row for core in each}
        left = [number for numbers in caches.values() for number in numbers if number not in taken]
        of_nodes.append(_in_turn(rows) + _cut(left, threads))
    return tuple(_in_turn(of_nodes))


def _cut(numbers: Iterable[int], size: int) -> list[tuple[int, ...]]:
    """Return whole pieces of the ordered numbers, the highest first."""
    ordered = sorted(numbers)
    return [tuple(ordered[end - size : end]) for end in range(len(ordered), size - 1, -size)]


def _in_turn(rows: Sequence[Sequence[tuple[int, ...]]]) -> list[tuple[int, ...]]:
    """Return the first of every row, then the second of every row, and so on; the row with the highest first."""
    ordered = sorted((row for row in rows if row), key=max, reverse=True)
    longest = max((len(row) for row in ordered), default=0)
    return [row[place] for place in range(longest) for row in ordered if place < len(row)]


def choose_core_sets(
    device: Device, wanted: int | None, *, root: Path = Path("/")
) -> tuple[tuple[int, ...], ...]:
    """Return the core sets for this many measuring processes of the device at once.

    Args:
        device: with its threads; the cores it names are the only ones used.
        wanted: how many sets; None for all there are.
        root: where sys lies.

    Raises:
        DeviceUnavailable: there are fewer; says how many.
    """
    have = available_cores()
    numbers = [core for core in device.cores if core in have] if device.cores else list(have)
    sets = deal_core_sets(find_cores(numbers, root), threads=device.threads)
    control = take_snapshot((), root=root).control
    quota = control.quota_cores if control is not None else None
    if quota is not None:  # more would be stopped in the middle of their runs
        sets = sets[: int(quota // device.threads)]
    if wanted is None:
        return sets
    if len(sets) < wanted:
        each = "a core" if device.threads == 1 else f"{device.threads} cores"
        limits = [
            f"this process may use {len(have)} core{'s' if len(have) > 1 else ''}",
            f"devices.yaml names {len(device.cores)}" if device.cores else "",
            f"the control group allows {quota:g}" if quota is not None else "",
        ]
        raise DeviceUnavailable(
            f"{wanted} workers of device {device.name!r} need {each} of their own each, and there are {len(sets)} such "
            f"sets of cores: {', '.join(filter(None, limits))}; hardware threads of one core count once, and no set "
            "spans two memory nodes",
            hint=f"--workers {max(1, len(sets))}",
        )
    return sets[:wanted]
