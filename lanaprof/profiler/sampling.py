"""Which operator runs when: the plan of one round, as plain data.

A *visit* is a row of runs repeated a few times, the first passes unrecorded. Under relay a visit is a whole random
architecture in its order; otherwise it is one operator or one whole network.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lanaprof.profiler.circuit import Circuit, steps_of
from lanaprof.profiler.protocol import Protocol

__all__ = ["PlannedVisit", "Run", "plan_free_round", "plan_relay_round"]

_SKIPPED = ""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an operator, at a step of the circuit or on buffers of its own.

    Attributes:
        operator: its key.
        step: the index of the step whose inputs it reads; -1 for buffers of its own.
        end: of the step whose outputs it writes, where it stands for several layers; -1 for the same one.
    """

    operator: str
    step: int = -1
    end: int = -1


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

    What stands for several layers gets visits of its own, as many as it takes, in which other layers' choices go on
    changing; the rest of the plan is the same with and without it.

    Args:
        circuit: how the pieces are wired.
        places: the operators to measure → the layers they may stand in, or runs of layers ``first..last``.
        fillers: layer → what else may stand there ("" leaves it out), so that caches are as in other networks.
        protocol: gives the passes.
        generator: the round's own.
    """
    standing: dict[str, list[str]] = {step.layer: [] for step in circuit.steps if step.layer}
    single = {
        operator: layers
        for operator, names in places.items()
        if (layers := [name for name in names if name in standing])
    }
    for operator in sorted(single, key=lambda key: (len(places[key]), key)):
        layers = list(single[operator])
        generator.shuffle(layers)
        standing[min(layers, key=lambda layer: len(standing[layer]))].append(operator)
    length = max(1, *(len(choices) for choices in standing.values()))
    for layer, choices in standing.items():
        others = list(fillers.get(layer, ()))
        generator.shuffle(others)
        room = length - len(choices) if choices else min(length, len(others))
        choices.extend(others[:room])
        generator.shuffle(choices)
    spanning = {operator: names for operator, names in places.items() if operator not in single}
    networks: list[dict[int, Run | None]] = [{} for _ in range(length)]
    networks += _span_networks(circuit, spanning, generator)
    visits = []
    for number, spans in enumerate(networks):
        runs = []
        for index, step in enumerate(circuit.steps):
            if index in spans:
                span = spans[index]
                runs += [span] if span is not None else []
            elif not step.layer:
                runs.append(Run(step.operator, index))
            else:
                choices = standing[step.layer]
                operator = choices[number % len(choices)] if choices else _SKIPPED
                runs += [Run(operator, index)] if operator != _SKIPPED else []
        visits.append(PlannedVisit(tuple(runs), protocol.warmups, protocol.recorded))
    return tuple(visits)


def _span_networks(
    circuit: Circuit, spanning: Mapping[str, Sequence[str]], generator: random.Random
) -> list[dict[int, Run | None]]:
    """Return networks' spans by step, each operator in one of as few networks as it takes greedily.

    Behind a span's first step stand the others that it covers, with nothing.
    """
    order = sorted(spanning)
    generator.shuffle(order)
    networks: list[dict[int, Run | None]] = []
    for operator in order:
        covered = steps_of(circuit, generator.choice(list(spanning[operator])))
        network = next((each for each in networks if not each.keys() & set(covered)), None)
        if network is None:
            network = {}
            networks.append(network)
        network |= {**dict.fromkeys(covered), covered[0]: Run(operator, covered[0], covered[-1])}
    return networks
