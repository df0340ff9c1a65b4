"""What an operator of a project is known by before it is exported. No torch."""

from __future__ import annotations

from lanaprof.config import Device
from lanaprof.digest import digest
from lanaprof.flows.project import Project
from lanaprof.ops import GENERATOR_VERSION, parse_operation
from lanaprof.ops.quantising import grid_at
from lanaprof.profiler.backends.registry import backend_class
from lanaprof.space import Choices, Layer, place_ends, recipe

__all__ = ["Choices", "candidate_recipe", "grid_of", "network_recipe"]


def grid_of(device: Device) -> str:
    """Return the grid of activations in int8 that a device's runtime computes fastest.

    Raises:
        BackendUnavailable: nobody registered the device's backend.
    """
    return backend_class(device.backend).grid


def candidate_recipe(layer: Layer, operation: str, device: Device) -> str:
    """Return the recipe of a candidate's operator on a device."""
    precision = parse_operation(operation).precision or device.precision
    grid = grid_at(precision, grid_of(device))
    return recipe(layer, operation, batch=device.batch, precision=device.precision, grid=grid)


def network_recipe(project: Project, device: Device, choices: Choices) -> str:
    """Return the recipe of a whole network: the teacher's wiring with one recipe per layer; "" where a span covers."""
    standing = {place_ends(layer.name)[0]: layer for layer, _ in project.space.parts(choices)}
    names = [
        candidate_recipe(standing[layer.name], operation, device) if operation else ""
        for layer, operation in zip(project.space.layers, choices, strict=True)
    ]
    return digest(
        {
            "network": project.facts["structure"],
            "input": list(project.space.input_shape),
            "batch": device.batch,
            "precision": device.precision,
            "layers": names,
            "generator": GENERATOR_VERSION,
        }
    )
