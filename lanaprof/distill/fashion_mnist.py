"""Where Fashion-MNIST lies on this machine and how its idx files are read; nothing is ever downloaded."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from lanaprof.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "FASHION_MNIST_MEAN",
    "FASHION_MNIST_STD",
    "FOLDER_VARIABLE",
    "find_fashion_mnist",
    "read_fashion_mnist",
    "read_idx",
]

FOLDER_VARIABLE = "LANAPROF_FASHION_MNIST"
FASHION_MNIST_MEAN = 0.2860  # of pixel / 255 over the 60,000 official training images
FASHION_MNIST_STD = 0.3530

_SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts it
_SUBSET = Path("examples/fashion_mnist/data")  # the part shipped in the repository
_PARTS = {"train": "train", "test": "t10k"}
_HINT = (
    "apt-get install dataset-fashion-mnist, or put the four official idx files into a folder and set "
    f"{FOLDER_VARIABLE} to it, or work inside a checkout of lanaprof, which carries a subset"
)
_IDX_UNSIGNED_BYTE = 0x08


def find_fashion_mnist(search_path: str | Path | None = None) -> Path:
    """Return the folder that holds the four idx files.

    Looked at in this order: the folder named by LANAPROF_FASHION_MNIST, the system's full set, then the
    subset of a checkout that ``search_path``, the working folder or lanaprof itself lies in.

    Raises:
        BadInput: there is none, or the variable names a folder without the files.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        folder = Path(named).expanduser()
        for choice in (folder, folder / "FashionMNIST" / "raw", folder / "raw"):  # torchvision's layout too
            if _is_complete(choice):
                return choice
        raise BadInput(f"{FOLDER_VARIABLE} names {folder}, which lacks {_first_missing(folder)}", hint=_HINT)
    if _is_complete(_SYSTEM_FOLDER):
        return _SYSTEM_FOLDER
    starts = [Path(search_path or ".").resolve(), Path.cwd().resolve(), Path(__file__).resolve().parent]
    for start in starts:
        for parent in (start, *start.parents):
            if _is_complete(parent / _SUBSET):
                return parent / _SUBSET
    raise BadInput("Fashion-MNIST is not on this machine", hint=_HINT)


def read_fashion_mnist(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the images (count, 28, 28) and labels (count,) of ``part``: ``train`` or ``test``.

    Raises:
        BadInput: a file is damaged, or images and labels do not match.
    """
    images = read_idx(_file(folder, f"{_PARTS[part]}-images-idx3-ubyte"))
    labels = read_idx(_file(folder, f"{_PARTS[part]}-labels-idx1-ubyte"))
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels) or not len(images):
        raise BadInput(
            f"{folder}: the {part} images have shape {images.shape}, their labels {labels.shape}", hint=_HINT
        )
    return images, labels


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in an idx file of unsigned bytes, gzipped or not.

    Raises:
        BadInput: the file cannot be read or is not such a file.
    """
    import numpy as np

    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as error:
        raise BadInput(f"cannot read {path}: {error}", hint=_HINT) from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UNSIGNED_BYTE:
        raise BadInput(f"{path} is not an idx file of unsigned bytes", hint=_HINT)
    start = 4 + 4 * content[3]
    shape = tuple(int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4))
    values = np.frombuffer(content, np.uint8, offset=min(start, len(content)))
    if values.size != int(np.prod(shape)):
        raise BadInput(f"{path} is cut off: it promises the shape {shape}, it holds {values.size} bytes")
    return values.reshape(shape)


def _file(folder: Path, name: str) -> Path:
    zipped = folder / f"{name}.gz"
    return zipped if zipped.is_file() else folder / name


def _first_missing(folder: Path) -> str | None:
    names = [
        f"{part}-{kind}" for part in _PARTS.values() for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")
    ]
    return next((f"{name}.gz" for name in names if not _file(folder, name).is_file()), None)


def _is_complete(folder: Path) -> bool:
    return _first_missing(folder) is None
