"""The family ``slim``: the teacher's own block, narrower or with cheaper parts."""

from lanaprof.ops.slimming.slim import Slim

__all__ = ["Slim"]
