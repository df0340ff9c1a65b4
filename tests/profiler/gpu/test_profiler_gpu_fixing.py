"""A GPU's clock is fixed while it is measured and given back, over an emulated NVML that outlives its processes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Emulated = Callable[..., str]

V100 = {
    "EMULATED_NVML_SM": "1312", "EMULATED_NVML_SM_DEFAULT": "1312", "EMULATED_NVML_SM_MAX": "1530",
    "EMULATED_NVML_TEMPERATURE": "61", "EMULATED_NVML_POWER": "212500", "EMULATED_NVML_PERMITTED": "1",
}  # fmt: skip
NO_CLOCK = {"EMULATED_NVML_SM_DEFAULT": "", "EMULATED_NVML_SM_MAX": ""}
BEGIN = """
import os, subprocess, sys
from pathlib import Path
from lanaprof.config import Device
from lanaprof.profiler.gpu.fixing import *
from lanaprof.profiler.gpu.probe import find_gpus, get_gpu
from lanaprof.profiler.remote import RemoteRig, WorkerSettings
from lanaprof.profiler.sample_graphs import relu_graph
from lanaprof.profiler.sampling import PlannedVisit, Run
folder = Path(os.environ["LOCKS"])
uuid = find_gpus()[0].uuid
marker = folder / f"gpu-{uuid}.clock"
os.geteuid = lambda: int(os.environ.get("WHO", "0"))
def now():
    return int(Path(os.environ["EMULATED_NVML_LOCKED"]).read_text() or 0)
def started(mhz=1200):
    return RemoteRig(WorkerSettings("scripted", 1, (), gpu=uuid, locks=folder, sm_clock_mhz=mhz))
"""


@pytest.fixture
def ran(emulated: Emulated, tmp_path: Path) -> Emulated:
    """Return what runs a program behind BEGIN, with an emulated V100 whose clock may be fixed."""
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed: pip install 'lanaprof[test]'")
    locked = tmp_path / "locked"
    locked.write_text("0")

    def run(code: str, **variables: str) -> str:
        told = {**V100, "LOCKS": str(tmp_path / "locks"), "EMULATED_NVML_LOCKED": str(locked), **variables}
        return emulated(BEGIN + code, **told)

    return run


def test_it_is_fixed_while_a_worker_lives(ran: Emulated) -> None:
    """And free when it ended as it should."""
    program = """
rig = started()
print(now(), marker.read_text().split(" by ")[0])
rig.close()
print(now(), marker.exists())
"""
    assert ran(program).splitlines() == ["1200 1200 MHz", "0 False"]


def test_it_is_given_back_for_a_worker_that_was_killed(ran: Emulated) -> None:
    """By whoever started it."""
    program = """
rig = started()
rig.kill()
rig._process.wait()
print(now(), marker.exists())
rig.close()
print(now(), marker.exists())
"""
    assert ran(program).splitlines() == ["1200 True", "0 False"]


@pytest.mark.parametrize("mhz", [0, 1100])
def test_what_a_dead_campaign_left_is_freed_by_the_next(ran: Emulated, mhz: int) -> None:
    """Whether that one fixes the clock or not."""
    program = f"""
ending = "rig = started(); print(now(), flush=True); rig.kill(); rig._process.wait(); os.kill(os.getpid(), 9)"
child = subprocess.run([sys.executable, "-c", os.environ["BEGIN"] + ending], stdout=subprocess.PIPE, text=True)
print(child.stdout.strip())
print(now(), marker.exists())
rig = started({mhz})
print(now())
rig.close()
print(now(), marker.exists())
"""
    assert ran(program, BEGIN=BEGIN).splitlines() == ["1200", "1200 True", str(mhz), "0 False"]


def test_where_another_measures_nothing_is_freed(ran: Emulated) -> None:
    """The clock is that one's."""
    program = """
rig = started()
print(find_forgotten_clocks(folder) == (uuid,), free_forgotten_clock(uuid, folder), now())
rig.close()
print(find_forgotten_clocks(folder), free_forgotten_clock(uuid, folder), now())
"""
    assert ran(program).splitlines() == ["True True 1200", "() True 0"]


def test_what_is_against_the_plan_ends_the_worker(ran: Emulated) -> None:
    """Its numbers would be filed under a clock that they do not have."""
    program = """
try:
    started()
except Exception as error:
    print(error, marker.exists())
"""
    printed = ran(program, EMULATED_NVML_PERMITTED="0")

    assert printed.startswith("the GPU's clock cannot be fixed at 1200 MHz: Insufficient Permissions")
    assert printed.endswith("False\n")


@pytest.mark.parametrize(
    ("wanted", "variables", "expected"),
    [
        ("None", {}, "0"),
        ("0", {}, "1312"),
        ("1200", {}, "1200"),
        ("1200", {"WHO": "1000"}, "0 the GPU's clock is not fixed: that takes root; .*--lock-gpu-clocks=1200,1200"),
        ("0", NO_CLOCK, "0 .* its default clock is unknown; .*=MHZ,MHZ"),
        ("0", {"EMULATED_CUDA_MIG": "1"}, "0 a slice of a GPU shares its clock"),
    ],
)  # fmt: skip
def test_the_plan_says_what_root_would_type(
    ran: Emulated, wanted: str, variables: dict[str, str], expected: str
) -> None:
    """The default clock, the one that was asked for, or why not."""
    printed = ran(
        f"plan = planned_clock(uuid, {wanted})\nprint(plan.sm_clock_mhz, plan.why_not)", **variables
    )

    assert re.match(expected, printed), printed


def test_the_environment_says_at_which_clock(ran: Emulated) -> None:
    """Other clocks are other numbers; a clock that may not be fixed is in no key."""
    program = """
from dataclasses import replace
from lanaprof.profiler.environment import is_device
from lanaprof.profiler.gpu.environment import gpu_environment
plain = Device(name="v", text="v", backend="scripted", match=(("gpu_name", "."),))
fixed = replace(plain, lock_clocks=1200)
found = {"plain": gpu_environment(plain), "fixed": gpu_environment(fixed)}
os.geteuid = lambda: 1000
found["denied"] = gpu_environment(fixed)
print(*(dict(one.options).get("sm_clock_mhz") for one in found.values()), found["plain"].id == found["denied"].id)
print(*(is_device(replace(plain, lock_clocks=mhz), found["fixed"]) for mhz in (None, 0, 1200, 1300)))
print(is_device(fixed, found["plain"]))
"""
    assert ran(program).splitlines() == ["None 1200 None True", "True True True False", "True"]
