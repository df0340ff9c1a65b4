"""Which operator is which candidate: recipes, their cached keys, and the export of what is missing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.config import Device
from lanaprof.errors import UnsupportedOperator, UserError
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.recipes import Choices, candidate_recipe, grid_of, network_recipe
from lanaprof.flows.scales import is_quantised
from lanaprof.flows.wiring import cached_circuit, export_circuit, is_complete, narrowed, network_record
from lanaprof.lut import Operator, Recipe, Store
from lanaprof.ops import GENERATOR_VERSION, SKIP, TEACHER
from lanaprof.profiler.circuit import Circuit

if TYPE_CHECKING:
    from torch import nn

    from lanaprof.lut import Record
    from lanaprof.profiler.canonical import Graph
    from lanaprof.teachers import Teacher

__all__ = [
    "Choices",
    "ExportReport",
    "OperatorMap",
    "export_networks",
    "export_operators",
    "find_networks",
    "find_operators",
]

_CHUNK = 16  # operators exported between two acknowledged writes
_UNEXPORTABLE = ""  # cached for a recipe that no exporter can express


@dataclass(frozen=True, slots=True)
class OperatorMap:
    """The operators of a project for one batch and precision.

    Attributes:
        candidates: (layer, operation) → operator key; None not exported yet, "" cannot be exported. ``skip``
            needs no operator and is left out.
        circuit: how layers and segments are wired; None before the first export, without steps where the
            teacher cannot be cut.
        problems: recipe → why it cannot be exported.
    """

    candidates: Mapping[tuple[str, str], str | None]
    circuit: Circuit | None
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the distinct operators of all candidates, in the space's order."""
        return tuple(dict.fromkeys(key for key in self.candidates.values() if key))

    @property
    def missing(self) -> int:
        """Return how many recipes wait to be exported."""
        return sum(1 for key in self.candidates.values() if key is None)

    @property
    def unexportable(self) -> int:
        """Return how many recipes no exporter can express."""
        return len(self.problems)

    def layers_of(self, operator: str) -> tuple[str, ...]:
        """Return the layers an operator may stand in."""
        return tuple(dict.fromkeys(layer for (layer, _), key in self.candidates.items() if key == operator))

    def operator(self, layer: str, operation: str) -> str | None:
        """Return a candidate's operator; None for ``skip`` and for what has none."""
        return self.candidates.get((layer, operation)) or None


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export did."""

    exported: int
    operators: int
    unexportable: int
    seconds: float


def _recipes_path(project: Project) -> Path:
    return project.state / "recipes.json"


def _cached(project: Project) -> tuple[dict[str, str], dict[str, str]]:
    """Return the cached recipe → key, and recipe → reason of those that cannot be exported."""
    try:
        document = json.loads(_recipes_path(project).read_text(encoding="utf-8"))
        return dict(document["operators"]), dict(document["problems"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}, {}


def _candidate_recipes(project: Project, device: Device) -> dict[tuple[str, str], str]:
    return {
        (layer.name, operation): candidate_recipe(layer, operation, device)
        for layer in project.space.places
        for operation in layer.candidates
        if operation != SKIP
    }


def find_operators(project: Project, device: Device, store: Store | None = None) -> OperatorMap:
    """Return what is known of the project's operators, from the cache and the database; exports nothing."""
    recipes = _candidate_recipes(project, device)
    cached, problems = _cached(project)
    wanted = set(recipes.values())
    if store is not None:
        known = store.find_recipes(wanted)
        here = set(store.operator_keys())
        cached = {**{r: k for r, k in cached.items() if k in here or not k}, **known}
    keys = {name: _UNEXPORTABLE if r in problems else cached.get(r) for name, r in recipes.items()}
    return OperatorMap(
        keys, cached_circuit(project, device), {r: why for r, why in problems.items() if r in wanted}
    )


def _deployed_module(
    teacher: Teacher, project: Project, device: Device, layer: str, operation: str
) -> nn.Module:
    """Return a candidate's module in its deployed form, in eval mode.

    Raises:
        UnsupportedOperator: it cannot be built at its precision.
    """
    from lanaprof.ops import fuse
    from lanaprof.teachers import build_candidate

    module = build_candidate(
        teacher,
        project.space.get_layer(layer),
        operation,
        covered=project.space.covered(layer),
        seed=project.config.seed,
        grid=grid_of(device),
    )
    return fuse(module, in_place=operation != TEACHER)  # that one stays as it is; what is built for this goes


def _exported_candidate(
    teacher: Teacher, project: Project, device: Device, name: tuple[str, str], exporter: str
) -> Operator:
    """Return the operator of a candidate, by layer and operation.

    Raises:
        UnsupportedOperator: it cannot be built at its precision, or exported.
    """
    from lanaprof.profiler.export import exported_graph  # imports torch

    layer, operation = name
    shape = (device.batch, *project.space.get_layer(layer).input_shape)
    module = _deployed_module(teacher, project, device, layer, operation)
    # the other exporter writes a rounding as arithmetic, of which no runtime makes a kernel for int8
    chosen = "torchscript" if is_quantised(operation) else exporter
    graph = exported_graph(module, shape, exporter=chosen)
    return Operator(graph=graph if "@" in operation else narrowed(graph, device))


def _refuse_precision(device: Device) -> None:
    if device.precision in ("int8", "fp8"):
        raise UserError(
            f"device {device.text!r} asks for all at precision {device.precision}; what lies around the layers is "
            "computed in floating point, and every operation may have a precision of its own",
            hint=f"--device {device.name},precision=fp32 and, for operations, init --precision int8",
        )


def export_operators(
    project: Project,
    device: Device,
    store: Store,
    *,
    exporter: str = "torchscript",
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    limit_s: float | None = None,
) -> ExportReport:
    """Export every candidate whose operator is unknown, and the circuit; store the operators.

    Args:
        project: whose space.
        device: gives batch and precision.
        store: gets operators and recipes, in chunks, so that a crash loses little.
        exporter: ``torchscript`` or ``dynamo``.
        progress: told (done, total).
        limit_s: stop after this time; what is left stays missing.
    """
    _refuse_precision(device)
    began_s = time.monotonic()
    known = find_operators(project, device, store)
    recipes = _candidate_recipes(project, device)
    operators, problems = _cached(project)
    found = {recipes[name]: key for name, key in known.candidates.items() if key is not None}
    if any(operators.get(made_by) != key for made_by, key in found.items()):
        # Exported by another project, or before this cache was lost: commands that open no database read it here.
        operators |= found
        write_json(_recipes_path(project), {"operators": operators, "problems": problems})
    todo: dict[str, tuple[str, str]] = {}
    for name, key in known.candidates.items():
        if key is None:
            todo.setdefault(recipes[name], name)
    has_circuit = known.circuit is not None and is_complete(known.circuit, store)
    if not todo and has_circuit:
        return ExportReport(0, 0, known.unexportable, time.monotonic() - began_s)
    teacher = project.load_teacher()
    if not has_circuit:
        export_circuit(project, device, store, teacher)
    pending: list[Record] = []
    new_keys: set[str] = set()
    done = 0
    try:
        for layer, operation in todo.values():
            if limit_s is not None and time.monotonic() - began_s > limit_s:
                break
            made_by = recipes[layer, operation]
            try:
                operator = _exported_candidate(teacher, project, device, (layer, operation), exporter)
            except UnsupportedOperator as error:
                operators[made_by], problems[made_by] = _UNEXPORTABLE, error.message
            else:
                operators[made_by] = operator.id
                new_keys.add(operator.id)
                pending += [
                    operator,
                    Recipe(recipe=made_by, operator=operator.id, generator=GENERATOR_VERSION),
                ]
            done += 1
            progress(done, len(todo))
            if len(pending) >= 2 * _CHUNK:
                store.add(pending)
                pending = []
    finally:
        if pending:
            store.add(pending)
        write_json(_recipes_path(project), {"operators": operators, "problems": problems})
    return ExportReport(done, len(new_keys), len(problems), time.monotonic() - began_s)


# ------------------------------------------------------------------------------------- whole networks


def find_networks(
    project: Project, device: Device, store: Store, architectures: Iterable[Choices]
) -> dict[Choices, str]:
    """Return the operators of the networks that were exported before."""
    recipes = {network_recipe(project, device, choices): choices for choices in architectures}
    return {recipes[name]: key for name, key in store.find_recipes(recipes).items()}


def export_networks(
    project: Project,
    device: Device,
    store: Store,
    architectures: Sequence[Choices],
    *,
    teacher: Teacher | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    refuse: Callable[[Choices, str], object] | None = None,
) -> dict[Choices, str]:
    """Return the operator of every whole network, making those that are new.

    A network is composed of its pieces' graphs where these are stored and the teacher, composed so, is the
    teacher as it was exported; otherwise it is built and exported. A network's operator holds no weights, so
    seeded initial weights serve for candidates not trained yet.

    ``refuse`` is told of a network that cannot be exported, and why; it is then left out of what is returned.

    Raises:
        UnsupportedOperator: a network that cannot be exported, where nobody is told.
    """
    _refuse_precision(device)
    known = find_networks(project, device, store, architectures)
    todo = [choices for choices in dict.fromkeys(architectures) if choices not in known]
    operators = find_operators(project, device, store) if todo else None
    if operators is not None and not _composes_teacher(project, store, operators):
        operators = None
    done = 0
    for start in range(0, len(todo), _CHUNK):
        chunk = todo[start : start + _CHUNK]
        composed = {} if operators is None else _composed(project, store, operators, chunk)
        records: list[Record] = []
        for choices in chunk:
            graph = composed.get(choices)
            try:
                if graph is None:
                    teacher = teacher if teacher is not None else project.load_teacher()
                    graph = _exported_network(project, device, teacher, choices)
            except UnsupportedOperator as error:
                if refuse is None:
                    raise
                refuse(choices, error.message)
            else:
                network = Operator(graph=graph)
                records += [network, network_record(project, device, choices, network)]
                known[choices] = network.id
            done += 1
            progress(done, len(todo))
        store.add(records)
    return {choices: known[choices] for choices in architectures if choices in known}


def _exported_network(project: Project, device: Device, teacher: Teacher, choices: Choices) -> Graph:
    from lanaprof.ops import fuse
    from lanaprof.profiler.export import exported_graph
    from lanaprof.teachers import assemble

    if device.precision != "fp32" and any("@" in operation for operation in choices):
        raise UnsupportedOperator(
            f"a network of several precisions on device {device.text!r} is made of its pieces, and this teacher cannot "
            "be cut at its layers"
        )
    network = assemble(
        teacher,
        project.space.named(choices),
        space=project.space,
        seed=project.config.seed,
        grid=grid_of(device),
    )
    graph = exported_graph(fuse(network, in_place=True), (device.batch, *project.space.input_shape))
    return narrowed(graph, device)


def _composes_teacher(project: Project, store: Store, operators: OperatorMap) -> bool:
    """Say whether the teacher's pieces, put together, are the teacher as it was exported whole."""
    if operators.circuit is None or not operators.circuit.steps:
        return False
    teacher = (TEACHER,) * len(project.space.layers)
    try:
        composed = _composed(project, store, operators, [teacher])
    except UnsupportedOperator:
        return False  # exporting whole is the other way, and says what is wrong
    return teacher in composed and Operator(graph=composed[teacher]).id == operators.circuit.network


def _composed(
    project: Project, store: Store, operators: OperatorMap, architectures: Sequence[Choices]
) -> dict[Choices, Graph]:
    """Return the graphs of the networks whose pieces are all in the database."""
    from lanaprof.profiler.compose import composed_graph

    assert operators.circuit is not None
    chosen = {
        choices: {
            layer: "" if operation == SKIP else operators.operator(layer, operation)
            for layer, operation in project.space.named(choices)
        }
        for choices in architectures
    }
    wanted = {key for keys in chosen.values() for key in keys.values() if key}
    graphs = {each.id: each.graph for each in store.iter_operators({*wanted, *operators.circuit.segments})}
    found = {}
    for choices, keys in chosen.items():
        pieces = {layer: key for layer, key in keys.items() if key is not None}
        if len(pieces) == len(keys) and graphs.keys() >= {*filter(None, pieces.values())}:
            found[choices] = composed_graph(operators.circuit, graphs, pieces)
    return found
