"""Teachers scaled down uniformly, for the comparison of benchmarks/lana.py; copied into its project."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def residual(width: float, depth: int) -> nn.Module:
    """Return the Fashion-MNIST teacher with ``depth`` blocks per stage and so many times its widths, untrained."""
    import teacher as own  # type: ignore[import-not-found]  # the example's file, beside this one in the project

    widths = [max(8, round(width * wide / 8) * 8) for wide in own.WIDTHS]
    network = own.ResidualNet()
    blocks, wide_in = [], widths[0]
    for stage, wide in enumerate(widths):
        for place in range(depth):
            blocks.append(own.BasicBlock(wide_in, wide, stride=2 if stage and not place else 1))
            wide_in = wide
    network.stem = nn.Sequential(
        nn.Conv2d(1, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()
    )
    network.blocks = nn.Sequential(*blocks)
    network.head = nn.Linear(wide_in, own.CLASSES)
    result: nn.Module = network
    return result


def lite(width: float, depth: int) -> nn.Module:
    """Return EfficientNet-Lite0 with so many times its width, and its depth scaled along (arXiv 1905.11946)."""
    import timm

    del depth
    network: nn.Module = timm.models.efficientnet._gen_efficientnet_lite(  # type: ignore[no-untyped-call]
        "efficientnet_lite0", channel_multiplier=width, depth_multiplier=min(1.0, width + 0.2)
    )
    return network


def tiny(width: float) -> nn.Module:
    """Return the toy network, half as wide, of smoke runs."""
    wide = max(8, round(24 * width))
    return nn.Sequential(
        nn.Conv2d(1, wide, 3, padding=1),
        nn.BatchNorm2d(wide),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(wide, 4),
    )


def quick_data(split: str) -> list[tuple[Tensor, int]]:
    """Return noise with labels, for smoke runs."""
    generator = torch.Generator().manual_seed({"train": 0, "heldout": 1}.get(split, 2))
    return [(torch.randn(1, 12, 12, generator=generator), place % 4) for place in range(32)]
