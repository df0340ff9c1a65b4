"""score: trained candidates judged, and their scores stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lanaprof.errors import MissingScores, UserError
from lanaprof.flows.artifacts import trained_candidates
from lanaprof.flows.learning import (
    find_predictors,
    find_trained_candidates,
    load_project_data,
    load_trained,
)
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.scales import is_teacher_at_precision
from lanaprof.flows.scorefiles import ScoreFiles
from lanaprof.flows.selecting import find_scores
from lanaprof.lut import Score, Store, utc_now
from lanaprof.ops import SKIP, TEACHER

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.distill import CandidateScore, DataSource, Progress, ScoreRecipe
    from lanaprof.teachers import Teacher

__all__ = [
    "ScoreReport",
    "average_choices",
    "find_host",
    "layer_groups",
    "score_layers",
    "score_project",
    "scored_layers",
    "store_scores",
]

_MOST_LOADED_BYTES = 2**30  # of candidates' weights at a time; layers stay whole
_MOST_TOGETHER = 64  # candidates of a group: kill -9 loses at most one group; the teacher runs anew for each
_HOST_BATCHES = 12  # of 128 images, for the batch norms of a host that was never trained together


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Scores by candidate, the metric's name they are kept under, and how many were stored."""

    scores: tuple[CandidateScore, ...]
    metric: str
    stored: int

    @property
    def measured(self) -> tuple[CandidateScore, ...]:
        """Return those that are not 0 by definition."""
        return tuple(score for score in self.scores if score.operation != TEACHER)


def score_project(
    project: Project,
    store: Store,
    *,
    recipe: ScoreRecipe,
    team: str,
    renew: bool = True,
    progress: Callable[[Progress], None],
) -> ScoreReport:
    """Score the trained candidates, each alone in its host, and store the scores; what was judged is reused.

    Args:
        project: whose candidates.
        store: where the scores go.
        recipe: how they are judged.
        team: whose scores they are.
        renew: whether scores that the database has already are stored again, and so are the newest.
        progress: called after every candidate of every batch.

    Raises:
        UserError: nothing is trained yet, the metric needs labels, or an average host latencies.
    """
    layers = scored_layers(project)
    host = find_host(project, store, recipe, team=team)
    overall = _Overall(project, layers, progress)
    scores: list[CandidateScore] = []
    data, teacher = load_project_data(project), None
    files = ScoreFiles(project, recipe=recipe, host=host, data_digest=data.digest)
    for group in layer_groups(project, layers):
        told = overall.within(group)
        kept = [files.find(layer) for layer in group]
        if all(kept):
            scores += [score for part in kept if part for score in part]
            continue
        teacher = teacher or project.load_teacher()
        scores += score_layers(
            project, group, recipe=recipe, host=host, teacher=teacher, data=data, progress=told
        )
    stored = 0
    if renew or not _are_stored(project, store, scores, metric=recipe.text):
        stored = store_scores(project, store, scores, metric=recipe.text, team=team)
    return ScoreReport(tuple(scores), recipe.text, stored)


def _are_stored(project: Project, store: Store, scores: Iterable[CandidateScore], *, metric: str) -> bool:
    try:
        known = find_scores(project, store, metric)
    except MissingScores:
        return False
    return all(known.get((score.layer, score.operation)) == score.score for score in scores)


def check_scorable(project: Project) -> None:
    """Refuse a project of which nothing can be scored yet; needs no torch, and is hence asked first.

    Raises:
        UserError: nothing is trained, and nothing needs no training.
    """
    needs_none = (is_teacher_at_precision(op) for layer in project.space.places for op in layer.candidates)
    if not any(needs_none) and not trained_candidates(project):
        raise _nothing_trained()


def _nothing_trained() -> UserError:
    return UserError("no candidate of this project is trained yet", hint="lanaprof distill")


def scored_layers(project: Project) -> tuple[str, ...]:
    """Return the layers and runs that ``score`` judges: all, once any candidate is trained or needs no training.

    Raises:
        UserError: nothing is trained yet.
    """
    from lanaprof.distill import weights_text

    trained = find_trained_candidates(project)
    if not any(
        (layer.name, weights_text(operation)) in trained or is_teacher_at_precision(operation)
        for layer in project.space.places
        for operation in layer.candidates
    ):
        raise _nothing_trained()
    return tuple(layer.name for layer in project.space.places)


def layer_groups(project: Project, layers: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return layers in groups that are judged together, few enough for memory, at least one in each."""
    sizes: dict[str, list[int]] = {}
    for (layer, _), entry in find_trained_candidates(project).items():
        sizes.setdefault(layer, []).append(entry.path.stat().st_size)
    groups: list[list[str]] = []
    used = count = 0
    for name in layers:
        needed, more = sum(sizes.get(name, ())), len(sizes.get(name, ()))
        if not groups or used + needed > _MOST_LOADED_BYTES or count + more > _MOST_TOGETHER:
            groups.append([])
            used = count = 0
        groups[-1].append(name)
        used, count = used + needed, count + more
    return tuple(tuple(group) for group in groups)


def score_layers(
    project: Project,
    layers: Sequence[str],
    *,
    recipe: ScoreRecipe,
    host: Choices | None,
    teacher: Teacher,
    data: DataSource,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[CandidateScore, ...]:
    """Return the scores of some layers' trained candidates; those of other layers change nothing in them.

    They are kept in the project's folder, and read from there when they are asked for again.

    Args:
        project: whose candidates.
        layers: some of its layers.
        recipe: how they are judged.
        host: as :func:`find_host` gives it.
        teacher: the project's.
        data: the project's.
        progress: called after every candidate of every batch.

    Raises:
        UserError: the metric needs labels or logits that are not there.
    """
    from lanaprof.distill import score_candidates

    files = ScoreFiles(project, recipe=recipe, host=host, data_digest=data.digest)
    known = {name: kept for name in layers if (kept := files.find(name)) is not None}
    todo = [name for name in layers if name not in known]
    if todo:
        names = [(name, operation) for name in todo for operation in project.space.get_layer(name).candidates]
        judged = score_candidates(
            teacher,
            project.space,
            load_trained(project, names, teacher=teacher),
            data,
            recipe=recipe,
            layers=todo,
            host=_build_host(project, host, teacher, data) if host is not None else None,
            progress=progress,
        )
        for name in todo:
            known[name] = tuple(score for score in judged if score.layer == name)
            files.keep(name, known[name])
    return tuple(score for name in layers for score in known[name])


def store_scores(
    project: Project, store: Store, scores: Iterable[CandidateScore], *, metric: str, team: str
) -> int:
    """Store scores under a metric's name, and return how many are new."""
    from lanaprof.distill import weights_text

    trained = find_trained_candidates(project)
    data, now = load_project_data(project).digest, utc_now()
    records = []
    for score in scores:
        entry = trained.get((score.layer, weights_text(score.operation)))
        records.append(
            Score(
                teacher=project.weights_digest,
                candidate=entry.digest if entry is not None else "",
                data=data,
                layer=score.layer,
                operation=score.operation,
                metric=metric,
                score=score.score,
                standard_error=score.standard_error,
                images=score.images,
                team=team,
                time=now,
            )
        )
    return store.add(records).added


def find_host(project: Project, store: Store, recipe: ScoreRecipe, *, team: str) -> Choices | None:
    """Return the choices of the network that candidates are judged in; None: the teacher.

    Raises:
        UserError: an average host is asked for and no device's latencies are known.
    """
    if recipe.host != "average":
        return None
    predictors = find_predictors(project, store, team=team)
    if not predictors:
        raise UserError(
            "a host of average cost needs latencies, and no device of this project has any",
            hint="lanaprof measure, or score with --host teacher",
        )
    return average_choices(project, predictors[0])


def average_choices(project: Project, predictor: Predictor) -> Choices:
    """Return for each layer the trained candidate whose latency is nearest to the mean of the layer's candidates.

    Scores from a network of average size say more about networks of average size (MathNAS, NeurIPS 2023).
    A layer without trained and measured candidates keeps the teacher's.
    """
    from lanaprof.distill import weights_text

    trained = find_trained_candidates(project)
    measured = predictor.measured_candidates()
    chosen = []
    for layer in project.space.layers:
        costs = {
            operation: predictor.candidate_cost_s(layer.name, operation)
            for operation in layer.candidates
            if operation in measured[layer.name]
            and (
                operation in (TEACHER, SKIP)
                or is_teacher_at_precision(operation)
                or (layer.name, weights_text(operation)) in trained
            )
        }
        own = [operation for operation in costs if operation not in (TEACHER, SKIP)]
        if not own:
            chosen.append(TEACHER)
            continue
        mean = math.fsum(costs.values()) / len(costs)
        chosen.append(min(own, key=lambda operation: (abs(costs[operation] - mean), operation)))
    return tuple(chosen)


def _build_host(project: Project, choices: Choices, teacher: Teacher, data: DataSource) -> nn.Module:
    from lanaprof.distill import reestimate_batch_norm
    from lanaprof.teachers import assemble

    pairs = project.space.named(choices)
    network = assemble(
        teacher, pairs, space=project.space, modules=load_trained(project, pairs, teacher=teacher)
    )
    batches = data.batches("train", 128)
    reestimate_batch_norm(network, (x for x, _ in batches), count=_HOST_BATCHES)
    batches.close()
    return network


class _Overall:
    """Joins the progress of groups of layers into one, in images times candidates."""

    def __init__(self, project: Project, layers: Sequence[str], progress: Callable[[Progress], None]) -> None:
        from lanaprof.distill.runtime import Pace

        self._counts = {name: len(project.space.get_layer(name).candidates) for name in layers}
        self._progress = progress
        self._pace = Pace(math.inf)
        self._before = 0.0

    def within(self, group: Sequence[str]) -> Callable[[Progress], None]:
        """Return the callback of the next group."""
        total = sum(self._counts.values())
        share = sum(self._counts[name] for name in group) / total
        begun, self._before = self._before, self._before + share

        def tell(progress: Progress) -> None:
            done = begun + share * progress.done / max(1, progress.total)
            self._progress(
                replace(
                    progress,
                    stage=f"scoring {total} candidates",
                    done=round(done * 1000),
                    total=1000,
                    seconds_left=self._pace.seconds_left(round(done * 1e6), 10**6),
                )
            )

        return tell
