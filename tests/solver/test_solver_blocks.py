"""Tables of many layers are looked at in blocks: what comes out is what one layer after the other gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lanaprof.solver import problem_from_arrays, solve
from lanaprof.solver.hull import BLOCK, hull_edges
from lanaprof.solver.stairs import build_stairs, sum_of

Layers = list[tuple[list[float], list[float]]]  # costs and scores of each


def _layers(rng: np.random.Generator, sizes: Any) -> Layers:
    """Return layers whose numbers are eighths, so that many are equal."""
    made = ((rng.integers(0, 60, size) / 8, rng.integers(0, 60, size) / 8) for size in sizes)
    return [(cost.tolist(), score.tolist()) for cost, score in made]


def _rising(cost: list[float], score: list[float]) -> list[tuple[float, float]]:
    """Return the points of one layer that no other is as cheap and as good as, by rising cost."""
    kept: list[tuple[float, float]] = []
    for one in sorted(zip(cost, score, strict=True), key=lambda point: (point[0], -point[1])):
        if not kept or one[1] > kept[-1][1]:
            kept.append(one)
    return kept


def _hull(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the edges, as cost and score between their ends, of the hull of points that rise."""
    kept: list[tuple[float, float]] = []
    for x, y in points:
        while len(kept) > 1:
            (a, b), (c, d) = kept[-2], kept[-1]
            if (d - b) * (x - c) > (y - d) * (c - a):
                break
            kept.pop()
        kept.append((x, y))
    return [(c - a, d - b) for (a, b), (c, d) in pairwise(kept)]


_SIZES: dict[str, Callable[[np.random.Generator], Any]] = {
    "even": lambda rng: np.full(9_000, 8),
    "uneven": lambda rng: rng.integers(1, 12, 9_000),
    "a few wide": lambda rng: np.where(np.arange(3_000) % 100 == 7, 400, 2),
    "wide": lambda rng: rng.integers(300, 900, 120),
    "wider than a block": lambda rng: np.array([3, BLOCK + 5, 4, 2 * BLOCK, 1]),
}


@pytest.mark.parametrize("kind", _SIZES)
def test_steps_are_those_of_each_layer_alone(kind: str) -> None:
    """Whatever the sizes: the steps of a table of several blocks are each layer's undominated candidates."""
    rng = np.random.default_rng(1)
    layers = _layers(rng, _SIZES[kind](rng))
    starts = np.cumsum([0, *(len(cost) for cost, _ in layers)])
    cost, score = (np.concatenate([layer[k] for layer in layers]) for k in (0, 1))
    stairs = build_stairs(starts, None, cost=cost, score=score, spare=np.inf, unit=1.0)
    found = np.stack([cost[stairs.item], score[stairs.item]], axis=1).tolist()
    assert [[list(point) for point in _rising(*layer)] for layer in layers] == [
        found[a:b] for a, b in pairwise(stairs.starts.tolist())
    ]


def test_too_dear_candidates_are_no_steps() -> None:
    """What costs more above its layer's cheapest than there is to spare is left out, in every block."""
    rng = np.random.default_rng(2)
    cost, score = rng.integers(0, 60, 80_000) / 8, rng.integers(0, 60, 80_000) / 8
    stairs = build_stairs(np.arange(0, 80_001, 8), None, cost=cost, score=score, spare=2.0, unit=1.0)
    low = cost.reshape(-1, 8).min(axis=1)
    kept = cost - np.repeat(low, 8) <= 2.0
    best = np.where(kept, score, -1.0).reshape(-1, 8).max(axis=1)
    assert (cost[stairs.item] - low[stairs.layer]).max() == 2.0
    assert score[stairs.item[stairs.starts[1:] - 1]].tolist() == best.tolist()


def test_hull_of_many_layers_is_each_layer_s_own() -> None:
    """Edges come by layer, steepest first, as the hull of each layer alone gives them."""
    rng = np.random.default_rng(3)
    points = [_rising(*layer) for layer in _layers(rng, rng.integers(1, 40, 24_000))]
    layer = np.repeat(np.arange(len(points)), [len(one) for one in points])
    cost, score = np.array([point for one in points for point in one]).T
    start, end, dearer, better = hull_edges(layer, cost, score)
    assert len(layer) > 2 * BLOCK
    assert (cost[end] - cost[start]).tolist() == dearer.tolist()
    expected = [edge for one in points for edge in _hull(one)]
    assert list(zip(dearer.tolist(), better.tolist(), strict=True)) == expected


def test_hull_that_falls_point_by_point() -> None:
    """A last point above all before it leaves one edge, though each pass over the block sees one more of them go."""
    count = 200
    cost = np.arange(count, dtype=np.float64)
    score = np.append(np.sqrt(cost[:-1]), 1e6)
    pair = np.concatenate([np.zeros(count, dtype=np.int64), np.ones(2, dtype=np.int64)])
    start, end, _, _ = hull_edges(pair, np.append(cost, [0.0, 1.0]), np.append(score, [0.0, 1.0]))
    assert list(zip(start.tolist(), end.tolist(), strict=True)) == [(0, count - 1), (count, count + 1)]


def test_ties_are_taken_in_the_order_of_the_layers() -> None:
    """Of edges that are equally steep the first layer's is taken first, whatever sorts them."""
    layers = 5_000
    score, cost = np.tile([0.0, 1.0], layers), np.tile([0.0, 1.0], layers)
    stairs = build_stairs(np.arange(0, 2 * layers + 1, 2), None, cost=cost, score=score, spare=9.0, unit=1.0)
    assert stairs.hull_to.tolist() == list(range(1, 2 * layers, 2))


def test_large_tables_are_proved_like_their_parts() -> None:
    """A budget that buys everything but one layer's step buys it where it is worth least, among 30,000 layers."""
    layers = 30_000
    gain = 1.0 + (np.arange(layers) * 7919 % layers) / layers
    scores = np.stack([np.zeros(layers), gain], axis=1)
    names = [["cheap", "dear"]] * layers
    problem = problem_from_arrays(
        [f"l{i}" for i in range(layers)], names, scores=scores, costs={"t": np.tile([0.0, 1.0], layers)}
    )
    solution = solve(problem, {"t": layers - 1.0})
    assert (solution.proved, solution.choices["l0"]) == (True, "cheap")
    assert sum(choice == "dear" for choice in solution.choices.values()) == layers - 1


def test_sum_of_many_numbers_is_good_to_its_last_digits() -> None:
    """A tenth, added up a million times, is off by no more than its own rounding."""
    assert abs(sum_of(np.full(1_000_000, 0.1)) - 100_000.0) < 1e-9
