"""Scenes to detect things in: one to three pieces of Fashion-MNIST on a grey canvas of 64 × 64 pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from lanaprof.distill.fashion_mnist import find_fashion_mnist, read_fashion_mnist

SIZE = 64  # pixels of a canvas's side
LEAST, MOST = 18, 30  # pixels of a piece's side
PIECES = 3  # at most
APART = 0.15  # boxes overlap by less than this share of their union
CLASSES = 10
COUNTS = {"train": 6144, "heldout": 512, "test": 1000}
_SEEDS = {"train": 0, "heldout": 1, "test": 2}
_TRIES = 20  # to place a piece beside those that lie there


class Scenes(Sequence[Tensor]):
    """Canvases (1, 64, 64) of values in −1…1; number i is the same each time.

    Args:
        split: ``train``, ``heldout`` (of Fashion-MNIST's training images) or ``test``.
        count: how many; default: COUNTS.
    """

    def __init__(self, split: str, count: int | None = None) -> None:
        folder = find_fashion_mnist(Path(__file__).resolve().parent)
        images, labels = read_fashion_mnist(folder, "test" if split == "test" else "train")
        tenth = len(images) // 10
        part = {"train": slice(tenth, None), "heldout": slice(0, tenth), "test": slice(None)}[split]
        self._pieces = torch.tensor(images[part]).float() / 255
        self._labels = torch.tensor(labels[part]).long()
        self._seed = _SEEDS[split]
        self._count = count or COUNTS[split]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, place: int) -> Tensor:  # type: ignore[override]
        return self.scene(place)[0]

    def scene(self, place: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return canvas (1, 64, 64), boxes (n, 4) as left, top, right, bottom in pixels, classes (n,)."""
        if not 0 <= place < self._count:
            raise IndexError(place)
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + place)
        canvas = torch.rand(SIZE, SIZE, generator=generator) * 0.2
        boxes: list[tuple[int, int, int, int]] = []
        classes: list[int] = []
        for _ in range(_draw(1, PIECES + 1, generator)):
            number, side = _draw(0, len(self._pieces), generator), _draw(LEAST, MOST + 1, generator)
            box = _find_place(boxes, side, generator)
            if box is None:
                continue
            piece = functional.interpolate(self._pieces[number][None, None], (side, side), mode="bilinear")
            left, top, right, bottom = box
            canvas[top:bottom, left:right] = torch.maximum(canvas[top:bottom, left:right], piece[0, 0])
            boxes.append(box)
            classes.append(int(self._labels[number]))
        return canvas[None] * 2 - 1, torch.tensor(boxes, dtype=torch.float32), torch.tensor(classes)


def _draw(low: int, high: int, generator: torch.Generator) -> int:
    return int(torch.randint(low, high, (), generator=generator))


def _find_place(
    boxes: list[tuple[int, int, int, int]], side: int, generator: torch.Generator
) -> tuple[int, int, int, int] | None:
    for _ in range(_TRIES):
        left, top = (_draw(0, SIZE - side + 1, generator) for _ in range(2))
        box = (left, top, left + side, top + side)
        if all(_overlap(box, other) < APART for other in boxes):
            return box
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0) * max(high, 0)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return shared / (areas - shared)
