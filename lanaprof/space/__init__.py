"""The space (layers × candidates) and the architecture (one candidate per layer): plain data, no torch."""

from lanaprof.space.architecture import Architecture, random_architecture
from lanaprof.space.files import (
    ARCHITECTURE_FORMAT,
    SPACE_FORMAT,
    architecture_from_json,
    architecture_to_json,
    load_architecture,
    load_space,
    save_architecture,
    save_space,
    space_from_json,
    space_to_json,
)
from lanaprof.space.places import Choices, Layer, Space, Span, place_ends, place_name, recipe

__all__ = [
    "ARCHITECTURE_FORMAT",
    "SPACE_FORMAT",
    "Architecture",
    "Choices",
    "Layer",
    "Space",
    "Span",
    "architecture_from_json",
    "architecture_to_json",
    "load_architecture",
    "load_space",
    "place_ends",
    "place_name",
    "random_architecture",
    "recipe",
    "save_architecture",
    "save_space",
    "space_from_json",
    "space_to_json",
]
