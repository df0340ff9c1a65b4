"""Prices of the rows: the linear relaxation by column generation, and choices made by rounding it.

Few columns of a large problem ever matter to the relaxation, so HiGHS sees only those some price has called for;
the others are priced in numpy. Any price gives a bound that holds, so rounding here costs tightness, never truth.
"""

from __future__ import annotations

import math
import time

import numpy as np

from lanaprof.solver.linear import LinearModel
from lanaprof.solver.problem import Bools, Floats, Ints

__all__ = ["priced", "rounded"]

_MOST_PASSES = 60  # most problems need about ten; what is left after these only loosens the bound
_PENALTY = 1e4  # per unit a scaled row is broken: no scaled score is larger than 1 a layer
_MOST_EXCHANGES = 400


def priced(model: LinearModel, *, seconds: float) -> tuple[Floats, Bools]:
    """Return a price of at least 0 per row, and which columns were ever called for."""
    deadline = time.perf_counter() + seconds
    price = np.zeros(len(model.high))
    used = _first_columns(model)
    if len(price) == 0:
        return price, used
    for _ in range(_MOST_PASSES):
        price, value = _relaxed(model, np.flatnonzero(used))
        reduced = model.score - price @ model.matrix
        reach = np.full(model.layer_count, -math.inf)
        single = model.first == model.last
        np.maximum.at(reach, model.first[single & used], reduced[single & used])
        better = single & ~used & (reduced > reach[model.first] + 1e-9 + 1e-9 * abs(value))
        if not better.any() or time.perf_counter() > deadline:
            break
        used |= _best_of_layers(model, np.where(better, reduced, -math.inf))
    return price, used


def _first_columns(model: LinearModel) -> Bools:
    """Return the columns to begin with: each layer's best in score and in each row, all spans."""
    used: Bools = model.first != model.last
    used |= _best_of_layers(model, model.score)
    for row in model.matrix:
        used |= _best_of_layers(model, -row)
        used |= _best_of_layers(model, model.score - row)
    return used


def _best_of_layers(model: LinearModel, value: Floats) -> Bools:
    """Return a mask of one column a layer, the one of the highest finite value; layers without stay empty."""
    single = np.flatnonzero((model.first == model.last) & np.isfinite(value))
    mask = np.zeros(len(value), dtype=np.bool_)
    order = single[np.lexsort((-value[single], model.first[single]))]
    ahead = np.ones(len(order), dtype=np.bool_)
    ahead[1:] = model.first[order[1:]] != model.first[order[:-1]]
    mask[order[ahead]] = True
    return mask


def _relaxed(model: LinearModel, columns: Ints) -> tuple[Floats, float]:
    """Return the prices and the value of the linear relaxation over some columns."""
    import highspy  # about 50 ms, and only several budgets or rows need it

    layers, rows = model.layer_count, len(model.high)
    spread = model.last[columns] - model.first[columns] + 1
    at = np.repeat(np.arange(len(columns)), spread)
    covered = np.concatenate([np.arange(f, f + n) for f, n in zip(model.first[columns], spread, strict=True)])
    dense = model.matrix[:, columns]
    row, column = np.nonzero(dense)
    # Every row may be broken at a penalty, so that a poor start is no dead end.
    column_of = np.concatenate([at, column, len(columns) + np.arange(rows)])
    row_of = np.concatenate([covered, layers + row, layers + np.arange(rows)])
    entry = np.concatenate([np.ones(len(at)), dense[row, column], -np.ones(rows)])
    order = np.lexsort((row_of, column_of))
    program = highspy.HighsLp()
    program.num_col_, program.num_row_ = len(columns) + rows, layers + rows
    program.col_cost_ = np.concatenate([-model.score[columns], np.full(rows, _PENALTY)])
    program.col_lower_ = np.zeros(len(columns) + rows)
    program.col_upper_ = np.full(len(columns) + rows, highspy.kHighsInf)
    program.row_lower_ = np.concatenate([np.ones(layers), np.full(rows, -highspy.kHighsInf)])
    program.row_upper_ = np.concatenate([np.ones(layers), model.high])
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    sizes = np.bincount(column_of, minlength=len(columns) + rows)
    program.a_matrix_.start_ = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    program.a_matrix_.index_ = row_of[order].astype(np.int32)
    program.a_matrix_.value_ = entry[order]
    highs = highspy.Highs()  # type: ignore[no-untyped-call]
    for option, setting in (("output_flag", False), ("threads", 1)):
        highs.setOptionValue(option, setting)
    highs.passModel(program)
    highs.run()
    duals = np.array(highs.getSolution().row_dual)
    price = np.maximum(0.0, -duals[layers:]) if len(duals) == layers + rows else np.zeros(rows)
    return price, float(highs.getInfo().objective_function_value)


def rounded(model: LinearModel, price: Floats, columns: Bools) -> Ints | None:
    """Return columns that cover every layer and keep every row, near the relaxation; None when none was found.

    Starts from the best choice at the prices, then exchanges candidates one by one: first what mends broken rows
    at the least loss of score, then what gains score. Products are not looked at; the caller checks the result.
    """
    few = np.flatnonzero(columns & (model.first == model.last))
    reduced = model.score - price @ model.matrix
    chosen = np.full(model.layer_count, -1, dtype=np.int64)
    best = np.flatnonzero(_best_of_layers(model, np.where(columns, reduced, -math.inf)))
    chosen[model.first[best]] = best
    if (chosen < 0).any():
        return None
    layer, score, rows = model.first[few], model.score[few], model.matrix[:, few]
    for _ in range(_MOST_EXCHANGES + 4 * model.layer_count):
        total = model.matrix[:, chosen].sum(axis=1)
        held = chosen[layer]
        after = total[:, None] + rows - model.matrix[:, held]
        gain = score - model.score[held]
        excess = np.maximum(after - model.high[:, None], 0.0).sum(axis=0)
        broken = float(np.maximum(total - model.high, 0.0).sum())
        if broken > 0:
            mended = broken - excess
            worth = np.where(mended > 1e-15, (gain - 1e-12) / np.maximum(mended, 1e-15), -math.inf)
        else:
            worth = np.where((excess <= 0) & (gain > 1e-15), gain, -math.inf)
        at = int(np.argmax(worth))
        if worth[at] == -math.inf:
            return chosen if broken <= 0 else None
        chosen[layer[at]] = few[at]
    return chosen if (model.matrix[:, chosen].sum(axis=1) <= model.high).all() else None
