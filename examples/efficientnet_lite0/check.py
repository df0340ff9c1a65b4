"""Classify a folder of ImageNet images named ``*_CLASS.jpg`` and print how many are right.

python check.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from teacher import teacher
from torch import Tensor

SIZE = 224
CROP = 0.875  # share of the shorter side


def load_image(path: Path) -> Tensor:
    """Return the central part of an image as (3, 224, 224) of values (pixel − 127) / 128."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = int(CROP * min(width, height))
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(image, dtype=np.float32) - 127) / 128).permute(2, 0, 1)


def main() -> None:
    """Print the number of images whose best class is the one in their name."""
    paths = sorted(Path(sys.argv[1]).glob("*_*.jpg"))
    with torch.no_grad():
        guesses = teacher()(torch.stack([load_image(path) for path in paths])).argmax(1).tolist()
    right = sum(
        int(path.stem.rpartition("_")[2]) == guess for path, guess in zip(paths, guesses, strict=True)
    )
    print(f"{right} of {len(paths)} right")


if __name__ == "__main__":
    main()
