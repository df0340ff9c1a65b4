"""Several layers of the teacher as one module."""

from __future__ import annotations

from torch import nn

__all__ = ["LayerRun"]


class LayerRun(nn.Sequential):
    """Consecutive layers, each reading what the one before it gives: what a span stands for.

    Operations that are made from it (``Family.needs_teacher``) look at ``list(run)``.
    """
