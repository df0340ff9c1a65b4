"""One call of a torch function while a module is followed."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

__all__ = ["Call", "function_name"]

_DUNDER = re.compile(r"__[ri]?(add|sub|mul|truediv|pow|matmul|getitem)__")


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


def function_name(func: Callable[..., Any]) -> str:
    """Return a torch function's plain name: ``add`` for ``torch.add``, ``Tensor.add_`` and ``x += y``."""
    name = getattr(func, "__name__", type(func).__name__)
    if name == "__get__":  # a property, such as x.mT
        return f"the property {getattr(getattr(func, '__self__', None), '__name__', '?')}"
    dunder = _DUNDER.fullmatch(name)
    return dunder[1] if dunder else name.rstrip("_")
