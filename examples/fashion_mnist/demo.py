"""The whole of lanaprof on real data: a trained network, made more than twice as fast on one core of this machine.

    python examples/fashion_mnist/demo.py [--out build/demo]

runs the same commands a user types, prints one table, and leaves ``teacher.onnx``, ``student.onnx``, ``report.html``
and ``result.json`` in the folder. Stopped half-way, it goes on where it was; ``--fresh`` starts anew.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from prove import accuracy  # noqa: E402 (the folder of the examples is not a package)

from lanaprof.distill.fashion_mnist import find_fashion_mnist, read_fashion_mnist  # noqa: E402

BUDGET = "46%"  # of the teacher's latency: half, and room for what two processes differ by
DISTILL_STEPS = 120
FINETUNE_STEPS = 1000
MEAN, STD, SIZE = 0.2860, 0.3530, 28


def lanaprof(folder: Path, *words: str) -> dict[str, Any]:
    """Run a command in the project and return its JSON; its progress goes to the terminal."""
    done = subprocess.run(
        [sys.executable, "-m", "lanaprof", *words, "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        check=False,
        text=True,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    if done.returncode not in (0, 3) or "error" in document:
        error = document.get("error", {})
        sys.exit(f"lanaprof {words[0]}: {error.get('message')}\n  → {error.get('hint')}")
    return document


def make_project(folder: Path) -> None:
    """Make the project unless it is there."""
    if (folder / "lanaprof.toml").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("teacher.py", "teacher.safetensors"):
        shutil.copyfile(HERE / name, folder / name)
    lanaprof(
        folder,
        "init",
        "--teacher",
        "teacher:teacher",
        "--input",
        "1x28x28",
        "--data",
        "fashion-mnist",
        "--device",
        "cpu",
    )


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo"))
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier run left")
    arguments = parser.parse_args()
    began_s = time.monotonic()
    out: Path = arguments.out.resolve()
    project = out / "project"
    if arguments.fresh or (out / "result.json").exists():
        shutil.rmtree(out, ignore_errors=True)
    make_project(project)
    ran = lanaprof(
        project, "run", "--budget", BUDGET, "--steps", str(DISTILL_STEPS), "--finetune-steps", str(FINETUNE_STEPS),
        "--out", str(out / "student.onnx"), "--report", str(out / "report.html"),
    )  # fmt: skip
    keep = out / "teacher.json"
    keep.write_text('{"format": "lanaprof-architecture/1", "teacher": "", "choices": {}}')
    lanaprof(project, "export", "--architecture", str(keep), "--out", str(out / "teacher.onnx"))
    keep.unlink()
    selection = selected(project, ran["selection"])
    result = prove(out) | {
        "budget_s": selection["budget_s"],
        "predicted_s": selection["predicted_s"],
        "measured_s": selection["measured_s"],
        "seconds": round(time.monotonic() - began_s, 1),
        "preprocessing": {"mean": [MEAN], "std": [STD], "size": SIZE},
    }
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    show(out, result)


def selected(project: Path, selection: str) -> dict[str, float]:
    """Return budget, prediction and measurement of a stored selection."""
    from lanaprof.lut import open_store

    with open_store(project / "lanaprof.db") as store:
        found = store.find_selection(selection)
    return {
        "budget_s": dict(found.budgets)["latency_s@cpu"],
        "predicted_s": found.predicted_s or 0.0,
        "measured_s": found.measured_s or 0.0,
    }


def prove(out: Path) -> dict[str, Any]:
    """Time both files in a fresh process, interleaved, and count what they classify right on the test images."""
    files = [out / "teacher.onnx", out / "student.onnx"]
    command = [sys.executable, str(HERE.parent / "prove.py"), "time", *map(str, files)]
    timed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    images, labels = read_fashion_mnist(find_fashion_mnist(HERE), "test")
    x = ((images.astype(np.float32) / 255 - MEAN) / STD)[:, None]
    teacher_s, student_s = (timed[str(path)]["latency_s"] for path in files)
    return {
        "teacher_accuracy": accuracy(files[0], x, labels),
        "student_accuracy": accuracy(files[1], x, labels),
        "test_images": len(labels),
        "teacher_latency_s": teacher_s,
        "student_latency_s": student_s,
        "speedup": teacher_s / student_s,
    }


def show(out: Path, result: dict[str, Any]) -> None:
    """Print the table."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from lanaprof.units import format_duration

    table = Table(box=box.ROUNDED, title="Fashion-MNIST, one core of this machine")
    for name, side in (("", "left"), ("teacher", "right"), ("student", "right"), ("", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
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
        f"in {format_duration(result['seconds'])}; files, report and result.json are in {out}", soft_wrap=True
    )


if __name__ == "__main__":
    main()
