"""From a data spec such as ``imagefolder:photos`` to a DataSource."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lanaprof.distill.data import DataSource, Samples, split_off
from lanaprof.distill.fashion_mnist import (
    FASHION_MNIST_MEAN,
    FASHION_MNIST_STD,
    find_fashion_mnist,
    read_fashion_mnist,
)
from lanaprof.distill.images import ArrayImages, FileImages, Preparation, find_images
from lanaprof.distill.names import DATA_SPECS
from lanaprof.distill.userdata import NoiseSamples, load_from_function
from lanaprof.errors import BadInput
from lanaprof.teachers import load_attribute

__all__ = ["DATA_SPECS", "load_data"]

TORCHVISION_SETS = ("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST")  # data and targets in memory
RANDOM_COUNTS = {"train": 4096, "heldout": 512}

_SPLIT_FOLDERS = {
    "train": ("train",),
    "heldout": ("heldout", "val", "valid", "validation"),
    "test": ("test",),
}


def load_data(
    spec: str,
    *,
    input_shape: tuple[int, ...],
    preprocessing: Mapping[str, Any] | None = None,
    seed: int = 0,
    search_path: str | Path | None = None,
) -> DataSource:
    """Return the data a spec names, read in batches as they are needed.

    Args:
        spec: one of ``DATA_SPECS``.
        input_shape: of one sample; (channels, height, width) for images, which are resized by their
            shorter side and cropped at the centre to fit, and made grey or colour as channels ask.
        preprocessing: the teacher's: ``mean`` and ``std`` per channel of pixel / 255, ``crop_pct``. Default:
            the data set's own for ``fashion-mnist``, else ImageNet's.
        seed: of the held-out tenth, where the data set does not come with one.
        search_path: the project folder: relative paths and modules are looked for there first.

    Raises:
        BadInput: the spec is unknown, or what it names is missing, empty, damaged or of another shape.
    """
    request = _Request(spec, input_shape, preprocessing, seed, search_path)
    kind, _, rest = spec.partition(":")
    if spec in _PLAIN:
        return _PLAIN[spec](request)
    if kind in _PREFIXED:
        return _PREFIXED[kind](request)
    if kind.replace(".", "_").isidentifier() and rest.isidentifier():
        function = load_attribute(spec, search_path=search_path)
        if not callable(function):
            raise BadInput(f"{spec!r} cannot be called", hint="name a function that yields samples")
        return load_from_function(
            spec, function, input_shape=input_shape, seed=seed, preprocessing=dict(preprocessing or {})
        )
    raise BadInput(f"{spec!r} is no data spec; known are {', '.join(DATA_SPECS)}", hint="give one of these")


@dataclass(frozen=True, slots=True)
class _Request:
    spec: str
    input_shape: tuple[int, ...]
    preprocessing: Mapping[str, Any] | None
    seed: int
    search_path: str | Path | None

    def preparation(self, own: Mapping[str, Any] | None = None) -> Preparation:
        """Return how images are prepared: as the teacher says, else as the data set itself says."""
        return Preparation.for_input(
            self.input_shape, {**(own or {}), **(self.preprocessing or {})}, spec=self.spec
        )

    def resolve(self, path: str) -> Path:
        """Return a path, a relative one from the project folder if it is there."""
        given = Path(path).expanduser()
        in_project = Path(self.search_path or ".") / given  # an absolute path stays what it is
        return in_project if in_project.exists() else given


def _fashion_mnist(request: _Request) -> DataSource:
    preparation = request.preparation({"mean": (FASHION_MNIST_MEAN,), "std": (FASHION_MNIST_STD,)})
    folder = find_fashion_mnist(request.search_path)
    parts = {part: read_fashion_mnist(folder, part) for part in ("train", "test")}
    return _arrays(request, parts, preparation)


def _torchvision(request: _Request) -> DataSource:
    _, name, root = (*request.spec.split(":", 2), "", "")[:3]
    if name not in TORCHVISION_SETS or not root:
        raise BadInput(
            f"{request.spec!r} is not torchvision:NAME:ROOT with NAME one of {', '.join(TORCHVISION_SETS)}",
            hint="for example torchvision:CIFAR10:data",
        )
    import torchvision.datasets

    folder = request.resolve(root)
    parts = {}
    for part, train in (("train", True), ("test", False)):
        try:
            found = getattr(torchvision.datasets, name)(str(folder), train=train, download=False)
        except (RuntimeError, OSError) as error:
            download = f"import torchvision as t; t.datasets.{name}({root!r}, download=True)"
            raise BadInput(
                f"{folder} does not hold torchvision's {name}: {error}",
                hint=f'lanaprof never downloads data; this does: python -c "{download}"',
            ) from error
        parts[part] = (np.asarray(found.data), np.asarray(found.targets))
    return _arrays(request, parts, request.preparation())


def _arrays(request: _Request, parts: Mapping[str, tuple[Any, Any]], preparation: Preparation) -> DataSource:
    sets = {name: ArrayImages(images, labels, preparation) for name, (images, labels) in parts.items()}
    train, heldout = split_off(sets["train"].count, seed=request.seed, spec=request.spec)
    return DataSource(
        request.spec,
        {
            "train": (sets["train"], train),
            "heldout": (sets["train"], heldout),
            "test": (sets["test"], range(sets["test"].count)),
        },
        input_shape=request.input_shape,
        preprocessing=preparation.as_mapping(),
        identity=":".join(request.spec.split(":")[:2]),
    )


def _imagefolder(request: _Request) -> DataSource:
    path = request.spec.partition(":")[2]
    folder = request.resolve(path)
    if not path or not folder.is_dir():
        raise BadInput(
            f"{request.spec!r}: there is no folder {folder}" if path else f"{request.spec!r} names no folder",
            hint="give a folder of images: imagefolder:PATH",
        )
    preparation = request.preparation()
    splits: dict[str, tuple[Samples, Any]] = {}
    if (folder / "train").is_dir():
        for split, names in _SPLIT_FOLDERS.items():
            name = next((name for name in names if (folder / name).is_dir()), None)
            if name is not None:
                files = FileImages(find_images(folder / name), preparation)
                # in random order, so that the first n are a fair sample and not all of one class
                splits[split] = (files, np.random.default_rng(request.seed).permutation(files.count))
    if "train" not in splits:
        splits["train"] = (FileImages(find_images(folder), preparation), ())
    if "heldout" not in splits:
        samples = splits["train"][0]
        train, heldout = split_off(samples.count, seed=request.seed, spec=request.spec)
        splits["train"], splits["heldout"] = (samples, train), (samples, heldout)
    if len({samples.labelled for samples, _ in splits.values()}) > 1:
        raise BadInput(
            f"{folder}: some of {', '.join(splits)} have class folders, some have not",
            hint="give every split class folders, or none",
        )
    return DataSource(
        request.spec,
        splits,
        input_shape=request.input_shape,
        preprocessing=preparation.as_mapping(),
        identity="imagefolder",
    )


def _random(request: _Request) -> DataSource:
    parts = {
        name: NoiseSamples(request.input_shape, count, seed=2 * request.seed + place)
        for place, (name, count) in enumerate(RANDOM_COUNTS.items())
    }
    return DataSource(
        request.spec,
        {name: (samples, range(samples.count)) for name, samples in parts.items()},
        input_shape=request.input_shape,
        preprocessing={},
        identity="random",
        images=False,
        note="random data: good for latency trials only, scores and fine-tuned weights mean nothing",
    )


_PLAIN: dict[str, Callable[[_Request], DataSource]] = {"fashion-mnist": _fashion_mnist, "random": _random}
_PREFIXED: dict[str, Callable[[_Request], DataSource]] = {
    "imagefolder": _imagefolder,
    "torchvision": _torchvision,
}
