"""Core sets: disjoint, without hardware threads of one core, on one memory node; read from the kernel's own texts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lanaprof.config import Device
from lanaprof.errors import DeviceUnavailable
from lanaprof.profiler.coresets import Core, choose_core_sets, deal_core_sets, find_cores
from lanaprof.profiler.environment import choose_cores

CPU = Device(name="cpu", text="cpu", backend="onnxruntime")
HERE = tuple(sorted(os.sched_getaffinity(0)))


def machine(
    root: Path, siblings: Mapping[int, str], nodes: Mapping[int, str], caches: Mapping[int, str]
) -> Path:
    """Write what the kernel says of a machine: each core's siblings and last cache, each node's cores."""
    system = root / "sys/devices/system"
    for core, text in siblings.items():
        (system / f"cpu/cpu{core}/topology").mkdir(parents=True)
        (system / f"cpu/cpu{core}/topology/thread_siblings_list").write_text(f"{text}\n")
    for core, text in caches.items():
        (system / f"cpu/cpu{core}/cache/index3").mkdir(parents=True)
        (system / f"cpu/cpu{core}/cache/index3/shared_cpu_list").write_text(f"{text}\n")
    for node, text in nodes.items():
        (system / f"node/node{node}").mkdir(parents=True)
        (system / f"node/node{node}/cpulist").write_text(f"{text}\n")
    return root


def cores(count: int) -> list[Core]:
    """Return a plain machine's cores: one node, nothing shared."""
    return [Core(number, (number,)) for number in range(count)]


def test_the_kernels_texts_are_read(tmp_path: Path) -> None:
    """Siblings, node and last cache of each core, as a machine of two sockets writes them."""
    root = machine(
        tmp_path,
        {0: "0,4", 1: "1,5", 4: "0,4"},
        {0: "0,2,4,6", 1: "1,3,5,7"},
        {0: "0,2,4,6", 1: "1,3,5,7", 4: "0,2,4,6"},
    )

    assert (Core(0, (0, 4), 0, 0), Core(1, (1, 5), 1, 1), Core(4, (0, 4), 0, 0)) == find_cores(
        (0, 1, 4), root
    )


def test_a_machine_that_says_nothing(tmp_path: Path) -> None:
    """Without topology every core is its own, on node 0."""
    assert (Core(0, (0,)), Core(7, (7,))) == find_cores((0, 7), tmp_path)


def test_hardware_threads_of_one_core_count_once() -> None:
    """Four threads of two physical cores make two sets of one, numbered either way."""
    apart = [Core(0, (0, 2)), Core(1, (1, 3)), Core(2, (0, 2)), Core(3, (1, 3))]
    adjacent = [Core(0, (0, 1)), Core(1, (0, 1)), Core(2, (2, 3)), Core(3, (2, 3))]

    assert ((3,), (2,)) == deal_core_sets(apart, threads=1)
    assert ((3,), (1,)) == deal_core_sets(adjacent, threads=1)
    assert ((1, 3),) == deal_core_sets(adjacent, threads=2)


def test_sets_are_disjoint_and_whole() -> None:
    """Seven cores hold three sets of two; the first core, which serves interrupts, is left over."""
    assert ((5, 6), (3, 4), (1, 2)) == deal_core_sets(cores(7), threads=2)
    assert () == deal_core_sets(cores(2), threads=3)


def test_the_first_sets_are_on_different_nodes() -> None:
    """Two workers of a machine with two sockets share no memory controller, and no set spans the sockets."""
    even_odd = [Core(number, (number,), node=number % 2) for number in range(6)]

    assert ((5,), (4,), (3,), (2,), (1,), (0,)) == deal_core_sets(even_odd, threads=1)
    assert ((3, 5), (2, 4)) == deal_core_sets(even_odd, threads=2)


def test_the_first_sets_are_behind_different_caches() -> None:
    """Of a processor with several last caches each worker gets one; what is left over still makes a set."""
    clustered = [Core(number, (number,), cache=number // 3 * 3) for number in range(6)]

    assert ((5,), (2,), (4,), (1,), (3,), (0,)) == deal_core_sets(clustered, threads=1)
    assert ((4, 5), (1, 2), (0, 3)) == deal_core_sets(clustered, threads=2)


def test_too_many_workers_are_refused() -> None:
    """The message says how many sets there are, the hint what to type."""
    with pytest.raises(DeviceUnavailable, match=f"this process may use {len(HERE)} core") as caught:
        choose_core_sets(CPU, 4096)

    assert caught.value.hint == f"--workers {len(choose_core_sets(CPU, None))}"


def test_a_quota_bounds_the_workers(tmp_path: Path) -> None:
    """A container that may use one core at a time holds one worker, however many cores it sees."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/\n")
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text("150000 100000\n")

    assert 1 == len(choose_core_sets(CPU, None, root=tmp_path))
    with pytest.raises(DeviceUnavailable, match=r"the control group allows 1\.5"):
        choose_core_sets(CPU, 2, root=tmp_path)


def test_only_named_cores_are_used() -> None:
    """A device that names a core has one set, whatever else there is."""
    assert (HERE[:1],) == choose_core_sets(replace(CPU, cores=HERE[:1]), None)


def test_one_process_takes_as_many_of_the_named_cores_as_it_has_threads() -> None:
    """More cores than threads are a choice for several workers; one is pinned to the last."""
    assert HERE[-1:] == choose_cores(replace(CPU, cores=HERE))
