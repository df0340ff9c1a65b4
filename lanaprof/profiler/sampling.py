"""Which operator runs when: the plan of one round, as plain data.

A *visit* is a row of runs repeated a few times, the first passes unrecorded. Under relay a visit is a whole random
architecture in its order; otherwise it is one operator or one whole network.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lanaprof.profiler.circuit import Circuit
from lanaprof.profiler.protocol import Protocol

__all__ = ["PlannedVisit", "Run", "plan_free_round", "plan_relay_round"]

_SKIPPED = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an operator, at a step of the circuit (its index) or on buffers of its own (-1)."""

    operator: str
    step: int = -1


@dataclass(frozen=True, slots=True)
class PlannedVisit:
    """A row of runs with its number of unrecorded and recorded passes."""

    runs: tuple[Run, ...]
    warmups: int
    recorded: int


def plan_free_round(
    operators: Iterable[str], protocol: Protocol, generator: random.Random
) -> tuple[PlannedVisit, ...]:
    """Return one visit to each operator in random order."""
    order = sorted(operators)
    generator.shuffle(order)
    return tuple(PlannedVisit((Run(key),), protocol.warmups, protocol.recorded) for key in order)


def plan_relay_round(
    circuit: Circuit,
    places: Mapping[str, Sequence[str]],
    fillers: Mapping[str, Sequence[str]],
    protocol: Protocol,
    generator: random.Random,
) -> tuple[PlannedVisit, ...]:
    """Return random architectures that visit every operator at least once.

    Args:
        circuit: how the pieces are wired.
        places: the operators to measure → the layers they may stand in.
        fillers: layer → what else may stand there ("" leaves it out), so that caches are as in other networks.
        protocol: gives the passes.
        generator: the round's own.
    """
    standing: dict[str, list[str]] = {step.layer: [] for step in circuit.steps if step.layer}
    for operator in sorted(places, key=lambda key: (len(places[key]), key)):
        layers = list(places[operator])
        generator.shuffle(layers)
        standing[min(layers, key=lambda layer: len(standing[layer]))].append(operator)
    length = max(1, *(len(choices) for choices in standing.values()))
    for layer, choices in standing.items():
        others = list(fillers.get(layer, ()))
        generator.shuffle(others)
        room = length - len(choices) if choices else min(length, len(others))
        choices.extend(others[:room])
        generator.shuffle(choices)
    visits = []
    for number in range(length):
        runs = []
        for index, step in enumerate(circuit.steps):
            if not step.layer:
                runs.append(Run(step.operator, index))
                continue
            choices = standing[step.layer]
            operator = choices[number % len(choices)] if choices else _SKIPPED
            if operator != _SKIPPED:
                runs.append(Run(operator, index))
        visits.append(PlannedVisit(tuple(runs), protocol.warmups, protocol.recorded))
    return tuple(visits)
