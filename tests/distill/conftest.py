"""A tiny teacher whose glue changes tensors in place, its space, and small data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from lanaprof.distill import DataSource, load_data
from lanaprof.space import Layer, Space
from lanaprof.teachers import Teacher, state_digest

CHANNELS, SIZE = 8, 16
LAYERS = {
    "body.first": ((CHANNELS, SIZE, SIZE), (CHANNELS, SIZE, SIZE)),
    "body.second": ((CHANNELS, SIZE, SIZE), (CHANNELS, SIZE, SIZE)),
    "body.third": ((CHANNELS, SIZE, SIZE), (2 * CHANNELS, SIZE // 2, SIZE // 2)),
}
CANDIDATES = ("teacher", "conv", "conv(kernel=1)", "ds")


class TinyNet(nn.Module):
    """Three layers between a stem and a head; the glue is partly modules, partly functions in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, CHANNELS, 3, 1, 1)
        self.act = nn.ReLU(inplace=True)
        self.body = nn.ModuleDict(
            {
                "first": nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1), nn.BatchNorm2d(CHANNELS)),
                "second": nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)),
                "third": nn.Conv2d(CHANNELS, 2 * CHANNELS, 3, 2, 1),
            }
        )
        self.head = nn.Linear(2 * CHANNELS, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 5) logits."""
        x = self.act(self.stem(x))
        y = self.body["first"](x)
        z = self.body["second"](y)
        z += x
        out = torch.relu_(self.body["third"](z))
        logits: Tensor = self.head(out.mean((2, 3)))
        return logits


def make_teacher() -> Teacher:
    """Return the same tiny teacher each time, with batch norm statistics that are not trivial."""
    generator = torch.Generator().manual_seed(5)
    module = TinyNet()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)
        module.head.weight.mul_(6)
        norm = module.body["first"].get_submodule("1")
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(torch.randn(CHANNELS, generator=generator))
        norm.running_var.copy_(torch.rand(CHANNELS, generator=generator) + 0.5)
    module.eval()
    return Teacher(
        text="tiny:make",
        module=module,
        input_shape=(3, SIZE, SIZE),
        weights="made up",
        weights_digest=state_digest(module),
        seeded=False,
        preprocessing={},
    )


def make_space() -> Space:
    """Return the tiny teacher's space: skip where it fits."""
    layers = []
    for name, (input_shape, output_shape) in LAYERS.items():
        skip = ("skip",) if input_shape == output_shape else ()
        candidates = (*CANDIDATES[:1], *skip, *CANDIDATES[1:])
        layers.append(Layer(name, input_shape, output_shape, 1, "structure", candidates))
    return Space("tiny:make", (3, SIZE, SIZE), tuple(layers))


def make_images(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), each: int = 12) -> Path:
    """Write small random PNG files, in class folders if there are classes."""
    random = np.random.default_rng(3)
    for name in classes or ("",):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            pixels = random.integers(0, 256, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def teacher() -> Teacher:
    return make_teacher()


@pytest.fixture
def space() -> Space:
    return make_space()


@pytest.fixture
def noise() -> DataSource:
    """Random data: no labels."""
    return load_data("random", input_shape=(3, SIZE, SIZE))


@pytest.fixture
def labelled(tmp_path: Path) -> DataSource:
    """24 images in two class folders."""
    folder = make_images(tmp_path / "labelled")
    return load_data(f"imagefolder:{folder}", input_shape=(3, SIZE, SIZE))
