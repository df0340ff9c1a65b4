"""lanaprof doctor: its probes on other machines' texts, and the command on this machine."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import parse_device
from lanaprof.flows import doctoring, hostchecks
from lanaprof.flows.machine import (
    TimerReading,
    available_from_meminfo,
    gpus_from_nvidia_smi,
    noise_from_durations,
    timer_from_readings,
)
from lanaprof.profiler.conditions import Control, CoreTime, Load, Snapshot

SMI_V100 = "Tesla V100-SXM2-16GB, 7.0, 535.183.01, Disabled, 135 MHz, 1530 MHz\n"
SMI_TWO = (
    "NVIDIA H100 80GB HBM3, 9.0, 550.54.15, Enabled, 1980 MHz, 1980 MHz\n"
    "NVIDIA L4, 8.9, 550.54.15, Enabled, [N/A], [N/A]\n"
)
SHOT = Snapshot(time_s=1.0, cores=(2,), allowed=(0, 1, 2, 3), online=4)


# Probes


def test_nvidia_smi_lines_become_gpus() -> None:
    """Name, compute capability, driver, persistence and clocks are read; what is not said is None."""
    first, second = gpus_from_nvidia_smi(SMI_TWO)

    assert (first.name, first.compute_capability, first.driver) == (
        "NVIDIA H100 80GB HBM3",
        "9.0",
        "550.54.15",
    )
    assert (first.persistent, first.sm_clock_max_mhz) == (True, 1980)
    assert (second.compute_capability, second.sm_clock_mhz) == ("8.9", None)


def test_nvidia_smi_without_a_driver_gives_no_gpu() -> None:
    """The sentence it prints when there is no driver is not taken for a GPU."""
    assert (
        gpus_from_nvidia_smi("NVIDIA-SMI has failed because it couldn't communicate with the driver.\n") == ()
    )


def test_available_memory_is_read() -> None:
    """In bytes; old kernels do not tell."""
    assert available_from_meminfo("MemTotal: 9 kB\nMemAvailable:    2048 kB\n") == 2048 * 1024
    assert available_from_meminfo("MemTotal: 9 kB\nMemFree: 1 kB\n") is None


def test_a_timers_step_and_cost() -> None:
    """The smallest move is its step, the median one what a reading costs: nothing when most stand still."""
    assert timer_from_readings([0, 40, 80, 200, 260]) == TimerReading(40, 60)
    assert timer_from_readings([0, 0, 0, 0, 4_000_000]) == TimerReading(4_000_000, 0)


def test_noise_is_median_and_tail_over_the_floor() -> None:
    """Of 1.00 … 1.20 in 21 steps the 10 % quantile is 1.02, the median 1.10, the 95 % quantile 1.19."""
    noise = noise_from_durations([1 + 0.01 * step for step in range(21)])

    assert noise.floor_s == pytest.approx(1.02)
    assert noise.spread == pytest.approx(1.10 / 1.02 - 1)
    assert noise.tail == pytest.approx(1.19 / 1.02 - 1)


# Verdicts


def test_newer_tensorrt_on_a_v100_fails_with_the_exact_pin() -> None:
    """The hint is what to type for the last version that has Volta."""
    check = doctoring.tensorrt_check(parse_device("v100"), gpus_from_nvidia_smi(SMI_V100), "10.16.1.11")

    assert (check.state, check.hint) == ("fail", "pip install tensorrt-cu12==10.4.0")
    assert "10.16.1.11" in check.message


def test_fitting_tensorrt_is_fine() -> None:
    """10.4 on a V100 passes."""
    check = doctoring.tensorrt_check(parse_device("v100"), gpus_from_nvidia_smi(SMI_V100), "10.4.0")

    assert check.state == "ok"


def test_gpu_of_another_kind_is_not_the_device() -> None:
    """An H100 is no V100."""
    checks = list(doctoring.gpu_checks(parse_device("v100"), gpus_from_nvidia_smi(SMI_TWO)))

    assert [(check.name, check.state) for check in checks] == [("hardware", "fail")]
    assert "H100" in checks[0].message


def test_gpu_that_unloads_its_driver_is_warned_about() -> None:
    """Persistence and free clocks are warnings with the commands that help."""
    checks = list(doctoring.gpu_checks(parse_device("v100"), gpus_from_nvidia_smi(SMI_V100)))

    assert [(check.name, check.state) for check in checks] == [
        ("hardware", "ok"), ("persistence", "warn"), ("gpu clock", "warn"),
    ]  # fmt: skip
    assert "-pm 1" in checks[1].hint
    assert "lock_clocks: true" in checks[2].hint


def test_quota_below_the_threads_fails() -> None:
    """A container that may use half a core would measure its own pauses."""
    check = hostchecks.cores_check(parse_device("cpu"), (0, 1), 0.5)

    assert (check.state, "0.5" in check.message) == ("fail", True)


@pytest.mark.parametrize(("cores", "state"), [((0, 1), "ok"), ((0,), "warn")])
def test_the_last_core_is_a_warning(cores: tuple[int, ...], state: str) -> None:
    """With as many cores as threads, the rest of the system disturbs."""
    assert hostchecks.cores_check(parse_device("cpu"), cores, None).state == state


def test_more_threads_than_cores_fail() -> None:
    """The hint is a device text that works."""
    check = hostchecks.cores_check(parse_device("cpu,threads=4"), (0, 1), None)

    assert (check.state, check.hint) == ("fail", "--device cpu,threads=2")


@pytest.mark.parametrize(("load", "state"), [(Load(0.4, 1), "ok"), (Load(2.5, 3), "warn"), (None, "ok")])
def test_load_beyond_the_free_cores_is_a_warning(load: Load | None, state: str) -> None:
    """Two cores, one thread to measure: more than one other busy program disturbs."""
    assert hostchecks.load_check(load, 2, 1).state == state


def test_clock_settings_are_judged() -> None:
    """A powersave governor, turbo, past heat and a shared core are warnings with a hint."""
    shot = replace(
        SHOT, governor="powersave", turbo=True, thermal_throttles=3, siblings=(6,), clocks_hz=(1.2e9,), clock_max_hz=4e9
    )  # fmt: skip
    checks = list(hostchecks.clock_checks(shot, hardware_threads=True))

    assert [(check.name, check.state) for check in checks] == [
        ("governor", "warn"), ("turbo", "warn"), ("heat", "warn"), ("smt", "warn"),
    ]  # fmt: skip
    assert all(check.hint for check in checks)
    assert "1.20 of 4.00 GHz" in checks[0].message
    assert "hardware threads 6" in checks[3].message


def test_invisible_clocks_are_no_fault() -> None:
    """A virtual machine shows none of these files."""
    assert [check.state for check in hostchecks.clock_checks(SHOT, hardware_threads=False)] == ["ok"] * 3


@pytest.mark.parametrize(
    ("control", "state"), [(None, "ok"), (Control(2.0), "ok"), (Control(2.0, 12, 0.4), "warn")]
)
def test_past_throttling_is_a_warning(control: Control | None, state: str) -> None:
    """The control group's own count."""
    assert hostchecks.throttled_check(control).state == state


@pytest.mark.parametrize(("free", "state"), [(None, "ok"), (1e8, "fail"), (1e9, "warn"), (8e9, "ok")])
def test_memory_is_judged(free: float | None, state: str) -> None:
    """Sessions must fit, and must not be swapped out."""
    assert hostchecks.memory_check(free).state == state


@pytest.mark.parametrize(
    ("timer", "state"),
    [(TimerReading(20, 40), "ok"), (TimerReading(4_000_000, 0), "warn"), (TimerReading(70, 1500), "warn")],
)
def test_a_coarse_or_dear_timer_is_a_warning(timer: TimerReading, state: str) -> None:
    """Ticks of 4 ms, or 1.5 µs a reading."""
    assert hostchecks.timer_check(timer, "hpet\n").state == state
    assert "(hpet)" in hostchecks.timer_check(timer, "hpet\n").message


@pytest.mark.parametrize(("steal", "state"), [(2, "ok"), (30, "warn")])
def test_steal_since_the_start(steal: int, state: str) -> None:
    """0.2 and 3 % of a thousand ticks."""
    shot = replace(SHOT, core_times=(CoreTime(0, 1000, 500, steal, 0),))

    assert hostchecks.steal_check(shot).state == state


@pytest.mark.parametrize(("kind", "state"), [(None, "ok"), ("nfs4", "fail")])
def test_a_network_file_system_fails(tmp_path: Path, kind: str | None, state: str) -> None:
    """SQLite's locks do not hold there."""
    assert doctoring.file_system_check(tmp_path, kind).state == state


@pytest.mark.parametrize(("slow", "state"), [(1.0, "ok"), (1.05, "warn"), (1.3, "warn")])
def test_noise_is_judged_by_the_median(slow: float, state: str) -> None:
    """A third of the runs at the floor, the rest slower."""
    assert hostchecks.noise_check([1.0] * 10 + [slow] * 20).state == state


@pytest.mark.parametrize(("free", "state"), [(5e6, "fail"), (5e8, "warn"), (5e9, "ok")])
def test_free_space_is_judged(tmp_path: Path, free: int, state: str) -> None:
    """Below 100 MB measuring may stop; below 1 GB training may."""
    assert doctoring.disk_check(tmp_path, int(free)).state == state


# The command


def by_name(document: Any) -> dict[str, Any]:
    return {check["name"]: check for check in document["checks"]}


def test_a_cpu_is_examined(lut: Any, cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine can measure its CPU, and says how well it repeats; a database to come is no fault."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # core locks of its own: others may be measuring
    ran = cli("doctor", "--json")
    found = by_name(ran.json)

    assert ran.code == 0, ran.out
    assert {found[name]["state"] for name in ("device", "runtime", "hardware", "database")} == {"ok"}
    assert {
        "cores",
        "load",
        "governor",
        "turbo",
        "smt",
        "priority",
        "repeat",
        "noise",
        "steal",
        "disk",
    } <= set(found)
    assert {"throttled", "memory", "timer", "file system"} <= set(found)
    assert found["repeat"]["message"].startswith("numbers will repeat to ±")
    assert "does not exist yet" in found["database"]["message"]


def test_quick_times_nothing(lut: Any, cli: Any) -> None:
    """Everything but the self-test."""
    found = by_name(cli("doctor", "--quick", "--json").json)

    assert not {"repeat", "noise"} & set(found)
    assert {"timer", "steal", "disk"} <= set(found)


def test_unknown_device_fails_its_check(lut: Any, cli: Any) -> None:
    """The other checks are still made, and the exit code is 2."""
    ran = cli("doctor", "--device", "cpo", "--json")
    found = by_name(ran.json)

    assert (ran.code, found["device"]["state"]) == (2, "fail")
    assert "did you mean 'cpu'" in found["device"]["message"]
    assert found["disk"]["state"] == "ok"


def test_device_of_another_processor_fails(lut: Any, cli: Any) -> None:
    """A devices.yaml entry that asks for another CPU is not this machine."""
    Path("devices.yaml").write_text("m7:\n  backend: onnxruntime\n  match: {cpu_model: '^Imaginary 7$'}\n")
    ran = cli("doctor", "--device", "m7", "--json")

    assert (ran.code, by_name(ran.json)["hardware"]["state"]) == (2, "fail")


def test_foreign_file_as_database_fails(lut: Any, cli: Any) -> None:
    """A database that is none is a failed check, not an error of the command."""
    Path("notes.db").write_text("not a database at all, but long enough to look into")
    ran = cli("doctor", "--quick", "--database", "notes.db", "--json")

    assert (ran.code, by_name(ran.json)["database"]["state"]) == (2, "fail")


def test_database_with_measurements_is_reached(lut: Any, cli: Any) -> None:
    """A good database is counted."""
    lut.database("lanaprof.db", lut.measurement())

    assert "1 measurements" in by_name(cli("doctor", "--quick", "--json").json)["database"]["message"]


def test_people_see_what_to_do(lut: Any, cli: Any) -> None:
    """Without --json there is a table with advice and a verdict."""
    ran = cli("doctor", "--device", "v100")

    assert ran.code == 2
    assert "cannot be measured here yet" in ran.out
    assert "tensorrt-cu12==10.4.0" in ran.out
