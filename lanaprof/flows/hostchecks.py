"""doctor's checks of the machine itself: cores, load, clocks, memory, timer, priority, and how well it repeats."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lanaprof.config import Device
from lanaprof.errors import LanaprofError
from lanaprof.flows.machine import TimerReading, noise_from_durations, timer_from_readings
from lanaprof.flows.repeating import CoresBusy, Repeatability, SelfTest, self_test
from lanaprof.profiler.conditions import Control, Load, Snapshot
from lanaprof.units import format_duration, format_size

__all__ = [
    "Check",
    "clock_checks",
    "cores_check",
    "load_check",
    "memory_check",
    "noise_check",
    "priority_check",
    "read_timer",
    "repeat_check",
    "self_test_checks",
    "steal_check",
    "throttled_check",
    "timer_check",
]

_QUIET = 0.02  # spread of single runs below which nothing disturbs
_LOUD = 0.10
_REPEATS = 0.01  # the tolerance of campaigns: numbers that repeat worse need more rounds
_REPEATS_BADLY = 0.05
_STEAL = 0.01
_TIMER_NS = 1000  # a slower timer is felt beside operators of some microseconds
_MEMORY_FAIL_BYTES, _MEMORY_WARN_BYTES = 500e6, 2e9  # a batch's sessions and the teacher must fit


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: state is ok, warn or fail; the hint says what to do."""

    name: str
    state: str
    message: str
    hint: str = ""


# ----------------------------------------------------------------------------------------- cores and clocks


def cores_check(device: Device, cores: Sequence[int], quota: float | None) -> Check:
    """Return whether there are enough cores, by affinity and by the control group's quota."""
    text = f"{len(cores)} core{'s' if len(cores) > 1 else ''} to use, {device.threads} wanted"
    if device.threads > len(cores):
        hint = f"--device {device.name},threads={len(cores)}"
        return Check("cores", "fail", text, hint)
    if quota is not None and quota < device.threads:
        hint = "raise the container's CPU limit: a throttled process measures its own pauses"
        return Check("cores", "fail", f"{text}, but the control group allows {quota:g} cores", hint)
    limit = "no quota" if quota is None else f"quota {quota:g} cores"
    if len(cores) == device.threads:
        hint = "with one more core, other work would have somewhere to run"
        return Check("cores", "warn", f"{text}, {limit}: none is left for the rest of the system", hint)
    return Check("cores", "ok", f"{text}, {limit}")


def throttled_check(control: Control | None) -> Check:
    """Return whether the control group ever stopped this process."""
    if control is None:
        return Check("throttled", "ok", "no control group with a CPU quota is visible here")
    if control.throttled:
        hint = "raise the container's CPU limit to whole cores: docker --cpus, Kubernetes limits.cpu"
        lost = format_duration(control.throttled_s, digits=2)
        text = f"the control group stopped its processes {control.throttled} times so far, {lost} in all"
        return Check("throttled", "warn", text, hint)
    return Check("throttled", "ok", "the control group never stopped its processes")


def load_check(load: Load | None, cores: int, threads: int) -> Check:
    """Return whether other work leaves enough of the machine's cores alone."""
    if load is None:
        return Check("load", "ok", "this system tells no load average")
    text = f"load average {load.average_1min:g} on {cores} core{'s' if cores > 1 else ''}, {load.runnable} runnable now"
    if load.average_1min > max(0.5, cores - threads):
        return Check(
            "load", "warn", f"{text}: other work competes for them", "stop other programs while measuring"
        )
    return Check("load", "ok", text)


def clock_checks(shot: Snapshot, *, hardware_threads: bool) -> Iterator[Check]:
    """Yield what is visible of the measured cores' governor, turbo, heat and hardware threads.

    Args:
        shot: the machine.
        hardware_threads: whether any cores of the machine share their units.
    """
    if shot.governor in ("", "performance"):
        yield Check("governor", "ok", shot.governor or "not visible here (a virtual machine, or not Linux)")
    else:
        clock = ""
        if shot.clocks_hz and shot.clock_max_hz:
            clock = f", {min(shot.clocks_hz) / 1e9:.2f} of {shot.clock_max_hz / 1e9:.2f} GHz now"
        hint = "sudo cpupower frequency-set -g performance"
        yield Check("governor", "warn", f"{shot.governor}{clock}: the clock follows the load", hint)
    if shot.turbo:
        hint = "lanaprof corrects slow drift; for the last percent switch it off in the firmware or in sysfs"
        yield Check("turbo", "warn", "on: the clock follows heat and neighbours", hint)
    else:
        yield Check("turbo", "ok", "not visible here" if shot.turbo is None else "off")
    if shot.thermal_throttles:
        hint = "let it cool; on a laptop measure on mains power"
        text = f"heat slowed the measured cores {shot.thermal_throttles} times since the machine started"
        yield Check("heat", "warn", text, hint)
    if shot.siblings:
        busy = ", ".join(str(core) for core in shot.siblings)
        hint = "keep them idle (`cores` in devices.yaml names others), or: echo off | sudo tee "
        text = f"the measured cores share their units with hardware threads {busy}"
        yield Check("smt", "warn", text, hint + "/sys/devices/system/cpu/smt/control")
    elif hardware_threads:
        hint = "measure with at most half as many threads as there are hardware threads, on a quiet machine"
        yield Check("smt", "warn", "two hardware threads share each core", hint)
    else:
        yield Check("smt", "ok", "no hardware threads share a core")


def priority_check() -> Check:
    """Return whether a measuring process may raise its priority; tries it on a child of its own."""
    program = "import os; os.setpriority(os.PRIO_PROCESS, 0, -20)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False, timeout=60)
    if done.returncode == 0:
        return Check("priority", "ok", "measuring processes may raise their priority")
    hint = "allow it: sudo setcap cap_sys_nice+ep on Python, or a nice limit in limits.conf"
    return Check("priority", "warn", "measuring processes keep the normal priority", hint)


def memory_check(available_bytes: float | None) -> Check:
    """Return whether a batch's sessions and the teacher have room."""
    if available_bytes is None:
        return Check("memory", "ok", "this system does not tell how much is free")
    text = f"{format_size(available_bytes)} available"
    if available_bytes < _MEMORY_FAIL_BYTES:
        return Check("memory", "fail", f"{text}: the sessions of a batch do not fit", "stop other programs")
    if available_bytes < _MEMORY_WARN_BYTES:
        hint = "stop other programs: what is swapped out is timed with the disk"
        return Check("memory", "warn", text, hint)
    return Check("memory", "ok", text)


def read_timer() -> TimerReading:
    """Return how fine and how dear this machine's timer is."""
    count = 20_000
    read = time.perf_counter_ns
    return timer_from_readings([read() for _ in range(count)])


def timer_check(timer: TimerReading, source: str) -> Check:
    """Return whether the timer is fine enough for operators of some microseconds.

    Args:
        timer: what was read.
        source: the kernel's clock source; empty when not visible.
    """
    name = f" ({source.strip()})" if source.strip() else ""
    step, cost = (format_duration(ns / 1e9, digits=2) for ns in (timer.step_ns, timer.cost_ns))
    text = f"steps of {step}, a reading takes {cost}{name}"
    if max(timer.step_ns, timer.cost_ns) > _TIMER_NS:
        hint = "short operators drown in it; a kernel with clocksource=tsc reads faster"
        return Check("timer", "warn", text, hint)
    return Check("timer", "ok", text)


# ------------------------------------------------------------------------------------------- the self-test


def self_test_checks(device: Device, seconds: float) -> Iterator[Check]:
    """Yield how well numbers repeat here and now, and what disturbed the test."""
    try:
        found = self_test(device, seconds=seconds)
    except CoresBusy as busy:
        hint = "ask again when it is done, or name other cores: `cores` in devices.yaml"
        yield Check("repeat", "warn", f"not tested: {busy} measures on them now", hint)
        return
    except LanaprofError as error:
        yield Check("repeat", "fail", f"the runtime does not run: {error.message}", error.hint)
        return
    yield repeat_check(found.repeatability)
    yield noise_check([], found=found)
    yield from disturbance_checks(found)


def repeat_check(found: Repeatability) -> Check:
    """Return a verdict on how well equal measurements agree."""
    message = (
        f"numbers will repeat to ±{found.spread:.1%}: two interleaved halves differ by {found.halves:.2%}, the "
        f"machine's speed moved by {found.drift_range:.1%}"
    )
    if found.spread < _REPEATS:
        return Check("repeat", "ok", message)
    hint = "stop other programs; LANAPROF_SPREAD_S=60 spreads the rounds over calmer moments, too"
    if found.spread < _REPEATS_BADLY:
        return Check("repeat", "warn", message, hint)
    return Check("repeat", "warn", f"{message}: measure another time, or elsewhere", hint)


def noise_check(durations_s: Sequence[float], *, found: SelfTest | None = None) -> Check:
    """Return a verdict on the durations of equal work, those given or the self-test's."""
    noise = found.repeatability.noise if found is not None else noise_from_durations(durations_s)
    message = (
        f"a run of {format_duration(noise.floor_s, digits=2)} takes {noise.spread:.1%} more than its best at the "
        f"median, {noise.tail:.1%} at 95 %"
    )
    if noise.spread < _QUIET:
        return Check("noise", "ok", message)
    loud = ": very noisy" if noise.spread > _LOUD else ""
    return Check("noise", "warn", message + loud, "stop other programs; campaigns here take more rounds")


def disturbance_checks(found: SelfTest) -> Iterator[Check]:
    """Yield what disturbed the self-test; steal is told in any case."""
    told = {each.name for each in found.disturbances}
    for each in found.disturbances:
        if each.name not in ("drift", "quota", "oversubscribed"):  # said by checks of their own
            yield Check(each.name, "warn", each.message, each.hint)
    if "steal" not in told:
        yield steal_check(found.after)


def steal_check(shot: Snapshot) -> Check:
    """Return how much the hypervisor took since the machine started."""
    total = sum(each.total for each in shot.core_times)
    if not total:
        return Check("steal", "ok", "not visible here")
    share = sum(each.steal for each in shot.core_times) / total
    message = f"the hypervisor took {share:.1%} of the time since the machine started"
    if share > _STEAL:
        hint = "ask for dedicated cores, or measure when the neighbours sleep"
        return Check("steal", "warn", message, hint)
    return Check("steal", "ok", message)
