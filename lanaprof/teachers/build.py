"""From a teacher to its space, and from a space back to networks."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lanaprof.errors import BadArchitecture
from lanaprof.ops import (
    TEACHER,
    at_precisions,
    build_operation,
    candidate_seed,
    operations_for,
    parse_operation,
)
from lanaprof.ops.blocks.run import LayerRun
from lanaprof.space import Architecture, Layer, Space
from lanaprof.teachers.layers import FoundLayer
from lanaprof.teachers.sources import Teacher
from lanaprof.teachers.spans import find_spans

__all__ = [
    "LayerMarker",
    "assemble",
    "build_candidate",
    "make_space",
    "own_module",
    "place_module",
    "set_submodule",
    "skeleton",
]

MARKER_DOMAIN = "lanaprof"
MARKER_TYPE = "Layer"


def make_space(
    teacher: Teacher,
    found: Iterable[FoundLayer],
    ops: str | Path = "quick",
    *,
    precisions: Sequence[str] = (),
    search_path: str | Path | None = None,
    tell: Callable[[str], None] = lambda _text: None,
) -> Space:
    """Return the space of a teacher's layers with the candidates of a catalogue.

    Args:
        teacher: whose layers they are.
        found: the layers, in the order in which the teacher runs them.
        ops: ``"quick"``, ``"lana"``, ``"package.module:function"``, or a file with one operation a line.
        precisions: at which every candidate is offered once more.
        search_path: the project's folder, where the user's own module lies.
        tell: told which layers cannot be replaced together, and why.

    Raises:
        UnknownOperation, BadInput: the catalogue does not exist or cannot be read.
    """
    found = tuple(found)
    known: dict[FoundLayer, tuple[str, ...]] = {}  # blocks repeat; looking into each takes seconds for lana
    layers = []
    for layer in found:
        kind = replace(layer, name="")
        if kind not in known:
            operations = operations_for(
                ops,
                layer.input_shape,
                layer.output_shape,
                teacher_macs=layer.macs,
                signed=layer.signed,
                teacher=teacher.module.get_submodule(layer.name),
                search_path=search_path,
            )
            operations = at_precisions(operations, precisions, layer.input_shape, layer.output_shape)
            known[kind] = tuple(operation.text for operation in operations)
        layers.append(
            Layer(
                name=layer.name,
                input_shape=layer.input_shape,
                output_shape=layer.output_shape,
                params=layer.params,
                structure=layer.structure,
                candidates=known[kind],
            )
        )
    spans = find_spans(teacher, found, ops, precisions=precisions, tell=tell)
    return Space(teacher.text, teacher.input_shape, tuple(layers), spans)


def set_submodule(root: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in the place of another one, named as in ``root.named_modules()``.

    Raises:
        KeyError: there is no submodule of this name.
    """
    parent_name, _, own_name = name.rpartition(".")
    parent = root.get_submodule(parent_name)
    if own_name not in parent._modules:
        raise KeyError(name)
    setattr(parent, own_name, module)


def own_module(root: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Return what a network has in one layer, or in several consecutive ones, as one module; nothing is copied."""
    modules = [root.get_submodule(name) for name in layers]
    return modules[0] if len(modules) == 1 else LayerRun(*modules)


def place_module(root: nn.Module, layers: Sequence[str], module: nn.Module) -> None:
    """Put a module in the place of one layer, or of several consecutive ones: the others then pass on what it gives.

    Raises:
        KeyError: there is no submodule of such a name.
    """
    set_submodule(root, layers[0], module)
    for name in layers[1:]:
        set_submodule(root, name, nn.Identity())


def build_candidate(
    teacher: Teacher,
    layer: Layer,
    operation: str,
    *,
    covered: Sequence[str] = (),
    seed: int = 0,
    grid: str = "uint8",
) -> nn.Module:
    """Return the module of one candidate with its initial weights, in training mode.

    Args:
        teacher: its own layer is returned, not a copy, for ``teacher``.
        layer: where the operation stands.
        operation: its text.
        covered: the layers it stands for, where ``layer`` is a run of several.
        seed: of the project; each candidate's weights depend on it, its layer and its text without the precision.
        grid: of activations in int8, whose scales are not calibrated yet.
    """
    parsed = parse_operation(operation)
    return build_operation(
        parsed,
        layer.input_shape,
        layer.output_shape,
        teacher=own_module(teacher.module, covered or (layer.name,)),
        seed=candidate_seed(seed, layer.name, replace(parsed, precision="").text),
        grid=grid,
    )


def assemble(
    teacher: Teacher,
    choices: Sequence[tuple[str, str]],
    *,
    space: Space,
    modules: Mapping[tuple[str, str], nn.Module] | None = None,
    seed: int = 0,
    grid: str = "uint8",
) -> nn.Module:
    """Return a network: a copy of the teacher with the chosen candidates in its layers, in eval mode.

    Nothing is shared with the teacher or with ``modules``: training the network changes neither.

    Args:
        teacher: the network to start from.
        choices: (layer or ``first..last``, operation); layers not named keep the teacher's.
        space: the layers and their candidates.
        modules: trained candidates by (layer, operation); the others get seeded initial weights.
        seed: of those.
        grid: of their activations in int8.

    Raises:
        BadArchitecture: a layer that does not exist, or no candidate of its layer.
    """
    chosen = Architecture(space.teacher, tuple(choices)).complete(space)
    network = copy.deepcopy(teacher.module)
    for layer, operation in space.parts(chosen):
        if operation == TEACHER:
            continue
        covered = space.covered(layer.name)
        for name in covered:
            _expect_layer(teacher, name)
        trained = (modules or {}).get((layer.name, operation))
        module = (
            build_candidate(teacher, layer, operation, covered=covered, seed=seed, grid=grid)
            if trained is None
            else copy.deepcopy(trained)
        )
        place_module(network, covered, module)
    return network.eval()


def _expect_layer(teacher: Teacher, name: str) -> None:
    try:
        teacher.module.get_submodule(name)
    except AttributeError as error:
        raise BadArchitecture(
            f"the teacher {teacher.text!r} has no submodule {name!r}, but the space has",
            hint="the teacher has changed: run lanaprof init --force",
        ) from error


class _MarkerFunction(torch.autograd.Function):
    """Exports as one node ``lanaprof::Layer``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, output_shape: tuple[int, ...]) -> Tensor:
        del ctx, name
        # of x, not a constant: the exporter would fold the rest of the network into it
        return x.flatten(1)[:, :1].reshape(-1, *(1 for _ in output_shape)).expand(-1, *output_shape) * 0

    @staticmethod
    def symbolic(graph: Any, x: Any, name: str, output_shape: tuple[int, ...]) -> Any:
        """Tell the exporter what to write."""
        node = graph.op(f"{MARKER_DOMAIN}::{MARKER_TYPE}", x, name_s=name)
        batch = x.type().sizes()[0] if x.type().sizes() else None
        node.setType(x.type().with_sizes([batch, *output_shape]))
        return node


class LayerMarker(nn.Module):
    """Stands for a layer in the skeleton: exported, it is one node of domain ``lanaprof``, type ``Layer``.

    The node has one input, one output of the layer's shape and the string attribute ``name``.
    """

    def __init__(self, name: str, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.name = name
        self.output_shape = tuple(output_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros of shape (N, *output_shape)."""
        result: Tensor = _MarkerFunction.apply(x, self.name, self.output_shape)
        return result


def skeleton(teacher: Teacher, space: Space) -> nn.Module:
    """Return a copy of the teacher with a marker in every layer: what is left is stem, head and between.

    Export it with ``torch.onnx.export(..., dynamo=False)``; each marker becomes one node.
    """
    network = copy.deepcopy(teacher.module)
    for layer in space.layers:
        _expect_layer(teacher, layer.name)
        set_submodule(network, layer.name, LayerMarker(layer.name, layer.output_shape))
    return network.eval()
