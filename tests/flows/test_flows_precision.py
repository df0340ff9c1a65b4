"""Networks of several precisions: composed of their pieces they are what torch exports, conversions joined alike."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lanaprof.config import Device, ProjectConfig, parse_device
from lanaprof.flows.operators import export_operators, find_operators
from lanaprof.flows.project import Project
from lanaprof.flows.recipes import candidate_recipe
from lanaprof.flows.starting import init_project
from lanaprof.lut import Store, open_store
from lanaprof.lut.keys import operator_key
from lanaprof.ops import fuse
from lanaprof.profiler.canonical import Graph
from lanaprof.profiler.compose import composed_graph
from lanaprof.profiler.export import exported_graph
from lanaprof.space import random_architecture
from lanaprof.teachers import assemble

CPU, HALF = parse_device("cpu"), parse_device("cpu,precision=fp16")
OPS = "conv\nskip\nmbconv(expand=2)\n"
TEACHERS = {
    "residual": ("timm:test_resnet", "3x32x32", ()),
    "squeeze and excitation": ("timm:test_efficientnet", "3x32x32", ()),
    "transposes at the borders": ("timm:test_convnext", "3x32x32", ("stages.*.blocks.*",)),
}


def made_project(folder: Path, teacher: str, image: str, layers: tuple[str, ...]) -> Project:
    """Return a project of at most four layers with every operation at four precisions."""
    (folder / "ops.txt").write_text(OPS, encoding="utf-8")
    config = ProjectConfig(
        teacher=teacher,
        input=image,
        layers=layers,
        ops=str(folder / "ops.txt"),
        precisions=("int8", "fp8", "fp16"),
        devices=("cpu",),
        data="random",
    )
    project = init_project(folder, config)
    return replace(project, space=replace(project.space, layers=project.space.layers[:4]))


def torch_graph(project: Project, choices: tuple[str, ...]) -> Graph:
    names = [layer.name for layer in project.space.layers]
    pairs = list(zip(names, choices, strict=True))
    network = assemble(project.load_teacher(), pairs, space=project.space, seed=0)
    return exported_graph(fuse(network), (1, *project.space.input_shape))


def composed(project: Project, store: Store, choices: tuple[str, ...], device: Device = CPU) -> Graph:
    operators = find_operators(project, device, store)
    assert operators.circuit is not None
    names = [layer.name for layer in project.space.layers]
    chosen = {name: operators.operator(name, op) or "" for name, op in zip(names, choices, strict=True)}
    graphs = {each.id: each.graph for each in store.iter_operators()}
    return composed_graph(operators.circuit, graphs, chosen)


@pytest.mark.parametrize("kind", TEACHERS)
def test_composed_is_exported_at_any_precision(kind: str, tmp_path: Path) -> None:
    """The pieces of an architecture, put together, have the key of the network that torch exports."""
    project = made_project(tmp_path, *TEACHERS[kind])
    generator = random.Random(3)
    layers = project.space.layers
    wanted = [(f"teacher@{precision}",) * len(layers) for precision in ("int8", "fp8", "fp16")]
    wanted += [random_architecture(project.space, generator).complete(project.space) for _ in range(3)]
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)
        found = [operator_key(composed(project, store, choices)) for choices in wanted]

    assert [operator_key(torch_graph(project, choices)) for choices in wanted] == found


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_device_in_sixteen_bits_has_the_teacher_in_pieces_and_whole(kind: str, tmp_path: Path) -> None:
    """Segments and layers, each between casts, make the network that is cast at its ends alone."""
    project = made_project(tmp_path, *TEACHERS[kind])
    layers = project.space.layers
    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, HALF, store)
        operators = find_operators(project, HALF, store)
        assert operators.circuit is not None
        whole = composed(project, store, ("teacher",) * len(layers), HALF)

    assert operators.circuit.network == operator_key(whole)
    assert [node["op"] for node in whole["nodes"]].count("Cast") == 2
    assert {operators.operator(x.name, "conv") for x in layers} == {
        operators.operator(x.name, "conv@fp16") for x in layers
    }


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_neighbours_share_their_conversions(precision: str, tmp_path: Path) -> None:
    """All layers in int8, or in fp8, are rounded once less at each border than the same layers alone."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    layers = project.space.layers

    def rounded(graph: Mapping[str, Any]) -> int:
        return sum(node["op"] == "QuantizeLinear" for node in graph["nodes"])

    with open_store(tmp_path / "lanaprof.db", create=True) as store:
        export_operators(project, CPU, store)
        operators = find_operators(project, CPU, store)
        graphs = {each.id: each.graph for each in store.iter_operators()}
        alone = [
            rounded(graphs[operators.operator(one.name, f"teacher@{precision}") or ""]) for one in layers
        ]
        whole = rounded(composed(project, store, (f"teacher@{precision}",) * len(layers)))

    assert whole == sum(alone) - (len(layers) - 1)


def test_a_grid_is_part_of_a_recipe_in_int8_alone(tmp_path: Path) -> None:
    """A runtime with another grid measures another operator; in float32 and fp8 it is the same."""
    project = made_project(tmp_path, *TEACHERS["residual"])
    layer, other = project.space.layers[0], replace(CPU, backend="scripted")

    for operation in ("conv", "conv@fp8"):
        assert candidate_recipe(layer, operation, CPU) == candidate_recipe(layer, operation, other)
    assert candidate_recipe(layer, "conv@int8", CPU) != candidate_recipe(layer, "conv@int8", other)
