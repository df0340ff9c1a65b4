"""How many there are, in the same words everywhere: candidates are what a space offers, operators what is timed."""

from __future__ import annotations

from lanaprof.flows.operators import OperatorMap
from lanaprof.space import Space

__all__ = ["operator_words", "space_words"]


def space_words(space: Space) -> str:
    """Return how large a space is: ``4 layers, 724 candidates, 10^9.0 networks``."""
    counts = [(len(space.layers), "layer"), (space.candidate_count, "candidate")]
    counts += [(len(space.spans), "span")] if space.spans else []
    return ", ".join([*(_several(*each) for each in counts), f"10^{space.log10_size:.1f} networks"])


def operator_words(operators: OperatorMap, *, measured: int | None = None) -> str:
    """Return how many operators the candidates and spans are: equal ones at equal shapes are one, ``skip`` is none.

    Args:
        operators: of a project on a device.
        measured: how many of them have a latency, where that is to be said.
    """
    count = len(operators.keys)
    parts = []
    if count:
        parts.append(
            _several(count, "operator")
            if measured is None
            else f"{measured} of {_several(count, 'operator')} measured"
        )
    if operators.missing:
        parts.append(f"{_several(operators.missing, 'candidate')} not exported yet (skip needs no operator)")
    if operators.unexportable:
        parts.append(f"{_several(operators.unexportable, 'candidate')} cannot be exported")
    return ", ".join(parts)


def _several(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
