"""The problem as one linear model for the integer program: columns are items, every row reads ``sum <= high``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lanaprof.solver.problem import Bools, Floats, Ints, Problem, slack_of
from lanaprof.solver.restrict import Restriction
from lanaprof.solver.stairs import whole_spare

__all__ = ["LinearModel", "Product", "linear_model", "undominated"]

_MOST_COMPARED = 3_000  # candidates of one layer compared pair by pair: 9 million comparisons a row


@dataclass(frozen=True, slots=True)
class Product:
    """A value that counts when both columns are chosen: in a row, or in the objective when ``row`` is None."""

    a: int
    b: int
    row: int | None
    value: float


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Maximise score · x with ``matrix @ x <= high``, every layer covered by exactly one column.

    Attributes:
        items: (columns,) item of each column.
        first, last: (columns,) layers a column covers; equal for candidates.
        score: (columns,) shifted and scaled: true score = constant + score_scale × sum.
        matrix, high: (rows, columns) and (rows,), each row scaled to sit near 1.
        products: pairs of columns with a value of their own.
        special: (columns,) whether a column appears in a row or product: it neither dominates nor is dominated.
    """

    items: Ints
    first: Ints
    last: Ints
    score: Floats
    matrix: Floats
    high: Floats
    products: tuple[Product, ...]
    special: Bools
    layer_count: int
    constant: float
    score_scale: float

    def keep(self, columns: Bools) -> LinearModel:
        """Return the model with these columns only; products that lose a column can't happen any more."""
        new = np.cumsum(columns) - 1
        products = (p for p in self.products if columns[p.a] and columns[p.b])
        return replace(
            self,
            items=self.items[columns],
            first=self.first[columns],
            last=self.last[columns],
            score=self.score[columns],
            matrix=self.matrix[:, columns],
            special=self.special[columns],
            products=tuple(Product(int(new[p.a]), int(new[p.b]), p.row, p.value) for p in products),
        )

    def split(self) -> tuple[Ints, tuple[LinearModel, Ints]]:
        """Return the columns that stand alone over their layer, and the model without those layers.

        Beside the smaller model stand its columns' numbers in this one. Columns with products are never split off.
        """
        over = np.zeros(self.layer_count + 1, dtype=np.int64)
        np.add.at(over, self.first, 1)
        np.add.at(over, self.last + 1, -1)
        lone = (self.first == self.last) & (np.cumsum(over)[self.first] == 1)
        for product in self.products:
            lone[[product.a, product.b]] = False
        settled, rest = np.flatnonzero(lone), np.flatnonzero(~lone)
        is_open = np.ones(self.layer_count, dtype=np.bool_)
        is_open[self.first[settled]] = False
        new_layer = np.cumsum(is_open) - 1
        small = self.keep(~lone)
        small = replace(
            small,
            first=new_layer[small.first],
            last=new_layer[small.last],
            high=self.high - self.matrix[:, settled].sum(axis=1),
            layer_count=int(is_open.sum()),
        )
        return settled, (small, rest)

    def through(self, price: Floats) -> Floats:
        """Return for each column an upper bound on the scaled score of any solution that takes it.

        The Lagrangian bound: rows are paid for at their price, layers are then chosen one by one (a dynamic program
        over the layers where spans compete). Holds for every price of at least 0. The largest value over the columns
        of any layer and the spans over it bounds all solutions.
        """
        reduced = self.score - price @ self.matrix
        best = np.full(self.layer_count, -math.inf)
        single = self.first == self.last
        np.maximum.at(best, self.first[single], reduced[single])
        spans = np.flatnonzero(~single).tolist()
        extra = float(price @ self.high) + self._product_bonus(price)
        if not spans:
            total = math.fsum(best.tolist())
            return extra + total - best[self.first] + reduced
        before = self._prefix(best, reduced, spans)
        after = self._suffix(best, reduced, spans)
        return extra + before[self.first] + reduced + after[self.last + 1]

    def _product_bonus(self, price: Floats) -> float:
        values = [p.value if p.row is None else -price[p.row] * p.value for p in self.products]
        return math.fsum(max(0.0, float(value)) for value in values)

    def _prefix(self, best: Floats, reduced: Floats, spans: list[int]) -> Floats:
        value = np.zeros(self.layer_count + 1)
        ending: dict[int, list[int]] = {}
        for column in spans:
            ending.setdefault(int(self.last[column]), []).append(column)
        for layer in range(self.layer_count):
            value[layer + 1] = max(
                value[layer] + best[layer],
                *(value[self.first[c]] + reduced[c] for c in ending.get(layer, ())),
                -math.inf,
            )
        return value

    def _suffix(self, best: Floats, reduced: Floats, spans: list[int]) -> Floats:
        value = np.zeros(self.layer_count + 1)
        starting: dict[int, list[int]] = {}
        for column in spans:
            starting.setdefault(int(self.first[column]), []).append(column)
        for layer in range(self.layer_count - 1, -1, -1):
            value[layer] = max(
                value[layer + 1] + best[layer],
                *(value[self.last[c] + 1] + reduced[c] for c in starting.get(layer, ())),
                -math.inf,
            )
        return value


def linear_model(
    problem: Problem,
    restriction: Restriction,
    *,
    alike: Sequence[tuple[int, ...]] = (),
    most_alike: int = 0,
    objective: int | None = None,
) -> LinearModel:
    """Return the model of what a restriction leaves.

    Args:
        problem: the problem.
        restriction: items allowed and summed budgets.
        alike: earlier solutions (their items), each to be met in at most ``most_alike`` layers.
        most_alike: see ``alike``.
        objective: index of a cost to be made small instead of the score large.
    """
    items = np.flatnonzero(restriction.allowed)
    count = problem.candidate_count
    first = np.searchsorted(problem.starts, items, side="right") - 1
    last = first.copy()
    for at in np.flatnonzero(items >= count).tolist():
        span = problem.spans[int(items[at]) - count]
        first[at], last[at] = span.first, span.last
    layers = len(problem.layer_names)
    value = problem.scores[items] if objective is None else -problem.costs[objective, items]
    top = _layer_extreme(value, first, last, layers)
    score = value - _summed(top, first, last)
    scale = _near_one(score)
    column_of = (
        {item: column for column, item in enumerate(items.tolist())}
        if problem.pairs or problem.rows or alike
        else {}
    )
    special = np.zeros(len(items), dtype=np.bool_)
    rows: list[Floats] = []
    highs: list[float] = []
    row_of_cost: dict[int, tuple[int, float]] = {}
    for k, budget in restriction.sums:
        row, high, unit = _budget_row(problem, k, budget, columns=(items, first, last))
        row_of_cost[k] = (len(rows), unit)
        rows.append(row)
        highs.append(high)
    for terms, high in _plain_rows(problem, alike, most_alike):
        row = np.zeros(len(items))
        for item, coefficient in terms:
            if item in column_of:
                row[column_of[item]] += coefficient
        special |= row != 0
        unit = _near_one(np.append(row, high))
        rows.append(row / unit)
        highs.append(high / unit)
    products = _products(problem, column_of, row_of_cost, objective=objective, score_scale=scale)
    for product in products:
        special[[product.a, product.b]] = True
    return LinearModel(
        items=items,
        first=first,
        last=last,
        score=score / scale,
        matrix=np.array(rows).reshape(len(rows), len(items)),
        high=np.array(highs),
        products=products,
        special=special,
        layer_count=layers,
        constant=math.fsum(top.tolist()),
        score_scale=scale,
    )


def _budget_row(
    problem: Problem, k: int, budget: float, *, columns: tuple[Ints, Ints, Ints]
) -> tuple[Floats, float, float]:
    """Return the row of a budget, its limit, and what both were divided by; costs count from the layer's least."""
    items, first, last = columns
    cost, fixed = problem.costs[k, items], float(problem.fixed[k])
    low = -_layer_extreme(-cost, first, last, len(problem.layer_names))
    slack = slack_of(budget, fixed)
    spare = math.fsum([budget, slack, -fixed, *(-low).tolist()])
    shifted = cost - _summed(low, first, last)
    beside = [abs(value) for pair in problem.pairs if pair.cost == k for _, _, value in pair.terms]
    if not beside:
        spare = whole_spare(shifted, spare, slack)
    # What costs more than the whole budget says nothing about the scale.
    scale_by = np.minimum(np.abs(shifted), abs(spare)) if spare > 0 else shifted
    unit = _near_one(np.concatenate([scale_by, beside, [spare]]))
    return shifted / unit, spare / unit, unit


def _layer_extreme(value: Floats, first: Ints, last: Ints, layers: int) -> Floats:
    """Return the largest value of each layer's own candidates; 0 where only spans stand."""
    top = np.full(layers, -math.inf)
    single = first == last
    np.maximum.at(top, first[single], value[single])
    return np.where(np.isfinite(top), top, 0.0)


def _summed(per_layer: Floats, first: Ints, last: Ints) -> Floats:
    """Return per column the sum over the layers it covers."""
    found = per_layer[first]
    for at in np.flatnonzero(first != last).tolist():
        found[at] = math.fsum(per_layer[first[at] : last[at] + 1].tolist())
    return found


def _near_one(values: Floats) -> float:
    """Return the power of two that brings the largest value near 1."""
    largest = float(np.max(np.abs(values), initial=0.0))
    return math.ldexp(1.0, math.frexp(largest)[1]) if largest > 0 else 1.0


def _plain_rows(
    problem: Problem, alike: Sequence[tuple[int, ...]], most_alike: int
) -> list[tuple[list[tuple[int, float]], float]]:
    rows: list[tuple[list[tuple[int, float]], float]] = []
    for row in problem.rows:
        if math.isfinite(row.high):
            rows.append((list(row.terms), row.high))
        if math.isfinite(row.low):
            rows.append(([(item, -value) for item, value in row.terms], -row.low))
    rows.extend(
        ([(item, float(layers_of(problem, item))) for item in solution], float(most_alike))
        for solution in alike
    )
    return rows


def layers_of(problem: Problem, item: int) -> int:
    """Return how many layers an item covers."""
    if item < problem.candidate_count:
        return 1
    span = problem.spans[item - problem.candidate_count]
    return span.last - span.first + 1


def _products(
    problem: Problem,
    column_of: dict[int, int],
    row_of_cost: dict[int, tuple[int, float]],
    *,
    objective: int | None,
    score_scale: float,
) -> tuple[Product, ...]:
    found = []
    for pair in problem.pairs:
        for a, b, value in pair.terms:
            if value == 0 or a not in column_of or b not in column_of:
                continue
            if pair.cost in row_of_cost:
                row, unit = row_of_cost[pair.cost]
                found.append(Product(column_of[a], column_of[b], row, value / unit))
            if pair.cost == objective:
                found.append(Product(column_of[a], column_of[b], None, -value / score_scale))
    return tuple(found)


def undominated(model: LinearModel) -> Bools:
    """Return which columns to keep: a plain one goes when another plain one of its layer is nowhere worse."""
    keep = np.ones(len(model.items), dtype=np.bool_)
    plain = np.flatnonzero((model.first == model.last) & ~model.special)
    cuts = np.flatnonzero(np.diff(model.first[plain])) + 1
    for mine in np.split(plain, cuts):
        if not 1 < len(mine) <= _MOST_COMPARED:
            continue
        facts = [-model.score[mine], *model.matrix[:, mine]]
        no_worse = np.ones((len(mine), len(mine)), dtype=np.bool_)  # [i, j]: i is nowhere worse than j
        for fact in facts:
            no_worse &= fact[:, None] <= fact[None, :]
        equal = no_worse & no_worse.T
        dominates = no_worse & (~equal | np.triu(equal, 1))  # of equals the first stays
        keep[mine] = ~dominates.any(axis=0)
    return keep
