"""What disturbed a campaign, told from two snapshots of the machine: how much, what it does, what to do.

Pure functions of values. Thresholds are where an effect begins to show beside the 1 % that intervals aim for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lanaprof.profiler.conditions import CoreTime, Process, Snapshot

__all__ = ["Disturbance", "judge"]

_TICKS_LEAST = 100  # of 10 ms: shares of less than a second say nothing
_STEAL = (
    0.005  # of the time: stolen slices hit single runs, which are rejected; beyond this the caches suffer too
)
_OTHERS = 0.03  # of a measured core's time; the kernel's own threads take up to 2 % of an idle one
_INTERRUPTS = 0.01
_SIBLING = 0.05
_PRESSURE = 0.10
_CLOCK = 0.03  # change of a clock between begin and end
_CLOCK_LOW = 0.85  # of the highest, while running
_DRIFT = 0.05  # range of the drift over a campaign; 1 to 2 % is usual on a quiet machine
_REJECTED = 0.20  # of the samples; up to 12 % are rejected on a quiet virtual machine
_NAMED = 3  # processes that are named
_NAMED_SHARE = 0.1  # of the foreign time; whoever had less is no help: the kernel's own threads had some, too


@dataclass(frozen=True, slots=True)
class Disturbance:
    """Something that happened to the machine while it measured.

    Attributes:
        name: one word, for programs.
        amount: how much: a share of the time or of the samples, a ratio minus 1, or a count, as the message says.
        message: what it was and what it does to the numbers, a plain sentence.
        hint: what to do about it.
    """

    name: str
    amount: float
    message: str
    hint: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values. The message may name processes: keep it on this machine."""
        return asdict(self)


def judge(
    before: Snapshot,
    after: Snapshot,
    *,
    clean: int = 0,
    rejected: int = 0,
    drift: tuple[float, float] | None = None,
    threads: int = 1,
) -> tuple[Disturbance, ...]:
    """Return what disturbed the measuring between two snapshots of the same cores, the graver effects first.

    Args:
        before: taken when measuring began.
        after: taken when it ended, by the same process.
        clean: samples that count.
        rejected: samples that were disturbed and do not count.
        drift: low and high drift factor of the visits (``drift_factors``): take their 5 % and 95 % points, for the
            extremes are single moments. None when not known.
        threads: of one run.
    """
    found = [
        *_quota(before, after, threads),
        *_heat(before, after),
        *_core_shares(before, after),
        *_sibling(before, after),
        *_waiting(before, after, threads),
        *_swap(before, after),
        *_clock(before, after),
        *_samples(clean, rejected),
    ]
    if drift is not None and drift[1] / drift[0] - 1.0 > _DRIFT:
        amount = drift[1] / drift[0] - 1.0
        found.append(
            Disturbance(
                "drift",
                amount,
                f"the machine's speed moved by {amount:.0%} while it measured: that is divided out, but what each "
                "operator felt of it differs",
                "measure again at a quieter time, or for longer: LANAPROF_SPREAD_S=60 spreads the rounds",
            )
        )
    return tuple(found)


def _spent(before: Snapshot, after: Snapshot, cores: Sequence[int]) -> CoreTime | None:
    """Return what these cores did in between, summed; None when too little was seen to tell shares."""
    first = {each.core: each for each in before.core_times}
    pairs = [
        (first[each.core], each) for each in after.core_times if each.core in cores and each.core in first
    ]
    total = sum(b.total - a.total for a, b in pairs)
    if not pairs or total < _TICKS_LEAST:
        return None
    return CoreTime(
        pairs[0][0].core,
        total,
        sum(b.busy - a.busy for a, b in pairs),
        sum(b.steal - a.steal for a, b in pairs),
        sum(b.interrupts - a.interrupts for a, b in pairs),
    )


def _ticks_by_process(before: Snapshot, after: Snapshot) -> list[tuple[Process, int]]:
    """Return the processes alive at the end with the CPU time each took in between."""
    earlier = {(each.pid, each.started): each.ticks for each in before.processes}
    return [(each, each.ticks - earlier.get((each.pid, each.started), 0)) for each in after.processes]


def _own_ticks(before: Snapshot, after: Snapshot) -> int:
    """Return the CPU time this process and its descendants took on the measured cores in between.

    A worker that ended is in its parent's ``reaped_ticks`` with its whole life, of which the part before the first
    snapshot must go.
    """
    cores = set(after.cores)
    alive = sum(
        ticks
        for process, ticks in _ticks_by_process(before, after)
        if process.pid in after.own and process.core in cores
    )
    ended = {(each.pid, each.started) for each in after.processes}
    reaped = sum(each.reaped_ticks for each in after.processes if each.pid in after.own)
    reaped -= sum(each.reaped_ticks for each in before.processes if each.pid in before.own)
    gone = sum(
        each.ticks
        for each in before.processes
        if each.pid in before.own and (each.pid, each.started) not in ended
    )
    return alive + max(0, reaped - gone)


def _core_shares(before: Snapshot, after: Snapshot) -> Iterator[Disturbance]:
    spent = _spent(before, after, after.cores)
    if spent is None:
        return
    which = _listed(after.cores)
    foreign = max(0, spent.busy - _own_ticks(before, after))
    others = foreign / spent.total
    if others > _OTHERS:
        named = _names(before, after, after.cores, foreign)
        who = f" ({named})" if named else ""
        yield Disturbance(
            "others",
            others,
            f"other programs{who} had {which} for {others:.0%} of the time: they leave the caches cold and interrupt "
            "runs; a low quantile forgives some of it",
            f"stop them, or keep them off {which}: taskset, isolcpus, or other `cores` in devices.yaml",
        )
    steal = spent.steal / spent.total
    if steal > _STEAL:
        yield Disturbance(
            "steal",
            steal,
            f"{steal:.1%} of the time was stolen by the hypervisor: those runs are rejected, but neighbours that busy "
            "also take cache and memory bandwidth, which no clock shows",
            "ask for dedicated cores, or measure when the neighbours sleep",
        )
    interrupts = spent.interrupts / spent.total
    if interrupts > _INTERRUPTS:
        yield Disturbance(
            "interrupts",
            interrupts,
            f"interrupts took {interrupts:.1%} of {which}: runs they hit are longer",
            "measure on a core that serves no device: `cores` in devices.yaml, /proc/interrupts tells which",
        )


def _names(before: Snapshot, after: Snapshot, cores: Sequence[int], foreign: int) -> str:
    """Return the busiest foreign processes that ran last on these cores; ``foreign``: ticks of all of them.

    Programs that came and went are seen by nobody: then there may be no name.
    """
    found = [
        (ticks, process.name)
        for process, ticks in _ticks_by_process(before, after)
        if process.pid not in after.own and process.core in cores and ticks > _NAMED_SHARE * foreign
    ]
    busiest = sorted(found, reverse=True)[:_NAMED]
    return ", ".join(dict.fromkeys(name for _, name in busiest))


def _sibling(before: Snapshot, after: Snapshot) -> Iterator[Disturbance]:
    spent = _spent(before, after, after.siblings)
    if spent is None:
        return
    share = (spent.busy + spent.interrupts) / spent.total
    if share > _SIBLING:
        own = "core" if len(after.cores) == 1 else "cores"
        named = _names(before, after, after.siblings, spent.busy)
        who = f" (by {named})" if named else ""
        yield Disturbance(
            "sibling",
            share,
            f"the other hardware thread of the measured {own} ({_listed(after.siblings)}) was busy {share:.0%} of the "
            f"time{who}: both share one core's units and caches, so runs are longer and nothing marks them",
            "keep it idle, or turn hardware threads off: echo off | sudo tee /sys/devices/system/cpu/smt/control",
        )


def _quota(before: Snapshot, after: Snapshot, threads: int) -> Iterator[Disturbance]:
    hint = "raise the container's CPU limit to whole cores (docker --cpus, Kubernetes limits.cpu), or measure outside"
    if after.control is not None and before.control is not None:
        count = after.control.throttled - before.control.throttled
        if count > 0:
            lost_s = after.control.throttled_s - before.control.throttled_s
            share = lost_s / max(1e-9, after.time_s - before.time_s)
            yield Disturbance(
                "throttled",
                share,
                f"the control group stopped its processes {count} times, {lost_s:.2g} s in all ({share:.1%}): runs "
                "that were stopped are far too long",
                hint,
            )
    quota = after.control.quota_cores if after.control is not None else None
    if quota is not None and quota < threads:
        yield Disturbance(
            "quota",
            quota,
            f"{threads} threads share a quota of {quota:g} cores: they wait for each other",
            hint,
        )
    elif len(after.cores) < threads:
        yield Disturbance(
            "oversubscribed",
            threads / max(1, len(after.cores)),
            f"{threads} threads share {len(after.cores)} cores: they wait for each other",
            f"measure with at most {max(1, len(after.cores))} threads",
        )


def _heat(before: Snapshot, after: Snapshot) -> Iterator[Disturbance]:
    if before.thermal_throttles is None or after.thermal_throttles is None:
        return
    count = after.thermal_throttles - before.thermal_throttles
    if count > 0:
        yield Disturbance(
            "heat",
            count,
            f"heat slowed {_listed(after.cores)} {count} times: the numbers are those of a hot machine",
            "let it cool, open the fan's way, or cap the clock: sudo cpupower frequency-set --max",
        )


def _waiting(before: Snapshot, after: Snapshot, threads: int) -> Iterator[Disturbance]:
    hint = "stop other programs while measuring"
    passed_s = after.time_s - before.time_s
    if before.pressure_s is not None and after.pressure_s is not None:
        share = (after.pressure_s - before.pressure_s) / passed_s if passed_s > 0 else 0.0
        if share > _PRESSURE:
            yield Disturbance(
                "pressure",
                share,
                f"some program waited for a core {share:.0%} of the time: there is more work than cores, and the "
                "rest of it shares caches and memory with what is measured",
                hint,
            )
    elif after.load is not None and after.load.average_1min > after.online - threads + 0.5:
        yield Disturbance(
            "load",
            after.load.average_1min,
            f"load average {after.load.average_1min:g} on {after.online} cores: other work competes for them",
            hint,
        )


def _swap(before: Snapshot, after: Snapshot) -> Iterator[Disturbance]:
    if before.swapped_pages is None or after.swapped_pages is None:
        return
    count = after.swapped_pages - before.swapped_pages
    if count > 0:
        yield Disturbance(
            "swap",
            count,
            f"{count} pages came back from swap: memory is short, and a run that waits for the disk is far too long",
            "stop programs that hold memory, or measure fewer operators at once",
        )


def _clock(before: Snapshot, after: Snapshot) -> Iterator[Disturbance]:
    if not after.clocks_hz or len(before.clocks_hz) != len(after.clocks_hz):
        return
    settings = f"governor {after.governor or 'unknown'}" + (", turbo on" if after.turbo else "")
    hint = "sudo cpupower frequency-set -g performance; turbo off for the last percent"
    moved = max(abs(b / a - 1.0) for a, b in zip(before.clocks_hz, after.clocks_hz, strict=True))
    slowest = min(after.clocks_hz)
    if moved > _CLOCK:
        yield Disturbance(
            "clock",
            moved,
            f"the clock of {_listed(after.cores)} was {moved:.0%} different at the end ({settings}): times follow it",
            hint,
        )
    elif after.clock_max_hz is not None and slowest < _CLOCK_LOW * after.clock_max_hz:
        share = 1.0 - slowest / after.clock_max_hz
        yield Disturbance(
            "clock",
            share,
            f"{_listed(after.cores)} ran at {slowest / 1e9:.2f} of {after.clock_max_hz / 1e9:.2f} GHz ({settings})",
            hint,
        )


def _samples(clean: int, rejected: int) -> Iterator[Disturbance]:
    if rejected == 0:
        return
    share = rejected / (clean + rejected)
    if share > _REJECTED:
        yield Disturbance(
            "rejected",
            share,
            f"{share:.0%} of the runs were interrupted and do not count: intervals are wider than they need be",
            "stop other programs, allow measuring processes their priority (lanaprof doctor), or take longer",
        )


def _listed(cores: Sequence[int]) -> str:
    return ("core " if len(cores) == 1 else "cores ") + ", ".join(str(core) for core in cores)
