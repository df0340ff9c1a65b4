"""A problem from arrays, without a file in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lanaprof.errors import BadProblem
from lanaprof.solver.problem import Problem, check_names, check_numbers, frozen
from lanaprof.solver.rules import read_optional

__all__ = ["problem_from_arrays"]


def problem_from_arrays(
    layer_names: Sequence[str],
    candidate_names: Sequence[Sequence[str]],
    *,
    scores: ArrayLike,
    costs: Mapping[str, ArrayLike],
    fixed: Mapping[str, float] | None = None,
    optional: Mapping[str, Any] | None = None,
) -> Problem:
    """Return the checked problem over flat arrays: no copy per candidate, so large spaces load at once.

    Args:
        layer_names: one a layer.
        candidate_names: per layer, its candidates' names.
        scores: (candidates,) all layers one after the other; higher is better.
        costs: per cost, (candidates,) in the cost's own unit.
        fixed: per cost, what the rest of the network costs; 0 where missing.
        optional: the optional keys of the file format (``spans``, ``pairs``, ``combine``, ``require``,
            ``forbid``, ``rows``) with the same values as there.

    Raises:
        BadProblem: names, sizes, scores or costs do not hold together.
    """
    names = tuple(tuple(row) for row in candidate_names)
    check_names(tuple(layer_names), names)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in names], dtype=np.int64)]).astype(np.int64)
    cost_names = tuple(costs)
    flat_scores = np.asarray(scores, dtype=np.float64).ravel()
    flat_costs = [np.asarray(value, dtype=np.float64).ravel() for value in costs.values()]
    for what, array in (("score", flat_scores), *zip(cost_names, flat_costs, strict=True)):
        if len(array) != starts[-1]:
            raise BadProblem(
                f"{what!r} has {len(array)} values for {starts[-1]} candidates",
                hint="give one value a candidate, all layers one after the other",
            )
    matrix = np.array(flat_costs).reshape(len(cost_names), int(starts[-1]))
    bare = Problem(
        layer_names=tuple(layer_names),
        candidate_names=names,
        cost_names=cost_names,
        starts=starts,
        scores=flat_scores.copy(),
        costs=matrix,
        fixed=np.zeros(len(cost_names)),
        is_max=(False,) * len(cost_names),
    )
    check_numbers(bare)
    document = dict(optional or {})
    if fixed is not None:
        document["fixed"] = dict(fixed)
    return frozen(read_optional(bare, document))
