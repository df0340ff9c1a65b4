"""The architecture: one candidate per layer, or one for several."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lanaprof.errors import BadArchitecture, UnknownOperation
from lanaprof.ops import TEACHER, parse_operation
from lanaprof.space.places import COVERED, Choices, Layer, Space, find_twice

__all__ = ["Architecture", "random_architecture"]

_SPAN_SHARE = (
    0.25  # a run's chance to have a span in a random architecture: layers' own candidates stay the rule
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One candidate per layer; layers not named keep the teacher's.

    Args:
        teacher: the text that names the teacher; empty fits every teacher.
        choices: (layer, operation), each layer once; (``first..last``, operation) for a span.
    """

    teacher: str
    choices: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Check that each layer is named once."""
        twice = find_twice([layer for layer, _ in self.choices])
        if twice is not None:
            raise BadArchitecture(
                f"the architecture names the layer {twice!r} twice", hint="keep one of them"
            )

    def complete(self, space: Space) -> Choices:
        """Return the candidate of every layer of the space, in its order; "" in a layer that a span covers.

        Raises:
            BadArchitecture: another teacher, a layer that does not exist, an operation that is no candidate of its
                layer, or two choices for one layer.
        """
        if self.teacher and self.teacher != space.teacher:
            raise BadArchitecture(
                f"the architecture is for the teacher {self.teacher!r}, the space for {space.teacher!r}",
                hint="use the architecture in its own project",
            )
        chosen: dict[str, str] = {}
        holders: dict[str, str] = {}
        for name, text in self.choices:
            layer = _place_of_choice(space, name)
            operation = _canonical(text)
            if operation not in layer.candidates:
                raise BadArchitecture(
                    f"{text!r} is no candidate of the {'run' if layer in space.runs else 'layer'} {name!r}",
                    hint=f"its candidates: {', '.join(layer.candidates)}",
                )
            first, *others = space.covered(name)
            for one in (first, *others):
                if holders.setdefault(one, name) != name:
                    raise BadArchitecture(
                        f"the choices {holders[one]!r} and {name!r} both hold the layer {one!r}",
                        hint="keep one of them",
                    )
            chosen |= {first: operation, **dict.fromkeys(others, COVERED)}
        return tuple(chosen.get(layer.name, TEACHER) for layer in space.layers)


def _place_of_choice(space: Space, name: str) -> Layer:
    layer = space.find_layer(name)
    if layer is None and ".." in name:
        known = ", ".join(run.name for run in space.runs)
        raise BadArchitecture(
            f"the choice {name!r} spans several layers, which this space has no candidates for",
            hint=f"its spans: {known}" if known else "name one layer per choice",
        )
    return layer or space.get_layer(name)


def _canonical(text: str) -> str:
    """Return the canonical text, or the text itself where a plug-in that knows it is missing."""
    try:
        return parse_operation(text).text
    except UnknownOperation:
        return text


def random_architecture(
    space: Space, rng: random.Random, allowed: Mapping[str, Sequence[str]] | None = None
) -> Architecture:
    """Return an architecture with each layer's candidate drawn evenly, now and then a span in place of several.

    Args:
        space: where to draw from.
        rng: the source of randomness; equal states give equal architectures.
        allowed: layer or ``first..last`` → the candidates to draw from; those not named draw from all of theirs.

    Raises:
        BadArchitecture: ``allowed`` names a layer that does not exist, or nothing for one.
    """
    allowed = allowed or {}
    for name, operations in allowed.items():
        place = space.get_layer(name)
        if not operations and place not in space.runs:
            raise BadArchitecture(
                f"no candidate of the layer {name!r} is allowed", hint="allow at least teacher"
            )
    chosen = {
        layer.name: rng.choice(tuple(allowed.get(layer.name, layer.candidates))) for layer in space.layers
    }
    for run in rng.sample(space.runs, len(space.runs)):  # draws nothing where there are none
        own = tuple(allowed.get(run.name, run.candidates))
        covered = space.covered(run.name)
        if own and rng.random() < _SPAN_SHARE and all(name in chosen for name in covered):
            for name in covered:
                del chosen[name]
            chosen[run.name] = rng.choice(own)
    return Architecture(space.teacher, tuple(chosen.items()))
