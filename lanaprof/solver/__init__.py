"""Which architecture? The best choice of one candidate a layer inside the budgets, proved.

Needs numpy only; PuLP and HiGHS are imported when several budgets, rows, pairs over a distance or diversity ask for
them.
"""

from lanaprof.solver.arrays import problem_from_arrays
from lanaprof.solver.check import Answer, Solution
from lanaprof.solver.explain import Change, Exchange, Explanation, Neighbour, explain
from lanaprof.solver.front import frontier
from lanaprof.solver.problem import Candidate, Layer, Pair, Problem, Row, Span
from lanaprof.solver.reading import load_problem, problem_to_json
from lanaprof.solver.registry import Selector, get_selector, register_selector, selector_names
from lanaprof.solver.select import solve, solve_diverse

__all__ = [
    "Answer",
    "Candidate",
    "Change",
    "Exchange",
    "Explanation",
    "Layer",
    "Neighbour",
    "Pair",
    "Problem",
    "Row",
    "Selector",
    "Solution",
    "Span",
    "explain",
    "frontier",
    "get_selector",
    "load_problem",
    "problem_from_arrays",
    "problem_to_json",
    "register_selector",
    "selector_names",
    "solve",
    "solve_diverse",
]
