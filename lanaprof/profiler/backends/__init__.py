"""One module per runtime, all of one shape; the contract is in :mod:`.base`."""

from __future__ import annotations

from lanaprof.profiler.backends.base import Backend, Program, Settings, backend_class

__all__ = ["Backend", "Program", "Settings", "backend_class"]
