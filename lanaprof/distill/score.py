"""Replace-one scores: how much worse is the network with one candidate in one layer?"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from lanaprof.distill.batchnorm import RunningStatistics
from lanaprof.distill.metrics import find_metric
from lanaprof.distill.rating import CandidateScore, ScoreRecipe, shaped_score
from lanaprof.distill.runtime import Pace, Progress, ProgressCallback, Runtime, crew
from lanaprof.distill.taps import Replay
from lanaprof.distill.training import frozen_copy
from lanaprof.ops import SKIP, TEACHER, parse_operation
from lanaprof.teachers import own_module

if TYPE_CHECKING:
    from lanaprof.distill.data import DataSource
    from lanaprof.space import Space
    from lanaprof.teachers import Teacher

__all__ = ["score_candidates"]

STATISTICS_IMAGES = 512  # that batch norm's statistics are averaged over
MOST_RECORDED_BYTES = 2**30  # of one batch's activations; smaller batches are taken when they need more
MOST_GROUP_BYTES = 2**30  # of copies of candidates and their statistics; the rest waits for its turn

Name = tuple[str, str]  # (layer, operation)

Answer = TypeVar("Answer")


def score_candidates(
    teacher: Teacher,
    space: Space,
    modules: Mapping[Name, nn.Module],
    data: DataSource,
    *,
    recipe: ScoreRecipe | None = None,
    layers: Collection[str] | None = None,
    host: nn.Module | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[CandidateScore, ...]:
    """Return the scores of trained candidates, each standing alone in its host.

    A score is the quality of the host with the candidate minus that of the host with the teacher's own layer
    in this place, on the same images. Per batch the whole host runs once; for a candidate only its layer and
    what follows is computed. Where the space lists them, ``teacher`` (0, no error) and ``skip`` are scored
    too, without being in ``modules``. A score does not depend on what else is scored.

    With ``batch_norm="reestimate"`` the statistics behind the layer are averaged over STATISTICS_IMAGES
    training images, for the candidate as for the teacher's own layer, so that what the estimate itself costs
    is in no difference. Standing in the teacher, a candidate keeps its own statistics: it was trained on
    these activations. In another host they are taken anew, too.

    Args:
        teacher: left as it is; ``kl`` is measured against its outputs.
        space: of the teacher.
        modules: trained candidates by layer and operation, as ``load_candidate`` gives them.
        data: ``heldout`` is judged on, ``train`` gives unlabelled images for batch norm.
        recipe: default: ``ScoreRecipe()``.
        layers: only these, ``first..last`` for the spans over several; default: all.
        host: a network with the teacher's submodules where candidates stand. Default: the teacher.
        progress: called after every candidate of every batch.

    Raises:
        BadArchitecture: a layer is not in the space.
        BadInput: the metric is unknown or fails.
        UserError: the metric needs labels or logits that are not there.
    """
    recipe = recipe or ScoreRecipe()
    names = [layer.name for layer in space.places] if layers is None else layers
    wanted = {space.get_layer(name).name for name in names}
    todo = _todo(space, modules, wanted)
    runtime = Runtime.here()
    with crew(runtime) as workers, runtime.autocast():
        scoring = _Scoring(teacher, space, data, recipe, host, runtime)
        groups = scoring.groups(todo)
        total = sum(scoring.images(layer) for group in groups for layer, _ in group)
        meter = _Meter(progress, f"scoring {len(todo)} candidates", total)
        tallies: dict[Name, _Tally] = {}
        for group in groups:
            standings = [scoring.stand(name, todo.get(name)) for name in group]
            scoring.learn(standings, workers, meter)
            scoring.judge(standings, workers, meter)
            tallies |= {(one.layer, one.operation): one.tally for one in standings}
    scores = {name: shaped_score(tallies[name].score(name), recipe) for name in todo}
    return _in_order(space, wanted, scores, scoring.heldout_images)


def _todo(space: Space, modules: Mapping[Name, nn.Module], wanted: Collection[str]) -> dict[Name, nn.Module]:
    """Return what is scored, layer by layer: what stands in a layer together needs the teacher's own once."""
    for name, _ in modules:
        space.get_layer(name)
    found: dict[Name, nn.Module] = {}
    for layer in space.places:
        if layer.name not in wanted:
            continue
        given = [operation for name, operation in modules if name == layer.name]
        for operation in dict.fromkeys((*layer.candidates, *given)):
            if parse_operation(operation).family == SKIP:
                found[layer.name, operation] = nn.Identity()
            elif operation != TEACHER and operation in given:
                found[layer.name, operation] = modules[layer.name, operation]
    return found


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


@dataclass(slots=True)
class _Standing:
    """One candidate in its layer, and what is noted of it."""

    layer: str
    operation: str
    module: nn.Module
    statistics: RunningStatistics | None  # None: batch norms keep theirs
    tally: _Tally = field(default_factory=_Tally)


class _Scoring:
    """The host, the data and how they are used: what all candidates share."""

    def __init__(
        self,
        teacher: Teacher,
        space: Space,
        data: DataSource,
        recipe: ScoreRecipe,
        host: nn.Module | None,
        runtime: Runtime,
    ) -> None:
        self._space = space
        self._data = data
        self._runtime = runtime
        self._judge = find_metric(recipe.metric, labelled=data.labelled)
        self._teacher = frozen_copy(teacher.module, runtime)
        self._in_teacher = host is None
        self._relearns = recipe.batch_norm == "reestimate"
        sample = runtime.send(data.batch("heldout", range(min(2, data.heldout_count)))[0])
        self._replay = Replay(
            self._teacher if host is None else frozen_copy(host, runtime),
            [layer.name for layer in space.layers],
            sample=sample,
            copies=torch.get_num_threads() if runtime.device.type == "cpu" else 1,
        )
        fitting = max(MOST_RECORDED_BYTES * len(sample) // self._replay.recorded_bytes, len(sample))
        self._batch_size = min(recipe.batch_size, fitting)
        self._learning_size = max(2, self._batch_size)  # one image has no variance
        self._learning_batches = -(-STATISTICS_IMAGES // self._learning_size)
        self.heldout_images = min(recipe.images, data.heldout_count)

    def images(self, layer: str) -> int:
        """Return how many images a candidate of a layer sees."""
        learnt = self._learning_batches * self._learning_size if self._learns(layer) else 0
        return self.heldout_images + learnt

    def _learns(self, layer: str) -> bool:
        """Return whether there may be batch norms whose statistics a candidate of the layer changes."""
        return self._relearns and (self._replay.statistics_bytes(layer) > 0 or not self._in_teacher)

    def groups(self, todo: Mapping[Name, nn.Module]) -> list[list[Name]]:
        """Return what is judged together: as much as fits into memory, the teacher's own layer before it.

        The teacher's own layer is only run where its output is not the teacher's.
        """
        groups: list[list[Name]] = []
        used = 0
        for (layer, operation), module in todo.items():
            needed = sum(4 * p.numel() for p in module.parameters()) + self._replay.statistics_bytes(layer)
            if not groups or used + needed > MOST_GROUP_BYTES:
                groups.append([])
                used = 0
            with_own = self._learns(layer) or not self._in_teacher
            if with_own and (layer, TEACHER) not in groups[-1]:
                groups[-1].append((layer, TEACHER))
            groups[-1].append((layer, operation))
            used += needed
        return groups

    def stand(self, name: Name, module: nn.Module | None) -> _Standing:
        """Return a candidate ready to be judged, on a copy; None: the teacher's own layer."""
        layer, operation = name
        own = own_module(self._teacher, self._space.covered(layer)) if module is None else module
        placed = self._runtime.place(copy.deepcopy(own)).eval().requires_grad_(False)
        return _Standing(layer, operation, placed, RunningStatistics() if self._learns(layer) else None)

    def learn(
        self, standings: Sequence[_Standing], workers: ThreadPoolExecutor | None, meter: _Meter
    ) -> None:
        """Let every candidate's statistics learn from training images."""
        learners = [one for one in standings if one.statistics is not None]
        if not learners:
            return
        batches = self._data.batches("train", self._learning_size)
        try:
            for _ in range(self._learning_batches):
                self._replay.record(self._runtime.send(next(batches)[0]))
                for _ in _each(workers, partial(self._run, learning=True), learners):
                    meter.add(self._learning_size)
        finally:
            batches.close()

    def judge(
        self, standings: Sequence[_Standing], workers: ThreadPoolExecutor | None, meter: _Meter
    ) -> None:
        """Note for every candidate by how much it is better than the teacher's own layer."""
        for x_read, y_read in self._data.iter_heldout(self._batch_size, self.heldout_images):
            x = self._runtime.send(x_read)
            y = None if y_read is None else y_read.to(self._runtime.device)
            outputs = self._replay.record(x)
            if not self._in_teacher:
                with torch.no_grad():
                    outputs = self._teacher(x)
            teachers = self._judge(outputs, outputs, y)
            bases: dict[str, Tensor] = {}  # of the layers whose own is judged, too
            values = _each(workers, partial(self._quality, outputs=outputs, labels=y), standings)
            for one, value in zip(standings, values, strict=True):
                if one.operation == TEACHER:  # stands before the layer's candidates
                    bases[one.layer] = value
                one.tally.add(value - bases.get(one.layer, teachers), len(x))
                meter.add(len(x))

    def _run(self, one: _Standing, *, learning: bool) -> Any:
        with torch.no_grad(), self._runtime.autocast():  # both are settings of the thread
            return self._replay.run(
                one.layer,
                one.module,
                statistics=one.statistics,
                learning=learning,
                whole=not self._in_teacher,
            )

    def _quality(self, one: _Standing, *, outputs: Any, labels: Tensor | None) -> Tensor:
        changed = self._run(one, learning=False)
        with torch.no_grad(), self._runtime.autocast():
            return self._judge(changed, outputs, labels)


def _each(
    workers: ThreadPoolExecutor | None,
    function: Callable[[_Standing], Answer],
    standings: Sequence[_Standing],
) -> Iterator[Answer]:
    return map(function, standings) if workers is None else workers.map(function, standings)


class _Meter:
    """Tells how far it is, in images times candidates."""

    def __init__(self, progress: ProgressCallback | None, stage: str, total: int) -> None:
        self._progress = progress
        self._stage = stage
        self._total = total
        self._done = 0
        self._pace = Pace(math.inf)

    def add(self, images: int) -> None:
        """Note that so many more are done."""
        self._done += images
        if self._progress is not None and images:
            left = self._pace.seconds_left(self._done, self._total)
            self._progress(Progress(self._stage, self._done, self._total, left))


def _in_order(
    space: Space, wanted: Collection[str], scores: Mapping[Name, CandidateScore], images: int
) -> tuple[CandidateScore, ...]:
    results = []
    for layer in space.places:
        given = [operation for name, operation in scores if name == layer.name]
        for operation in dict.fromkeys((*layer.candidates, *given)) if layer.name in wanted else ():
            key = (layer.name, operation)
            if operation == TEACHER:
                results.append(CandidateScore(*key, score=0.0, standard_error=0.0, images=images))
            elif key in scores:
                results.append(scores[key])
    return tuple(results)
