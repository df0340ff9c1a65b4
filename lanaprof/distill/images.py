"""Images in files and in arrays, made into normalised tensors of one shape."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lanaprof.distill.data import Batch, labels_tensor
from lanaprof.errors import BadInput

__all__ = ["ArrayImages", "FileImages", "ImageFiles", "Preparation", "find_images"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".pgm", ".ppm"}
)
MOST_READERS = 8  # threads that decode; more only compete with the training
CACHE_BYTES = 512 * 2**20  # prepared pixels kept in memory, so that small folders are decoded once

_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True, slots=True)
class Preparation:
    """How an image becomes a tensor: its shorter side resized, its centre cropped, normalised.

    Attributes:
        input_shape: (channels, height, width) with 1 or 3 channels.
        mean: per channel, of pixel / 255.
        std: per channel.
        crop_pct: the crop's share of the resized shorter side, as timm means it.
        interpolation: ``bilinear`` or ``bicubic``.
    """

    input_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    @classmethod
    def for_input(
        cls, input_shape: tuple[int, ...], preprocessing: Mapping[str, Any] | None, *, spec: str
    ) -> Preparation:
        """Return the preparation for a network's input; missing parts are ImageNet's.

        Raises:
            BadInput: the input is no image of 1 or 3 channels, or mean and std do not fit.
        """
        if len(input_shape) != 3 or input_shape[0] not in (1, 3):
            shape = "x".join(map(str, input_shape))
            raise BadInput(
                f"the data {spec!r} are images; the network's input {shape} is none: "
                "it should be 1 or 3 channels, height, width",
                hint="give your own data by package.module:function",
            )
        channels, height, width = input_shape
        given = dict(preprocessing or {})
        return cls(
            (channels, height, width),
            _per_channel(given.get("mean", IMAGENET_MEAN), channels, "mean"),
            _per_channel(given.get("std", IMAGENET_STD), channels, "std"),
            crop_pct=float(given.get("crop_pct") or 1.0),
            interpolation=str(given.get("interpolation") or "bilinear"),
        )

    @property
    def resized_side(self) -> int:
        """What the shorter side is resized to before the crop, in pixels."""
        return max(*self.input_shape[1:], math.floor(max(self.input_shape[1:]) / self.crop_pct))

    def as_mapping(self) -> dict[str, Any]:
        """Return it as plain data, for keys and reports."""
        return {
            "mean": self.mean,
            "std": self.std,
            "size": self.input_shape[1:],
            "crop_pct": self.crop_pct,
            "interpolation": self.interpolation,
        }

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Return the resized and cropped pixels, (channels, height, width)."""
        channels, height, width = self.input_shape
        image = image.convert("L" if channels == 1 else "RGB")
        scale = self.resized_side / min(image.size)
        size = tuple(max(self.resized_side, round(side * scale)) for side in image.size)
        if size != image.size:
            image = image.resize(
                (size[0], size[1]), _FILTERS.get(self.interpolation, Image.Resampling.BILINEAR)
            )
        left, top = (image.width - width) // 2, (image.height - height) // 2
        values = np.asarray(image.crop((left, top, left + width, top + height)), np.uint8)
        return np.ascontiguousarray(values[None] if channels == 1 else values.transpose(2, 0, 1))

    def normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Return float32 (count, channels, height, width) of uint8 pixels of the same shape."""
        x = torch.from_numpy(pixels.astype(np.float32)).div_(255.0)
        mean, std = (torch.tensor(part).view(1, -1, 1, 1) for part in (self.mean, self.std))
        return x.sub_(mean).div_(std)


def _per_channel(values: Any, channels: int, name: str) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in (values if isinstance(values, Sequence) else (values,)))
    if len(numbers) == 1:
        numbers *= channels
    if len(numbers) == 3 and channels == 1:
        numbers = (round(sum(numbers) / 3, 6),)  # colour statistics for a grey input: their average
    if len(numbers) != channels or (name == "std" and min(numbers) <= 0):
        raise BadInput(
            f"the preprocessing's {name} is {numbers}; {channels} number(s) are needed"
            + (", above zero" if name == "std" else "")
        )
    return numbers


class ArrayImages:
    """Images in memory: uint8 (count, height, width) or (count, height, width, 3)."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[Any] | None, preparation: Preparation
    ) -> None:
        self._images = images
        self._labels = labels
        self._preparation = preparation

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self._images)

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""
        return self._labels is not None

    def read(self, places: Sequence[int]) -> Batch:
        """Return the images at these places, normalised, with their labels."""
        chosen = self._images[list(places)]
        channels, height, width = self._preparation.input_shape
        if chosen.ndim == 3 and channels == 1 and chosen.shape[1:] == (height, width):
            pixels = chosen[:, None]  # nothing to resize: the common case, without the way through PIL
        else:
            pixels = np.stack([self._preparation.pixels(Image.fromarray(image)) for image in chosen])
        return self._preparation.normalise(pixels), labels_tensor(self._labels, places)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Image files with their classes.

    Attributes:
        files: sorted by class and name.
        labels: one number a file, or None where there are no class folders.
        classes: the folders' names; a label is a place in it.
    """

    files: tuple[Path, ...]
    labels: tuple[int, ...] | None
    classes: tuple[str, ...]


def find_images(folder: Path) -> ImageFiles:
    """Return the images below a folder: lying in it (no labels), or in one folder per class (labels).

    Raises:
        BadInput: there is none, or some lie in class folders and some beside them.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise BadInput(f"cannot read the folder {folder}: {error.strerror}") from error
    flat = tuple(entry for entry in entries if entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file())
    nested: list[tuple[Path, int]] = []
    classes: list[str] = []
    for entry in entries:
        if entry.is_dir():
            inside = [(file, len(classes)) for file in _images_below(entry)]
            if inside:
                nested += inside
                classes.append(entry.name)
    if flat and nested:
        raise BadInput(
            f"{folder} holds {len(flat)} images and, in folders beside them, {len(nested)} more",
            hint="either put every image into a class folder, or all into one folder without classes",
        )
    if not flat and not nested:
        raise BadInput(
            f"there are no images in {folder}",
            hint=f"images end in {', '.join(sorted(IMAGE_SUFFIXES))}",
        )
    if flat:
        return ImageFiles(flat, None, ())
    return ImageFiles(tuple(file for file, _ in nested), tuple(label for _, label in nested), tuple(classes))


def _images_below(folder: Path) -> list[Path]:
    found = []
    for root, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(root) / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    return sorted(file for file in found if not file.name.startswith("."))


class FileImages:
    """Images in files, decoded by several threads; what fits into memory is decoded once."""

    def __init__(self, found: ImageFiles, preparation: Preparation) -> None:
        self._found = found
        self._labels = None if found.labels is None else np.asarray(found.labels, np.int64)
        self._preparation = preparation
        self._readers = ThreadPoolExecutor(min(MOST_READERS, os.cpu_count() or 1))
        self._cache: dict[int, NDArray[np.uint8]] | None = None
        if len(found.files) * math.prod(preparation.input_shape) <= CACHE_BYTES:
            self._cache = {}

    @property
    def count(self) -> int:
        """How many images there are."""
        return len(self._found.files)

    @property
    def labelled(self) -> bool:
        """Whether the images lie in class folders."""
        return self._labels is not None

    def read(self, places: Sequence[int]) -> Batch:
        """Return the images at these places, normalised, with their labels.

        Raises:
            BadInput: a file is no readable image; the message names it.
        """
        pixels = list(self._readers.map(self._pixels, places))
        return self._preparation.normalise(np.stack(pixels)), labels_tensor(self._labels, places)

    def _pixels(self, place: int) -> NDArray[np.uint8]:
        if self._cache is not None and place in self._cache:
            return self._cache[place]
        path = self._found.files[place]
        try:
            with Image.open(path) as image:
                pixels = self._preparation.pixels(image)
        except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
            raise BadInput(
                f"cannot read the image {path}: {error}", hint="repair it or take it out of the folder"
            ) from error
        if self._cache is not None:
            self._cache[place] = pixels
        return pixels
