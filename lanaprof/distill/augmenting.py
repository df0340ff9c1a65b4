"""Images are flipped and shifted, by the seed and the step alone."""

from __future__ import annotations

import torch
from torch import Tensor

from lanaprof.digest import digest

__all__ = ["augment"]

SHIFT_SHARE = 1 / 14  # of the image's side, to all sides: 2 pixels of 28


def augment(x: Tensor, *, seed: int, step: int) -> Tensor:
    """Return images (batch, channels, height, width), half of them flipped, each shifted a little.

    What happens depends on the seed and the step alone. Shifted-in borders repeat the edge.
    """
    generator = torch.Generator().manual_seed(int(digest([seed, step])[:15], 16))
    count, _, height, width = x.shape
    flip = (torch.rand(count, generator=generator) < 0.5).to(x.device)
    flipped = torch.where(flip[:, None, None, None], x.flip(3), x)
    most = max(1, round(min(height, width) * SHIFT_SHARE))
    down, right = (
        torch.randint(-most, most + 1, (count, 1), generator=generator).to(x.device) for _ in range(2)
    )
    rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + right).clamp(0, width - 1)
    taken = flipped.gather(2, rows[:, None, :, None].expand_as(x))
    return taken.gather(3, columns[:, None, None, :].expand_as(x))
