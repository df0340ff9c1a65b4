"""The demo's teacher: a residual network of nine basic blocks for 28 × 28 grey images."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("teacher.safetensors")
WIDTHS = (24, 48, 96)  # one width per stage of three blocks; the first block of a later stage halves the size
BLOCKS_PER_STAGE = 3
CLASSES = 10


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions beside a shortcut (He et al., arXiv 1512.03385)."""

    def __init__(self, width_in: int, width_out: int, *, stride: int = 1) -> None:
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


class ResidualNet(nn.Module):
    """Stem, nine blocks, head: (batch, 1, 28, 28) to (batch, 10) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()
        )
        blocks, width_in = [], WIDTHS[0]
        for stage, width in enumerate(WIDTHS):
            for place in range(BLOCKS_PER_STAGE):
                blocks.append(BasicBlock(width_in, width, stride=2 if stage and not place else 1))
                width_in = width
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width_in, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))
        return logits


def teacher() -> ResidualNet:
    """Return the trained network; its weights lie beside this file."""
    network = ResidualNet()
    network.load_state_dict(load_file(WEIGHTS))
    return network.eval()
