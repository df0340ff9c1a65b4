"""Trained weights on disk: what they are keyed by, where they lie, how they come back."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lanaprof.digest import digest
from lanaprof.distill.runtime import PRECISIONS, write_whole
from lanaprof.distill.stopping import Standing
from lanaprof.distill.training import Curve
from lanaprof.errors import BadInput, StoreError
from lanaprof.ops import build_operation, candidate_seed, parse_operation
from lanaprof.teachers import state_digest

__all__ = [
    "Recipe",
    "TrainedCandidate",
    "build_candidate",
    "candidate_path",
    "distill_key",
    "find_trained",
    "load_candidate",
    "refuse_damaged",
    "save_candidate",
    "weights_text",
]

RECIPE_VERSION = 2  # raise it when the same recipe trains other weights
_FORMAT = "lanaprof-candidate/1"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How candidates are trained; weights trained by another recipe are other weights.

    Attributes:
        steps: batches every candidate sees.
        batch_size: samples in a batch, at least 2 (batch norm needs them).
        learning_rate: of AdamW at its highest; a short warm-up before, a cosine to zero after.
        weight_decay: of AdamW.
        seed: of the initial weights and the order of the samples.
        precision: ``fp32``, ``bf16`` (mixed: weights and their updates stay in float32), or ``auto``: bf16 on a GPU
            that has it, else fp32.
    """

    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 1e-4
    seed: int = 0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 2 or not self.learning_rate > 0 or self.weight_decay < 0:
            raise BadInput(
                f"cannot train {self.steps} steps of {self.batch_size} samples at learning rate "
                f"{self.learning_rate} and weight decay {self.weight_decay}",
                hint="at least 1 step, 2 samples, a learning rate above 0, a weight decay of 0 or more",
            )
        if self.precision not in PRECISIONS:
            raise BadInput(
                f"cannot train in {self.precision!r}", hint=f"choose one of {', '.join(PRECISIONS)}"
            )

    @property
    def digest(self) -> str:
        """The digest of everything above, the optimiser and the version of this code."""
        described = {**asdict(self), "optimizer": "adamw", "version": RECIPE_VERSION}
        if self.precision == "auto":
            del described["precision"]  # so that weights of versions without it are still found
        return digest(described)


@dataclass(frozen=True, slots=True)
class TrainedCandidate:
    """One candidate's weights on disk.

    Attributes:
        layer: the layer's name.
        operation: its text without the precision, which changes no trained weight.
        path: the safetensors file.
        digest: of the weights: names, shapes, bytes.
        error: mean squared error over the output's power, mean over the last tenth of the steps.
        steps: how many it was trained for.
        curve: (step, mean loss since the last point), up to 24 points; empty in files of older versions.
        rungs: how it stood where candidates may be given up, by the steps done; empty in files of older versions.
    """

    layer: str
    operation: str
    path: Path
    digest: str
    error: float
    steps: int
    curve: Curve = ()
    rungs: tuple[tuple[int, Standing], ...] = ()


def distill_key(teacher_digest: str, data_digest: str, recipe: Recipe) -> str:
    """Return the name of the folder of everything trained from this teacher, data and recipe."""
    return digest({"teacher": teacher_digest, "data": data_digest, "recipe": recipe.digest})


def weights_text(operation: str) -> str:
    """Return the text trained weights are kept under: canonical, without the precision.

    >>> weights_text("conv( kernel=1 )@fp16")
    'conv(kernel=1)'
    """
    return replace(parse_operation(operation), precision="").text


def build_candidate(
    layer: str,
    operation: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    seed: int,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Return a candidate with its initial weights, which depend on the layer, the operation and the seed.

    Args:
        layer: its name.
        operation: its text.
        shapes: the layer's input and output shape, per sample.
        seed: of the project.
        teacher: the teacher's layer, for operations that are made from it; it stays as it is.
    """
    text = weights_text(operation)
    return build_operation(
        parse_operation(text),
        shapes[0],
        shapes[1],
        teacher=teacher,
        seed=candidate_seed(seed, layer, text),
    )


def candidate_path(folder: Path, key: str, layer: str, operation: str) -> Path:
    """Return where a candidate's weights lie: readable, and unique on file systems that fold case."""
    return folder / key / _safe(layer) / f"{_safe(weights_text(operation))}.safetensors"


def save_candidate(
    path: Path,
    module: nn.Module,
    *,
    layer: str,
    operation: str,
    error: float,
    steps: int,
    curve: Curve = (),
    rungs: tuple[tuple[int, Standing], ...] = (),
) -> TrainedCandidate:
    """Write a trained candidate, whole or not at all."""
    state = {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}
    described = {
        "format": _FORMAT,
        "layer": layer,
        "operation": weights_text(operation),
        "digest": state_digest(module),
        "error": error,
        "steps": steps,
        "curve": curve,
        "rungs": [[step, standing.error, standing.standard_error] for step, standing in rungs],
    }
    metadata = {"lanaprof": json.dumps(described, sort_keys=True)}
    write_whole(path, lambda target: save_file(state, target, metadata=metadata))
    return _trained(described, path)


def find_trained(folder: Path, key: str) -> dict[tuple[str, str], TrainedCandidate]:
    """Return the finished candidates under a key, by layer and ``weights_text`` of the operation.

    A file that cannot be read counts as not there: it is trained again.
    """
    found: dict[tuple[str, str], TrainedCandidate] = {}
    for path in sorted((folder / key).glob("*/*.safetensors")):
        described = _read_description(path)
        if described is not None:
            trained = _trained(described, path)
            found[trained.layer, trained.operation] = trained
    return found


def load_candidate(
    folder: Path,
    key: str,
    layer: str,
    operation: str,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    teacher: nn.Module | None = None,
) -> nn.Module:
    """Return a trained candidate in eval mode.

    Args:
        folder: where ``distill`` kept its weights.
        key: as ``DistillResult.key`` says.
        layer: the layer's name.
        operation: its text; a precision is accepted and changes nothing.
        shapes: the layer's input and output shape, per sample.
        teacher: the teacher's layer, for operations that are made from it.

    Raises:
        StoreError: it is not there, damaged, or of another shape.
    """
    path = candidate_path(folder, key, layer, operation)
    module = build_candidate(layer, operation, shapes, seed=0, teacher=teacher)
    if not any(True for _ in module.state_dict()):
        return module.eval()  # skip and its like have nothing to train
    hint = "lanaprof distill trains what is missing"
    if not path.is_file():
        raise StoreError(
            f"there are no trained weights for {operation} in {layer}: no file {path}", hint=hint
        )
    try:
        module.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise StoreError(
            f"the weights in {path} cannot be used: {error}", hint=f"delete it; {hint}"
        ) from error
    return module.eval()


def refuse_damaged(folder: Path, key: str, layer: str, operation: str) -> None:
    """Refuse a candidate whose weights are there but cannot be read: to others it would count as not trained.

    Raises:
        StoreError: damaged, or of another user.
    """
    path = candidate_path(folder, key, layer, operation)
    if path.is_file() and _read_description(path) is None:
        raise StoreError(
            f"the weights of {operation} in {layer} cannot be read: {path}",
            hint="if they are another user's: chmod a+r; if they are damaged: lanaprof distill trains them again",
        )


def _read_description(path: Path) -> dict[str, Any] | None:
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {}).get("lanaprof", "null"))
    except (SafetensorError, OSError, ValueError):
        return None
    return described if isinstance(described, dict) and described.get("format") == _FORMAT else None


def _trained(described: Mapping[str, Any], path: Path) -> TrainedCandidate:
    return TrainedCandidate(
        layer=described["layer"],
        operation=described["operation"],
        path=path,
        digest=described["digest"],
        error=described["error"],
        steps=described["steps"],
        curve=tuple((int(step), float(loss)) for step, loss in described.get("curve", ())),
        rungs=tuple(
            (int(step), Standing(float(error), float(noise)))
            for step, error, noise in described.get("rungs", ())
        ),
    )


def _safe(text: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._=-]+", "_", text).strip("_.")[:80]
    return f"{cleaned}-{digest(text)[:8]}"
