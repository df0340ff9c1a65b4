"""Data from a user's own function, and noise for trials."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lanaprof.digest import digest
from lanaprof.distill.data import Batch, DataSource, Samples, split_off
from lanaprof.errors import BadInput

__all__ = ["NoiseSamples", "load_from_function"]

MOST_BYTES = 4 * 2**30  # of samples an iterator may fill memory with; a sequence is read in place instead


class NoiseSamples:
    """Gaussian noise; sample i is the same each time."""

    def __init__(self, input_shape: tuple[int, ...], count: int, *, seed: int) -> None:
        self._shape = input_shape
        self._count = count
        self._seed = seed

    @property
    def count(self) -> int:
        """How many samples there are."""
        return self._count

    @property
    def labelled(self) -> bool:
        """Never: noise has no class."""
        return False

    def read(self, places: Sequence[int]) -> Batch:
        """Return the samples at these places."""
        drawn = []
        for place in places:
            # hashed, because torch's generator on the CPU looks at the lowest 32 bits of its seed alone
            generator = torch.Generator().manual_seed(int(digest([self._seed, place])[:15], 16))
            drawn.append(torch.randn(self._shape, generator=generator))
        return torch.stack(drawn), None


class SequenceSamples:
    """Samples in a sequence: tensors, or pairs of a tensor and a class."""

    def __init__(self, items: Sequence[Any], input_shape: tuple[int, ...], *, spec: str) -> None:
        self._items = items
        self._shape = input_shape
        self._spec = spec
        if not len(items):
            raise BadInput(f"the data function {spec} yields nothing", hint="it should yield samples")
        self._labelled = isinstance(items[0], (tuple, list))
        self._sample(0)

    @property
    def count(self) -> int:
        """How many samples there are."""
        return len(self._items)

    @property
    def labelled(self) -> bool:
        """Whether the samples are pairs."""
        return self._labelled

    def read(self, places: Sequence[int]) -> Batch:
        """Return the samples at these places.

        Raises:
            BadInput: a sample has another shape or kind than the network's input; the message names it.
        """
        samples = [self._sample(place) for place in places]
        x = torch.stack([x for x, _ in samples])
        return x, torch.tensor([y for _, y in samples]) if self._labelled else None

    def _sample(self, place: int) -> tuple[Tensor, int]:
        item = self._items[place]
        paired = isinstance(item, (tuple, list))
        if paired != self._labelled or (paired and len(item) != 2):
            raise BadInput(
                f"sample {place} of {self._spec} is {_kind(item)}; the first one is "
                + ("a pair (x, y)" if self._labelled else "a tensor"),
                hint="yield x for every sample, or (x, y) for every sample",
            )
        x = torch.as_tensor(item[0] if paired else item)
        if tuple(x.shape) != self._shape or not x.is_floating_point():
            raise BadInput(
                f"sample {place} of {self._spec} has the shape {tuple(x.shape)} and type {x.dtype}; "
                f"the network takes {self._shape} of floats",
                hint="yield (channels, height, width) float tensors, already normalised, without a batch",
            )
        try:
            return x.float(), int(item[1]) if paired else 0
        except (TypeError, ValueError, RuntimeError) as error:
            raise BadInput(
                f"the label of sample {place} of {self._spec} is {item[1]!r}, not a class number"
            ) from error


def load_from_function(
    spec: str,
    function: Callable[..., Any],
    *,
    input_shape: tuple[int, ...],
    seed: int,
    preprocessing: Mapping[str, Any],
) -> DataSource:
    """Return the data a function yields.

    With a parameter ``split`` it is called with ``"train"`` and ``"heldout"``; without, a seeded tenth is
    held out. A returned sequence (``len`` and ``[]``, as torch's datasets have) is read in place; anything
    else is read into memory, up to 4 GiB.

    Raises:
        BadInput: the function fails, yields nothing or yields samples that do not fit.
    """
    parameters = inspect.signature(function).parameters
    notes: list[str] = []

    def samples(*arguments: str) -> SequenceSamples:
        try:
            items, note = _as_sequence(function(*arguments))
        except BadInput:
            raise
        except Exception as error:  # the user's function may raise anything
            call = f"{function.__name__}({', '.join(map(repr, arguments))})"
            raise BadInput(f"{spec}: {call} failed: {type(error).__name__}: {error}") from error
        notes.extend(note)
        return SequenceSamples(items, input_shape, spec=spec)

    splits: dict[str, tuple[Samples, Any]]
    if "split" in parameters:
        parts = {name: samples(name) for name in ("train", "heldout")}
        if parts["train"].labelled != parts["heldout"].labelled:
            raise BadInput(f"{spec}: one of train and heldout has labels, the other has not")
        splits = {name: (part, range(part.count)) for name, part in parts.items()}
    else:
        everything = samples()
        train, heldout = split_off(everything.count, seed=seed, spec=spec)
        splits = {"train": (everything, train), "heldout": (everything, heldout)}
    return DataSource(
        spec,
        splits,
        input_shape=input_shape,
        preprocessing=preprocessing,
        identity=spec,
        images=len(input_shape) == 3 and input_shape[0] in (1, 3),
        note="; ".join(notes),
    )


def _as_sequence(value: Any) -> tuple[Sequence[Any], tuple[str, ...]]:
    if hasattr(value, "__len__") and hasattr(value, "__getitem__"):
        return value, ()
    if not isinstance(value, Iterable):
        raise BadInput(f"the data function returned {_kind(value)}, not samples to go through")
    items: list[Any] = []
    used_bytes = 0
    for item in value:
        used_bytes += _bytes(item)
        if used_bytes > MOST_BYTES:
            return items, (f"only the first {len(items)} samples are used: more would fill the memory",)
        items.append(item)
    return items, ()


def _bytes(item: Any) -> int:
    x = torch.as_tensor(item[0] if isinstance(item, (tuple, list)) else item)
    return x.numel() * x.element_size()


def _kind(item: Any) -> str:
    return f"a {type(item).__name__}" + (f" of {len(item)}" if isinstance(item, (tuple, list)) else "")
