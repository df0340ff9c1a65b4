"""What disturbed a campaign: each effect alone, at a known size, and a quiet machine says nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lanaprof.profiler.conditions import Control, CoreTime, Load, Process, Snapshot
from lanaprof.profiler.disturbances import Disturbance, judge

OWN = 10
QUIET = Snapshot(
    time_s=100.0,
    cores=(2,),
    allowed=(0, 1, 2, 3),
    online=4,
    siblings=(3,),
    core_times=tuple(CoreTime(core, 10_000, 5_000, 10, 10) for core in range(4)),
    processes=(Process(OWN, 1, "python", 50, 1_000, 0, 2), Process(77, 1, "chrome", 60, 2_000, 0, 0)),
    own=frozenset({OWN}),
    load=Load(0.9, 1),
    pressure_s=5.0,
    control=Control(None, 3, 0.2),
    clocks_hz=(3.0e9,),
    clock_max_hz=3.1e9,
    governor="performance",
    turbo=False,
    thermal_throttles=4,
    swapped_pages=100,
)
MINUTE = 6_000  # ticks


def later(
    *, busy: int = 0, steal: int = 0, interrupts: int = 0, own: int = 0, sibling: int = 0, **changed: object
) -> Snapshot:
    """Return the machine a minute after QUIET, with this much done on the measured core."""
    times = []
    for each in QUIET.core_times:
        here = (busy, steal, interrupts) if each.core == 2 else (sibling if each.core == 3 else 0, 0, 0)
        times.append(
            CoreTime(
                each.core,
                each.total + MINUTE,
                each.busy + here[0],
                each.steal + here[1],
                each.interrupts + here[2],
            )
        )
    mine = replace(QUIET.processes[0], ticks=QUIET.processes[0].ticks + own)
    given = {"core_times": tuple(times), "processes": (mine, QUIET.processes[1]), "time_s": 160.0}
    return replace(QUIET, **{**given, **changed})  # type: ignore[arg-type]


def only(found: tuple[Disturbance, ...]) -> Disturbance:
    assert 1 == len(found), [each.name for each in found]
    return found[0]


def test_a_quiet_minute_is_undisturbed() -> None:
    """Our own work on our core, few rejected runs and the usual drift are no disturbance."""
    after = later(busy=5_900, own=5_880, steal=10, interrupts=12)

    assert () == judge(QUIET, after, clean=950, rejected=50, drift=(0.99, 1.02))


def test_stolen_time() -> None:
    """180 of 6000 ticks are 3 %."""
    found = only(judge(QUIET, later(steal=180)))

    assert "steal" == found.name
    assert pytest.approx(0.03) == found.amount
    assert "3.0% of the time was stolen by the hypervisor" in found.message
    assert found.hint


def test_other_programs_on_the_measured_core() -> None:
    """Busy time that is not ours is others'; who was there last is named."""
    chrome = replace(QUIET.processes[1], ticks=2_600, core=2)
    after = later(busy=5_600, own=5_000)
    found = only(judge(QUIET, replace(after, processes=(after.processes[0], chrome))))

    assert "others" == found.name
    assert pytest.approx(0.10) == found.amount
    assert "(chrome) had core 2 for 10%" in found.message


def test_who_had_next_to_nothing_is_not_named() -> None:
    """600 ticks went to programs that came and went; a thread of the kernel that had 5 of them is not their name."""
    kernel = Process(78, 2, "kworker/2:1", 60, 2_005, 0, 2)
    after = later(busy=5_600, own=5_000)
    before = replace(QUIET, processes=(*QUIET.processes, replace(kernel, ticks=2_000)))
    found = only(judge(before, replace(after, processes=(after.processes[0], kernel))))

    assert "others" == found.name
    assert found.message.startswith("other programs had core 2 for 10%")


def test_a_worker_that_ended_is_our_own_work() -> None:
    """Its whole life is in its parent's books; what it did before the campaign began is taken off again."""
    worker = Process(11, OWN, "python", 55, 400, 0, 2)
    parent = QUIET.processes[0]
    before = replace(QUIET, processes=(parent, worker), own=frozenset({OWN, 11}))
    after = later(busy=3_000)
    after = replace(after, processes=(replace(parent, reaped_ticks=3_400),))

    assert () == judge(before, after)


def test_interrupts_on_the_measured_core() -> None:
    """2 % of the time."""
    found = only(judge(QUIET, later(interrupts=120)))

    assert "interrupts" == found.name
    assert pytest.approx(0.02) == found.amount


def test_a_busy_hardware_thread_beside_ours() -> None:
    """40 % of the time of core 3, which shares its units with core 2."""
    found = only(judge(QUIET, later(sibling=2_400)))

    assert "sibling" == found.name
    assert pytest.approx(0.4) == found.amount
    assert "core 3" in found.message


def test_the_control_group_stopped_us() -> None:
    """12 times, 1.8 s of 60."""
    found = only(judge(QUIET, later(control=Control(2.0, 15, 2.0))))

    assert "throttled" == found.name
    assert pytest.approx(0.03) == found.amount
    assert "12 times" in found.message


def test_a_quota_below_the_threads() -> None:
    """Two threads with one and a half cores wait for each other, also where no count is shown."""
    found = only(judge(QUIET, later(control=Control(1.5, 3, 0.2), cores=(2, 3), siblings=()), threads=2))

    assert ("quota", 1.5) == (found.name, found.amount)


def test_more_threads_than_cores() -> None:
    """Four threads on one core."""
    found = only(judge(QUIET, later(), threads=4))

    assert ("oversubscribed", 4.0) == (found.name, found.amount)


def test_heat() -> None:
    """The counter moved by three."""
    found = only(judge(QUIET, later(thermal_throttles=7)))

    assert ("heat", 3) == (found.name, found.amount)


def test_programs_that_waited_for_a_core() -> None:
    """30 of 60 seconds."""
    found = only(judge(QUIET, later(pressure_s=35.0)))

    assert "pressure" == found.name
    assert pytest.approx(0.5) == found.amount


def test_without_pressure_the_load_average_speaks() -> None:
    """A kernel without it: five runnable on four cores."""
    before = replace(QUIET, pressure_s=None)
    found = only(judge(before, later(pressure_s=None, load=Load(5.0, 5))))

    assert ("load", 5.0) == (found.name, found.amount)


def test_memory_that_came_back_from_swap() -> None:
    """23 pages."""
    found = only(judge(QUIET, later(swapped_pages=123)))

    assert ("swap", 23) == (found.name, found.amount)


@pytest.mark.parametrize(("clock_hz", "share"), [(2.4e9, 0.2), (3.3e9, 0.1)])
def test_a_clock_that_moved(clock_hz: float, share: float) -> None:
    """Down or up between begin and end."""
    found = only(judge(QUIET, later(clocks_hz=(clock_hz,))))

    assert "clock" == found.name
    assert pytest.approx(share) == found.amount


def test_a_clock_that_is_low_throughout() -> None:
    """2.0 of 3.1 GHz, before and after."""
    found = only(judge(replace(QUIET, clocks_hz=(2.0e9,)), later(clocks_hz=(2.0e9,), governor="powersave")))

    assert "clock" == found.name
    assert pytest.approx(1 - 2.0 / 3.1) == found.amount
    assert "2.00 of 3.10 GHz (governor powersave)" in found.message


def test_many_rejected_runs() -> None:
    """300 of 1000."""
    found = only(judge(QUIET, later(), clean=700, rejected=300))

    assert "rejected" == found.name
    assert pytest.approx(0.3) == found.amount


def test_a_wide_drift() -> None:
    """From 0.99 to 1.0989: 11 %."""
    found = only(judge(QUIET, later(), drift=(0.99, 0.99 * 1.11)))

    assert "drift" == found.name
    assert pytest.approx(0.11) == found.amount


def test_a_moment_says_nothing_about_shares() -> None:
    """Three stolen ticks of ten are no 30 %."""
    core = QUIET.core_times[2]
    after = replace(QUIET, core_times=(CoreTime(2, core.total + 10, core.busy + 7, core.steal + 3, 10),))

    assert () == judge(QUIET, after)


def test_a_machine_that_shows_nothing_is_not_judged() -> None:
    """No text, no verdict."""
    nothing = Snapshot(time_s=1.0, cores=(0,))

    assert () == judge(nothing, replace(nothing, time_s=61.0))


def test_the_graver_effects_come_first() -> None:
    """A stopped container before stolen time before swap."""
    after = later(steal=180, control=Control(None, 15, 2.0), swapped_pages=101)

    assert ["throttled", "steal", "swap"] == [each.name for each in judge(QUIET, after)]


def test_as_json() -> None:
    """Plain values."""
    found = Disturbance("heat", 3, "hot", "cool")

    assert {"name": "heat", "amount": 3, "message": "hot", "hint": "cool"} == found.to_json()
