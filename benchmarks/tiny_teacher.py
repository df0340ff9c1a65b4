"""The toy network of ``--quick``: three blocks that take microseconds."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions."""

    def __init__(self, width: int, wide: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.conv2 = nn.Conv2d(2 * width, wide, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, wide, height / stride, width / stride)."""
        y: Tensor = self.conv2(torch.relu(self.norm(self.conv1(x))))
        return y


def network() -> nn.Module:
    """Return the teacher with seeded weights."""
    torch.manual_seed(0)
    blocks = nn.Sequential(Block(16, 16, 1), Block(16, 16, 1), Block(16, 24, 2))
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, 4)
    ).eval()
