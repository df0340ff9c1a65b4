"""Replace-one scores: how much worse is the network with one candidate in one layer?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lanaprof.distill.evaluation import class_logits, kl_per_image
from lanaprof.distill.runtime import Pace, Progress, ProgressCallback, Runtime, crew
from lanaprof.distill.taps import Replay
from lanaprof.distill.training import frozen_copy
from lanaprof.errors import BadInput, UserError
from lanaprof.ops import SKIP, TEACHER, parse_operation
from lanaprof.teachers import load_attribute

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["METRICS", "CandidateScore", "find_metric", "score_candidates"]

METRICS = ("kl", "loss", "accuracy")
MOST_RECORDED_BYTES = 2**30  # of one batch's activations; smaller batches are taken when they need more

# (outputs, teacher's outputs, labels or None) -> quality per image (batch,), or one number for the batch
Metric = Callable[[Any, Any, Tensor | None], Tensor]
OwnMetric = Callable[[Any, Any], Any]  # (outputs, labels or else teacher's outputs)


@dataclass(frozen=True, slots=True)
class CandidateScore:
    """How good a candidate is in its layer.

    Attributes:
        layer: the layer's name.
        operation: the candidate's text.
        score: higher is better, the teacher's own layer is 0.
        standard_error: of the score over images; None where the metric gives one number per batch and
            there was one batch.
        images: how many held-out images it was judged on.
    """

    layer: str
    operation: str
    score: float
    standard_error: float | None
    images: int


def score_candidates(
    teacher: Teacher,
    space: Space,
    modules: Mapping[tuple[str, str], nn.Module],
    data: DataSource,
    *,
    metric: str | OwnMetric = "kl",
    images: int = 1024,
    batch_size: int = 128,
    progress: ProgressCallback | None = None,
) -> tuple[CandidateScore, ...]:
    """Return the scores of trained candidates, each standing alone in the teacher's network.

    Per batch the whole teacher runs once; for a candidate only its layer and what follows is computed. Where
    the space lists them, ``teacher`` (0, no error) and ``skip`` are scored too, without being in ``modules``.

    Args:
        teacher: the network; left as it is.
        space: of the teacher.
        modules: trained candidates by layer and operation, as ``load_candidate`` gives them.
        data: its ``heldout`` split is used.
        metric: ``kl`` (minus the divergence from the teacher's output in nats, no labels needed), ``loss``
            (teacher's cross entropy minus this one's), ``accuracy`` (share right minus the teacher's), or
            ``package.module:function``: called with the outputs and the labels (without labels: the
            teacher's outputs), returns a tensor (batch,) or one number, higher is better; the score is its
            difference to the teacher's. A function itself is taken, too. Several threads call it at once.
        images: at most so many held-out images.
        batch_size: images in a batch at most; fewer where the teacher's activations would need over 1 GiB.
        progress: called after every candidate of every batch.

    Raises:
        BadArchitecture: a layer is not in the space.
        BadInput: the metric is unknown or fails, or no images are asked for.
        UserError: the metric needs labels or logits that are not there.
    """
    if images < 1 or batch_size < 1:
        raise BadInput(f"cannot score on {images} images, {batch_size} at a time", hint="use at least 1")
    judge = find_metric(metric, labelled=data.labelled)
    runtime = Runtime.here()
    todo = {key: module for key, module in modules.items() if parse_operation(key[1]).family != TEACHER}
    for name, _ in todo:
        space.get_layer(name)
    for layer in space.layers:
        for operation in layer.candidates:
            if parse_operation(operation).family == SKIP:
                todo.setdefault((layer.name, operation), nn.Identity())
    placed = {key: runtime.place(copy.deepcopy(module)).eval() for key, module in todo.items()}
    tallies = {key: _Tally() for key in todo}
    sample = runtime.send(data.batch("heldout", range(min(2, data.heldout_count)))[0])
    pace, seen = Pace(math.inf), 0
    total = min(images, data.heldout_count) * len(placed)
    with crew(runtime) as workers, runtime.autocast():
        copies = 1 if workers is None else torch.get_num_threads()
        names = [layer.name for layer in space.layers]
        replay = Replay(frozen_copy(teacher.module, runtime), names, sample=sample, copies=copies)
        fitting = max(MOST_RECORDED_BYTES * len(sample) // replay.recorded_bytes, len(sample))
        for x_read, y_read in data.iter_heldout(min(batch_size, fitting), images):
            x, y = runtime.send(x_read), None if y_read is None else y_read.to(runtime.device)
            outputs = replay.record(x)
            judged = _Judged(judge, outputs, judge(outputs, outputs, y), y)
            tasks = [(replay, *item, judged, runtime) for item in placed.items()]
            differences = map(_differ, tasks) if workers is None else workers.map(_differ, tasks)
            for place, (key, difference) in enumerate(zip(placed, differences, strict=True)):
                tallies[key].add(difference, len(x))
                if progress is not None:
                    done = seen * len(placed) + len(x) * (place + 1)
                    left = pace.seconds_left(done, total)
                    progress(Progress(f"scoring {len(placed)} candidates", done, total, left))
            seen += len(x)
    return _in_order(space, tallies, seen)


def find_metric(metric: str | OwnMetric, *, labelled: bool) -> Metric:
    """Return the function a metric means: a name, ``package.module:function``, or a function of the user's.

    Raises:
        BadInput: there is no such metric.
        UserError: it needs labels and there are none.
    """
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "given")
    if isinstance(metric, str):
        if metric in ("loss", "accuracy") and not labelled:
            raise UserError(
                f"the metric {metric!r} needs labels, and the data has none",
                hint="use --metric kl, which needs none, or data with labels (class folders, pairs (x, y))",
            )
        if metric in _BUILT_IN:
            return _BUILT_IN[metric]
        if ":" not in metric:
            raise BadInput(
                f"there is no metric {metric!r}; known are {', '.join(METRICS)}",
                hint="use one of these, or package.module:function",
            )
    function: OwnMetric = load_attribute(metric) if isinstance(metric, str) else metric

    def own(outputs: Any, teacher_outputs: Any, labels: Tensor | None) -> Tensor:
        try:
            value = torch.as_tensor(function(outputs, teacher_outputs if labels is None else labels))
        except Exception as error:  # the user's function may raise anything
            raise BadInput(f"the metric {name} failed: {type(error).__name__}: {error}") from error
        if value.ndim > 1:
            raise BadInput(
                f"the metric {name} returned the shape {tuple(value.shape)}",
                hint="return one number per image, (batch,), or one number",
            )
        return value.double()

    return own


def _kl(outputs: Any, teacher_outputs: Any, _labels: Tensor | None) -> Tensor:
    return -kl_per_image(class_logits(teacher_outputs), class_logits(outputs)).double()


def _loss(outputs: Any, _teacher_outputs: Any, labels: Tensor | None) -> Tensor:
    assert labels is not None
    values = nn.functional.cross_entropy(class_logits(outputs), labels, reduction="none")
    return -(values.flatten(1).mean(1) if values.ndim > 1 else values).double()


def _accuracy(outputs: Any, _teacher_outputs: Any, labels: Tensor | None) -> Tensor:
    assert labels is not None
    right = (class_logits(outputs).argmax(1) == labels).double()
    return right.flatten(1).mean(1) if right.ndim > 1 else right


_BUILT_IN: dict[str, Metric] = {"kl": _kl, "loss": _loss, "accuracy": _accuracy}


@dataclass(frozen=True, slots=True)
class _Judged:
    """One batch: how it is judged, and what the teacher reached on it."""

    judge: Metric
    outputs: Any
    base: Tensor
    labels: Tensor | None


def _differ(task: tuple[Replay, tuple[str, str], nn.Module, _Judged, Runtime]) -> Tensor:
    """Return by how much the network with one candidate is better than the teacher, per image or batch."""
    replay, (layer, _), module, batch, runtime = task
    with torch.no_grad(), runtime.autocast():  # both are settings of the thread
        changed = replay.run(layer, module)
        return batch.judge(changed, batch.outputs, batch.labels) - batch.base


def _in_order(
    space: Space, tallies: Mapping[tuple[str, str], _Tally], images: int
) -> tuple[CandidateScore, ...]:
    results = []
    for layer in space.layers:
        given = [operation for name, operation in tallies if name == layer.name]
        for operation in dict.fromkeys((*layer.candidates, *given)):
            key = (layer.name, operation)
            if parse_operation(operation).family == TEACHER:
                results.append(CandidateScore(*key, score=0.0, standard_error=0.0, images=images))
            elif key in tallies:
                results.append(tallies[key].score(key))
    return tuple(results)


class _Tally:
    """Sums of differences: per image where the metric gives that, else per batch, weighted by images."""

    def __init__(self) -> None:
        self._images = 0
        self._values: list[float] = []
        self._weights: list[int] = []

    def add(self, difference: Tensor, images: int) -> None:
        """Note the differences of one batch."""
        self._images += images
        values = difference.detach().cpu().flatten().tolist()
        self._values += values
        self._weights += [1] * images if len(values) == images else [images]

    def score(self, key: tuple[str, str]) -> CandidateScore:
        """Return the weighted mean and its standard error."""
        total = sum(self._weights)
        mean = math.fsum(v * w for v, w in zip(self._values, self._weights, strict=True)) / total
        count = len(self._values)
        error = None
        if count > 1:
            spread = math.fsum(w * (v - mean) ** 2 for v, w in zip(self._values, self._weights, strict=True))
            error = math.sqrt(spread / total / (count - 1))
        return CandidateScore(*key, score=mean, standard_error=error, images=self._images)
