"""One module per runtime, all of one shape; the contract is in :mod:`.base`, the names in :mod:`.registry`."""

from __future__ import annotations

from lanaprof.profiler.backends.base import Backend, Edges, Program, Settings
from lanaprof.profiler.backends.registry import backend_class, backend_names

__all__ = ["Backend", "Edges", "Program", "Settings", "backend_class", "backend_names"]
