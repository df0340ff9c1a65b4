"""Where a project stands: what is done, what is stale, what comes next. Needs no torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lanaprof.config import Device, known_devices
from lanaprof.errors import BackendUnavailable, DeviceUnavailable, UserError
from lanaprof.flows.artifacts import (
    Trained,
    exported_files,
    student_file,
    trained_candidates,
    training_seconds,
    without_precision,
)
from lanaprof.flows.chosen import own_selections
from lanaprof.flows.counting import operator_words, space_words
from lanaprof.flows.devicing import devices_of
from lanaprof.flows.learning import wanted_candidates
from lanaprof.flows.operators import find_operators
from lanaprof.flows.predicting import Predictor, find_pulled, open_predictor, table_digest
from lanaprof.flows.project import Project
from lanaprof.flows.scales import is_teacher_at_precision
from lanaprof.flows.shrinking import dropped_candidates
from lanaprof.flows.weightfile import describe_state, init_command
from lanaprof.lut import Score, Selection, Store, open_store
from lanaprof.lut.engine import locate
from lanaprof.ops import TEACHER
from lanaprof.profiler.environment import local_environment
from lanaprof.profiler.protocol import HOT, NETWORK, RELAY
from lanaprof.units import format_duration

__all__ = [
    "Step",
    "device_predictors",
    "next_step",
    "open_if_there",
    "project_devices",
    "project_steps",
]

# Rough, for "about how long": seen on two cores of a server; the progress line knows better once a command runs.
_OPERATOR_S = 0.2  # building it, and three passes in each of 16 rounds
_EXPORT_S = 0.05  # per operator, by the TorchScript exporter
_NETWORK_S = 2.0  # building and exporting a whole network
_NETWORKS = 16
_LEARNT = ("distill", "score", "select", "finetune", "export")  # what rests on the teacher's weights
_BATCH = 128  # operators in one campaign's batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the way from a teacher to a student.

    Attributes:
        name: the command's.
        device: text, for the steps that are done per device; else empty.
        done: whether nothing is left to do.
        stale: done once, but what it rests on has changed since.
        waits: whether another step must come first.
        here: whether this machine can do it.
        detail: how much is done.
        command: what to type to do it; None when there is nothing to do.
        seconds: about how long it takes; None when unknown.
    """

    name: str
    device: str = ""
    done: bool
    stale: bool = False
    waits: bool = False
    here: bool = True
    detail: str
    command: str | None = None
    seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON keys."""
        return {
            "name": self.name,
            "device": self.device or None,
            "done": self.done,
            "stale": self.stale,
            "here": self.here,
            "detail": self.detail,
            "command": self.command,
            "seconds": self.seconds,
        }


def open_if_there(project: Project, option: str | None) -> Store | None:
    """Return the open database, or None while the project has none yet.

    Raises:
        StoreError: the database the option names is absent, or it cannot be opened.
        SchemaMismatch: as for every reader.
    """
    database = project.database(option)
    path = locate(database).path
    if option is None and path is not None and not path.exists():
        return None
    return open_store(database, readonly=True)


def project_steps(
    project: Project, store: Store | None, *, team: str, devices: Sequence[Device] = ()
) -> tuple[Step, ...]:
    """Return the steps of a project in order, each with what is done and what to type.

    Args:
        project: whose.
        store: its database; None while there is none.
        team: whose measurements come first.
        devices: to measure and calibrate; default: the project's.
    """
    devices = devices or project_devices(project, store)
    predictors = device_predictors(project, store, devices, team=team)
    steps = [_init_step(project)]
    steps += [
        _measure_step(project, store, device, predictors.get(device.text), team=team) for device in devices
    ]
    steps += [_calibrate_step(store, device, predictors.get(device.text)) for device in devices]
    candidates = {
        (layer.name, without_precision(op)) for layer in project.space.places for op in layer.candidates
    }
    # Weights and scores of candidates that the space offered once lie around for good: nobody waits for them.
    trained = {name: entry for name, entry in trained_candidates(project).items() if name in candidates}
    distill = _distill_step(project, list(predictors.values()), trained)
    scores = store.scores(teacher=project.weights_digest) if store is not None else ()
    untrained = any(is_teacher_at_precision(op) for layer in project.space.places for op in layer.candidates)
    steps.append(_score_step(trained, scores, needs_none=untrained))
    selections = own_selections(project, store)
    if scores and not trained and not selections:  # pulled: weights are needed for what is selected alone
        distill = replace(
            distill, waits=True, detail=f"{distill.detail}; select needs scores, and they are there"
        )
    steps.insert(-1, distill)
    steps.append(_select_step(selections, scores, devices))
    steps += _student_steps(project, selections)
    if steps[0].stale and (project.folder / project.config.weights).exists():
        steps = [replace(step, stale=True) if step.done and step.name in _LEARNT else step for step in steps]
    return tuple(steps)


def next_step(steps: Sequence[Step]) -> Step | None:
    """Return the first step that is open and that this machine can do."""
    return next(
        (
            step
            for step in steps
            if (not step.done or step.stale) and step.command and step.here and not step.waits
        ),
        None,
    )


def project_devices(project: Project, store: Store | None) -> tuple[Device, ...]:
    """Return the project's devices: those in lanaprof.toml, else those measured, else ``cpu``."""
    if project.config.devices:
        return tuple(project.device(text) for text in dict.fromkeys(project.config.devices))
    found: tuple[Device, ...] = ()
    if store is not None:
        used = store.used_environments()
        there = [environment for environment in store.environments() if environment.id in used]
        found = devices_of(there, known_devices(project.folder).values())
    return found or (project.device("cpu"),)


def device_predictors(
    project: Project, store: Store | None, devices: Sequence[Device], *, team: str
) -> dict[str, Predictor]:
    """Return a predictor by device text, for the devices that have measurements."""
    found: dict[str, Predictor] = {}
    for device in devices if store is not None else ():
        assert store is not None
        try:
            found[device.text] = open_predictor(project, device, store, team=team)
        except UserError:  # nothing measured there: the step says so
            continue
    return found


def _init_step(project: Project) -> Step:
    detail = f"{project.space.teacher}: {space_words(project.space)}"
    step = Step(name="init", done=True, detail=detail)
    wrong = describe_state(project.folder, project.config.weights, project.facts.get("weights_file"))
    if not wrong:
        return step
    detail = f"{detail}; {wrong}: put them back, or start anew with what is there"
    return replace(step, stale=True, detail=detail, command=init_command(project.config))


def _problem_here(device: Device) -> str:
    try:
        local_environment(device)
    except (DeviceUnavailable, BackendUnavailable) as error:
        return error.message
    return ""


def _measure_step(
    project: Project, store: Store | None, device: Device, predictor: Predictor | None, *, team: str
) -> Step:
    operators = predictor.operators if predictor is not None else find_operators(project, device, store)
    command = f"lanaprof measure --device {shlex.quote(device.text)}"
    circuit = operators.circuit
    relayed = circuit is None or bool(circuit.steps)
    table = predictor.table if predictor is not None else find_pulled(project, store, device, team=team)
    estimates = [table.find(key) for key in operators.keys] if table is not None else []
    tried = [estimate for estimate in estimates if estimate is not None]
    good = sum(1 for estimate in tried if estimate.latency_s is not None)
    missing = len(operators.keys) - len(tried) + operators.missing
    parts = [operator_words(operators, measured=good)]
    if len(tried) > good:
        parts.append(f"{len(tried) - good} failed")
    if not missing and circuit is None:
        parts.append("the teacher around its layers is not exported yet")
    elif not missing:
        if predictor is not None and predictor.teacher_s is not None:
            parts.append(f"teacher {format_duration(predictor.teacher_s)}")
        return Step(name="measure", device=device.text, done=True, detail=", ".join(parts))
    spread_s = (RELAY if relayed else HOT).spread_s
    measuring_s = max(missing * _OPERATOR_S, -(-missing // _BATCH) * spread_s)
    problem = _problem_here(device)
    if problem:
        parts.append(f"not on this machine: {problem}")
    return Step(
        name="measure",
        device=device.text,
        done=False,
        here=not problem,
        detail=", ".join(parts),
        command=command,
        seconds=round(measuring_s + operators.missing * _EXPORT_S, 1),
    )


def _calibrate_step(store: Store | None, device: Device, predictor: Predictor | None) -> Step:
    command = f"lanaprof calibrate --device {shlex.quote(device.text)}"
    here = not _problem_here(device)
    step = Step(
        name="calibrate", device=device.text, done=False, here=here, detail="not calibrated", command=command
    )
    if predictor is None or store is None:
        return replace(step, detail="waits for measurements", waits=True)
    passes = (NETWORK.rounds_min + 2) * (NETWORK.warmups + NETWORK.recorded)
    seconds = _NETWORKS * (_NETWORK_S + passes * (predictor.teacher_s or 0.0)) + NETWORK.spread_s
    step = replace(step, seconds=round(seconds, 1))
    project = predictor.project
    space = project.space.relay_digest(device.batch, precision=device.precision)
    found = store.calibrations(predictor.table.environment.id, space)
    if not found:
        return step
    newest = found[-1]
    detail = f"{len(newest.networks)} networks scatter by {newest.residual_sd:.2%} around the fit"
    if newest.table != table_digest(predictor.table, predictor.operators):
        return replace(step, done=True, stale=True, detail=f"{detail}; the table has changed since")
    return replace(step, done=True, detail=detail, command=None, seconds=None)


# ------------------------------------------------------------------------------------------------ learning


def _trainable(predictors: Sequence[Predictor], layer: str, operation: str) -> bool:
    """Say whether a candidate has parameters; one whose size nobody knows yet is supposed to."""
    for predictor in predictors:
        key = predictor.operators.operator(layer, operation)
        if key is not None and key in predictor.statistics:
            return predictor.statistics[key].params > 0
    return True


def _distill_step(
    project: Project, predictors: Sequence[Predictor], trained: Mapping[tuple[str, str], Trained]
) -> Step:
    step = Step(name="distill", done=False, detail="", command="lanaprof distill")
    if project.facts.get("seeded"):
        return replace(
            step,
            detail="the teacher has seeded random weights: latencies only, nothing to learn from it",
            command="lanaprof init --force --weights FILE",
            here=False,  # not what comes next for somebody who tries latencies
        )
    if not project.config.data:
        return replace(step, detail='lanaprof.toml names no data; add for example data = "imagefolder:PATH"')
    wanted = wanted_candidates(project, predictors)
    names = {
        (layer, without_precision(operation))
        for layer, operations in wanted.candidates.items()
        for operation in operations
        if _trainable(predictors, layer, operation)
    }
    there = names & set(trained)
    stopped = (names & set(dropped_candidates(project, wanted.costs))) - there
    detail = f"{len(there)} of {len(names)} candidates trained"
    if stopped:
        detail += f"; {len(stopped)} given up early"
    if wanted.hopeless:
        detail += f"; {wanted.hopeless} others are nowhere cheaper than the teacher's layer"
    left = len(names) - len(there) - len(stopped)
    if not left:
        return replace(step, done=True, detail=detail, command=None)
    return replace(step, detail=detail, seconds=training_seconds(project, trained, left))


def _score_step(
    trained: Mapping[tuple[str, str], Trained], scores: Sequence[Score], *, needs_none: bool
) -> Step:
    """Return how far scoring is; ``needs_none``: there are candidates that need no training."""
    step = Step(name="score", done=False, detail="no candidate has a score", command="lanaprof score")
    if not trained and not scores and needs_none:
        return step
    if not trained and not scores:
        return replace(step, detail="waits for trained candidates", waits=True)
    newest = {(row.layer, without_precision(row.operation)): row for row in scores}  # sorted by time
    current = [
        name for name, entry in trained.items() if name in newest and newest[name].candidate == entry.digest
    ]
    if not trained:
        count = sum(operation != TEACHER for _, operation in newest)  # as score counts them
        return replace(step, done=True, detail=f"{count} candidates scored", command=None)
    metric = f" by {scores[-1].metric}" if scores else ""
    detail = f"{len(current)} of {len(trained)} trained candidates scored{metric}"
    if len(current) == len(trained):
        return replace(step, done=True, detail=detail, command=None)
    stale = bool(newest)
    return replace(step, done=stale, stale=stale, detail=detail)


# --------------------------------------------------------------------------------------- selections, students


def _select_step(selections: Sequence[Selection], scores: Sequence[Score], devices: Sequence[Device]) -> Step:
    command = f"lanaprof select --device {shlex.quote(devices[0].text)} --budget 50%"
    step = Step(name="select", done=False, detail="nothing selected yet", command=command)
    if not selections:
        return step if scores else replace(step, detail="waits for scores", waits=True)
    newest = selections[-1]
    parts = [f"{len(selections)} selection{'s' if len(selections) > 1 else ''}"]
    latency_s = newest.measured_s if newest.measured_s is not None else newest.predicted_s
    how = "measured" if newest.measured_s is not None else "predicted"
    newest_text = f"newest {newest.id[:12]}: {newest.status}"
    if latency_s is not None:
        newest_text += f", {how} {format_duration(latency_s)} on {newest.device}"
    parts.append(newest_text)
    stale = any(row.time > newest.time for row in scores)
    if stale:
        parts.append("there are newer scores")
    return replace(step, done=True, stale=stale, detail="; ".join(parts), command=command if stale else None)


def _student_steps(project: Project, selections: Sequence[Selection]) -> list[Step]:
    tuning = Step(name="finetune", done=False, detail="not fine-tuned", command="lanaprof finetune")
    export = Step(
        name="export", done=False, detail="nothing exported yet", command="lanaprof export --out student.onnx"
    )
    if not selections:
        return [replace(step, detail="waits for a selection", waits=True) for step in (tuning, export)]
    newest = selections[-1]
    files = exported_files(project, since=newest.time)
    if files:
        export = replace(export, done=True, detail=", ".join(files), command=None)
    if project.facts.get("seeded"):
        detail = "the teacher has seeded random weights: nothing to learn from it"
        return [replace(tuning, detail=detail, command=None), export]
    if student_file(project, newest).is_file():
        return [replace(tuning, done=True, detail=f"selection {newest.id[:12]}", command=None), export]
    tuning = replace(
        tuning,
        detail=f"selection {newest.id[:12]} is not fine-tuned",
        command=f"lanaprof finetune --selection {newest.id[:12]}",
    )
    return [tuning, export]
