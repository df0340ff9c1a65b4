"""The general selector: an integer program by PuLP and HiGHS, on the columns that can still matter.

For several budgets, spans, rows, pairs and diversity, and as the independent check of the exact selector. The only
module that imports PuLP; it runs on its 3.3 and its 4.x interface.

HiGHS's ways that are dealt with here: its default gap is 1e-4 (we ask for 0); it may break rows by its feasibility
tolerance (each answer is recomputed exactly and a wrong one is cut off); PuLP 3 calls a run stopped by the time
limit "Optimal" (the solution status tells).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lanaprof.errors import LanaprofError, UserError
from lanaprof.solver.cheapest import cheapest_items, least_of_plain
from lanaprof.solver.check import Answer, costs_of, iter_violations, score_of
from lanaprof.solver.halves import best_near
from lanaprof.solver.linear import LinearModel, layers_of, linear_model, undominated
from lanaprof.solver.prices import priced, rounded
from lanaprof.solver.problem import Bools, Floats, Ints, Problem
from lanaprof.solver.restrict import Restriction, empty_layers, raise_infeasible, restrict

__all__ = ["least_of", "maximise", "solve_mip"]

Sound = Callable[[tuple[int, ...]], bool]

_LEAST_SECONDS = 30.0  # to find the least reachable value after a budget proved too small
_CLOSED = 1e-13  # a gap of scores scaled to 1 a layer: rounding
_NEAR = 1 / 8  # of the gap between bound and best known: the columns tried first
# HiGHS's own are 1e-6 and 1e-7: with layers of very different size the smaller ones would not count.
_TOLERANCES = {
    "mip_feasibility_tolerance": 1e-9,
    "primal_feasibility_tolerance": 1e-9,
    "dual_feasibility_tolerance": 1e-9,
}
_MOST_CUTS = 30  # answers that break a budget by less than HiGHS's tolerance, cut off one by one


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of HiGHS: ``optimal``, ``infeasible`` or ``stopped``, the columns chosen, its bound (scaled)."""

    status: str
    columns: Ints
    bound: float


def solve_mip(
    problem: Problem,
    budgets: Mapping[str, float],
    *,
    time_limit_s: float,
    allowed: Bools | None = None,
    known: Answer | None = None,
) -> Answer:
    """Return the best choice by an integer program.

    Args:
        problem: any problem.
        budgets: upper bound per cost.
        time_limit_s: about how long it may take.
        allowed: (items,) what may be chosen beyond what the budgets already forbid; the bound then holds for these.
        known: a choice to be beaten.

    Raises:
        InfeasibleBudget: no choice meets the budgets.
        UserError: none was found in the time given.
    """
    deadline = time.perf_counter() + time_limit_s
    restriction = restrict(problem, budgets)
    if allowed is not None:
        restriction = replace(restriction, allowed=restriction.allowed & allowed)
    answer = None
    if len(empty_layers(problem, restriction.allowed)) == 0:
        model = linear_model(problem, restriction)
        answer = maximise(problem, budgets, model, deadline=deadline, known=known)
    if answer is None:
        raise_infeasible(budgets, least_of(problem, budgets))
    return answer


def maximise(
    problem: Problem,
    budgets: Mapping[str, float],
    model: LinearModel,
    *,
    deadline: float,
    known: Answer | None = None,
    alike: Sequence[tuple[int, ...]] = (),
    most_alike: int = 0,
) -> Answer | None:
    """Return the best answer of a model, None when it has none.

    ``alike`` and ``most_alike`` are those the model was made with: answers are checked against them exactly.

    Raises:
        UserError: the deadline passed before any answer was found.
    """

    def is_sound(items: tuple[int, ...]) -> bool:
        held = set(items)
        for earlier in alike:
            if sum(layers_of(problem, item) for item in earlier if item in held) > most_alike:
                return False
        return next(iter_violations(problem, budgets, items), None) is None

    bound_of = None
    ceiling = _ceiling(model, model.through(np.zeros(len(model.high))))
    best = known
    if not model.products:
        price, used = priced(model, seconds=max(0.0, deadline - time.perf_counter()) / 2)
        bound_of = model.through(price)
        ceiling = _ceiling(model, bound_of)
        columns = rounded(model, price, used)
        if columns is not None:
            best = _better(problem, best, tuple(model.items[columns].tolist()), is_sound)
    if bound_of is None:
        small = model.keep(undominated(model))
        return _branch(problem, small, best, ceiling=ceiling, deadline=deadline, is_sound=is_sound)
    if (
        len(model.high) > 1 and (model.first == model.last).all()
    ):  # one row is left to HiGHS: a check of exact.py
        best, ceiling = _nearest(
            problem, model, (price, bound_of), best, is_sound=is_sound, deadline=deadline
        )
        if best is not None and best.proved:
            return best
    if best is not None and not alike and ceiling > _scaled(problem, model, best):
        # First only the columns nearest to the bound: few, and mostly the optimum is among them.
        near = ceiling - (ceiling - _scaled(problem, model, best)) * _NEAR
        few = model.keep(bound_of >= near)
        few = few.keep(undominated(few))
        half = time.perf_counter() + max(0.0, deadline - time.perf_counter()) / 2
        first = _branch(problem, few, best, ceiling=ceiling, deadline=half, is_sound=is_sound)
        if first is not None and first.proved and _scaled(problem, model, first) >= near:
            return first  # every column left out is bounded by less
        best = first or best
    small = model
    if best is not None:
        # Anything that scores above the best known survives; so does the best known, up to rounding.
        floor = _scaled(problem, model, best)
        small = model.keep(bound_of > floor - 1e-9 * max(1.0, abs(floor)))
    small = small.keep(undominated(small))
    return _branch(problem, small, best, ceiling=ceiling, deadline=deadline, is_sound=is_sound)


def _nearest(
    problem: Problem,
    model: LinearModel,
    bounds: tuple[Floats, Floats],
    best: Answer | None,
    *,
    is_sound: Sound,
    deadline: float,
) -> tuple[Answer | None, float]:
    """Return the best answer after a search near the bound, and the ceiling lowered by what was searched in full.

    ``bounds`` are the rows' prices and the bound through each column.
    """
    price, bound_of = bounds
    ceiling = _ceiling(model, bound_of)
    gap = ceiling - _scaled(problem, model, best) if best is not None else math.inf
    if best is not None and gap <= _CLOSED:
        return _proved(problem, best), ceiling

    def judged(columns: Ints) -> bool:
        return is_sound(tuple(model.items[columns].tolist()))

    regret = np.maximum(ceiling - bound_of, 0.0)
    found, reach = best_near(model, price, regret, gap=gap, is_sound=judged, deadline=deadline)
    if found.columns is not None:
        best = _better(problem, best, tuple(model.items[found.columns].tolist()), is_sound)
    if found.is_complete and best is not None:
        return _proved(problem, best), ceiling
    return best, ceiling - reach


def _scaled(problem: Problem, model: LinearModel, answer: Answer) -> float:
    """Return the answer's score in the model's scale."""
    return (score_of(problem, answer.items) - model.constant) / model.score_scale


def _ceiling(model: LinearModel, through: Floats) -> float:
    """Return the bound over all solutions: each of them has one column over the first layer."""
    return float(through[model.first == 0].max())


def _better(problem: Problem, best: Answer | None, items: tuple[int, ...], is_sound: Sound) -> Answer | None:
    """Return the better one of the best answer and new items, if these are sound at all."""
    if not is_sound(items):
        return best
    if best is not None and score_of(problem, best.items) >= score_of(problem, items):
        return best
    return Answer(items, math.inf, False, "mip")


def _branch(
    problem: Problem,
    model: LinearModel,
    best: Answer | None,
    *,
    ceiling: float,
    deadline: float,
    is_sound: Sound,
) -> Answer | None:
    """Return the best answer after branch and bound, cutting off answers that are not sound in exact numbers."""
    cuts: list[Ints] = []
    for _ in range(_MOST_CUTS):
        run = _run(model, cuts, seconds=deadline - time.perf_counter())
        ceiling = min(ceiling, run.bound)
        if run.status == "infeasible":
            return None if best is None else _proved(problem, best)
        items = tuple(model.items[run.columns].tolist())
        best = _better(problem, best, items, is_sound)
        if run.status == "optimal" and is_sound(items):
            assert best is not None
            return _proved(problem, best)
        if run.status == "stopped":
            break
        cuts.append(run.columns)
    if best is None:
        raise UserError(
            "no choice that meets the budgets was found in the time given, nor a proof that there is none",
            hint="give more time (--time-limit 300s) or a larger budget",
        )
    score = score_of(problem, best.items)
    return Answer(best.items, max(score, model.constant + ceiling * model.score_scale), False, "mip")


def _proved(problem: Problem, best: Answer) -> Answer:
    return Answer(best.items, score_of(problem, best.items), True, "mip")


def least_of(problem: Problem, budgets: Mapping[str, float]) -> dict[str, float]:
    """Return the least reachable value of each budgeted cost, each alone; empty when nothing can be chosen."""
    structure = restrict(problem, {})
    paired = {pair.cost for pair in problem.pairs}
    if structure.is_plain and not any(problem.cost_index(name) in paired for name in budgets):
        return least_of_plain(problem, budgets)
    least = {}
    for name in budgets:
        k = problem.cost_index(name)
        value = _least_largest(problem, name, k) if problem.is_max[k] else _least_sum(problem, k, structure)
        if value is None:
            return {}
        least[name] = value
    return least


def _least_sum(problem: Problem, k: int, structure: Restriction) -> float | None:
    if len(empty_layers(problem, structure.allowed)):
        return None
    items = cheapest_items(problem, k, structure.allowed)
    if items is not None:
        return costs_of(problem, items)[k] if len(items) else None
    model = linear_model(problem, structure, objective=k)
    model = model.keep(undominated(model))
    run = _run(model, [], seconds=_LEAST_SECONDS)
    if run.status == "infeasible" or len(run.columns) == 0:
        return None
    return costs_of(problem, model.items[run.columns])[k]


def _least_largest(problem: Problem, name: str, k: int) -> float | None:
    """Return the smallest limit on a maximum that leaves a choice, by bisection over the values there are."""
    values = np.unique(np.maximum(problem.costs[k], problem.fixed[k])).tolist()
    low, high = 0, len(values)
    while low < high:
        middle = (low + high) // 2
        restriction = restrict(problem, {name: values[middle]})
        fits = len(empty_layers(problem, restriction.allowed)) == 0
        if fits and not restriction.is_plain:
            run = _run(linear_model(problem, restriction), [], seconds=_LEAST_SECONDS)
            fits = run.status != "infeasible" and len(run.columns) > 0
        low, high = (low, middle) if fits else (middle + 1, high)
    return values[low] if low < len(values) else None


def _run(model: LinearModel, cuts: Sequence[Ints], *, seconds: float) -> _Run:
    """Build the program in PuLP, run HiGHS for some seconds, and return what it found."""
    nothing = np.zeros(0, dtype=np.int64)
    if seconds <= 0:
        return _Run("stopped", nothing, math.inf)
    if model.layer_count == 0:
        fits = not cuts and bool((model.high >= -1e-9).all())
        return _Run("optimal" if fits else "infeasible", nothing, 0.0)
    settled, asked = model.split()
    if len(settled):
        # Most layers of a reduced problem have one column left: they are no question for a solver.
        small, back = asked
        at = {column: i for i, column in enumerate(back.tolist())}
        cuts = [np.array([at[c] for c in cut.tolist() if c in at], dtype=np.int64) for cut in cuts]
        run = _run(small, cuts, seconds=seconds)
        found = run.status == "optimal" or len(run.columns) > 0
        columns = np.sort(np.concatenate([settled, back[run.columns]])) if found else nothing
        return _Run(run.status, columns, run.bound + float(model.score[settled].sum()))
    import pulp  # half a second, and only this module needs it

    program = pulp.LpProblem("selection", pulp.LpMaximize)
    x = [program.add_variable(f"x{i}", 0, 1, cat="Binary") for i in range(len(model.items))]
    z = [program.add_variable(f"z{i}", 0, 1) for i in range(len(model.products))]
    in_objective = [(p.value, v) for p, v in zip(model.products, z, strict=True) if p.row is None]
    terms = zip(model.score.tolist(), x, strict=True)
    program += pulp.lpSum([c * v for c, v in [*terms, *in_objective]])
    covering: list[list[Any]] = [[] for _ in range(model.layer_count)]
    for column, (first, last) in enumerate(zip(model.first.tolist(), model.last.tolist(), strict=True)):
        for layer in range(first, last + 1):
            covering[layer].append(x[column])
    for over in covering:
        program += pulp.lpSum(over) == 1
    for number, (row, high) in enumerate(zip(model.matrix, model.high.tolist(), strict=True)):
        in_row = [(float(row[i]), x[i]) for i in np.flatnonzero(row).tolist()]
        in_row += [(p.value, v) for p, v in zip(model.products, z, strict=True) if p.row == number]
        program += pulp.lpSum([c * v for c, v in in_row]) <= high
    _link_products(pulp, program, model, x=x, z=z)
    for cut in cuts:
        program += pulp.lpSum([x[i] for i in cut.tolist()]) <= len(cut) - 1
    solver = pulp.HiGHS(msg=False, threads=1, timeLimit=seconds, gapRel=0.0, gapAbs=1e-9, **_TOLERANCES)
    status, bound = _outcome(pulp, program, program.solve(solver))
    values = np.array([v.value() or 0.0 for v in x])
    columns = np.flatnonzero(values > 0.5)
    covered = sum(int(n) for n in model.last[columns] - model.first[columns] + 1) == model.layer_count
    if status == "optimal" and not covered:
        raise LanaprofError("HiGHS called a choice optimal that leaves layers open", hint="please report it")
    return _Run(status, columns if covered else nothing, bound)


def _link_products(pulp: Any, program: Any, model: LinearModel, *, x: list[Any], z: list[Any]) -> None:
    """Tie each product to its two columns, from the side the program would like to cheat on."""
    groups: dict[tuple[int, int, int | None], list[Any]] = {}
    for product, variable in zip(model.products, z, strict=True):
        is_gain = product.value > 0 if product.row is None else product.value < 0
        if not is_gain:
            program += variable >= x[product.a] + x[product.b] - 1
            continue
        # A layer holds one candidate, so all products of a column with one other layer share its 1: a tight row.
        groups.setdefault((product.a, int(model.first[product.b]), product.row), []).append(variable)
        groups.setdefault((product.b, int(model.first[product.a]), product.row), []).append(variable)
    for (column, *_), variables in groups.items():
        program += pulp.lpSum(variables) <= x[column]


def _outcome(pulp: Any, program: Any, outcome: Any) -> tuple[str, float]:
    """Return status and scaled bound, from PuLP 3.3 (an int) or 4.x (an object with ``has_solution``)."""
    if hasattr(outcome, "has_solution"):
        name = str(getattr(outcome.status, "name", outcome.status))
        bound = getattr(outcome, "best_bound", None)
        status = {"Optimal": "optimal", "Infeasible": "infeasible"}.get(name, "stopped")
    else:
        solved = program.sol_status == pulp.LpSolutionOptimal
        status = "optimal" if solved else "infeasible" if outcome == pulp.LpStatusInfeasible else "stopped"
        bound = -program.solverModel.getInfo().mip_dual_bound  # HiGHS is handed the negated objective
    return status, float(bound) if bound is not None and math.isfinite(bound) else math.inf
