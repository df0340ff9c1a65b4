"""The operations that may stand in a layer: their text, their register, their modules.

Importing this package does not import torch; building a module does.
"""

from lanaprof.ops.build import (
    GENERATOR_VERSION,
    at_precision,
    build_operation,
    candidate_seed,
    fuse,
    match_output,
    seeded,
    why_not,
    why_not_from,
)
from lanaprof.ops.catalogue import at_precisions, operations_for, read_operations
from lanaprof.ops.families import find_strides, round_channels
from lanaprof.ops.family import ACTIVATIONS, Family, Parameter, Shape, Value
from lanaprof.ops.lana import lana_operations
from lanaprof.ops.own import load_own_operations, names_function
from lanaprof.ops.page import operations_markdown
from lanaprof.ops.registry import ENTRY_POINT_GROUP, families, get_family, register_family
from lanaprof.ops.spec import PRECISIONS, SKIP, TEACHER, Operation, make_operation, parse_operation

__all__ = [
    "ACTIVATIONS",
    "ENTRY_POINT_GROUP",
    "GENERATOR_VERSION",
    "PRECISIONS",
    "SKIP",
    "TEACHER",
    "Family",
    "Operation",
    "Parameter",
    "Shape",
    "Value",
    "at_precision",
    "at_precisions",
    "build_operation",
    "candidate_seed",
    "families",
    "find_strides",
    "fuse",
    "get_family",
    "lana_operations",
    "load_own_operations",
    "make_operation",
    "match_output",
    "names_function",
    "operations_for",
    "operations_markdown",
    "parse_operation",
    "read_operations",
    "register_family",
    "round_channels",
    "seeded",
    "why_not",
    "why_not_from",
]
