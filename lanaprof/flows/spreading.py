"""distill and score over a Ray cluster: groups of layers, each done by one machine at a time.

The machines share the project's folder. Weights and checkpoints lie in it as they do on one machine, so a lost machine
costs what its group learnt since the last checkpoint; scores come back to the process that spread the groups, which
alone writes to the database.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.digest import digest
from lanaprof.errors import UserError
from lanaprof.flows.learning import Wanted, load_project_data, remember_distilled
from lanaprof.flows.project import Project, load_project, write_json
from lanaprof.flows.scoring import (
    ScoreReport,
    find_host,
    layer_groups,
    score_layers,
    scored_layers,
    store_scores,
)
from lanaprof.ops import SKIP, TEACHER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lanaprof.distill import (
        CandidateScore,
        DataSource,
        DistillResult,
        Limits,
        Progress,
        Recipe,
        ScoreRecipe,
    )
    from lanaprof.distill.cluster import Cluster
    from lanaprof.distill.groups import Part, Share, Spread
    from lanaprof.distill.nodes import Slot
    from lanaprof.distill.stopping import SpaceCosts
    from lanaprof.flows.operators import Choices
    from lanaprof.lut import Store
    from lanaprof.teachers import Teacher

__all__ = ["distill_over", "opened_cluster", "score_over"]

GROUPS_PER_SLOT = 3  # smaller groups than slots, so that a slow machine holds up little at the end
PART_PATIENCE_S = 150.0  # a lost machine's lock ends with its lease on the shared storage, 90 s under NFS 4
_GROUPS_FILE = "groups.json"
_DRIVER = "cluster"  # the part that the spreading process holds: one at a time

Tell = Callable[[str], None]
ProgressCallback = Callable[["Progress"], None]


@contextmanager
def opened_cluster(project: Project, address: str, *, tell: Tell) -> Iterator[Cluster]:
    """Give the cluster at an address, whose machines all see the project.

    Raises:
        BackendUnavailable: Ray is not installed.
        UserError: there is no such cluster, or a machine of it lacks something.
    """
    from lanaprof.distill.cluster import open_cluster  # torch, by way of its neighbours

    with open_cluster(address, project.state, tell=tell) as cluster:
        yield cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class _Errand:
    """What every group's machine needs to know.

    Attributes:
        folder: the project's.
        layers: the group.
        environment: variables of the spreading process that decide where things lie.
        what: of this kind of work.
    """

    folder: str
    layers: tuple[str, ...]
    environment: Mapping[str, str]
    what: Mapping[str, Any] = field(default_factory=dict)


def distill_over(
    cluster: Cluster,
    project: Project,
    wanted: Wanted,
    recipe: Recipe,
    *,
    stop: bool = True,
    limits: Limits | None = None,
    progress: ProgressCallback,
) -> tuple[DistillResult, Spread]:
    """Train the wanted candidates on the machines of a cluster; what is trained already is reused.

    The weights are those one machine would make. An interrupted call's groups go on from their checkpoints.

    Args:
        cluster: opened for this project.
        project: which names data and a trained teacher.
        wanted: what to train.
        recipe: how.
        stop: give up those that cost no less than clearly better ones of their layer.
        limits: of each machine.
        progress: called several times a second.

    Raises:
        BadProject: no data.
        UserError: a machine reads other data, or this project is being spread already.
    """
    from lanaprof.distill import distill_key
    from lanaprof.distill.parts import hold_part

    began_s = time.monotonic()
    data = load_project_data(project)
    key = distill_key(project.weights_digest, data.digest, recipe)
    folder = project.state / "weights" / key
    with hold_part(folder, _DRIVER):
        costs = wanted.costs if stop and wanted.costs else None
        before, todo = _finished_before(wanted, costs, folder)
        groups = _distill_groups(cluster, project, todo, folder)
        what = {"recipe": recipe, "key": key, "limits": limits, "costs": costs}
        work = _layer_work(project, todo)
        parts = [
            _part(project, name, _share(layers, work, todo), layers, {**what, "part": name, "wanted": chosen})
            for name, layers in groups.items()
            for chosen in [_only(layers, wanted.candidates)]
        ]
        count = sum(part.share.units for part in parts)
        stage = f"distilling {count} candidates on {_machines(cluster)}"
        spread = cluster.run(_distill_group, parts, stage=stage, progress=progress)
    remember_distilled(project, key, data.digest, recipe)
    result = _joined(project, [before, *spread.results.values()])
    return replace(result, seconds=time.monotonic() - began_s), spread


def score_over(
    cluster: Cluster,
    project: Project,
    store: Store,
    *,
    recipe: ScoreRecipe,
    team: str,
    progress: ProgressCallback,
) -> tuple[ScoreReport, Spread]:
    """Score the trained candidates on the machines of a cluster, and store the scores from here.

    Raises:
        UserError: nothing is trained yet, the metric needs labels, or an average host latencies.
    """
    from lanaprof.distill.groups import balanced_groups

    layers = scored_layers(project)
    host = find_host(project, store, recipe, team=team)
    named = {name: project.space.get_layer(name).candidates for name in layers}
    # what follows the layer is computed for each candidate: early layers have more of it
    work = {name: float(len(named[name]) * (len(layers) - place)) for place, name in enumerate(layers)}
    what = {"recipe": recipe, "host": host}
    groups = balanced_groups(work, GROUPS_PER_SLOT * len(cluster.slots))
    parts = [
        _part(project, f"scores-{_short(group)}", _share(group, work, named), group, what) for group in groups
    ]
    stage = f"scoring {sum(part.share.units for part in parts)} candidates on {_machines(cluster)}"
    spread = cluster.run(_score_group, parts, stage=stage, progress=progress)
    rows = [score for scores in spread.results.values() for score in scores]
    place_of = {layer.name: place for place, layer in enumerate(project.space.places)}
    rows.sort(key=lambda score: place_of[score.layer])  # stable: inside a layer they are in order
    stored = store_scores(project, store, rows, metric=recipe.text, team=team)
    return ScoreReport(tuple(rows), recipe.text, stored), spread


def _finished_before(
    wanted: Wanted, costs: SpaceCosts | None, folder: Path
) -> tuple[DistillResult, dict[str, tuple[str, ...]]]:
    """Return what a call would that finds finished layers only, and what is left to train in the others."""
    from lanaprof.distill import DistillResult, find_trained, weights_text
    from lanaprof.distill.dropped import find_dropped, still_dropped

    trained = find_trained(folder.parent, folder.name)
    dropped = find_dropped(folder.parent, folder.name) if costs is not None else {}
    given_up = {name for name, one in dropped.items() if costs is not None and still_dropped(one, costs)}
    todo: dict[str, tuple[str, ...]] = {}
    names: list[tuple[str, str]] = []
    for layer, operations in wanted.candidates.items():
        own = [(layer, text) for text in dict.fromkeys(weights_text(operation) for operation in operations)]
        missing = tuple(name[1] for name in own if name not in trained and name not in given_up)
        if missing:
            todo[layer] = missing
        else:
            names += own
    finished = tuple(trained[name] for name in names if name in trained)
    stopped = tuple(dropped[name] for name in names if name not in trained)
    return DistillResult(folder.name, finished, 0, len(finished), (), 0.0, stopped), todo


def _only(layers: Iterable[str], candidates: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {layer: candidates[layer] for layer in layers}


def _distill_groups(
    cluster: Cluster, project: Project, todo: Mapping[str, tuple[str, ...]], folder: Path
) -> dict[str, tuple[str, ...]]:
    """Return the groups by name: those an interrupted call had begun as they were, the other layers in new ones."""
    from lanaprof.distill.groups import balanced_groups
    from lanaprof.distill.parts import part_file

    begun = {
        name: layers
        for name, layers in _read_groups(folder / _GROUPS_FILE).items()
        if part_file(folder, "checkpoint", name, ".pt").is_file()
    }
    groups = {}
    left = list(todo)
    for name, layers in begun.items():
        group = tuple(layer for layer in layers if layer in left)
        if group:
            groups[name] = group
            left = [layer for layer in left if layer not in group]
    work = _layer_work(project, _only(left, todo))
    for group in balanced_groups(work, max(1, GROUPS_PER_SLOT * len(cluster.slots) - len(groups))):
        groups[f"group-{_short(group)}"] = group
    write_json(folder / _GROUPS_FILE, {name: list(layers) for name, layers in {**begun, **groups}.items()})
    return groups


def _read_groups(path: Path) -> dict[str, tuple[str, ...]]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: tuple(layers) for name, layers in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):  # of no use then: groups are made anew
        return {}


def _layer_work(project: Project, candidates: Mapping[str, Iterable[str]]) -> dict[str, float]:
    """Return an estimate of the training work per layer: what its candidates read and write."""
    work = {}
    for name, operations in candidates.items():
        layer = project.space.get_layer(name)
        moved = sum(_count(shape) for shape in (layer.input_shape, layer.output_shape))
        work[name] = float(moved * sum(1 for _ in operations))
    return work


def _count(shape: Iterable[int]) -> int:
    return functools.reduce(int.__mul__, shape, 1)


def _share(
    layers: Iterable[str], work: Mapping[str, float], candidates: Mapping[str, tuple[str, ...]]
) -> Share:
    from lanaprof.distill.groups import Share

    units = sum(name not in (TEACHER, SKIP) for layer in layers for name in candidates[layer])
    return Share(units, sum(work[layer] for layer in layers))


def _part(
    project: Project, name: str, share: Share, layers: tuple[str, ...], what: Mapping[str, Any]
) -> Part:
    from lanaprof.distill.groups import Part

    environment = {name: value for name, value in os.environ.items() if name.startswith("LANAPROF_")}
    errand = _Errand(folder=str(project.folder), layers=layers, environment=environment, what=what)
    return Part(name=name, share=share, argument=errand)


def _distill_group(errand: _Errand, slot: Slot, report: ProgressCallback) -> DistillResult:
    """Train a group of layers, on the machine that got it."""
    from lanaprof.distill import Limits, distill, distill_key
    from lanaprof.distill.parts import PartHeld

    what = errand.what
    with _at_work(errand, slot):
        project, teacher, data = _loaded(errand.folder)
        if distill_key(teacher.weights_digest, data.digest, what["recipe"]) != what["key"]:
            raise UserError(
                f"the node {slot.host} reads other data for {project.config.data!r} than this machine",
                hint="keep the data on storage that all nodes share, under the same path",
            )
        limits = what["limits"] or Limits()
        limits = replace(limits, max_bytes=limits.bytes_allowed // slot.per_node)
        until_s = time.monotonic() + PART_PATIENCE_S
        while True:
            try:
                return distill(
                    teacher,
                    project.space,
                    data,
                    wanted=what["wanted"],
                    recipe=what["recipe"],
                    folder=project.state / "weights",
                    limits=limits,
                    costs=what["costs"],
                    part=what["part"],
                    progress=report,
                )
            except PartHeld:  # by a process that was lost and does not know yet, or a lock that outlives it
                if time.monotonic() > until_s:
                    raise
                time.sleep(1.0)


def _score_group(errand: _Errand, slot: Slot, report: ProgressCallback) -> tuple[CandidateScore, ...]:
    """Score a group of layers, on the machine that got it."""
    recipe: ScoreRecipe = errand.what["recipe"]
    host: Choices | None = errand.what["host"]
    scores: list[CandidateScore] = []
    with _at_work(errand, slot):
        project, teacher, data = _loaded(errand.folder)
        turns = layer_groups(project, errand.layers)
        for turn, layers in enumerate(turns):

            def tell(progress: Progress, turn: int = turn) -> None:
                done = turn * progress.total + progress.done
                report(replace(progress, done=done, total=len(turns) * progress.total))

            scores += score_layers(
                project, layers, recipe=recipe, host=host, teacher=teacher, data=data, progress=tell
            )
    return tuple(scores)


@contextmanager
def _at_work(errand: _Errand, slot: Slot) -> Iterator[None]:
    """Let this process, one of Ray's, see what the spreading process sees, and use the cores it got."""
    import torch  # a machine of the cluster computes

    os.environ.update(errand.environment)
    torch.set_num_threads(slot.threads)
    with contextlib.chdir(errand.folder):
        yield


@functools.lru_cache(maxsize=1)
def _loaded(folder: str) -> tuple[Project, Teacher, DataSource]:
    """Return a project with teacher and data, read once per process; Ray ends it with the command it serves."""
    project = load_project(Path(folder))
    return project, project.load_teacher(), load_project_data(project)


def _joined(project: Project, results: Iterable[DistillResult]) -> DistillResult:
    """Return the results of groups as if they had been one call's: counts added, what is listed in order."""
    place_of = {layer.name: place for place, layer in enumerate(project.space.places)}

    def place(item: Any) -> int:
        return place_of[item[0] if isinstance(item, tuple) else item.layer]

    first, *others = results
    joined: dict[str, Any] = {}
    for entry in fields(first):
        values = [getattr(one, entry.name) for one in (first, *others)]
        if isinstance(values[0], tuple):
            joined[entry.name] = tuple(sorted((item for value in values for item in value), key=place))
        elif isinstance(values[0], int | float):
            joined[entry.name] = sum(values)
    return replace(first, **joined)


def _machines(cluster: Cluster) -> str:
    count = len({slot.node for slot in cluster.slots})
    return f"{count} machine{'s' if count > 1 else ''}"


def _short(layers: Iterable[str]) -> str:
    return digest(list(layers))[:12]
