"""What architectures are made of, told from their choices alone: layers in order, what became of each, what differs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lanaprof.lut import Selection
from lanaprof.space.places import place_ends

__all__ = [
    "KINDS",
    "Chosen",
    "Part",
    "Scores",
    "adding_up",
    "changes_text",
    "kind_of",
    "layers_of",
    "natural",
    "parts_of",
    "summary_of",
]

# What may become of a layer, in words; the order is that of the legend.
KINDS = ("kept", "replaced", "skipped", "part of a span", "not named")
Chosen = Iterable[tuple[str, str]]  # a network: (layer or first..last, operation)
_NAMED_MOST = 6  # changes that a sentence names
Scores = Mapping[tuple[str, str], float]  # by (layer or first..last, operation); the teacher's are left out


@dataclass(frozen=True, slots=True)
class Part:
    """What stands in one layer, in words, and what became of the layer.

    Attributes:
        text: the operation; of a span with the layers it replaces.
        kind: one of `KINDS`.
        place: the layer, or ``first..last``; empty where nothing is named.
        operation: what stands there.
    """

    text: str
    kind: str
    place: str = ""
    operation: str = ""


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return what names are sorted by so that numbers in them count as numbers.

    >>> sorted(["blocks.10", "blocks.2", "head"], key=natural)
    ['blocks.2', 'blocks.10', 'head']
    """
    pieces = re.findall(r"\d{1,18}|\D+|\d", name)
    return tuple((0, int(piece), "") if piece[0] in "0123456789" else (1, 0, piece) for piece in pieces)


def layers_of(networks: Iterable[Chosen]) -> tuple[str, ...]:
    """Return the layers that any of these names, in natural order: the teacher's where modules are numbered."""
    names = {end for choices in networks for name, _ in choices for end in place_ends(name)}
    return tuple(sorted(names, key=natural))


def parts_of(choices: Chosen, layers: Sequence[str]) -> tuple[Part, ...]:
    """Return what stands in each of these layers; a span stands in all layers between its ends."""
    numbers = {name: number for number, name in enumerate(layers)}
    found = [Part("–", "not named")] * len(layers)
    for name, operation in choices:
        begin, end = place_ends(name)
        if begin not in numbers:
            continue
        first, last = numbers[begin], numbers.get(end, len(layers) - 1)
        if first == last:
            found[first] = Part(operation, kind_of(operation), name, operation)
        for number in range(first, last + 1) if first < last else ():
            found[number] = Part(f"{operation} over {name}", "part of a span", name, operation)
    return tuple(found)


def kind_of(operation: str) -> str:
    """Return what becomes of a layer in which an operation stands.

    >>> kind_of("teacher"), kind_of("skip"), kind_of("mbconv(expand=4)@int8"), kind_of("teacher@int8")
    ('kept', 'skipped', 'replaced', 'replaced')
    """
    return {"teacher": "kept", "skip": "skipped"}.get(operation, "replaced")


def summary_of(parts: Sequence[Part]) -> str:
    """Return how many layers became what."""
    counts = ((kind, sum(part.kind == kind for part in parts)) for kind in KINDS)
    said = [f"{count} {kind}" for kind, count in counts if count]
    return f"Of {len(parts)} layers: " + ", ".join(said)


def adding_up(sets: Iterable[Scores], selections: Sequence[Selection]) -> Scores:
    """Return the first set of scores that adds up to the score of every selection: the one they were chosen by.

    Returns:
        Nothing when none does.
    """
    for scores in sets:
        if all(_adds_up(scores, each) for each in selections):
            return scores
    return {}


def _adds_up(scores: Scores, selection: Selection) -> bool:
    parts = [scores.get(choice) for choice in selection.choices if choice[1] != "teacher"]
    total = sum(part for part in parts if part is not None)
    whole = selection.score is not None and None not in parts
    return whole and math.isclose(total, selection.score or 0.0, rel_tol=1e-6, abs_tol=1e-9)


def changes_text(layers: Sequence[str], before: Sequence[Part], after: Sequence[Part]) -> str:
    """Return which layers differ between two architectures, and how."""
    found = [
        f"{layer}: {a.text} → {b.text}"
        for layer, a, b in zip(layers, before, after, strict=True)
        if a.text != b.text
    ]
    rest = f"; and {len(found) - _NAMED_MOST} more" if len(found) > _NAMED_MOST else ""
    count = f"{len(found)} layer{'' if len(found) == 1 else 's'} of {len(layers)}"
    return f"{count}: {'; '.join(found[:_NAMED_MOST])}{rest}" if found else "no layer"
