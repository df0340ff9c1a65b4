"""What a deployed operation consists of, in plain data: its arithmetic, and whether two are the same. No torch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Piece", "Walk", "total_macs"]

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of a deployed operation.

    Args:
        kind: ``conv``, ``add``, an activation's name, …
        sizes: all that decides what the step computes, weights' values left out.
        macs: multiply-accumulates for one sample.
    """

    kind: str
    sizes: tuple[int | str, ...] = ()
    macs: int = 0


def total_macs(pieces: tuple[Piece, ...]) -> int:
    """Return the multiply-accumulates of all pieces for one sample."""
    return sum(piece.macs for piece in pieces)


class Walk:
    """Collects an operation's pieces along the way from its input (C, H, W) to its output.

    >>> walk = Walk((8, 4, 4))
    >>> walk.conv(16, kernel=3, stride=(2, 2), act="relu")
    >>> walk.channels, walk.height, total_macs(walk.pieces)
    (16, 2, 4608)
    """

    def __init__(self, shape: Shape) -> None:
        self._shape = tuple(shape)
        self.channels, self.height, self.width = shape
        self._pieces: list[Piece] = []

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """What was collected so far."""
        return tuple(self._pieces)

    @property
    def pixels(self) -> int:
        """Pixels of the map at this point."""
        return self.height * self.width

    def step(self, kind: str, *sizes: int | str, macs: int = 0) -> None:
        """Add a step that keeps the shape."""
        self._pieces.append(Piece(kind, (self.channels, self.height, self.width, *sizes), macs))

    def act(self, name: str) -> None:
        """Add an activation; ``none`` adds nothing."""
        if name != "none":
            self.step(name)

    def conv(
        self,
        outputs: int,
        *,
        kernel: int | tuple[int, int] = 1,
        stride: tuple[int, int] = (1, 1),
        groups: int = 1,
        dilation: int = 1,
        act: str = "none",
    ) -> None:
        """Add a convolution (with its bias or folded batch norm) and an activation."""
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        inputs = self.channels
        self._move(outputs, stride)
        macs = inputs // groups * outputs * high * wide * self.pixels
        self.step("conv", inputs, high, wide, *stride, groups, dilation, macs=macs)
        self.act(act)

    def shrink(self, stride: tuple[int, int]) -> None:
        """Add the average pooling that strides; nothing where the stride is one."""
        if stride != (1, 1):
            self._move(self.channels, stride)
            self.step("average", *stride)

    def squeeze_excite(self, squeezed: int) -> None:
        """Add a gate computed from the channels' means by two layers; 0 adds nothing."""
        if squeezed:
            self.step("gate", squeezed, macs=2 * self.channels * squeezed)

    def end(self, output_shape: Shape, out: str, *, residual: bool | None = None) -> tuple[Piece, ...]:
        """Add what ends an operation, the input's addition where shapes are equal and the last activation.

        Returns:
            all pieces.
        """
        if residual if residual is not None else self._shape == tuple(output_shape):
            self.step("add")
        self.act(out)
        return self.pieces

    def _move(self, channels: int, stride: tuple[int, int]) -> None:
        self.channels = channels
        self.height, self.width = -(-self.height // stride[0]), -(-self.width // stride[1])
