"""A single-shot detector: every cell of 8 × 8 says whether a thing's middle lies in it, its box and its class.

Nothing of it is known to lanaprof: it is given ``teacher``, ``data`` and the metric ``ap`` by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from scenes import CLASSES, SIZE, Scenes
from torch import Tensor, nn
from torchvision.ops import batched_nms, box_iou

WEIGHTS = Path(__file__).with_name("detector.safetensors")
GRID = 8  # cells of a side
CELL = SIZE // GRID  # pixels of a cell's side
SURE = 0.5  # least confidence of what the teacher is taken at its word for
FAINT = 0.02  # least confidence that is looked at
SAME_BOX = 0.5  # least overlap, as intersection over union, of a box found with the box there is


class Residual(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, width_out, height / stride, width / stride)."""
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class Detector(nn.Module):
    """(batch, 1, 64, 64) to (batch, 15, 8, 8): per cell confidence, box (4) and classes (10), as raw numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.backbone = nn.Sequential(
            Residual(24, 32, 2), Residual(32, 32, 1),
            Residual(32, 64, 2), Residual(64, 64, 1), Residual(64, 64, 1), Residual(64, 64, 1),
        )  # fmt: skip
        self.head = nn.Conv2d(64, 5 + CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the raw numbers."""
        found: Tensor = self.head(self.backbone(self.stem(x)))
        return found


def teacher() -> Detector:
    """Return the trained network; its weights lie beside this file."""
    network = Detector()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()


def data(split: str) -> Scenes:
    """Return scenes for lanaprof, without boxes: it needs none."""
    return Scenes(split)


def boxes_of(outputs: Tensor) -> Tensor:
    """Return the boxes (batch, 8, 8, 4) that raw numbers mean: left, top, right, bottom in pixels."""
    places = torch.arange(GRID, dtype=outputs.dtype, device=outputs.device)
    share = outputs[:, 1:5].sigmoid()
    x = (places[None, :] + share[:, 0]) * CELL
    y = (places[:, None] + share[:, 1]) * CELL
    wide, high = share[:, 2] * SIZE, share[:, 3] * SIZE
    return torch.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], -1)


def detections(outputs: Tensor, *, least: float) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return per image boxes (n, 4), classes (n,) and confidences (n,), the most confident first.

    Args:
        outputs: of the network, (batch, 15, 8, 8).
        least: confidence below which nothing is reported.
    """
    found = []
    confidence = outputs[:, 0].sigmoid().flatten(1)
    classes = outputs[:, 5:].argmax(1).flatten(1)
    boxes = boxes_of(outputs).flatten(1, 2)
    for one, kind, sure in zip(boxes, classes, confidence, strict=True):
        loud = sure >= least
        kept = batched_nms(one[loud], sure[loud], kind[loud], SAME_BOX)
        found.append((one[loud][kept], kind[loud][kept], sure[loud][kept]))
    return found


def matched(
    found: tuple[Tensor, Tensor, Tensor], boxes: Tensor, classes: Tensor
) -> tuple[list[float], list[bool]]:
    """Return confidence and rightness of each detection of an image; each thing there is, is found once."""
    left = torch.ones(len(boxes), dtype=torch.bool)
    right = []
    overlap = box_iou(found[0], boxes) if len(boxes) else torch.zeros(len(found[0]), 0)
    for row, kind in zip(overlap, found[1], strict=True):
        fitting = torch.where(left & (classes == kind), row, torch.zeros(()))
        best = int(fitting.argmax()) if len(boxes) else 0
        hit = bool(len(boxes)) and float(fitting[best]) >= SAME_BOX
        if hit:
            left[best] = False
        right.append(hit)
    return found[2].tolist(), right


def average_precision(confidences: Sequence[float], right: Sequence[bool], things: int) -> float:
    """Return the area under precision over recall, precision made falling (as in PASCAL VOC since 2010)."""
    if not things:
        return 0.0 if right else 1.0
    order = sorted(range(len(right)), key=lambda place: -confidences[place])
    precisions, hits = [], 0
    for rank, place in enumerate(order, start=1):
        hits += right[place]
        if right[place]:
            precisions.append(hits / rank)
    for place in range(len(precisions) - 2, -1, -1):
        precisions[place] = max(precisions[place], precisions[place + 1])
    return sum(precisions) / things


def ap(outputs: Tensor, wanted: Tensor) -> Tensor:
    """Return the average precision of every image (batch,), what the teacher is sure of being the truth.

    lanaprof calls it with a network's and the teacher's outputs where the data has no labels.
    """
    values = []
    for found, truth in zip(
        detections(outputs.float().cpu(), least=FAINT),
        detections(wanted.float().cpu(), least=SURE),
        strict=True,
    ):
        values.append(average_precision(*matched(found, truth[0], truth[1]), len(truth[0])))
    return torch.tensor(values)
