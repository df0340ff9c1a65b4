"""A teacher's outputs, computed once for batches that come again."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from lanaprof.distill.evaluation import class_logits
from lanaprof.distill.runtime import Runtime
from lanaprof.distill.training import frozen_copy

__all__ = ["TeacherOutputs"]

_MOST_BYTES = 256 * 2**20


class TeacherOutputs:
    """Gives the teacher's logits; what was asked to be remembered is computed once, while there is room.

    Several students fine-tuned by one recipe see the same batches, and every look at the held-out data the same
    images: the teacher is a third to a half of the time of a fine-tuning step.

    Args:
        teacher: copied, frozen, in eval mode.
        runtime: where it runs.
        most_bytes: of logits remembered; beyond, they are computed each time.

    Attributes:
        network: the copy.
    """

    def __init__(self, teacher: nn.Module, runtime: Runtime, *, most_bytes: int = _MOST_BYTES) -> None:
        self.network = frozen_copy(teacher, runtime)
        self._left_bytes = most_bytes
        self._known: dict[Hashable, Tensor] = {}

    def logits(self, x: Tensor, key: Hashable | None) -> Tensor:
        """Return float32 logits (batch, classes, ...) of a batch that lies where the teacher runs.

        Args:
            x: the batch.
            key: what names the batch among all that are remembered here; None forgets it.
        """
        known = self._known.get(key)
        if known is not None:
            return known
        with torch.no_grad():
            found = class_logits(self.network(x))
        size = found.numel() * found.element_size()
        if key is not None and size <= self._left_bytes:
            self._left_bytes -= size
            self._known[key] = found
        return found
