"""The version of lanaprof: the one place that says it."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.1.0"
