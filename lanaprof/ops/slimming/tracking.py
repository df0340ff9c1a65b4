"""What is known of every tensor while the channels of a block are followed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from lanaprof.ops.slimming.classes import ChannelClasses, Ids

__all__ = ["Marks", "Tracker", "Use"]

Marks = tuple[Ids | None, ...]  # per dimension the channels' numbers; None where the size is fixed


@dataclass(frozen=True, slots=True)
class Use:
    """A weight that makes, scales or takes channels.

    Attributes:
        weight: the name of the parameter.
        dim: of the parameter, along which the channels lie.
        ids: of the channels.
        places: pixels or tokens of a sample that it works on.
        variance: for batch norm, the name of the buffer that divides the parameter; else empty.
        eps: added to the variance.
    """

    weight: str
    dim: int
    ids: Ids
    places: int
    variance: str = ""
    eps: float = 0.0


class Tracker:
    """Marks by tensor, and what the rules find out.

    Args:
        root: the block; its parameters and buffers are known by name.
    """

    def __init__(self, root: nn.Module) -> None:
        self.classes = ChannelClasses()
        self.uses: list[Use] = []
        self.weights: dict[str, Marks] = {}
        self.inputs: dict[str, Ids | None] = {}  # convolution's weight → the channels it is given
        self.heads: dict[str, Ids] = {}  # attention module → its heads' numbers
        self.open_heads: list[tuple[str, int]] = []  # attention modules being run, with their heads
        self._names = {id(x): name for name, x in (*root.named_parameters(), *root.named_buffers())}
        self._kernels = {
            id(module.weight) for module in root.modules() if isinstance(module, nn.modules.conv._ConvNd)
        }
        self._known: dict[int, tuple[Tensor, Marks]] = {}  # holds the tensors: their ids stay theirs

    def name(self, x: Tensor | None) -> str:
        """Return the name of a parameter or buffer; empty for other tensors."""
        return "" if x is None else self._names.get(id(x), "")

    def is_known(self, x: Tensor) -> bool:
        """Say whether the tensor came out of something that was followed."""
        return id(x) in self._known

    def marks(self, x: Tensor) -> Marks:
        """Return a tensor's marks; a parameter seen first gets fresh numbers, other strangers have none."""
        if id(x) in self._known:
            return self._known[id(x)][1]
        name = self.name(x)
        found: Marks = (None,) * x.dim()
        if name:
            free = 2 if id(x) in self._kernels else x.dim()
            found = tuple(
                self.classes.number(size) if size > 1 and dim < free else None
                for dim, size in enumerate(x.shape)
            )
            self.weights[name] = found
        self._known[id(x)] = (x, found)
        return found

    def put(self, x: Tensor, marks: Sequence[Ids | None]) -> None:
        """Note a result's marks; a dimension of size 1 has none."""
        self._known[id(x)] = (
            x,
            tuple(own if size > 1 else None for own, size in zip(marks, x.shape, strict=True)),
        )

    def fix(self, x: Tensor, why: str = "") -> None:
        """Say that none of a tensor's channels can be dropped."""
        for own in self.marks(x):
            if own is not None:
                self.classes.fix(own, why)

    def join(self, parts: Sequence[Ids | None], why: str = "") -> Ids | None:
        """Return the marks of what meets channel by channel: dropped together, or not at all beside a None."""
        numbered = [part for part in parts if part is not None]
        if not numbered:
            return None
        if len(numbered) < len(parts):
            for part in numbered:
                self.classes.fix(part, why)
        for part in numbered[1:]:
            self.classes.unite(numbered[0], part)
        return numbered[0]

    def broadcast(self, tensors: Sequence[Tensor], shape: Sequence[int]) -> list[Ids | None]:
        """Return the marks of what comes out of tensors that meet value by value."""
        found: list[Ids | None] = []
        for place, size in enumerate(shape):
            behind = len(shape) - place
            parts = [
                self.marks(x)[-behind] for x in tensors if x.dim() >= behind and x.shape[-behind] == size
            ]
            found.append(self.join(parts) if size > 1 else None)
        return found

    def use(self, weight: Tensor, dim: int, ids: Ids | None, output: Tensor, channels: int) -> None:
        """Note that a parameter makes or takes channels; ``channels`` are the output's."""
        name = self.name(weight)
        if name and ids is not None:
            places = output.numel() // (output.shape[0] * channels)
            self.uses.append(Use(name, dim, ids, places))
