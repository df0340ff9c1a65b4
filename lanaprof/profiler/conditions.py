"""What the machine did around a campaign: plain values from the kernel's own texts.

Every probe is a parser of a text. ``take_snapshot`` reads the texts that are there; what a system does not show (a
virtual machine has no clocks, macOS no /proc) is None or empty, never a guess. Two snapshots make differences, and
:mod:`lanaprof.profiler.disturbances` judges them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lanaprof.profiler.environment import available_cores, cpu_quota_from_cgroup

__all__ = [
    "Control",
    "CoreTime",
    "Load",
    "Process",
    "Snapshot",
    "control_folders",
    "core_times_from_proc_stat",
    "cores_from_list",
    "cpu_quota_from_cgroup_v1",
    "load_from_loadavg",
    "pressure_from_text",
    "process_from_stat",
    "swapped_from_vmstat",
    "take_snapshot",
    "throttling_from_cpu_stat",
    "turbo_from_sysfs",
]


@dataclass(frozen=True, slots=True)
class CoreTime:
    """What a core did since the machine started, in the kernel's clock ticks (of 10 ms nearly everywhere).

    Attributes:
        core: its number.
        total: all ticks, idle ones included.
        busy: of programs and of the kernel on their behalf.
        steal: in which the hypervisor ran somebody else.
        interrupts: in hard and soft interrupts.
    """

    core: int
    total: int
    busy: int
    steal: int
    interrupts: int


@dataclass(frozen=True, slots=True)
class Load:
    """One reading of /proc/loadavg: the average of the last minute, and the tasks that run or want to right now."""

    average_1min: float
    runnable: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process of this machine.

    Attributes:
        pid: its id.
        parent: its parent's id.
        name: its program's name, as the kernel shortens it.
        started: when it began, in ticks since the machine did; with ``pid`` it tells processes apart.
        ticks: its own CPU time; ``reaped_ticks`` that of its children that have ended.
        core: where it ran last.
    """

    pid: int
    parent: int
    name: str
    started: int
    ticks: int
    reaped_ticks: int
    core: int


@dataclass(frozen=True, slots=True)
class Control:
    """What the control group (a container's limit) allows and did: cores, times it stopped us, and for how long."""

    quota_cores: float | None = None
    throttled: int = 0
    throttled_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The machine at one moment. What it does not show is None, or empty.

    Attributes:
        time_s: on the monotonic clock.
        cores: those measured on; ``allowed`` those this process may use, ``online`` how many there are.
        siblings: hardware threads that share a physical core with a measured one and are not measured themselves.
        core_times: of all cores.
        processes: of all users; ``own`` are the ids of this one and its descendants.
        load: load average and runnable tasks.
        pressure_s: seconds in which some task waited for a CPU, since the machine started.
        control: the control group's quota and how often it hit.
        clocks_hz: of the measured cores now, in their order; ``clock_max_hz`` the highest they may have.
        governor: of the first measured core; turbo: whether the clock may exceed the nominal one.
        thermal_throttles: how often heat slowed the measured cores, since the machine started.
        swapped_pages: read back from swap since the machine started.
    """

    time_s: float
    cores: tuple[int, ...]
    allowed: tuple[int, ...] = ()
    online: int = 0
    siblings: tuple[int, ...] = ()
    core_times: tuple[CoreTime, ...] = ()
    processes: tuple[Process, ...] = ()
    own: frozenset[int] = frozenset()
    load: Load | None = None
    pressure_s: float | None = None
    control: Control | None = None
    clocks_hz: tuple[float, ...] = ()
    clock_max_hz: float | None = None
    governor: str = ""
    turbo: bool | None = None
    thermal_throttles: int | None = None
    swapped_pages: int | None = None


# ------------------------------------------------------------------------------------------- parsers of text


def core_times_from_proc_stat(text: str) -> tuple[CoreTime, ...]:
    r"""Return what each core did, from the text of /proc/stat.

    >>> core_times_from_proc_stat("cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 5 1 2 80 4 1 2 5 3 0\n")
    (CoreTime(core=0, total=100, busy=8, steal=5, interrupts=3),)
    """
    found = []
    for line in text.splitlines():
        match = re.match(r"cpu(\d+) ", line)
        if match is None:
            continue
        # A guest's time (fields nine and ten) is part of user time already; kernels before 2.6.11 tell no steal.
        numbers = [int(number) for number in line.split()[1:9]]
        user, nice, system, idle, wait, hard, soft, steal = numbers + [0] * (8 - len(numbers))
        total = user + nice + system + idle + wait + hard + soft + steal
        found.append(CoreTime(int(match[1]), total, user + nice + system, steal, hard + soft))
    return tuple(found)


def pressure_from_text(text: str) -> float | None:
    r"""Return the seconds in which some task waited, from /proc/pressure/cpu; None when it does not say.

    >>> pressure_from_text("some avg10=1.58 avg60=1.04 avg300=1.81 total=3828472115\nfull avg10=0.00 total=0\n")
    3828.472115
    """
    match = re.search(r"^some .*\btotal=(\d+)", text, re.MULTILINE)
    return int(match[1]) / 1e6 if match else None


def load_from_loadavg(text: str) -> Load | None:
    r"""Return the load, from the text of /proc/loadavg; the reader itself is one of the runnable.

    >>> load_from_loadavg("0.41 0.50 1.03 1/87 8911\n")
    Load(average_1min=0.41, runnable=1)
    """
    match = re.match(r"([\d.]+) [\d.]+ [\d.]+ (\d+)/\d+ ", text)
    return Load(float(match[1]), int(match[2])) if match else None


def cores_from_list(text: str) -> tuple[int, ...]:
    r"""Return the cores in a list as the kernel writes them.

    >>> cores_from_list("0-2,8\n"), cores_from_list("\n")
    ((0, 1, 2, 8), ())
    """
    found: list[int] = []
    for piece in filter(None, text.strip().split(",")):
        first, _, last = piece.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return tuple(found)


def throttling_from_cpu_stat(text: str) -> tuple[int, float]:
    r"""Return how often a control group stopped its tasks and for how many seconds, from the text of cpu.stat.

    Version 2 tells microseconds, version 1 nanoseconds; both sum over the cores.

    >>> throttling_from_cpu_stat("nr_periods 90\nnr_throttled 12\nthrottled_usec 340000\n")
    (12, 0.34)
    >>> throttling_from_cpu_stat("nr_periods 90\nnr_throttled 12\nthrottled_time 340000000\n")
    (12, 0.34)
    """
    fields = dict(line.split(None, 1) for line in text.splitlines() if " " in line)
    if "throttled_usec" in fields:
        lost_s = int(fields["throttled_usec"]) / 1e6
    else:
        lost_s = int(fields.get("throttled_time", 0)) / 1e9
    return int(fields.get("nr_throttled", 0)), lost_s


def cpu_quota_from_cgroup_v1(quota: str, period: str) -> float | None:
    r"""Return the cores a container may use, from cpu.cfs_quota_us and cpu.cfs_period_us; None when unlimited.

    >>> cpu_quota_from_cgroup_v1("150000\n", "100000\n"), cpu_quota_from_cgroup_v1("-1\n", "100000\n")
    (1.5, None)
    """
    cores = int(quota) / int(period)
    return cores if cores > 0 else None


def control_folders(text: str) -> tuple[str, ...]:
    r"""Return where the control group's CPU files may lie, innermost first, from the text of /proc/self/cgroup.

    A limit may sit on any ancestor. Inside a container the path is often the host's and the files lie at the mount's
    root, which therefore comes last.

    >>> control_folders("0::/system.slice/run.service\n")
    ('sys/fs/cgroup/system.slice/run.service', 'sys/fs/cgroup/system.slice', 'sys/fs/cgroup')
    >>> control_folders("4:cpu,cpuacct:/docker\n1:name=systemd:/\n0::/\n")[:2]
    ('sys/fs/cgroup/cpu,cpuacct/docker', 'sys/fs/cgroup/cpu,cpuacct')
    """
    found: list[str] = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        mounts: tuple[str, ...] = ()
        if number == "0" and not controllers:
            mounts = ("sys/fs/cgroup",)
        elif "cpu" in controllers.split(","):
            mounts = tuple(dict.fromkeys((f"sys/fs/cgroup/{controllers}", "sys/fs/cgroup/cpu")))
        for mount in mounts:
            parts = [part for part in path.split("/") if part and part != ".."]
            found.extend("/".join([mount, *parts[:count]]) for count in range(len(parts), -1, -1))
    return tuple(dict.fromkeys(found))


def process_from_stat(text: str) -> Process | None:
    """Return the process in the text of /proc/PID/stat; None when it is not one. Names may hold spaces and brackets.

    >>> process_from_stat("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 30 4 5 1 20 0 1 0 88 0 0" + " 0" * 14 + " 3 0 0")
    Process(pid=7, parent=1, name='a) b', started=88, ticks=34, reaped_ticks=6, core=3)
    """
    head, bracket, tail = text.rpartition(")")
    number, _, name = head.partition(" (")
    fields = tail.split()
    if not bracket or len(fields) < 37:
        return None
    user, system, child_user, child_system = (int(field) for field in fields[11:15])
    return Process(
        pid=int(number),
        parent=int(fields[1]),
        name=name,
        started=int(fields[19]),
        ticks=user + system,
        reaped_ticks=child_user + child_system,
        core=int(fields[36]),
    )


def swapped_from_vmstat(text: str) -> int | None:
    r"""Return the pages read back from swap, from the text of /proc/vmstat; None when it does not say.

    >>> swapped_from_vmstat("pgpgout 5\npswpin 12\npswpout 30\n")
    12
    """
    match = re.search(r"^pswpin (\d+)$", text, re.MULTILINE)
    return int(match[1]) if match else None


def turbo_from_sysfs(*, no_turbo: str | None, boost: str | None) -> bool | None:
    """Return whether the CPU may run above its nominal clock; None when the system does not say.

    Args:
        no_turbo: text of intel_pstate/no_turbo, None without that file.
        boost: text of cpufreq/boost, None likewise.
    """
    if no_turbo is not None and no_turbo.strip() in ("0", "1"):
        return no_turbo.strip() == "0"
    if boost is not None and boost.strip() in ("0", "1"):
        return boost.strip() == "1"
    return None


# ----------------------------------------------------------------------------------------- one reading of all


def take_snapshot(cores: Sequence[int], *, root: Path = Path("/"), own_pid: int | None = None) -> Snapshot:
    """Return the machine now; takes some milliseconds and touches nothing.

    Args:
        cores: those measured on.
        root: where proc and sys lie; another machine's copy in tests.
        own_pid: the process whose descendants measure; this one unless given.
    """
    files = _Files(root)
    cores = tuple(cores)
    core_times = core_times_from_proc_stat(files.text("proc/stat"))
    processes = tuple(files.processes())
    system = "sys/devices/system/cpu"
    siblings = {
        each
        for core in cores
        for each in cores_from_list(files.text(f"{system}/cpu{core}/topology/thread_siblings_list"))
    }
    throttles = [files.number(f"{system}/cpu{core}/thermal_throttle/core_throttle_count") for core in cores]
    clocks = [files.number(f"{system}/cpu{core}/cpufreq/scaling_cur_freq") for core in cores]
    first = f"{system}/cpu{cores[0] if cores else 0}/cpufreq"
    clock_max = files.number(f"{first}/cpuinfo_max_freq")
    return Snapshot(
        time_s=time.monotonic(),
        cores=cores,
        allowed=available_cores(),
        online=len(core_times) or os.cpu_count() or 1,
        siblings=tuple(sorted(siblings - set(cores))),
        core_times=core_times,
        processes=processes,
        own=_descendants(os.getpid() if own_pid is None else own_pid, processes),
        load=load_from_loadavg(files.text("proc/loadavg")),
        pressure_s=pressure_from_text(files.text("proc/pressure/cpu")),
        control=_control(files),
        clocks_hz=tuple(1e3 * clock for clock in clocks if clock is not None),  # the kernel tells kHz
        clock_max_hz=None if clock_max is None else 1e3 * clock_max,
        governor=files.text(f"{first}/scaling_governor").strip(),
        turbo=turbo_from_sysfs(
            no_turbo=files.text(f"{system}/intel_pstate/no_turbo"),
            boost=files.text(f"{system}/cpufreq/boost"),
        ),
        thermal_throttles=sum(count for count in throttles if count is not None)
        if any(count is not None for count in throttles)
        else None,
        swapped_pages=swapped_from_vmstat(files.text("proc/vmstat")),
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """The kernel's files; one that is absent or refused reads as empty."""

    root: Path

    def text(self, name: str) -> str:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.root / name).read_text(encoding="utf-8")
        return ""

    def number(self, name: str) -> int | None:
        text = self.text(name).strip()
        return int(text) if text.isdigit() else None

    def processes(self) -> Iterator[Process]:
        try:
            names = [entry.name for entry in os.scandir(self.root / "proc") if entry.name.isdigit()]
        except OSError:  # no /proc: not Linux
            return
        for name in names:
            process = process_from_stat(self.text(f"proc/{name}/stat"))  # empty when it has just ended
            if process is not None:
                yield process


def _descendants(root: int, processes: Sequence[Process]) -> frozenset[int]:
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    found, waiting = {root}, [root]
    while waiting:
        new = [child for child in children.get(waiting.pop(), ()) if child not in found]
        found.update(new)
        waiting.extend(new)
    return frozenset(found)


def _control(files: _Files) -> Control | None:
    """Return the tightest quota of this process's control groups, and the most throttling any of them saw."""
    quota_cores: float | None = None
    throttled, throttled_s, seen = 0, 0.0, False
    for folder in control_folders(files.text("proc/self/cgroup")):
        here: float | None = None
        with contextlib.suppress(ValueError):  # absent files read as empty
            here = cpu_quota_from_cgroup(files.text(f"{folder}/cpu.max"))
        if here is None:
            with contextlib.suppress(ValueError):
                here = cpu_quota_from_cgroup_v1(
                    files.text(f"{folder}/cpu.cfs_quota_us"), files.text(f"{folder}/cpu.cfs_period_us")
                )
        if here is not None:
            quota_cores = here if quota_cores is None else min(here, quota_cores)
        text = files.text(f"{folder}/cpu.stat")
        seen = seen or bool(text)
        count, lost_s = throttling_from_cpu_stat(text)
        throttled, throttled_s = max(throttled, count), max(throttled_s, lost_s)
    return Control(quota_cores, throttled, throttled_s) if seen or quota_cores is not None else None
