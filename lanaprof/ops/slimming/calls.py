"""One call of a torch function while channels are followed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Call"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a torch function, and its result."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any

    def given(self, names: str) -> dict[str, Any]:
        """Return the arguments by their names; what was left out is missing."""
        return {**dict(zip(names.split(), self.args, strict=False)), **self.kwargs}

    @property
    def inputs(self) -> list[Tensor]:
        """All tensors among the arguments."""
        return [x for x in tree_leaves((self.args, self.kwargs)) if isinstance(x, Tensor)]

    @property
    def outputs(self) -> list[Tensor]:
        """All tensors in the result."""
        return [x for x in tree_leaves(self.result) if isinstance(x, Tensor)]
