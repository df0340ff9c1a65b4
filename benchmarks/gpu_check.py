"""Everything that has to be tried on a real GPU, in one go, with a report to send back.

    make test-gpu                                                 (sets itself up and calls this)
    python benchmarks/gpu_check.py [--device NAME] [--out FILE]   (--device cpu rehearses it without a GPU)

Steps: what is here; install what this GPU needs; the contract that every backend is held to; a small campaign, its
calibration, and whole random networks against their prediction; the same once more, for repeatability; a selection
proved within a budget; the same operators by torch, as a cross-check. A step that fails is written down and the next
ones go on where they can. The report is text, with one JSON document at its end; it names the GPU and versions, not the
host or its user.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness import HERE, command, ended, find_machine, find_versions, say

from lanaprof.config import known_devices, parse_device
from lanaprof.errors import BadInput, LanaprofError
from lanaprof.profiler.gpu.probe import driver_version, find_gpus, why_no_gpu
from lanaprof.profiler.gpu.support import tensorrt_range

WORK = Path("build/gpu-check")
_TAIL = 4000  # characters of a failed step that go into the report
_KEPT: Mapping[str, tuple[str, ...]] = {  # of each command's answer
    "measure": ("measured", "reused", "noisy", "failed", "unsupported", "timeout", "seconds"),
    "calibrate": ("residual_sd", "too_noisy", "repeatability"),
    "verify": (
        "common_factor",
        "bias",
        "median_error",
        "p95_error",
        "coverage",
        "repeatability",
        "too_noisy",
    ),
    "select": ("status", "predicted_s", "measured_s", "budget_s", "rounds"),
    "lut": ("median", "p95"),
    "doctor": ("checks",),
}
_OF_PATHS = ("database", "disk", "file system")


class Check:
    """The steps done so far.

    Attributes:
        rows: name, state (``ok``, ``failed``, ``skipped``), seconds and what came out of each step.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def step(self, name: str, work: Callable[[], Any]) -> bool:
        """Do a step and write down what became of it; return whether it worked."""
        say(f"{name} …")
        began_s = time.monotonic()
        try:
            state, found = "ok", work()
        except LanaprofError as error:
            state, found = "failed", f"{error.message} → {error.hint}"
        except subprocess.CalledProcessError as error:
            state, found = "failed", ((error.stdout or "") + (error.stderr or ""))[-_TAIL:]
        self.rows.append(
            {"step": name, "state": state, "seconds": round(time.monotonic() - began_s, 1), "found": found}
        )
        return state == "ok"

    def skip(self, name: str, why: str) -> None:
        """Write down a step that cannot be done."""
        self.rows.append({"step": name, "state": "skipped", "seconds": 0.0, "found": why})

    @property
    def text(self) -> str:
        """Return the report."""
        lines = [f"{row['state']:8}{row['seconds']:8.1f} s  {row['step']}" for row in self.rows]
        failed = [row for row in self.rows if row["state"] == "failed"]
        for row in failed:
            lines += ["", f"--- {row['step']}", str(row["found"])]
        document = {"machine": find_machine(), "versions": find_versions(), "steps": self.rows}
        return "\n".join([*lines, "", json.dumps(document, ensure_ascii=False), ""])


def what_is_here() -> dict[str, Any]:
    """Return the GPUs and the driver.

    Raises:
        BadInput: there is none.
    """
    gpus = find_gpus()
    if not gpus:
        raise BadInput(f"there is no GPU to check: {why_no_gpu()}", hint="--device cpu rehearses this check")
    return {
        "gpus": [{"name": one.name, "capability": list(one.capability), "l2_bytes": one.l2_bytes,
                  "memory_bytes": one.memory_bytes, "sm_count": one.sm_count, "mig": one.mig} for one in gpus],
        "cuda": driver_version(),
    }  # fmt: skip


def install() -> str:
    """Install the extra and the TensorRT for the first GPU; return what was installed."""
    cuda = driver_version()
    pin = tensorrt_range(find_gpus()[0].capability, cuda=cuda[0] if cuda else 12).pin
    root = HERE.parent
    words = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-e", f"{root}[tensorrt]", pin]
    subprocess.run([sys.executable, *filter(None, words)], check=True, capture_output=True, text=True)
    return pin


def contract(backend: str, *, quick: bool) -> str:
    """Hold the backend to the contract of all backends; return pytest's last line."""
    tests = HERE.parent / "tests" / "profiler"
    held = tests / "test_profiler_backends.py" if quick else tests
    words = ["-m", "pytest", "-q", "-k", backend, str(held)]
    done = subprocess.run(
        [sys.executable, *words], check=True, capture_output=True, text=True, cwd=HERE.parent
    )
    return done.stdout.strip().splitlines()[-1]


def asked(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command and return the part of its answer that the report needs."""
    found = command(folder, *words)
    if "checks" in found:  # paths are nobody's business
        found["checks"] = [row for row in found["checks"] if row["name"] not in _OF_PATHS]
    return {key: found[key] for key in _KEPT.get(words[0], ()) if key in found}


def make_project(folder: Path, device: str, *, quick: bool) -> dict[str, Any]:
    """Make a project of a small network, and scores for its selection: what is checked is time, not quality."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if quick:
        shutil.copyfile(HERE / "tiny_teacher.py", folder / "tiny_teacher.py")
        words = ["--teacher", "tiny_teacher:network", "--input", "1x12x12", "--layers", "1.*"]
    else:
        words = ["--teacher", "timm:resnet18"]
    command(folder, "init", *words, "--ops", "quick", "--device", device)
    found = command(folder, "space")
    scores = [
        {"layer": layer["name"], "operation": one["name"], "score": -0.01 * place}
        for layer in found["layers"]
        for place, one in enumerate(layer["candidates"])
    ]
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    return {"operators": found["operators"], "log10_size": found["log10_size"]}


def campaign(check: Check, folder: Path, device: str, *, quick: bool) -> None:
    """Measure, calibrate, verify, measure again and select; each step rests on those before."""
    networks = "6" if quick else "16"
    on = ("--device", device)
    steps = [
        ("measure", ("measure", *on)),
        ("calibrate", ("calibrate", *on, "-n", networks)),
        ("whole networks", ("verify", *on, "--random", networks, "--seed", "7")),
        ("measure again", ("measure", *on, "--force", "--database", "again.db")),
        ("repeatability", ("lut", "compare", "lanaprof.db", "again.db")),
        ("selection", ("select", *on, "--budget", "70%", "--scores", "scores.json")),
    ]
    broken = ""
    for name, words in steps:
        if broken:
            check.skip(name, f"rests on: {broken}")
        elif not check.step(name, lambda words=words: asked(folder, *words)):  # type: ignore[misc]
            broken = name


def cross_check(check: Check, folder: Path, name: str, *, on_gpu: bool) -> None:
    """Measure the same operators with torch, and set the two tables side by side.

    They need not agree; an operator on which they are far apart is one to look at.
    """
    why = why_no_torch() if on_gpu else ""
    if why:
        check.skip("torch", why)
        return
    device = parse_device(name)
    other = {
        "backend": "torch-cuda" if on_gpu else "torch",
        "match": dict(device.match),
        "threads": device.threads,
        "batch": device.batch,
        "precision": device.precision,
    }
    (folder / "devices.yaml").write_text(json.dumps({"by-torch": other}), encoding="utf-8")
    tables = [f"lanaprof.db#device={each}" for each in (device.text, "by-torch")]
    if check.step("torch", lambda: asked(folder, "measure", "--device", "by-torch")):
        check.step("torch beside it", lambda: asked(folder, "lut", "compare", *tables))


def why_no_torch() -> str:
    """Return why the torch that is installed does not run on the first GPU; empty when it does."""
    import torch

    from lanaprof.profiler.backends.torch_cuda import why_torch_cannot

    return why_torch_cannot(torch, find_gpus()[0].capability)


def find_device() -> str:
    """Return the name of the first known device that is here.

    Raises:
        BadInput: what is here is none of devices.yaml.
    """
    from lanaprof.errors import DeviceUnavailable
    from lanaprof.profiler.environment import runs_on_gpu
    from lanaprof.profiler.gpu.environment import choose_gpu

    for device in known_devices().values():
        if device.backend == "tensorrt" and runs_on_gpu(device):
            try:
                choose_gpu(device, find_gpus())
            except DeviceUnavailable:
                continue
            return device.name
    raise BadInput(
        "the GPU here is none of devices.yaml",
        hint="lanaprof devices --detect prints an entry; then --device NAME",
    )


def main() -> None:
    """Check, write the report, say where it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", help="[default: the first known GPU that is here]")
    parser.add_argument("--out", type=Path, default=Path("build/gpu-report.txt"))
    parser.add_argument("--no-install", action="store_true", help="use what is installed")
    parser.add_argument("--quick", action="store_true", help="a toy network")
    given = parser.parse_args()
    check = Check()
    on_gpu = given.device is None or known_devices()[given.device.partition(",")[0]].backend != "onnxruntime"
    ready = not on_gpu or check.step("what is here", what_is_here)
    if on_gpu and ready and not given.no_install:
        ready = check.step("install", install)
    if ready:
        folder = WORK.resolve()
        device = given.device or find_device()
        check.step("doctor", lambda: asked(HERE.parent, "doctor", "--device", device))
        check.step("contract", lambda: contract("tensorrt" if on_gpu else "scripted", quick=given.quick))
        if check.step("project", lambda: make_project(folder, device, quick=given.quick)):
            campaign(check, folder, device, quick=given.quick)
            cross_check(check, folder, device, on_gpu=on_gpu)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(check.text, encoding="utf-8")
    say(check.text.split("\n{", 1)[0])
    say(f"report: {given.out} (please send it back)")
    if not ready or any(row["state"] != "ok" for row in check.rows):
        sys.exit(2 if not ready else 1)


if __name__ == "__main__":
    ended(main)
