"""Students: networks built from an architecture, with the weights that were trained for them."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.digest import digest
from lanaprof.errors import BadArchitecture, BadInput, BadProject, StoreError
from lanaprof.flows.chosen import find_selection
from lanaprof.flows.files import write_whole
from lanaprof.flows.learning import load_project_data, load_trained
from lanaprof.flows.operators import Choices
from lanaprof.flows.prechecks import student_kind
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.scales import device_precision, grid_here
from lanaprof.flows.studentfiles import write_onnx, write_program
from lanaprof.lut import Store
from lanaprof.ops import SKIP, TEACHER, parse_operation
from lanaprof.space import Architecture, architecture_to_json, load_architecture, place_name

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lanaprof.distill import Evaluation, FinetuneRecipe, FinetuneResult, Progress
    from lanaprof.teachers import Teacher

__all__ = [
    "ExportedStudent",
    "Student",
    "build_student",
    "export_student",
    "finetune_student",
    "load_student",
    "read_exports",
    "selected",
    "student_path",
]

_MANIFEST = "student.json"
_WEIGHTS = "student.safetensors"
_ARCHITECTURE = "architecture.json"
_EXPORTS = "exports.json"
_FORMAT = "lanaprof-student/1"


@dataclass(frozen=True, slots=True)
class Student:
    """A network of the space.

    Attributes:
        choices: one operation per layer.
        module: eval mode, as trained (branches not fused yet).
        untrained: layers whose candidate has seeded initial weights.
        finetuned: whether the whole network was fine-tuned.
    """

    choices: Choices
    module: nn.Module
    untrained: tuple[str, ...]
    finetuned: bool

    @property
    def is_narrow(self) -> bool:
        """Whether some layers are computed at a lower precision than float32."""
        chosen = (parse_operation(operation) for operation in self.choices if operation)
        return any(operation.precision not in ("", "fp32") for operation in chosen)


def selected(project: Project, store: Store, which: str | None, architecture: Path | None) -> Choices:
    """Return the choices of a stored selection (default: the latest) or of an architecture file.

    Raises:
        UnknownSelection: there is none.
        BadArchitecture: it does not fit the space.
    """
    if architecture is not None:
        return load_architecture(architecture).complete(project.space)
    return Architecture("", find_selection(project, store, which).choices).complete(project.space)


def _student_key(project: Project, choices: Choices) -> str:
    return digest(
        {"teacher": project.weights_digest, "structure": project.facts["structure"], "choices": choices}
    )


def student_path(project: Project, choices: Choices) -> Path:
    """Return where the fine-tuned weights of a network lie; beside them, its evaluations as JSON."""
    return project.state / "students" / f"{_student_key(project, choices)}.safetensors"


def build_student(
    project: Project, choices: Choices, *, teacher: Teacher | None = None, finetuned: bool = True
) -> Student:
    """Return a network with its best weights: fine-tuned, else candidate by candidate, else seeded.

    Args:
        project: whose space.
        choices: one operation per layer.
        teacher: loaded already; the network keeps nothing of it.
        finetuned: whether fine-tuned weights are used where there are any.

    Raises:
        StoreError: weights are there but cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from lanaprof.teachers import assemble

    teacher = teacher or project.load_teacher()
    pairs = project.space.named(choices)
    modules = load_trained(project, pairs, teacher=teacher)
    network = assemble(
        teacher,
        pairs,
        space=project.space,
        modules=modules,
        seed=project.config.seed,
        grid=grid_here(project),
    )
    path = student_path(project, choices)
    if finetuned and path.is_file():
        try:
            network.load_state_dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise StoreError(
                f"the fine-tuned weights in {path} cannot be read: {error}",
                hint="delete the file, then: lanaprof finetune",
            ) from error
        return Student(choices, network, (), finetuned=True)
    untrained = tuple(name for name, op in pairs if op not in (TEACHER, SKIP) and (name, op) not in modules)
    return Student(choices, network, untrained, finetuned=False)


def finetune_student(
    project: Project, choices: Choices, recipe: FinetuneRecipe, *, progress: Callable[[Progress], None]
) -> FinetuneResult:
    """Distil the whole network from the teacher, at the ends of its stages, too, and keep its weights."""
    from safetensors.torch import save

    from lanaprof.distill import finetune
    from lanaprof.distill.features import stage_ends

    recipe = replace(recipe, feature_layers=stage_ends(project.space, choices) if recipe.features else ())
    teacher = project.load_teacher()
    student = build_student(project, choices, teacher=teacher, finetuned=False)
    data = load_project_data(project)
    folder = project.state / "finetuning" / _student_key(project, choices)
    result = finetune(student.module, teacher, data, recipe=recipe, folder=folder, progress=progress)
    path = student_path(project, choices)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(_weights(student.module)))
    except OSError as error:
        raise BadProject(
            f"{path} cannot be written: {error.strerror or error}",
            hint="free some space; the same command goes on from here",
        ) from error
    write_json(path.with_suffix(".json"), _noted(result))
    return result


def _noted(result: FinetuneResult) -> dict[str, Any]:
    """Return a fine-tuning for people and reports: three evaluations by stage, and every look at held-out data.

    ``history`` holds ``step``, ``train_loss`` (mean since the look before, None at the first) and what an
    evaluation holds; what is not finite is None. ``kept_statistics`` says that re-estimating batch norm had harmed.
    """
    stages = {"assembled": result.before, "reestimated": result.reestimated, "finetuned": result.best}
    history = [
        {"step": point.step, "train_loss": _finite(point.train_loss), **_plain(point.heldout)}
        for point in result.history
    ]
    return {
        **{name: _plain(evaluation) for name, evaluation in stages.items()},
        "kept_statistics": result.kept_statistics,
        "history": history,
    }


def _plain(evaluation: Evaluation) -> dict[str, float | None]:
    return {name: _finite(value) for name, value in asdict(evaluation).items()}


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True, slots=True)
class ExportedStudent:
    """What an export wrote.

    Attributes:
        out: the file or folder.
        kind: ``onnx``, ``pt2`` or ``folder``.
        untrained: layers with seeded initial weights.
        difference: largest difference to torch's output, relative to the largest output; None for a folder.
    """

    out: Path
    kind: str
    untrained: tuple[str, ...]
    difference: float | None


def export_student(project: Project, student: Student, out: Path, *, batch: int = 1) -> ExportedStudent:
    """Write a student in its deployed form: .onnx, .pt2, or a folder for :func:`load_student`.

    Raises:
        BadInput: the place cannot be written, or has another ending.
        UserError: the written network does not agree with torch.
    """
    shape = (batch, *project.space.input_shape)
    kind = student_kind(out)
    difference = None
    try:
        if kind == "folder":
            _write_folder(project, student, out)
        else:
            module, narrow = _deployed(project, student)
            write = write_onnx if kind == "onnx" else write_program
            difference = write(module, student.module, shape, out, narrow=narrow)
    except OSError as error:
        raise BadInput(
            f"{out} cannot be written: {error.strerror or error}", hint="choose another --out"
        ) from error
    noted = {**read_exports(project), str(out.resolve()): _student_key(project, student.choices)}
    # Where the project is read-only, status does not know of it; what was asked for is written all the same.
    with contextlib.suppress(BadProject):
        write_json(project.state / _EXPORTS, noted)
    return ExportedStudent(out, kind, student.untrained, difference)


def _deployed(project: Project, student: Student) -> tuple[nn.Module, bool]:
    """Return a student as the project's first device computes it, and whether some of it is not in float32.

    Where operations name precisions of their own, the rest stays in float32.
    """
    from lanaprof.ops import at_precision, fuse

    precision = device_precision(project)
    if student.is_narrow or precision not in ("fp16", "bf16"):
        return fuse(student.module), student.is_narrow
    return at_precision(student.module, precision, project.space.input_shape), True


def read_exports(project: Project) -> dict[str, str]:
    """Return what was exported: path → key of the network; files may be gone since."""
    try:
        found = json.loads((project.state / _EXPORTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in module.state_dict().items()}


def _write_folder(project: Project, student: Student, out: Path) -> None:
    """Write the three files aside first: what is there stays whole until they all are."""
    from safetensors.torch import save

    space = project.space
    layers = [
        {"name": x.name, "input_shape": list(x.input_shape), "output_shape": list(x.output_shape)}
        for x in space.layers
    ]
    spans = [
        {
            "layers": list(space.covered(x.name)),
            "input_shape": list(x.input_shape),
            "output_shape": list(x.output_shape),
        }
        for x, _ in space.parts(student.choices)
        if x in space.runs
    ]
    manifest = {
        "format": _FORMAT,
        "teacher": space.teacher,
        "input_shape": list(space.input_shape),
        "preprocessing": project.facts["preprocessing"],
        "layers": layers,
        **({"spans": spans} if spans else {}),
        "untrained": list(student.untrained),
        "grid": grid_here(project),
    }
    architecture = architecture_to_json(Architecture(space.teacher, space.named(student.choices)))
    files: dict[str, bytes] = {
        _WEIGHTS: save(_weights(student.module)),
        _ARCHITECTURE: (json.dumps(architecture, indent=1) + "\n").encode(),
        _MANIFEST: (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode(),
    }
    if out.exists() and not out.is_dir():
        raise FileExistsError(errno.EEXIST, "it is there and no folder")
    is_new = not out.exists()
    out.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as aside:
            for name, content in files.items():
                (Path(aside) / name).write_bytes(content)
            for name in files:
                (Path(aside) / name).replace(out / name)
    except OSError:
        if is_new:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                out.rmdir()
        raise


def load_student(folder: str | Path) -> nn.Module:
    """Return the network in a folder that ``export`` wrote, in eval mode.

    The teacher's code must be importable (timm, torchvision, or the factory's module); its weights are not needed.

    Raises:
        BadInput: the folder holds no student.
        UnknownTeacher: the teacher's code is missing.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from lanaprof.ops import build_operation, make_operation, parse_operation
    from lanaprof.teachers import bare_teacher, own_module, place_module

    folder = Path(folder)
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != _FORMAT:
            raise BadInput(f"{folder} has the format {manifest['format']!r}; this lanaprof reads {_FORMAT!r}")
        state = load_file(folder / _WEIGHTS)
        choices = dict(load_architecture(folder / _ARCHITECTURE).choices)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, BadArchitecture) as error:
        raise BadInput(
            f"{folder} holds no exported student: {error}", hint="lanaprof export --out DIR/"
        ) from error
    network = bare_teacher(
        manifest["teacher"], state, input_shape=manifest["input_shape"], search_path=Path.cwd()
    )
    places = [{**layer, "layers": [layer["name"]]} for layer in manifest["layers"]]
    for layer in (*places, *manifest.get("spans", ())):
        covered = tuple(layer["layers"])
        chosen = choices.get(place_name(covered[0], covered[-1]), TEACHER)  # a span's layers have none
        operation = parse_operation(chosen)
        if operation != make_operation(TEACHER):
            # weights are loaded below: of the bare network's layer, where it is asked for, only shapes matter
            own = own_module(network, covered)
            module = build_operation(
                operation,
                tuple(layer["input_shape"]),
                tuple(layer["output_shape"]),
                teacher=own,
                grid=manifest.get("grid", "uint8"),
            )
            place_module(network, covered, module)
    network.load_state_dict(state)
    return network.eval()
