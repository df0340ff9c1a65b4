"""The selection problem as plain data: layers × candidates with scores and costs, in flat numpy arrays.

*Items* number everything that can be chosen: the candidates first, layer by layer (layer ``i`` owns the items
``starts[i]`` to ``starts[i + 1] - 1``), the spans after them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lanaprof.errors import BadProblem

__all__ = [
    "Candidate",
    "Layer",
    "Pair",
    "Problem",
    "Row",
    "Span",
    "check_names",
    "check_numbers",
    "frozen",
    "slack_of",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RELATIVE_SLACK = 1e-12  # of the largest number in the sum: rounding of the sum itself, never more


def slack_of(*numbers: float) -> float:
    """Return by how much a sum may pass its limit: only what adding these numbers up can round away.

    So a budget of 0.3 admits 0.1 + 0.1 + 0.1, which floats add up to 0.30000000000000004.

    >>> slack_of(0.3, -2.0)
    2e-12
    """
    return RELATIVE_SLACK * max(abs(number) for number in numbers)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One operation in one layer, with its score (higher is better) and its costs in their own units."""

    name: str
    score: float
    costs: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Layer:
    """A replaceable piece of the network and what may stand in it."""

    name: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """One candidate for the consecutive layers ``first`` to ``last`` (indices, both included).

    ``costs`` follow the order of the problem's ``cost_names``.
    """

    first: int
    last: int
    name: str
    score: float
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """Corrections to a summed cost when two layers hold certain candidates: (item, item, value) terms."""

    layers: tuple[int, int]
    cost: int
    terms: tuple[tuple[int, int, float], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """``low <= sum of coefficient × chosen(item) <= high``; a missing side is an infinity."""

    name: str
    terms: tuple[tuple[int, float], ...]
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A checked selection problem; make one with ``load_problem`` or ``problem_from_arrays``.

    Attributes:
        layer_names: one name a layer.
        candidate_names: per layer, the names of its candidates.
        cost_names: every cost each candidate carries.
        starts: (layers + 1,) first item of each layer.
        scores: (items,) score of each item, spans last.
        costs: (costs, items) cost of each item in the cost's own unit.
        fixed: (costs,) what the rest of the network costs; may be negative.
        is_max: per cost, whether it combines by maximum instead of by sum.
        require, forbid: (layer or span key, items): one of these, or none of these.
    """

    layer_names: tuple[str, ...]
    candidate_names: tuple[tuple[str, ...], ...]
    cost_names: tuple[str, ...]
    starts: Ints
    scores: Floats
    costs: Floats
    fixed: Floats
    is_max: tuple[bool, ...]
    spans: tuple[Span, ...] = ()
    pairs: tuple[Pair, ...] = ()
    rows: tuple[Row, ...] = ()
    require: tuple[tuple[str, tuple[int, ...]], ...] = ()
    forbid: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @property
    def candidate_count(self) -> int:
        """Candidates over all layers, without spans."""
        return int(self.starts[-1])

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers as objects, for people and small programs; the solvers read the arrays."""
        rows, scores = self.costs.T.tolist(), self.scores.tolist()
        found = []
        for name, candidates, start in zip(
            self.layer_names, self.candidate_names, self.starts.tolist(), strict=False
        ):
            made = (
                Candidate(c, scores[start + i], dict(zip(self.cost_names, rows[start + i], strict=True)))
                for i, c in enumerate(candidates)
            )
            found.append(Layer(name, tuple(made)))
        return tuple(found)

    def layer_of_items(self) -> Ints:
        """Return the layer index of each candidate, (candidates,)."""
        return np.repeat(np.arange(len(self.layer_names)), np.diff(self.starts))

    def span_key(self, span: Span) -> str:
        """Return the key under which a chosen span is reported: ``first..last``."""
        return f"{self.layer_names[span.first]}..{self.layer_names[span.last]}"

    def item_names(self, item: int) -> tuple[str, str]:
        """Return (layer or span key, candidate or span name) of an item."""
        if item >= self.candidate_count:
            span = self.spans[item - self.candidate_count]
            return self.span_key(span), span.name
        layer = int(np.searchsorted(self.starts, item, side="right")) - 1
        return self.layer_names[layer], self.candidate_names[layer][item - int(self.starts[layer])]

    def cost_index(self, name: str) -> int:
        """Return the index of a cost.

        Raises:
            BadProblem: no candidate carries it.
        """
        if name not in self.cost_names:
            raise BadProblem(
                f"no candidate carries the cost {name!r}; known: {', '.join(self.cost_names) or 'none'}",
                hint="budget one of the known costs, spelt as in the problem",
            )
        return self.cost_names.index(name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        plain = all(getattr(self, f) == getattr(other, f) for f in self.__slots__ if f not in _ARRAYS)
        return plain and all(np.array_equal(getattr(self, f), getattr(other, f)) for f in _ARRAYS)

    __hash__ = None  # type: ignore[assignment]  # arrays have no hash


_ARRAYS = ("starts", "scores", "costs", "fixed")


def frozen(problem: Problem) -> Problem:
    """Return the problem with its arrays made read-only."""
    for name in _ARRAYS:
        getattr(problem, name).setflags(write=False)
    return problem


def check_names(layer_names: tuple[str, ...], candidate_names: tuple[tuple[str, ...], ...]) -> None:
    """Raise BadProblem unless layers and candidates are there, named by texts, and unique."""
    if not layer_names:
        raise BadProblem("the problem has no layers", hint="give at least one layer with one candidate")
    if len(layer_names) != len(candidate_names):
        raise BadProblem(f"{len(layer_names)} layer names for {len(candidate_names)} rows of candidates")
    for layer in layer_names:
        if not isinstance(layer, str) or not layer:
            raise BadProblem(f"a layer is named {layer!r}", hint="name layers by a text that is not empty")
    if len(set(layer_names)) < len(layer_names):
        raise BadProblem(
            f"two layers are named {_first_twice(layer_names)!r}", hint="give every layer its own name"
        )
    for layer, names in zip(layer_names, candidate_names, strict=True):
        if not names:
            raise BadProblem(
                f"layer {layer!r} has no candidates", hint="give it at least one, or leave it out"
            )
        if len(set(names)) < len(names):
            raise BadProblem(
                f"layer {layer!r} has two candidates named {_first_twice(names)!r}",
                hint="give every candidate its own name",
            )
        for name in names:
            if not isinstance(name, str) or not name:
                raise BadProblem(f"layer {layer!r} has a candidate named {name!r}", hint="name it by a text")


def _first_twice(names: tuple[str, ...]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            break
        seen.add(name)
    return name


def check_numbers(problem: Problem) -> None:
    """Raise BadProblem unless scores are finite, costs finite and not negative, and their sums finite."""
    bad = np.flatnonzero(~np.isfinite(problem.scores))
    if len(bad):
        layer, name = problem.item_names(int(bad[0]))
        raise BadProblem(
            f"layer {layer!r}, candidate {name!r}: the score is {problem.scores[bad[0]]}",
            hint="leave a candidate without a score out of the problem",
        )
    for k, cost in enumerate(problem.cost_names):
        if not isinstance(cost, str) or not cost:
            raise BadProblem(f"a cost is named {cost!r}", hint="name costs by a text that is not empty")
        bad = np.flatnonzero(~(np.isfinite(problem.costs[k]) & (problem.costs[k] >= 0)))
        if len(bad):
            layer, name = problem.item_names(int(bad[0]))
            raise BadProblem(
                f"layer {layer!r}, candidate {name!r}: the cost {cost!r} is {problem.costs[k, bad[0]]}",
                hint="costs are finite and not negative; leave a candidate without a measurement out",
            )
    with np.errstate(over="ignore"):
        sums = [
            ("score", np.abs(problem.scores).sum()),
            *zip(problem.cost_names, problem.costs.sum(axis=1), strict=True),
        ]
    for what, total in sums:
        if not math.isfinite(total):
            raise BadProblem(f"the values of {what!r} are too large to be added up", hint="use a larger unit")
