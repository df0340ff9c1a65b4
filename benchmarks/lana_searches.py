"""How else one could choose an architecture from the same library, at the same budget. Plain data, no torch.

Each search maximises the sum of scores, or ignores it, and returns one operation per layer whose predicted latency is
within the budget.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lanaprof.errors import InfeasibleBudget
from lanaprof.solver import Problem, solve

__all__ = ["Library", "by_evolution", "by_flops", "by_greed", "by_luck", "library_of"]

_FILLED = 0.96  # of the budget: a random network that leaves more unused is filled up
_POPULATION, _SAMPLE, _MUTATIONS = 64, 16, 2  # of the evolutionary search (Real et al., arXiv 1802.01548)
_BISECTIONS = 40
Choices = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Library:
    """What is known of every candidate, layer by layer.

    Attributes:
        names: of the candidates.
        latency_s: what each adds to a network's predicted latency, in seconds.
        score: higher is better, the teacher's own layer has 0.
        fixed_s: what the rest of the network takes.
    """

    names: tuple[tuple[str, ...], ...]
    latency_s: tuple[NDArray[np.float64], ...]
    score: tuple[NDArray[np.float64], ...]
    fixed_s: float

    def latency_of(self, places: Sequence[int]) -> float:
        """Return the predicted latency of a network in seconds."""
        return self.fixed_s + float(
            sum(row[place] for row, place in zip(self.latency_s, places, strict=True))
        )

    def score_of(self, places: Sequence[int]) -> float:
        """Return the sum of scores of a network."""
        return float(sum(row[place] for row, place in zip(self.score, places, strict=True)))

    def choices_of(self, places: Sequence[int]) -> Choices:
        """Return the operations that stand in these places."""
        return tuple(row[place] for row, place in zip(self.names, places, strict=True))

    def places_of(self, choices: Sequence[str]) -> list[int]:
        """Return where operations stand."""
        return [row.index(name) for row, name in zip(self.names, choices, strict=True)]


def library_of(problem: Problem, cost: str) -> Library:
    """Return a problem's candidates as a library, with the latency of one of its costs."""
    index = problem.cost_index(cost)
    cuts = problem.starts[1:-1]
    return Library(
        problem.candidate_names,
        tuple(np.split(problem.costs[index, : problem.candidate_count], cuts)),
        tuple(np.split(problem.scores[: problem.candidate_count], cuts)),
        float(problem.fixed[index]),
    )


def by_luck(library: Library, budget_s: float, *, seed: int) -> Choices:
    """Return a random network: candidates drawn evenly, layers drawn again until it fits and fills the budget."""
    generator = random.Random(f"random {seed}")
    places = [generator.randrange(len(row)) for row in library.names]
    for _ in range(100_000):
        latency_s = library.latency_of(places)
        if _FILLED * budget_s <= latency_s <= budget_s:
            break
        layer = generator.randrange(len(places))
        own = library.latency_s[layer]
        wrong_way = own >= own[places[layer]] if latency_s > budget_s else own <= own[places[layer]]
        fitting = np.flatnonzero(~wrong_way)
        if len(fitting):
            places[layer] = int(generator.choice(list(fitting)))
    _expect_inside(library, places, budget_s)
    return library.choices_of(places)


def by_greed(library: Library, budget_s: float) -> Choices:
    """Return the network of a greedy search: from the teacher down, always the swap that loses least score per second.

    What room the last swap left is used by the swaps that gain most and still fit.
    """
    places = [row.index("teacher") for row in library.names]
    while (latency_s := library.latency_of(places)) > budget_s:
        swap = _best_swap(library, places, saving=True, room_s=latency_s)
        if swap is None:
            break
        places[swap[0]] = swap[1]
    while (swap := _best_swap(library, places, saving=False, room_s=budget_s)) is not None:
        places[swap[0]] = swap[1]
    _expect_inside(library, places, budget_s)
    return library.choices_of(places)


def _best_swap(
    library: Library, places: Sequence[int], *, saving: bool, room_s: float
) -> tuple[int, int] | None:
    """Return (layer, candidate) of the swap that loses least score per second saved, or that gains most and fits."""
    now_s = library.latency_of(places)
    best: tuple[float, int, int] | None = None
    for layer, place in enumerate(places):
        saved_s = library.latency_s[layer][place] - library.latency_s[layer]
        gained = library.score[layer] - library.score[layer][place]
        if saving:
            worth = np.where(saved_s > 0, gained / np.maximum(saved_s, 1e-12), -np.inf)
        else:
            worth = np.where((gained > 0) & (now_s - saved_s <= room_s), gained, -np.inf)
        own = int(np.argmax(worth))
        if np.isfinite(worth[own]) and (best is None or worth[own] > best[0]):
            best = (float(worth[own]), layer, own)
    return None if best is None else (best[1], best[2])


def by_flops(problem: Problem, library: Library, budget_s: float) -> Choices:
    """Return the best network by multiply-accumulates instead of latency.

    The bound on them is the largest, by bisection, whose best network has a predicted latency within the budget.

    Args:
        problem: with the cost ``macs``.
        library: of the same candidates.
        budget_s: in seconds.
    """
    index = problem.cost_index("macs")
    rows = np.split(problem.costs[index, : problem.candidate_count], problem.starts[1:-1])
    low, high = 0.0, float(problem.fixed[index] + sum(row.max() for row in rows))
    found: Choices | None = None
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        try:
            solution = solve(problem, {"macs": middle})
        except InfeasibleBudget:
            low = middle
            continue
        choices = tuple(solution.choices[name] for name in problem.layer_names)
        if library.latency_of(library.places_of(choices)) <= budget_s:
            found, low = choices, middle
        else:
            high = middle
    if found is None:
        raise InfeasibleBudget("no bound on multiply-accumulates gives a network within the budget", least={})
    return found


def by_evolution(library: Library, budget_s: float, *, seed: int, seconds: float) -> Choices:
    """Return the network of an ageing evolutionary search (arXiv 1802.01548) on the same scores.

    Args:
        library: what is searched.
        budget_s: networks beyond it die at birth.
        seed: of the population and the mutations.
        seconds: wall time of the search.
    """
    generator = random.Random(f"evolution {seed}")
    population = []
    for number in range(_POPULATION):
        places = library.places_of(by_luck(library, budget_s, seed=seed * 1000 + number))
        population.append((library.score_of(places), places))
    best = max(population)
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        parent = max(generator.sample(population, _SAMPLE))[1]
        child = list(parent)
        for _ in range(generator.randint(1, _MUTATIONS)):
            layer = generator.randrange(len(child))
            child[layer] = generator.randrange(len(library.names[layer]))
        if library.latency_of(child) > budget_s:
            continue
        population.append((library.score_of(child), child))
        population.pop(0)
        best = max(best, population[-1])
    return library.choices_of(best[1])


def _expect_inside(library: Library, places: Sequence[int], budget_s: float) -> None:
    latency_s = library.latency_of(places)
    if latency_s > budget_s:
        raise InfeasibleBudget(
            f"the search ended at {latency_s:.6f} s, over the budget of {budget_s:.6f} s",
            least={"latency_s": latency_s},
        )
