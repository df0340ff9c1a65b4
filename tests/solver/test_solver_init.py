"""The room's doors: selectors by name, checked answers, what an import costs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import lanaprof.solver
from lanaprof.errors import BadInput, LanaprofError
from lanaprof.solver import (
    Answer,
    Problem,
    get_selector,
    load_problem,
    register_selector,
    selector_names,
    solve,
)
from lanaprof.solver import registry as registry_module
from lanaprof.solver.check import check_answer


def cheapest_by_hand(problem: Problem, budgets: Any, *, time_limit_s: float) -> Answer:
    """Choose the last candidate of each layer: a selector as a third party writes it."""
    return Answer(tuple((problem.starts[1:] - 1).tolist()), 0.0, False, "last")


def over_budget(problem: Problem, budgets: Any, *, time_limit_s: float) -> Answer:
    """Choose the first candidates, whatever they cost."""
    return Answer(tuple(problem.starts[:-1].tolist()), 0.0, True, "first")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a register of its own."""
    monkeypatch.setattr(registry_module, "_SELECTORS", dict(registry_module._SELECTORS))
    monkeypatch.setitem(sys.modules, "selectors_of_this_test", sys.modules[__name__])


def test_public_names_are_sorted_and_there() -> None:
    """__all__ is sorted and every name in it exists."""
    names = lanaprof.solver.__all__
    assert names == sorted(names)
    assert all(hasattr(lanaprof.solver, name) for name in names)


def test_import_brings_no_heavy_package() -> None:
    """Importing and solving one budget needs neither PuLP nor HiGHS nor pandas nor torch."""
    code = (
        "import sys; from lanaprof.solver import problem_from_arrays, solve, frontier\n"
        "p = problem_from_arrays(['l'], [['a', 'b']], scores=[0, 1], costs={'t': [1, 2]})\n"
        "solve(p, {'t': 1}); frontier(p, 't')\n"
        "print([m for m in ('pulp', 'highspy', 'pandas', 'torch', 'onnx', 'tensorrt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.usefixtures("registry")
def test_registered_selector_is_used_and_checked(document: Any) -> None:
    """A new selector is imported on use; its answer is evaluated like any other."""
    register_selector("last", "selectors_of_this_test:cheapest_by_hand")
    solution = solve(load_problem(document), {"params": 500.0}, method="last")
    assert "last" in selector_names()
    assert (solution.status, solution.method) == ("feasible", "last")
    assert solution.costs["params"] == 450.0


@pytest.mark.usefixtures("registry")
def test_wrong_answers_are_our_fault(document: Any) -> None:
    """A selector that breaks the budget is caught, and it is not called the user's error."""
    register_selector("first", "selectors_of_this_test:over_budget")
    with pytest.raises(LanaprofError, match=r"wrong answer: params is 2150\.0, over the budget") as caught:
        solve(load_problem(document), {"params": 500.0}, method="first")
    assert caught.value.exit_code == 1


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("target", ["no_such_module:f", "selectors_of_this_test:f"])
def test_selector_that_cannot_be_imported(target: str) -> None:
    """A target that is not there is the user's error, with its name."""
    register_selector("broken", target)
    with pytest.raises(BadInput, match="cannot be imported"):
        get_selector("broken")


def test_unknown_and_taken_names_are_refused() -> None:
    """An unknown method lists the known ones; a name is given once."""
    with pytest.raises(BadInput, match="no method 'magic'") as caught:
        get_selector("magic")
    assert caught.value.hint == "known: exact, mip"
    with pytest.raises(BadInput, match="already"):
        register_selector("exact", "a:b")


@pytest.mark.parametrize(
    ("items", "bound", "message"),
    [
        ((0,), 0.0, "'blocks.1' is chosen 0 times"),
        ((0, 1, 2), 0.0, "'blocks.0' is chosen 2 times"),
        ((0, 2), 0.0, "row 'few' is 2.0"),
        ((1, 3), 0.0, "'blocks.0' holds nothing of what is required"),
        ((0, 3), 0.0, "'blocks.1' holds what is forbidden"),
    ],
)
def test_check_finds_every_kind_of_wrong_answer(
    document: Any, items: tuple[int, ...], bound: float, message: str
) -> None:
    """Coverage, rows, require and forbid are recomputed."""
    document["require"], document["forbid"] = {"blocks.0": ["teacher"]}, {"blocks.1": ["conv3"]}
    if items == (0, 2):
        terms = [["blocks.0", "teacher", 1.0], ["blocks.1", "teacher", 1.0]]
        document["rows"] = [{"name": "few", "terms": terms, "high": 1.0}]
    with pytest.raises(LanaprofError, match=message):
        check_answer(load_problem(document), {}, Answer(items, bound, True, "test"))


def test_check_finds_a_bound_below_the_score(document: Any) -> None:
    """A bound that the answer itself exceeds is no bound."""
    with pytest.raises(LanaprofError, match="below the score"):
        check_answer(load_problem(document), {}, Answer((0, 2), -1.0, False, "test"))


def test_solution_is_plain_json(document: Any) -> None:
    """to_json holds the keys others rely on and nothing JSON has no word for."""
    data = solve(load_problem(document), {"params": 1500.0}).to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert set(data) == {"status", "score", "bound", "proved", "costs", "choices", "solve_s", "method"}
    assert data["choices"] == {"blocks.0": "skip", "blocks.1": "teacher"}
