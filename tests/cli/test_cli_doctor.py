"""lanaprof doctor: its probes on other machines' texts, and the command on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import parse_device
from lanaprof.flows import doctoring
from lanaprof.flows.machine import (
    cpu_quota_from_cgroup_v1,
    gpus_from_nvidia_smi,
    noise_from_durations,
    steal_share,
    tensorrt_range,
    turbo_from_sysfs,
    version_from_text,
)

SMI_V100 = "Tesla V100-SXM2-16GB, 7.0, 535.183.01, Disabled, 135 MHz, 1530 MHz\n"
SMI_TWO = (
    "NVIDIA H100 80GB HBM3, 9.0, 550.54.15, Enabled, 1980 MHz, 1980 MHz\n"
    "NVIDIA L4, 8.9, 550.54.15, Enabled, [N/A], [N/A]\n"
)
STAT_BEFORE = "cpu  334285 0 37617 313200 2235 0 357 622 0 0\ncpu0 153263 0 15530 174201 674 0 26 311 0 0\n"
STAT_AFTER = "cpu  334485 0 37617 313300 2235 0 357 722 0 0\ncpu0 153263 0 15530 174201 674 0 26 311 0 0\n"


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


@pytest.mark.parametrize(
    ("capability", "version", "served"),
    [
        ("7.0", "10.4.0", True), ("7.0", "10.5.0", False), ("7.0", "11.4.0.106", False), ("7.0", "8.6.1", True),
        ("7.0", "8.5.3", False), ("6.1", "8.6.1.post1", True), ("6.1", "10.0.1", False), ("7.5", "11.4.0", True),
        ("9.0", "10.16.1.11", True), ("10.0", "10.4.0", False), ("12.0", "10.8.0", True),
    ],
)  # fmt: skip
def test_tensorrt_serves_a_gpu_generation(capability: str, version: str, served: bool) -> None:
    """Volta ends with 10.4, Pascal with 8.6, Blackwell begins with 10.8."""
    found = tensorrt_range(capability)

    assert found is not None
    assert found.serves(version_from_text(version)) is served


def test_kepler_is_served_by_no_tensorrt() -> None:
    """GPUs older than Maxwell have no version that lanaprof can use."""
    assert tensorrt_range("3.5") is None


def test_steal_is_the_share_between_two_texts() -> None:
    """200 user, 100 idle and 100 stolen ticks passed: a quarter was stolen."""
    assert steal_share(STAT_BEFORE, STAT_AFTER) == 0.25


def test_no_time_passed_means_no_steal() -> None:
    """Two equal texts do not divide by zero."""
    assert steal_share(STAT_BEFORE, STAT_BEFORE) == 0.0


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", None), ("50000\n", 0.5), ("200000\n", 2.0)])
def test_old_control_groups_are_read(quota: str, expected: float | None) -> None:
    """Quota over period; -1 is unlimited."""
    assert cpu_quota_from_cgroup_v1(quota, "100000\n") == expected


@pytest.mark.parametrize(
    ("no_turbo", "boost", "expected"),
    [
        ("0\n", None, True),
        ("1\n", None, False),
        (None, "1\n", True),
        (None, "0\n", False),
        (None, None, None),
    ],
)
def test_turbo_is_read_from_either_driver(
    no_turbo: str | None, boost: str | None, expected: bool | None
) -> None:
    """Intel says no_turbo, others say boost, many virtual machines say nothing."""
    assert turbo_from_sysfs(no_turbo=no_turbo, boost=boost) is expected


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

    assert (check.state, check.hint) == ("fail", 'pip install "tensorrt==10.4.0"')
    assert "CUDA 12" in check.message
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
    assert "-lgc 1530" in checks[2].hint


def test_quota_below_the_threads_fails() -> None:
    """A container that may use half a core would measure its own pauses."""
    check = doctoring.cores_check(parse_device("cpu"), (0, 1), 0.5)

    assert (check.state, "0.5" in check.message) == ("fail", True)


@pytest.mark.parametrize(("cores", "state"), [((0, 1), "ok"), ((0,), "warn")])
def test_the_last_core_is_a_warning(cores: tuple[int, ...], state: str) -> None:
    """With as many cores as threads, the rest of the system disturbs."""
    assert doctoring.cores_check(parse_device("cpu"), cores, None).state == state


def test_more_threads_than_cores_fail() -> None:
    """The hint is a device text that works."""
    check = doctoring.cores_check(parse_device("cpu,threads=4"), (0, 1), None)

    assert (check.state, check.hint) == ("fail", "--device cpu,threads=2")


@pytest.mark.parametrize(("load", "state"), [(0.4, "ok"), (2.5, "warn"), (None, "ok")])
def test_load_beyond_the_free_cores_is_a_warning(load: float | None, state: str) -> None:
    """Two cores, one thread to measure: more than one other busy program disturbs."""
    assert doctoring.load_check(load, 2, 1).state == state


def test_clock_settings_are_judged() -> None:
    """A powersave governor, turbo and shared cores are warnings with a hint."""
    texts = {
        "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "/sys/devices/system/cpu/intel_pstate/no_turbo": "0\n",
        "/sys/devices/system/cpu/smt/active": "1\n",
    }
    checks = list(doctoring.clock_checks(texts.get))

    assert [(check.name, check.state) for check in checks] == [
        ("governor", "warn"), ("turbo", "warn"), ("smt", "warn"),
    ]  # fmt: skip
    assert all(check.hint for check in checks)


def test_invisible_clocks_are_no_fault() -> None:
    """A virtual machine shows none of these files."""
    assert [check.state for check in doctoring.clock_checks(lambda _path: None)] == ["ok", "ok", "ok"]


@pytest.mark.parametrize(("slow", "state"), [(1.0, "ok"), (1.05, "warn"), (1.3, "warn")])
def test_noise_is_judged_by_the_median(slow: float, state: str) -> None:
    """A third of the runs at the floor, the rest slower."""
    assert doctoring.noise_check([1.0] * 10 + [slow] * 20).state == state


@pytest.mark.parametrize(("free", "state"), [(5e6, "fail"), (5e8, "warn"), (5e9, "ok")])
def test_free_space_is_judged(tmp_path: Path, free: int, state: str) -> None:
    """Below 100 MB measuring may stop; below 1 GB training may."""
    assert doctoring.disk_check(tmp_path, int(free)).state == state


# The command


def by_name(document: Any) -> dict[str, Any]:
    return {check["name"]: check for check in document["checks"]}


def test_a_cpu_is_examined(lut: Any, cli: Any) -> None:
    """This machine can measure its CPU; a database that is not there yet is no fault."""
    ran = cli("doctor", "--json")
    found = by_name(ran.json)

    assert ran.code == 0, ran.out
    assert {found[name]["state"] for name in ("device", "runtime", "hardware", "database")} == {"ok"}
    assert {"cores", "load", "governor", "turbo", "smt", "priority", "noise", "steal", "disk"} <= set(found)
    assert "does not exist yet" in found["database"]["message"]


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
    ran = cli("doctor", "--database", "notes.db", "--json")

    assert (ran.code, by_name(ran.json)["database"]["state"]) == (2, "fail")


def test_database_with_measurements_is_reached(lut: Any, cli: Any) -> None:
    """A good database is counted."""
    lut.database("lanaprof.db", lut.measurement())

    assert "1 measurements" in by_name(cli("doctor", "--json").json)["database"]["message"]


def test_people_see_what_to_do(lut: Any, cli: Any) -> None:
    """Without --json there is a table with advice and a verdict."""
    ran = cli("doctor", "--device", "v100")

    assert ran.code == 2
    assert "cannot be measured here yet" in ran.out
    assert 'pip install "tensorrt==10.4.0"' in ran.out
