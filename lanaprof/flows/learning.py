"""distill: which candidates are worth training, training them, finding what was trained."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lanaprof.distill.stopping import SpaceCosts
from lanaprof.errors import BadProject, UserError
from lanaprof.flows.prechecks import check_has_data
from lanaprof.flows.predicting import Predictor, open_predictor
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.scales import modules_at_precision
from lanaprof.flows.selecting import SIZE_COSTS
from lanaprof.flows.shrinking import space_costs
from lanaprof.lut import Store
from lanaprof.ops import SKIP, TEACHER, get_family, parse_operation

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.distill import (
        DataSource,
        DistillPlan,
        DistillResult,
        Progress,
        Recipe,
        TrainedCandidate,
    )
    from lanaprof.teachers import Teacher

__all__ = [
    "LayerVerdicts",
    "Wanted",
    "distill_project",
    "find_trained_candidates",
    "load_project_data",
    "load_trained",
    "plan_distilling",
    "remember_distilled",
    "wanted_candidates",
]

_DISTILL_FILE = "distill.json"


@dataclass(frozen=True, slots=True)
class LayerVerdicts:
    """How many candidates of a layer are worth training, and why the others are not; as in Wanted."""

    layer: str
    candidates: int
    hopeless: int
    failed: int
    unmeasured: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which candidates are worth training.

    Attributes:
        candidates: layer → operations to train.
        hopeless: how many cannot be chosen: on no device cheaper than the teacher's layer, beyond the interval.
        failed: how many have no latency on any device because they failed.
        unmeasured: how many nobody measured; they are trained, to be on the safe side.
        layers: the same counts by layer; ``candidates`` are all but ``teacher`` and ``skip``.
        costs: layer → operation → (low, high) of each cost: what tells while training which ones cannot be chosen
            either. Empty without measurements.
    """

    candidates: Mapping[str, tuple[str, ...]]
    hopeless: int
    failed: int
    unmeasured: int
    layers: tuple[LayerVerdicts, ...] = ()
    costs: SpaceCosts = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Return how many are to be trained."""
        return sum(len(operations) for operations in self.candidates.values())


def load_project_data(project: Project) -> DataSource:
    """Return the project's data.

    Raises:
        BadProject: lanaprof.toml names none.
        BadInput: it cannot be read.
    """
    from lanaprof.distill import load_data

    check_has_data(project)
    return load_data(
        project.config.data,
        input_shape=project.space.input_shape,
        preprocessing=project.facts["preprocessing"] or None,
        seed=project.config.seed,
        search_path=project.folder,
    )


def find_predictors(project: Project, store: Store, *, team: str) -> list[Predictor]:
    """Return a predictor per device of the project that has measurements."""
    predictors = []
    for text in project.config.devices or ("cpu",):
        try:
            predictors.append(open_predictor(project, project.device(text), store, team=team))
        except UserError:
            continue
    return predictors


def wanted_candidates(
    project: Project, predictors: Iterable[Predictor], layers: Iterable[str] = ()
) -> Wanted:
    """Return the candidates that can matter.

    With scores of at most 0, a candidate that is on no device cheaper than the teacher's layer, beyond both
    intervals, cannot be chosen: keeping the layer costs less and is better.

    Args:
        project: whose space.
        predictors: one per device with measurements; without any, everything is trained.
        layers: only these; empty for all.
    """
    only = set(layers)
    for name in only:
        project.space.get_layer(name)
    tables = list(predictors)
    chosen: dict[str, tuple[str, ...]] = {}
    told = []
    for layer in project.space.places:
        if only and layer.name not in only:
            continue
        trainable = [
            operation
            for operation in layer.candidates
            if operation != SKIP and parse_operation(operation).family != TEACHER
        ]
        verdicts = {operation: _verdict_of_all(tables, layer.name, operation) for operation in trainable}
        counts = Counter(verdicts.values())
        chosen[layer.name] = tuple(one for one in trainable if verdicts[one] in ("cheaper", "unmeasured"))
        told.append(
            LayerVerdicts(
                layer.name, len(trainable), counts["dearer"], counts["failed"], counts["unmeasured"]
            )
        )
    return Wanted(
        chosen,
        hopeless=sum(layer.hopeless for layer in told),
        failed=sum(layer.failed for layer in told),
        unmeasured=sum(layer.unmeasured for layer in told),
        layers=tuple(told),
        costs=space_costs(project, tables),
    )


def _verdict_of_all(predictors: Sequence[Predictor], layer: str, operation: str) -> str:
    """Return what the devices say together: cheaper on one, unmeasured on one, dearer on one, else failed."""
    verdicts = {_verdict(predictor, layer, operation) for predictor in predictors} or {"unmeasured"}
    return next(verdict for verdict in ("cheaper", "unmeasured", "dearer", "failed") if verdict in verdicts)


def _verdict(predictor: Predictor, layer: str, operation: str) -> str:
    key = predictor.operators.candidates.get((layer, operation))
    own = predictor.find_estimate(layer, operation)
    kept = [predictor.find_estimate(name, TEACHER) for name in predictor.project.space.covered(layer)]
    if own is None:
        tried = key == "" or (key is not None and predictor.table.find(key) is not None)
        return "failed" if tried else "unmeasured"
    teacher = [estimate for estimate in kept if estimate is not None]  # of a span's layers, one by one
    if len(teacher) < len(kept):
        return "unmeasured"
    assert own.ci_low_s is not None
    if own.ci_low_s < sum(estimate.ci_high_s or 0.0 for estimate in teacher):
        return "cheaper"
    small, large = (
        predictor.statistics[own.operator],
        [predictor.statistics[estimate.operator] for estimate in teacher],
    )
    for name in (name for name in predictor.project.config.costs if name in SIZE_COSTS):
        of_layers = [SIZE_COSTS[name](one) for one in large]
        if SIZE_COSTS[name](small) < (max(of_layers) if name == "peak_bytes" else sum(of_layers)):
            return "cheaper"
    return "dearer"


def plan_distilling(project: Project, wanted: Wanted, recipe: Recipe, *, stop: bool = True) -> DistillPlan:
    """Return what distilling would train and how long it takes; ``stop`` as in ``distill_project``."""
    from lanaprof.distill import plan

    return plan(
        project.load_teacher(),
        project.space,
        load_project_data(project),
        wanted=wanted.candidates,
        recipe=recipe,
        folder=project.state / "weights",
        costs=wanted.costs if stop and wanted.costs else None,
    )


def distill_project(
    project: Project,
    wanted: Wanted,
    recipe: Recipe,
    *,
    stop: bool = True,
    progress: Callable[[Progress], None],
) -> DistillResult:
    """Train the wanted candidates; what is trained already is reused.

    Args:
        project: whose candidates.
        wanted: which of them.
        recipe: how.
        stop: give up those that cost no less than clearly better ones of their layer.
        progress: called after every step.

    Raises:
        BadProject: no data, or a teacher with random weights, from which nothing can be learnt.
    """
    from lanaprof.distill import distill

    data = load_project_data(project)
    result = distill(
        project.load_teacher(),
        project.space,
        data,
        wanted=wanted.candidates,
        recipe=recipe,
        folder=project.state / "weights",
        costs=wanted.costs if stop and wanted.costs else None,
        progress=progress,
    )
    remember_distilled(project, result.key, data.digest, recipe)
    return result


def remember_distilled(project: Project, key: str, data_digest: str, recipe: Recipe) -> None:
    """Note under which key the last recipe's weights lie: the other commands use those."""
    write_json(project.state / _DISTILL_FILE, {"key": key, "data": data_digest, "recipe": asdict(recipe)})


def _distilled(project: Project) -> dict[str, Any]:
    path = project.state / _DISTILL_FILE
    hint = "delete it and run: lanaprof distill"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadProject(f"{path} cannot be read: {error}", hint=hint) from error
    if not isinstance(found, dict) or not isinstance(found.get("key"), str):
        raise BadProject(f"{path} does not say where the trained weights lie", hint=hint)
    return found


def find_trained_candidates(project: Project) -> dict[tuple[str, str], TrainedCandidate]:
    """Return the candidates trained by the last recipe, by layer and operation."""
    from lanaprof.distill import find_trained

    found = _distilled(project)
    return find_trained(project.state / "weights", found["key"]) if found else {}


def load_trained(
    project: Project, wanted: Iterable[tuple[str, str]], *, teacher: Teacher | None = None
) -> dict[tuple[str, str], nn.Module]:
    """Return the trained modules of these candidates, those that are trained; at the precision that each names.

    The teacher's own layer needs no training to be computed at another one.

    Args:
        project: whose candidates.
        wanted: (layer, operation).
        teacher: loaded already; else it is loaded when a candidate is made from its layer.

    Raises:
        StoreError: weights are there but cannot be read.
    """
    from lanaprof.distill import load_candidate, refuse_damaged, weights_text
    from lanaprof.teachers import own_module

    key = _distilled(project).get("key", "")
    trained = find_trained_candidates(project)
    modules: dict[tuple[str, str], nn.Module] = {}
    others: dict[tuple[str, str], nn.Module] = {}  # at another precision
    for layer, operation in wanted:
        parsed = parse_operation(operation)
        own_layer = parsed.family == TEACHER
        if operation in (TEACHER, SKIP):
            continue
        if not own_layer and (layer, weights_text(operation)) not in trained:
            refuse_damaged(project.state / "weights", key, layer, operation)
            continue
        described = project.space.get_layer(layer)
        shapes = (described.input_shape, described.output_shape)
        own = None
        if own_layer or get_family(parsed.family).needs_teacher:
            teacher = teacher or project.load_teacher()
            own = own_module(teacher.module, project.space.covered(layer))
        module = (
            own
            if own_layer and own is not None
            else load_candidate(project.state / "weights", key, layer, operation, shapes, teacher=own)
        )
        (others if parsed.precision else modules)[layer, operation] = module
    if others and project.config.data:
        digests = {
            (layer, operation): entry.digest
            if (entry := trained.get((layer, weights_text(operation))))
            else ""
            for layer, operation in others
        }
        teacher = teacher or project.load_teacher()
        data = load_project_data(project)
        modules |= modules_at_precision(project, others, digests, teacher=teacher, data=data)
    return modules


def student_folder(project: Project) -> Path:
    """Return where fine-tuned students lie."""
    return project.state / "students"
