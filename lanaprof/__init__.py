"""lanaprof: fit a trained neural network into a latency budget on your own device."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
