"""How a project's layers are wired: its teacher cut at them once, and what is kept of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.config import Device
from lanaprof.digest import digest
from lanaprof.errors import BadProject, UnsupportedOperator
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.recipes import Choices, network_recipe
from lanaprof.lut import Operator, Recipe, Store
from lanaprof.ops import GENERATOR_VERSION, TEACHER
from lanaprof.profiler.circuit import Circuit, Segment, Step, circuit_from_json

if TYPE_CHECKING:
    from lanaprof.lut import Record
    from lanaprof.profiler.canonical import Graph
    from lanaprof.teachers import Teacher

__all__ = ["cached_circuit", "export_circuit", "is_complete", "narrowed", "network_record"]


def _variant(device: Device) -> str:
    return f"b{device.batch}-{device.precision}"


def _circuit_path(project: Project, device: Device) -> Path:
    """Return where the wiring lies; another teacher or other layers (``init --force``) have a file of their own."""
    layers = [[x.name, list(x.input_shape), list(x.output_shape)] for x in project.space.layers]
    wired = digest([project.facts.get("structure", ""), list(project.space.input_shape), layers])
    return project.state / f"circuit-{_variant(device)}-{wired[:12]}.json"


def cached_circuit(project: Project, device: Device) -> Circuit | None:
    """Return the cached wiring; None when there is none that can be read, and ``measure`` makes it anew."""
    try:
        document = json.loads(_circuit_path(project, device).read_text(encoding="utf-8"))
        return circuit_from_json(document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadProject):
        return None


def is_complete(circuit: Circuit, store: Store) -> bool:
    """Say whether the database has every piece of the wiring."""
    return {*circuit.segments, circuit.network} <= set(store.operator_keys())


def export_circuit(project: Project, device: Device, store: Store, teacher: Teacher) -> None:
    """Cut the teacher at its layers; a teacher that cannot be cut has no circuit and is measured hot."""
    from lanaprof.ops import fuse
    from lanaprof.profiler.circuit import circuit_from_skeleton
    from lanaprof.profiler.export import exported_graph, exported_model
    from lanaprof.teachers import skeleton

    layers = project.space.layers
    shapes = {x.name: ((device.batch, *x.input_shape), (device.batch, *x.output_shape)) for x in layers}
    shape = (device.batch, *project.space.input_shape)
    whole = Operator(graph=narrowed(exported_graph(fuse(teacher.module), shape), device))
    records: list[Record] = [whole, network_record(project, device, (TEACHER,) * len(layers), whole)]
    model = exported_model(fuse(skeleton(teacher, project.space), in_place=True), shape)
    try:
        pieces, buffers, wires = circuit_from_skeleton(model, shapes)
    except UnsupportedOperator:
        pieces, buffers, wires = (), {}, {}
    steps = []
    for piece in pieces:
        if isinstance(piece, Segment):
            operator = Operator(graph=narrowed(piece.graph, device))
            records.append(operator)
            steps.append(Step("", operator.id, piece.inputs, piece.outputs))
        else:
            source, target = wires[piece]
            steps.append(Step(piece, "", (source,), (target,)))
    store.add(records)
    used = {name for step in steps for name in (*step.inputs, *step.outputs)}
    described = tuple((name, *buffer) for name, buffer in sorted(buffers.items()) if name in used)
    write_json(_circuit_path(project, device), Circuit(tuple(steps), described, whole.id).to_json())


def narrowed(graph: Graph, device: Device) -> Graph:
    """Return what is computed in float32 at the device's own precision."""
    from lanaprof.profiler.narrowing import NARROWED, narrowed_graph

    return narrowed_graph(graph, device.precision) if device.precision in NARROWED else graph


def network_record(project: Project, device: Device, choices: Choices, network: Operator) -> Recipe:
    """Return what says that this network is made of these choices."""
    made_by = network_recipe(project, device, choices)
    return Recipe(recipe=made_by, operator=network.id, generator=GENERATOR_VERSION)
