"""The families that come with lanaprof, with where each fits and what it consists of. No torch."""

from __future__ import annotations

from lanaprof.ops.families.attention import ATTENTION_FAMILIES
from lanaprof.ops.families.collapsing import COLLAPSING_FAMILIES
from lanaprof.ops.families.dense import DENSE_FAMILIES
from lanaprof.ops.families.mobile import MOBILE_FAMILIES
from lanaprof.ops.families.plain import PLAIN_FAMILIES
from lanaprof.ops.families.shapes import find_strides, round_channels
from lanaprof.ops.families.slim import SLIM_FAMILIES
from lanaprof.ops.families.spanning import SPANNING_FAMILIES
from lanaprof.ops.family import Family

__all__ = ["BUILTIN_FAMILIES", "find_strides", "round_channels"]

BUILTIN_FAMILIES: tuple[Family, ...] = (
    *PLAIN_FAMILIES,
    *COLLAPSING_FAMILIES,
    *DENSE_FAMILIES,
    *MOBILE_FAMILIES,
    *ATTENTION_FAMILIES,
    *SLIM_FAMILIES,
    *SPANNING_FAMILIES,
)
