"""Write the shipped subset of Fashion-MNIST: the first images of every class, in the official order.

    python examples/fashion_mnist/make_subset.py --from /usr/share/datasets/fashion-mnist

The output has the official format (idx, gzipped) and the official file names, and is the same bytes on
every machine with the same zlib.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lanaprof.distill.fashion_mnist import read_fashion_mnist

CLASSES = 10
PER_CLASS = {"train": 1500, "test": 400}
FILE_PREFIX = {"train": "train", "test": "t10k"}
OUT = Path(__file__).with_name("data")


def first_of_each_class(labels: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """Return the sorted positions of the first ``count`` images of every class."""
    places = [np.flatnonzero(labels == label)[:count] for label in range(CLASSES)]
    return np.sort(np.concatenate(places))


def write_idx(path: Path, values: NDArray[np.uint8]) -> None:
    """Write an idx file of unsigned bytes, gzipped without a time stamp."""
    header = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), compresslevel=9, mtime=0))


def main() -> None:
    """Read the full set, choose, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="source", type=Path, required=True, help="the folder of the full set")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for part, count in PER_CLASS.items():
        images, labels = read_fashion_mnist(options.source, part)
        chosen = first_of_each_class(labels, count)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            path = options.out / f"{FILE_PREFIX[part]}-{kind}-ubyte.gz"
            write_idx(path, values[chosen])
            print(f"{path.name}: {len(chosen)} of {len(labels)}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
