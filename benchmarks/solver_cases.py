"""The instances of benchmarks/solver.py: shaped like search spaces, with spans and pairs, and small adversarial."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lanaprof.solver import Problem, problem_from_arrays

Floats = NDArray[np.float64]
Rng = np.random.Generator
COST = "latency_us"


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem with its arrays: (layers, candidates) latency in microseconds and score, and a budget."""

    problem: Problem
    latency_us: Floats
    score: Floats
    budget_us: float

    @property
    def budget(self) -> dict[str, float]:
        """Return the budget as ``solve`` takes it."""
        return {COST: self.budget_us}


def make_instance(
    layers: int, count: int, *, seed: int = 0, noise: float = 0.7, devices: int = 1
) -> Instance:
    """Return a problem shaped like a search space: candidate 0 is the teacher, candidate 1 nearly free and bad.

    Latency ratios are log-normal around 0.55, losses grow as a candidate gets cheaper, times log-normal noise: at
    0.7 about 10 of 200 candidates of a layer are undominated. Whole microseconds; budget half the teacher's.
    """
    rng = np.random.default_rng(seed)
    teacher_us = rng.lognormal(0, 0.6, layers)
    teacher_us *= 400 * layers / teacher_us.sum()
    sensitivity = rng.lognormal(0, 1.0, layers) * np.sqrt(teacher_us / teacher_us.mean())
    ratio = np.clip(rng.lognormal(np.log(0.55), 0.45, (layers, count)), 0.03, 1.6)
    ratio[:, 0], ratio[:, 1] = 1.0, 0.01
    shape = np.clip(1 - ratio / 1.6, 0.002, 1) ** 1.3
    score = -sensitivity[:, None] * shape * rng.lognormal(0, noise, ratio.shape)
    score[:, 0], score[:, 1] = 0.0, -4 * sensitivity * rng.lognormal(0, 0.2, layers)
    latency_us = np.maximum(np.round(teacher_us[:, None] * ratio), 1.0)
    costs = {COST: latency_us}
    for device in range(1, devices):
        other = ratio**0.6 * rng.lognormal(0, 0.36, ratio.shape)
        costs[f"{COST}_{device}"] = np.maximum(np.round(2.2 * teacher_us[:, None] * other), 1.0)
    return Instance(_problem(score, costs), latency_us, score, float(latency_us[:, 0].sum()) / 2)


def make_chained(layers: int, count: int, *, terms: int, spans: int, seed: int = 0) -> Instance:
    """Return such a problem with spans of two to four layers, and pairs of about 6 % of a layer at each boundary."""
    plain = make_instance(layers, count, seed=seed)
    rng = np.random.default_rng(seed + 1000)
    latency_us, score = plain.latency_us, plain.score
    pairs = []
    for i in range(layers - 1 if terms else 0):
        both = dict.fromkeys((int(a), int(b)) for a, b in rng.integers(0, count, (terms, 2)))
        values = np.round(0.06 * latency_us[i, 0] * rng.standard_normal(len(both))).tolist()
        listed = [[f"c{a}", f"c{b}", value] for (a, b), value in zip(both, values, strict=True)]
        pairs.append({"layers": [f"l{i}", f"l{i + 1}"], "cost": COST, "terms": listed})
    made = []
    for number in range(spans):
        first = int(rng.integers(0, layers - 3))
        last = first + int(rng.integers(1, 4))
        cost_us = float(np.round(rng.uniform(0.3, 1.0) * latency_us[first : last + 1, 0].sum()))
        loss = float(score[first : last + 1].mean(axis=1).sum() * rng.uniform(0.5, 1.2))
        span = {"first": f"l{first}", "last": f"l{last}", "name": f"s{number}", "score": loss}
        made.append({**span, "costs": {COST: cost_us}})
    problem = _problem(score, {COST: latency_us}, {"pairs": pairs, "spans": made})
    return Instance(problem, latency_us, score, plain.budget_us)


def _problem(
    score: Floats, costs: Mapping[str, Floats], optional: Mapping[str, Any] | None = None
) -> Problem:
    layers, count = score.shape
    names = [[f"c{j}" for j in range(count)]] * layers
    return problem_from_arrays(
        [f"l{i}" for i in range(layers)], names, scores=score, costs=costs, optional=optional
    )


def _ties(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return rng.integers(0, 3, shape).astype(float), -rng.integers(0, 3, shape).astype(float)


def _equal_ratios(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    cost = rng.integers(0, 20, shape).astype(float)
    return cost, 0.25 * cost


def _convex(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    cost = np.sort(rng.random(shape), axis=1)
    return cost, rng.lognormal(0, 1, (shape[0], 1)) * np.sqrt(cost)


def _subset_sum(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    cost = rng.integers(1, 1000, shape).astype(float)
    return cost, cost.copy()


def _subset_sum_floats(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    cost = rng.random((min(shape[0], 6), min(shape[1], 4)))
    return cost, cost.copy()


def _huge(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return 1e15 * rng.random(shape), -1e12 * rng.random(shape)


def _tiny(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    return 1e-15 * rng.random(shape), -1e-12 * rng.random(shape)


def _mixed_scales(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    layer = 10.0 ** rng.integers(-6, 6, (shape[0], 1))
    return layer * rng.random(shape), -layer * rng.random(shape)


def _realistic(rng: Rng, shape: tuple[int, int]) -> tuple[Floats, Floats]:
    ratio = rng.lognormal(-0.6, 0.45, shape)
    cost = rng.lognormal(0, 0.6, (shape[0], 1)) * ratio
    return cost, -rng.lognormal(0, 1, (shape[0], 1)) * np.exp(-ratio) * rng.lognormal(0, 0.5, shape)


Numbers = Callable[[Rng, tuple[int, int]], tuple[Floats, Floats]]
FAMILIES: Mapping[str, Numbers] = {
    "ties": _ties,
    "equal ratios": _equal_ratios,
    "convex curves": _convex,
    "subset-sum, whole": _subset_sum,
    "subset-sum, floats": _subset_sum_floats,
    "huge": _huge,
    "tiny": _tiny,
    "mixed scales": _mixed_scales,
    "realistic": _realistic,
}
STRUCTURES = ("plain", "spans", "pairs", "spans and pairs")


def random_case(family: str, structure: str, seed: int) -> tuple[dict[str, Any], float]:
    """Return a small problem of a family as a document, and a budget between the cheapest and the dearest choice."""
    rng = np.random.default_rng([seed, list(FAMILIES).index(family), STRUCTURES.index(structure)])
    shape = (int(rng.integers(1, 11)), int(rng.integers(1, 9)))
    cost, score = FAMILIES[family](rng, shape)
    layers = [
        {
            "name": f"l{i}",
            "candidates": [
                {"name": f"c{j}", "score": float(s), "costs": {COST: float(c)}}
                for j, (c, s) in enumerate(zip(cost[i], score[i], strict=True))
            ],
        }
        for i in range(len(cost))
    ]
    fixed = float(rng.choice([0.0, 0.1, -0.1]) * cost.mean())
    document: dict[str, Any] = {"format": "lanaprof-problem/1", "layers": layers, "fixed": {COST: fixed}}
    if "spans" in structure and len(cost) > 1:
        document["spans"] = [_span(rng, cost, score, number) for number in range(int(rng.integers(1, 4)))]
    if "pairs" in structure:
        document["pairs"] = [_pair(rng, cost, i) for i in range(len(cost) - 1) if rng.random() < 0.8]
    low, high = cost.min(axis=1).sum(), cost.max(axis=1).sum()
    return document, fixed + float(low + rng.uniform(0, 1) * (high - low))


def _span(rng: Rng, cost: Floats, score: Floats, number: int) -> dict[str, Any]:
    first, last = sorted(rng.choice(len(cost), 2, replace=False).tolist())
    rows, column = np.arange(first, last + 1), int(rng.integers(cost.shape[1]))
    worth = {COST: float(rng.choice([0.5, 1.0]) * cost[rows, column].sum())}
    span = {"first": f"l{first}", "last": f"l{last}", "name": f"s{number}"}
    return {**span, "score": float(rng.choice([0.75, 1.0]) * score[rows, column].sum()), "costs": worth}


def _pair(rng: Rng, cost: Floats, i: int) -> dict[str, Any]:
    every = list(itertools.product(range(cost.shape[1]), repeat=2))
    some = rng.choice(len(every), int(rng.integers(1, len(every) + 1)), replace=False)
    unit = float(np.median(cost))
    values = rng.choice([-0.25, 0.25, 0.5], len(some)) * unit
    terms = [[f"c{every[at][0]}", f"c{every[at][1]}", float(v)] for at, v in zip(some, values, strict=True)]
    return {"layers": [f"l{i}", f"l{i + 1}"], "cost": COST, "terms": terms}
