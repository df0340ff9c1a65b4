"""The whole of lanaprof on real data: a trained network, made more than twice as fast on one core of this machine.

    python examples/fashion_mnist/demo.py [--out build/demo]

runs the same commands a user types, prints one table, and leaves ``teacher.onnx``, ``student.onnx``, ``report.html``
and ``result.json`` in the folder. Stopped half-way, it goes on where it was; after a whole run it starts anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from lanaprof import LanaprofError
from lanaprof.distill.fashion_mnist import find_fashion_mnist, read_fashion_mnist
from lanaprof.flows.demo import accuracy_of, export_teacher, run_command, time_files_afresh
from lanaprof.lut import open_store
from lanaprof.units import format_duration

HERE = Path(__file__).resolve().parent
BUDGET = "46%"  # of the teacher's latency: half, and room for what two processes differ by
DISTILL_STEPS = 100
FINETUNE_STEPS = 750
MEAN, STD, SIZE = 0.2860, 0.3530, 28


def make_project(folder: Path) -> None:
    """Make the project unless it is there."""
    if (folder / "lanaprof.toml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("teacher.py", "teacher.safetensors"):
        shutil.copyfile(HERE / name, folder / name)
    words = [
        "--teacher",
        "teacher:teacher",
        "--input",
        "1x28x28",
        "--data",
        "fashion-mnist",
        "--device",
        "cpu",
    ]
    run_command(folder, "init", *words)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    out: Path = parser.parse_args().out.resolve()
    began_s = time.monotonic()
    project = out / "project"
    if (out / "result.json").exists():
        shutil.rmtree(out)
    make_project(project)
    ran = run_command(
        project, "run", "--budget", BUDGET, "--steps", str(DISTILL_STEPS), "--batch-size", "64",
        "--finetune-steps", str(FINETUNE_STEPS),
        "--out", str(out / "student.onnx"), "--report", str(out / "report.html"),
    )  # fmt: skip
    export_teacher(project, out / "teacher.onnx")
    result = judged(out) | selected(project, ran["selection"])
    result["seconds"] = round(time.monotonic() - began_s, 1)
    result["preprocessing"] = {"mean": [MEAN], "std": [STD], "size": SIZE}
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(out, result)


def selected(project: Path, selection: str) -> dict[str, Any]:
    """Return budget, prediction and measurement of a stored selection."""
    with open_store(project / "lanaprof.db") as store:
        found = store.find_selection(selection)
    budget_s = dict(found.budgets)["latency_s@cpu"]
    return {"budget_s": budget_s, "predicted_s": found.predicted_s, "measured_s": found.measured_s}


def judged(out: Path) -> dict[str, Any]:
    """Time both files in a fresh process, interleaved, and count what they classify right on the test images."""
    files = [out / "teacher.onnx", out / "student.onnx"]
    timed = time_files_afresh(files)
    images, labels = read_fashion_mnist(find_fashion_mnist(HERE), "test")
    x = np.asarray((images[:, None] / 255 - MEAN) / STD, dtype=np.float32)
    teacher_s, student_s = (timed[str(path)]["latency_s"] for path in files)
    return {
        "teacher_accuracy": accuracy_of(files[0], x, labels),
        "student_accuracy": accuracy_of(files[1], x, labels),
        "test_images": len(labels),
        "teacher_latency_s": teacher_s,
        "student_latency_s": student_s,
        "speedup": teacher_s / student_s,
    }


def show(out: Path, result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(box=box.ROUNDED, title="Fashion-MNIST on one core of this machine")
    table.add_column("")
    for name in ("teacher", "student", ""):
        table.add_column(name, justify="right")
    points = (result["student_accuracy"] - result["teacher_accuracy"]) * 100
    table.add_row(
        "latency, measured",
        format_duration(result["teacher_latency_s"]),
        format_duration(result["student_latency_s"]),
        f"[bold green]{result['speedup']:.2f}× faster[/bold green]",
    )
    table.add_row("budget", "", format_duration(result["budget_s"]), "")
    table.add_row("predicted", "", format_duration(result["predicted_s"]), "")
    table.add_row(
        f"right of {result['test_images']:,} test images",
        f"{result['teacher_accuracy']:.2%}",
        f"{result['student_accuracy']:.2%}",
        f"{points:+.2f} points",
    )
    console = Console()
    console.print(table)
    console.print(
        f"in {format_duration(result['seconds'])}; networks, report and result.json: {out}", soft_wrap=True
    )


if __name__ == "__main__":
    try:
        main()
    except LanaprofError as error:
        sys.exit(f"{error.message}\n  → {error.hint}")
