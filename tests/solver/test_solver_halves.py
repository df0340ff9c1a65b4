"""The search near the bound: all of it, nothing but it, and what happens when it grows too large."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from lanaprof.solver import problem_from_arrays
from lanaprof.solver.halves import best_near, best_within
from lanaprof.solver.linear import LinearModel, linear_model
from lanaprof.solver.prices import priced
from lanaprof.solver.restrict import restrict


def _model(seed: int, *, layers: int = 6, count: int = 4) -> tuple[LinearModel, Any, Any]:
    """Return a model under two budgets, the prices of its rows, and each column's regret."""
    rng = np.random.default_rng(seed)
    shape = (layers, count)
    problem = problem_from_arrays(
        [f"l{i}" for i in range(layers)],
        [[f"c{j}" for j in range(count)]] * layers,
        scores=-rng.random(shape),
        costs={"a": rng.random(shape), "b": rng.random(shape)},
    )
    model = linear_model(problem, restrict(problem, {"a": 0.4 * layers, "b": 0.45 * layers}))
    price, _ = priced(model, seconds=5.0)
    through = model.through(price)
    return model, price, np.maximum(through.max() - through, 0.0)


def _gaps(model: LinearModel, price: Any, regret: Any) -> list[float]:
    """Return how far below the ceiling each solution inside both budgets lies, by trying everything."""
    columns = [np.flatnonzero(model.first == layer).tolist() for layer in range(model.layer_count)]
    gaps = []
    for chosen in itertools.product(*columns):
        slack = model.high - model.matrix[:, list(chosen)].sum(axis=1)
        if (slack >= -1e-12).all():
            gaps.append(float(regret[list(chosen)].sum() + price @ slack))
    return sorted(gaps)


@pytest.mark.parametrize("seed", range(12))
def test_finds_the_best_within_the_reach(seed: int) -> None:
    """Of all solutions inside both rows the one nearest to the ceiling is returned, and its score is what that says."""
    model, price, regret = _model(seed)
    gaps = _gaps(model, price, regret)
    deadline = math.inf
    found, _ = best_near(model, price, regret, gap=np.inf, is_sound=lambda _: True, deadline=deadline)
    assert found.is_complete
    assert found.columns is not None
    ceiling = float(model.through(price).max())
    assert ceiling - model.score[found.columns].sum() == pytest.approx(gaps[0], abs=1e-12)
    short = best_within(
        model, price, regret, reach=gaps[0] * 0.99, is_sound=lambda _: True, deadline=deadline
    )
    assert (short.columns, short.is_complete) == (None, True)


def test_unsound_solutions_are_passed_over() -> None:
    """What the judge refuses, here the two best, is left out, and the next best one is found."""
    model, price, regret = _model(3)
    gaps = _gaps(model, price, regret)
    deadline = math.inf
    ceiling = float(model.through(price).max())

    def is_sound(columns: Any) -> bool:
        return bool(ceiling - model.score[columns].sum() > gaps[1] + 1e-12)

    found, _ = best_near(model, price, regret, gap=np.inf, is_sound=is_sound, deadline=deadline)
    assert found.columns is not None
    assert ceiling - model.score[found.columns].sum() == pytest.approx(gaps[2], abs=1e-12)


def test_nothing_inside_is_said() -> None:
    """When no solution keeps the rows the whole gap is searched and nothing is returned."""
    model, price, regret = _model(5)
    model.high[:] = -1.0
    found, _ = best_near(model, price, regret, gap=np.inf, is_sound=lambda _: True, deadline=math.inf)
    assert (found.columns, found.is_complete) == (None, True)


def test_too_many_choices_end_the_search_with_what_was_done() -> None:
    """Where all columns are as good, halves grow too large: the search says so, and how far it came."""
    layers, count = 40, 6
    cost = np.random.default_rng(0).random((layers, count))
    problem = problem_from_arrays(
        [f"l{i}" for i in range(layers)],
        [[f"c{j}" for j in range(count)]] * layers,
        scores=np.zeros((layers, count)),
        costs={"a": cost, "b": cost[::-1]},
    )
    model = linear_model(problem, restrict(problem, {"a": 4.0, "b": 4.0}))
    found, reach = best_near(
        model,
        np.zeros(2),
        np.zeros(layers * count),
        gap=1.0,
        is_sound=lambda _: False,
        deadline=math.inf,
    )
    assert (found.columns, found.is_complete, reach) == (None, False, 0.0)
