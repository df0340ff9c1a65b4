"""Data for distilling: splits of samples, read in an order that depends on the seed and the step alone."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lanaprof.digest import digest
from lanaprof.errors import BadInput

__all__ = ["Batch", "DataSource", "Samples", "split_off"]

HELDOUT_SHARE = 0.1
SAMPLED_FOR_DIGEST = (
    64  # samples whose content enters the digest: enough to tell data sets apart, read in a moment
)

Batch = tuple[Tensor, Tensor | None]  # x (batch, channels, height, width) float32; labels (batch,) int64


class Samples(Protocol):
    """Samples with places 0 to count - 1, read in any order.

    ``read`` is called from one thread at a time and returns float32 ``(len(places), *input_shape)``,
    normalised, and the labels where there are any. The same place gives the same bits each time.
    """

    @property
    def count(self) -> int:
        """How many samples there are."""

    @property
    def labelled(self) -> bool:
        """Whether there are labels."""

    def read(self, places: Sequence[int]) -> Batch:
        """Return the samples at these places.

        Raises:
            BadInput: a sample cannot be read; the message names it.
        """


@dataclass(frozen=True, slots=True)
class _Split:
    samples: Samples
    places: NDArray[np.int64]


class DataSource:
    """Splits of one data set: ``train``, ``heldout`` and, where the data has one, ``test``.

    ``train`` is distilled on; ``heldout`` is taken from the training data for scores and choices; ``test``
    is for the last judgement and is used for nothing else. Made by ``load_data``.

    Attributes:
        spec: the text it was made from.
        input_shape: of one sample, (channels, height, width).
        preprocessing: how pixels became numbers: ``mean`` and ``std`` per channel, ``size``, ``crop_pct``.
        images: whether flips and shifts make sense.
        note: a warning to show, or empty.
    """

    def __init__(
        self,
        spec: str,
        splits: Mapping[str, tuple[Samples, Sequence[int] | NDArray[np.int64]]],
        *,
        input_shape: tuple[int, ...],
        preprocessing: Mapping[str, Any],
        identity: str,
        images: bool = True,
        note: str = "",
    ) -> None:
        self.spec = spec
        self.input_shape = input_shape
        self.preprocessing = dict(preprocessing)
        self.images = images
        self.note = note
        self._splits = {
            name: _Split(samples, np.asarray(places, np.int64)) for name, (samples, places) in splits.items()
        }
        self._identity = identity
        self._digest: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._splits)

    @property
    def labelled(self) -> bool:
        """Whether the samples carry labels."""
        return self._splits["train"].samples.labelled

    @property
    def train_count(self) -> int:
        """How many samples are trained on."""
        return self.count("train")

    @property
    def heldout_count(self) -> int:
        """How many samples are held out for scores."""
        return self.count("heldout")

    @property
    def digest(self) -> str:
        """The digest of what the numbers depend on: kind, preprocessing, splits, and a sample of the content.

        A path is no part of it, so that a moved folder stays the same data.
        """
        if self._digest is None:
            parts: dict[str, Any] = {}
            for name, split in self._splits.items():
                places = hashlib.sha256(split.places.astype("<i8").tobytes()).hexdigest()
                content = hashlib.sha256()
                wanted = np.linspace(0, len(split.places) - 1, min(SAMPLED_FOR_DIGEST, len(split.places)))
                x, y = self.batch(name, [int(place) for place in wanted])
                content.update(x.contiguous().numpy().astype("<f4").tobytes())
                if y is not None:
                    content.update(y.numpy().astype("<i8").tobytes())
                parts[name] = [len(split.places), places, content.hexdigest()]
            self._digest = digest(
                {
                    "identity": self._identity,
                    "input_shape": self.input_shape,
                    "preprocessing": self.preprocessing,
                    "splits": parts,
                }
            )
        return self._digest

    def count(self, split: str) -> int:
        """Return how many samples a split has."""
        return len(self._get(split).places)

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Return the samples at ``indices`` (0 to count - 1) of a split, and their labels or None."""
        chosen = self._get(split)
        return chosen.samples.read([int(chosen.places[index]) for index in indices])

    def batches(
        self, split: str, batch_size: int, *, seed: int = 0, start_step: int = 0
    ) -> Generator[Batch, None, None]:
        """Yield full batches without end, each pass over the split in a new order.

        Batch number ``s`` depends on the seed and ``s`` alone: starting at step 7 gives what step 7 of an
        uninterrupted run got. The next batch is read while the caller works on this one.
        """
        count = self.count(split)
        orders: dict[int, NDArray[np.int64]] = {}

        def indices(step: int) -> list[int]:
            chosen = []
            for position in range(step * batch_size, (step + 1) * batch_size):
                epoch, offset = divmod(position, count)
                if epoch not in orders:
                    for old in [known for known in orders if known < epoch - 1]:
                        del orders[old]
                    orders[epoch] = np.random.default_rng((seed, epoch)).permutation(count)
                chosen.append(int(orders[epoch][offset]))
            return chosen

        return _read_ahead(partial(self.batch, split, indices(step)) for step in itertools.count(start_step))

    def iter_split(self, split: str, batch_size: int = 128, *, limit: int | None = None) -> Iterator[Batch]:
        """Yield a split once, in order, at most ``limit`` samples; the last batch may be smaller."""
        count = min(self.count(split), limit if limit is not None else self.count(split))
        return _read_ahead(
            partial(self.batch, split, range(start, min(start + batch_size, count)))
            for start in range(0, count, batch_size)
        )

    def iter_heldout(self, batch_size: int = 128, limit: int | None = None) -> Iterator[Batch]:
        """Yield the held-out samples once, in order, at most ``limit`` of them."""
        return self.iter_split("heldout", batch_size, limit=limit)

    def _get(self, split: str) -> _Split:
        if split not in self._splits:
            raise BadInput(
                f"the data {self.spec!r} has no split {split!r}; it has {', '.join(self._splits)}",
                hint="use one of these",
            )
        return self._splits[split]


def _read_ahead(reads: Iterable[Callable[[], Batch]]) -> Generator[Batch, None, None]:
    """Yield what the calls return, one of them always running ahead."""
    with ThreadPoolExecutor(1) as reader:
        coming: Future[Batch] | None = None
        for read in reads:
            ready, coming = coming, reader.submit(read)
            if ready is not None:
                yield ready.result()
        if coming is not None:
            yield coming.result()


def split_off(count: int, *, seed: int, spec: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places to train on and the places to hold out: a seeded tenth, at least one.

    Both are sorted-free: the held-out tenth is in random order, so that its first n are a fair sample.

    Raises:
        BadInput: there are fewer than two samples.
    """
    if count < 2:
        raise BadInput(
            f"the data {spec!r} has {count} sample(s); one part is trained on, another held out",
            hint="give at least two samples, better thousands",
        )
    order = np.random.default_rng((seed, count)).permutation(count).astype(np.int64)
    heldout = max(1, round(count * HELDOUT_SHARE))
    return np.sort(order[heldout:]), order[:heldout]


def labels_tensor(labels: NDArray[Any] | None, places: Sequence[int]) -> Tensor | None:
    """Return the labels at these places as int64, or None where there are none."""
    return None if labels is None else torch.from_numpy(np.asarray(labels)[list(places)].astype(np.int64))
