"""The user's own code, as teachers and data specs name it; see lanaprof.config.imports."""

from lanaprof.config.imports import load_attribute

__all__ = ["load_attribute"]
