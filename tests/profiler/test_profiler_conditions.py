"""Snapshots of the machine: the kernel's texts as several machines wrote them, and what is missing stays missing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lanaprof.profiler.conditions import (
    Control,
    control_folders,
    core_times_from_proc_stat,
    cores_from_list,
    cpu_quota_from_cgroup_v1,
    load_from_loadavg,
    pressure_from_text,
    process_from_stat,
    swapped_from_vmstat,
    take_snapshot,
    throttling_from_cpu_stat,
    turbo_from_sysfs,
)

# A virtual machine with two cores.
STAT_VM = """cpu  1338453 33449 180646 755381 7602 0 1675 1765 0 0
cpu0 639670 13059 82309 420354 2637 0 105 887 0 0
cpu1 698783 20390 98336 335027 4964 0 1570 878 0 0
intr 24752079 0 0 0 1 15 0 0 2351 1962
ctxt 51224107
btime 1763770291
processes 9778
procs_running 1
procs_blocked 0
softirq 5003412 0 1202153 3 2911 51724 0 1 1802211 0 1944409
"""
CPU_STAT_V2 = """usage_usec 5215803
user_usec 3913214
system_usec 1302589
core_sched.force_idle_usec 0
nr_periods 1023
nr_throttled 87
throttled_usec 4210355
nr_bursts 0
burst_usec 0
"""
CPU_STAT_V1 = "nr_periods 1023\nnr_throttled 87\nthrottled_time 4210355000\n"
CGROUP_VM = """9:name=systemd:/
8:pids:/
4:memory:/process_api/1aa167d89c2250270d9721a22c87f85c
2:cpuacct:/
1:cpu:/
0::/
"""
CGROUP_DOCKER_V1 = "4:cpu,cpuacct:/docker/4fa6\n1:name=systemd:/docker/4fa6\n"
PROCESS_STAT = (
    "8923 (tmux: server) S 1 8923 8923 0 -1 4194368 2101 0 3 0 120 34 7 2 20 0 1 0 1175866 3133440 390 "
    "18446744073709551615 94575360135168 94575360155049 140721452665808 0 0 0 0 528386 134433281 0 0 0 17 5 0 0 0 0 "
    "0 94575360171056 94575360172672 94576412110848 140721452673567 140721452673587 140721452673587 140721452675051 0\n"
)


def test_every_core_has_its_times() -> None:
    """The sum over all cores is left out; user, nice and system are busy."""
    first, second = core_times_from_proc_stat(STAT_VM)

    assert (0, 887, 105) == (first.core, first.steal, first.interrupts)
    assert 698783 + 20390 + 98336 == second.busy
    assert 698783 + 20390 + 98336 + 335027 + 4964 + 1570 + 878 == second.total


def test_an_old_kernel_tells_no_steal() -> None:
    """Missing columns count nothing."""
    (core,) = core_times_from_proc_stat("cpu  1 2 3 4\ncpu0 1 2 3 4\n")

    assert (10, 6, 0) == (core.total, core.busy, core.steal)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "some avg10=0.00 avg60=0.00 avg300=0.00 total=94628150260\n",
            94628.15026,
        ),  # kernels without a full line
        ("", None),
        ("Operation not supported\n", None),
    ],
)
def test_pressure_is_told_or_not(text: str, expected: float | None) -> None:
    """Seconds since the start; a kernel without it says nothing or refuses."""
    assert expected == pressure_from_text(text)


def test_load_of_a_busy_server() -> None:
    """The fourth field is runnable over all tasks."""
    load = load_from_loadavg("56.48 30.74 22.68 61/2875 1893021\n")

    assert load is not None
    assert (56.48, 61) == (load.average_1min, load.runnable)
    assert load_from_loadavg("") is None


def test_cores_are_listed_in_ranges() -> None:
    """Both ways of the kernel."""
    assert (3, 27) == cores_from_list("3,27\n")
    assert (0, 1) == cores_from_list("0-1\n")


@pytest.mark.parametrize("text", [CPU_STAT_V2, CPU_STAT_V1])
def test_both_versions_tell_throttling(text: str) -> None:
    """Microseconds in version 2, nanoseconds in version 1."""
    count, lost_s = throttling_from_cpu_stat(text)

    assert 87 == count
    assert pytest.approx(4.210355) == lost_s


def test_a_group_without_a_cpu_controller_was_never_throttled() -> None:
    """Its cpu.stat has the usage alone."""
    assert (0, 0.0) == throttling_from_cpu_stat("usage_usec 5215803\nuser_usec 1\nsystem_usec 2\n")


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", None), ("50000\n", 0.5), ("200000\n", 2.0)])
def test_old_control_groups_are_read(quota: str, expected: float | None) -> None:
    """Quota over period; -1 is unlimited."""
    assert cpu_quota_from_cgroup_v1(quota, "100000\n") == expected


def test_folders_of_control_groups() -> None:
    """Version 1 has a folder per controller set; its ancestors count, the mount's root last."""
    assert (
        "sys/fs/cgroup/cpu,cpuacct/docker/4fa6",
        "sys/fs/cgroup/cpu,cpuacct/docker",
        "sys/fs/cgroup/cpu,cpuacct",
        "sys/fs/cgroup/cpu/docker/4fa6",
        "sys/fs/cgroup/cpu/docker",
        "sys/fs/cgroup/cpu",
    ) == control_folders(CGROUP_DOCKER_V1)
    assert ("sys/fs/cgroup/cpu", "sys/fs/cgroup") == control_folders(CGROUP_VM)


def test_a_process_with_a_space_in_its_name() -> None:
    """Its times, its children's, where it ran last."""
    process = process_from_stat(PROCESS_STAT)

    assert process is not None
    assert ("tmux: server", 1, 154, 9, 1175866, 5) == (
        process.name, process.parent, process.ticks, process.reaped_ticks, process.started, process.core
    )  # fmt: skip


def test_swap_is_told_or_not() -> None:
    """Pages read back; a kernel without swap has no such line."""
    assert 12 == swapped_from_vmstat("pgpgin 1\npswpin 12\npswpout 30\n")
    assert swapped_from_vmstat("pgpgin 1\n") is None


@pytest.mark.parametrize(
    ("no_turbo", "boost", "expected"),
    [
        ("0\n", None, True),
        ("1\n", None, False),
        (None, "1\n", True),
        (None, "0\n", False),
        (None, None, None),
        ("", "", None),
    ],
)
def test_turbo_is_read_from_either_driver(
    no_turbo: str | None, boost: str | None, expected: bool | None
) -> None:
    """Intel says no_turbo, others say boost, many virtual machines say nothing."""
    assert turbo_from_sysfs(no_turbo=no_turbo, boost=boost) is expected


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def stat_line(pid: int, parent: int, ticks: int, core: int, name: str = "python") -> str:
    fields = ["S", str(parent), *["0"] * 9, str(ticks), *["0"] * 7, "55", *["0"] * 16, str(core), "0"]
    return f"{pid} ({name}) {' '.join(fields)}\n"


def test_a_laptop_shows_everything(tmp_path: Path) -> None:
    """Clocks in Hz, heat summed, the sibling of the measured core, the container's quota, descendants."""
    cpu = "sys/devices/system/cpu"
    root = write(
        tmp_path,
        {
            "proc/stat": "cpu  0 0 0 0\n" + "".join(f"cpu{n} {n} 0 0 9 0 0 0 0 0 0\n" for n in range(8)),
            "proc/loadavg": "1.20 0.80 0.60 2/1104 5120\n",
            "proc/pressure/cpu": "some avg10=0.00 avg60=0.12 avg300=0.31 total=3828472115\n",
            "proc/vmstat": "pswpin 7\npswpout 9\n",
            "proc/self/cgroup": "0::/user.slice/app.scope\n",
            "proc/10/stat": stat_line(10, 1, 5, 0),
            "proc/11/stat": stat_line(11, 10, 6, 2),
            "proc/12/stat": stat_line(12, 1, 7, 2, "chrome"),
            "sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/user.slice/app.scope/cpu.max": "max 100000\n",
            "sys/fs/cgroup/user.slice/app.scope/cpu.stat": CPU_STAT_V2,
            f"{cpu}/cpu2/topology/thread_siblings_list": "2,6\n",
            f"{cpu}/cpu2/thermal_throttle/core_throttle_count": "31\n",
            f"{cpu}/cpu2/cpufreq/scaling_cur_freq": "2899999\n",
            f"{cpu}/cpu2/cpufreq/cpuinfo_max_freq": "4200000\n",
            f"{cpu}/cpu2/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/intel_pstate/no_turbo": "0\n",
        },
    )
    shot = take_snapshot([2], root=root, own_pid=10)

    assert (8, (6,), frozenset({10, 11})) == (shot.online, shot.siblings, shot.own)
    assert pytest.approx(2.899999e9) == shot.clocks_hz[0]
    assert pytest.approx(4.2e9) == shot.clock_max_hz
    assert ("powersave", True, 31, 7) == (
        shot.governor,
        shot.turbo,
        shot.thermal_throttles,
        shot.swapped_pages,
    )
    assert Control(1.5, 87, 4.210355) == shot.control


def test_a_machine_that_shows_nothing(tmp_path: Path) -> None:
    """Without proc and sys everything is None or empty, and nothing fails."""
    shot = take_snapshot([0], root=tmp_path)

    assert ((), (), (), "") == (shot.core_times, shot.processes, shot.clocks_hz, shot.governor)
    assert {None} == {
        shot.load, shot.pressure_s, shot.control, shot.clock_max_hz, shot.turbo, shot.thermal_throttles
    }  # fmt: skip


def test_this_machine() -> None:
    """Two snapshots around some work: time passes, and the work is this process's."""
    core = min(os.sched_getaffinity(0))
    before = take_snapshot([core])
    end = time.process_time() + 0.05  # five ticks
    while time.process_time() < end:
        sum(range(1000))
    after = take_snapshot([core])
    mine = (
        {each.pid: each.ticks for each in before.processes},
        {each.pid: each.ticks for each in after.processes},
    )

    assert after.time_s > before.time_s
    assert os.getpid() in after.own
    assert mine[1][os.getpid()] > mine[0][os.getpid()]
