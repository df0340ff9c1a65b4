"""Teachers: where they come from, which of their submodules are layers, and networks built from them."""

from lanaprof.teachers.build import (
    LayerMarker,
    assemble,
    build_candidate,
    make_space,
    own_module,
    place_module,
    set_submodule,
    skeleton,
)
from lanaprof.teachers.imports import load_attribute
from lanaprof.teachers.layers import FoundLayer, find_layers, structure_digest
from lanaprof.teachers.padding import PaddedConv2d, make_padding_static
from lanaprof.teachers.sources import PRETRAINED, Teacher, bare_teacher, load_teacher
from lanaprof.teachers.splitting import AttentionHalf, MlpHalf, SplitBlock, split_blocks
from lanaprof.teachers.weights import fit_weights, read_weights, state_digest

__all__ = [
    "PRETRAINED",
    "AttentionHalf",
    "FoundLayer",
    "LayerMarker",
    "MlpHalf",
    "PaddedConv2d",
    "SplitBlock",
    "Teacher",
    "assemble",
    "bare_teacher",
    "build_candidate",
    "find_layers",
    "fit_weights",
    "load_attribute",
    "load_teacher",
    "make_padding_static",
    "make_space",
    "own_module",
    "place_module",
    "read_weights",
    "set_submodule",
    "skeleton",
    "split_blocks",
    "state_digest",
    "structure_digest",
]
