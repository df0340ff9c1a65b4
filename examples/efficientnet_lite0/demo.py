"""EfficientNet-Lite0 with its ImageNet weights, 1.5 times as fast on one core of this machine, learnt without labels.

    python examples/efficientnet_lite0/demo.py [--out build/demo-real] [--images FOLDER]

The same commands as for any network. ``--images`` is a folder of photographs (no labels needed, the more the better);
by default the twenty that the package ``foolbox`` carries are used, which is enough to see every step work and far too
few for a good student. What is reported is agreement with the teacher on held-out photographs, and measured latencies.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from lanaprof import BadInput, LanaprofError
from lanaprof.flows.demo import export_teacher, run_command, time_files_afresh
from lanaprof.units import format_duration

HERE = Path(__file__).resolve().parent
BUDGET = "1.5x"


def packaged_images(folder: Path) -> Path:
    """Copy the ImageNet photographs that the package foolbox carries into a folder of their own."""
    spec = find_spec("foolbox")
    if spec is None or spec.origin is None:
        raise BadInput(
            "there are no images", hint="give --images FOLDER, or pip install foolbox==3.3.4 --no-deps"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted((Path(spec.origin).parent / "data").glob("imagenet_*")):
        shutil.copyfile(path, folder / path.name)
    return folder


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("build/demo-real"))
    parser.add_argument("--images", type=Path, help="a folder of photographs, without labels")
    parser.add_argument(
        "--steps", type=int, help="of distilling, for every candidate [default: 30; 100 with --images]"
    )
    parser.add_argument("--finetune-steps", type=int, help="[default: 60; 300 with --images]")
    arguments = parser.parse_args()
    steps = arguments.steps or (100 if arguments.images else 30)  # twenty images are soon learnt by heart
    finetune_steps = arguments.finetune_steps or (300 if arguments.images else 60)
    began_s = time.monotonic()
    out: Path = arguments.out.resolve()
    project = out / "project"
    if (out / "result.json").exists():
        shutil.rmtree(out)
    if not (project / "lanaprof.toml").exists():
        project.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(HERE / "teacher.py", project / "teacher.py")
        images = arguments.images.resolve() if arguments.images else packaged_images(out / "images")
        run_command(
            project, "init", "--teacher", "teacher:teacher", "--input", "3x224x224", "--device", "cpu",
            "--data", f"imagefolder:{images}",
        )  # fmt: skip
    ran = run_command(
        project, "run", "--budget", BUDGET, "--steps", str(steps), "--batch-size", "8",
        "--finetune-steps", str(finetune_steps),
        "--out", str(out / "student.onnx"), "--report", str(out / "report.html"),
    )  # fmt: skip
    export_teacher(project, out / "teacher.onnx")
    files = [out / "teacher.onnx", out / "student.onnx"]
    timed = time_files_afresh(files)
    teacher_s, student_s = (timed[str(path)]["latency_s"] for path in files)
    chosen = ran["steps"].get("select", {})
    result = {
        "teacher_latency_s": teacher_s,
        "student_latency_s": student_s,
        "speedup": teacher_s / student_s,
        "budget_s": chosen.get("budget_s"),
        "measured_s": chosen.get("measured_s"),
        "agreement": ran["steps"]["finetune"]["finetuned"]["agreement"],
        "agreement_before": ran["steps"]["finetune"]["assembled"]["agreement"],
        "kl": ran["steps"]["finetune"]["finetuned"]["kl"],
        "seconds": round(time.monotonic() - began_s, 1),
    }
    (out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    show(out, result)


def show(out: Path, result: dict[str, Any]) -> None:
    """Print the table."""
    table = Table(box=box.ROUNDED, title="EfficientNet-Lite0, 224 pixels, one core of this machine")
    for name in ("", "teacher", "student", ""):
        table.add_column(name)
    table.add_row(
        "latency, measured",
        format_duration(result["teacher_latency_s"]),
        format_duration(result["student_latency_s"]),
        f"[bold green]{result['speedup']:.2f}× faster[/bold green]",
    )
    before, after = result["agreement_before"], result["agreement"]
    table.add_row(
        "same class as the teacher, held out", "", f"{after:.0%}", f"{before:.0%} before fine-tuning"
    )
    console = Console()
    console.print(table)
    console.print(f"in {format_duration(result['seconds'])}; everything is in {out}", soft_wrap=True)


if __name__ == "__main__":
    try:
        main()
    except LanaprofError as error:
        sys.exit(f"{error.message}\n  → {error.hint}")
