"""Problems: what is read comes back, and every fault is named."""

from __future__ import annotations

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lanaprof.errors import BadProblem
from lanaprof.solver import Layer, load_problem, problem_from_arrays, problem_to_json, solve

NAN, INF = math.nan, math.inf
_SPAN = {"first": "blocks.0", "last": "blocks.1", "name": "fused", "score": 0.0}
_SPAN_COSTS = {"latency_s@cpu": 1e-4, "params": 10}
_PAIR = {"layers": ["blocks.0", "blocks.1"], "cost": "latency_s@cpu"}
_ROW = {"name": "few", "terms": [["blocks.0", "skip", 1.0]], "high": 1.0}


def _candidate(document: Any) -> Any:
    return document["layers"][1]["candidates"][1]


def test_json_round_trip_keeps_everything(cases: Any) -> None:
    """A problem with every optional key survives to JSON and back, as text and as a document."""
    for seed in range(60):
        rng = random.Random(seed)
        plain = cases.random_document(rng, style="float", costs=("a", "b"), layers=4, most=4)
        problem = load_problem(cases.with_rules(rng, plain, "float"))
        assert load_problem(problem_to_json(problem)) == problem
        assert load_problem(json.dumps(problem_to_json(problem))) == problem


def test_document_comes_back(document: Any) -> None:
    """A document in full form is written as it was read."""
    document["spans"] = [{**_SPAN, "costs": _SPAN_COSTS}]
    document["pairs"] = [{**_PAIR, "terms": [["skip", "conv3", -2e-6]]}]
    document["combine"] = {"params": "max"}
    document["require"] = {"blocks.0": ["teacher", "skip"]}
    document["forbid"] = {"blocks.0..blocks.1": ["fused"]}
    document["rows"] = [_ROW]
    assert problem_to_json(load_problem(document)) == document


def test_file_and_path_are_read(document: Any, tmp_path: Path) -> None:
    """A problem is read from a path, as text or as Path."""
    path = tmp_path / "problem.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert load_problem(path) == load_problem(str(path)) == load_problem(document)


def test_another_problem_is_not_equal(document: Any) -> None:
    """Equality sees names and numbers."""
    problem = load_problem(document)
    _candidate(document)["score"] = -0.2
    assert load_problem(document) != problem
    assert problem != document


def test_layers_are_there_as_objects(document: Any) -> None:
    """The layers can be walked through with names, scores and costs."""
    layers = load_problem(document).layers
    assert [type(layer) for layer in layers] == [Layer, Layer]
    assert layers[1].candidates[1].costs == {"latency_s@cpu": 0.5e-4, "params": 400.0}


def test_arrays_are_read_only(document: Any) -> None:
    """Nobody changes a problem by accident."""
    with pytest.raises(ValueError, match="read-only"):
        load_problem(document).scores[0] = 1.0


def test_arrays_and_documents_make_the_same_problem(document: Any) -> None:
    """problem_from_arrays makes what load_problem makes."""
    built = problem_from_arrays(
        ["blocks.0", "blocks.1"],
        [["teacher", "skip"], ["teacher", "conv3"]],
        scores=[0.0, -0.31, 0.0, -0.1],
        costs={"latency_s@cpu": [1.2e-4, 0.0, 2.0e-4, 0.5e-4], "params": [1200, 0, 900, 400]},
        fixed={"latency_s@cpu": 3.1e-4, "params": 50},
        optional={"rows": [_ROW]},
    )
    assert built == load_problem({**document, "rows": [_ROW]})


def test_wrong_lengths_of_arrays_are_refused() -> None:
    """One value a candidate, or an error that says how many there are."""
    with pytest.raises(BadProblem, match="3 values for 2 candidates"):
        problem_from_arrays(["l"], [["a", "b"]], scores=[0, 1, 2], costs={"t": [0, 1]})


def test_bad_numbers_in_arrays_are_named() -> None:
    """A NaN in an array names layer, candidate and cost."""
    with pytest.raises(BadProblem, match="layer 'l1', candidate 'b': the cost 't' is nan"):
        problem_from_arrays(["l0", "l1"], [["a"], ["b"]], scores=[0, 1], costs={"t": [0, NAN]})


def test_large_problem_loads_without_a_loop_over_pairs() -> None:
    """Twenty thousand layers load and come back: nothing grows with the square."""
    layers = [
        {"name": f"l{i}", "candidates": [{"name": "a", "score": 0.0, "costs": {"t": 1.0}}]}
        for i in range(20_000)
    ]
    problem = load_problem({"format": "lanaprof-problem/1", "layers": layers})
    assert len(solve(problem, {"t": 20_000.0}).choices) == 20_000


_FAULTS: dict[str, tuple[Any, str]] = {
    "format missing": (lambda d: d.pop("format"), "no key 'format'"),
    "other version": (lambda d: d.update(format="lanaprof-problem/2"), "'lanaprof-problem/2'"),
    "unknown key": (lambda d: d.update(budget=3), "unknown key 'budget'"),
    "unknown key of layer": (lambda d: d["layers"][0].update(x=1), "layer number 1 has the unknown key 'x'"),
    "unknown key of candidate": (lambda d: _candidate(d).update(x=1), "'blocks.1' has the unknown key 'x'"),
    "no layers": (lambda d: d.update(layers=[]), "no layers"),
    "layers are an object": (lambda d: d.update(layers={}), "'layers' is an object, not a list"),
    "empty layer": (lambda d: d["layers"][0].update(candidates=[]), "layer 'blocks.0' has no candidates"),
    "layer is a number": (lambda d: d["layers"].append(3), "layer number 3 is a number"),
    "layer without name": (lambda d: d["layers"][0].update(name=None), "a layer is named None"),
    "duplicate layer": (lambda d: d["layers"][0].update(name="blocks.1"), "two layers are named 'blocks.1'"),
    "duplicate candidate": (
        lambda d: _candidate(d).update(name="teacher"),
        "layer 'blocks.1' has two candidates named 'teacher'",
    ),
    "score missing": (lambda d: _candidate(d).pop("score"), "no key 'score'"),
    "score null": (lambda d: _candidate(d).update(score=None), "candidate 'conv3': the score is null"),
    "score text": (lambda d: _candidate(d).update(score="1"), "candidate 'conv3': the score is a text"),
    "score true": (lambda d: _candidate(d).update(score=True), "the score is true or false"),
    "score NaN": (lambda d: _candidate(d).update(score=NAN), "candidate 'conv3': the score is nan"),
    "score infinite": (lambda d: _candidate(d).update(score=-INF), "candidate 'conv3': the score is -inf"),
    "score too large": (lambda d: _candidate(d).update(score=10**400), "the score is too large"),
    "cost missing": (
        lambda d: _candidate(d)["costs"].pop("params"),
        "layer 'blocks.1', candidate 'conv3': the cost 'params' is missing",
    ),
    "cost too many": (lambda d: _candidate(d)["costs"].update(x=1), "the cost 'x' is not carried by all"),
    "cost null": (lambda d: _candidate(d)["costs"].update(params=None), "the cost 'params' is null"),
    "cost NaN": (lambda d: _candidate(d)["costs"].update(params=NAN), "'conv3': the cost 'params' is nan"),
    "cost negative": (lambda d: _candidate(d)["costs"].update(params=-1), "the cost 'params' is -1.0"),
    "cost infinite": (lambda d: _candidate(d)["costs"].update(params=INF), "the cost 'params' is inf"),
    "costs are a list": (lambda d: _candidate(d).update(costs=[1]), "'costs' is a list"),
    "sums overflow": (
        lambda d: [c["costs"].update(params=1e308) for c in d["layers"][0]["candidates"]],
        "'params' are too large",
    ),
    "fixed NaN": (lambda d: d["fixed"].update(params=NAN), "'fixed' of 'params' is nan"),
    "fixed of unknown cost": (lambda d: d["fixed"].update(x=1), "'fixed' names the cost 'x'"),
    "combine unknown": (lambda d: d.update(combine={"params": "min"}), "'combine' of 'params' is 'min'"),
    "require unknown layer": (lambda d: d.update(require={"x": ["skip"]}), "no layer 'x'"),
    "require unknown candidate": (lambda d: d.update(require={"blocks.0": ["x"]}), "no candidate 'x'"),
    "require nothing": (lambda d: d.update(require={"blocks.0": []}), "lists no candidate"),
    "forbid unknown candidate": (lambda d: d.update(forbid={"blocks.0": ["conv3"]}), "known|no candidate"),
    "forbid is a list": (lambda d: d.update(forbid=["blocks.0"]), "'forbid' is a list"),
    "span unknown layer": (
        lambda d: d.update(spans=[{**_SPAN, "first": "x", "costs": _SPAN_COSTS}]),
        "span number 1: there is no layer 'x'",
    ),
    "span reversed": (
        lambda d: d.update(spans=[{**_SPAN, "first": "blocks.1", "last": "blocks.0", "costs": _SPAN_COSTS}]),
        "'blocks.0' does not come after 'blocks.1'",
    ),
    "span of one layer": (
        lambda d: d.update(spans=[{**_SPAN, "last": "blocks.0", "costs": _SPAN_COSTS}]),
        "does not come after",
    ),
    "span without cost": (
        lambda d: d.update(spans=[{**_SPAN, "costs": {"params": 1}}]),
        "'fused': the cost 'latency_s@cpu' is missing",
    ),
    "span twice": (
        lambda d: d.update(spans=[{**_SPAN, "costs": _SPAN_COSTS}] * 2),
        "two spans 'blocks.0..blocks.1' are named 'fused'",
    ),
    "pair of unknown candidate": (
        lambda d: d.update(pairs=[{**_PAIR, "terms": [["skip", "x", 1]]}]),
        "layer 'blocks.1' has no candidate 'x'",
    ),
    "pair of unknown layer": (
        lambda d: d.update(pairs=[{**_PAIR, "layers": ["blocks.0", "x"], "terms": []}]),
        "no layer 'x'",
    ),
    "pair of one layer": (
        lambda d: d.update(pairs=[{**_PAIR, "layers": ["blocks.0", "blocks.0"], "terms": []}]),
        "one layer twice",
    ),
    "pair of unknown cost": (lambda d: d.update(pairs=[{**_PAIR, "cost": "x", "terms": []}]), "cost 'x'"),
    "pair of a maximum": (
        lambda d: d.update(combine={"params": "max"}, pairs=[{**_PAIR, "cost": "params", "terms": []}]),
        "'params' combines by maximum",
    ),
    "pair term NaN": (
        lambda d: d.update(pairs=[{**_PAIR, "terms": [["skip", "conv3", NAN]]}]),
        "the value of 'skip' and 'conv3' is nan",
    ),
    "pair term twice": (
        lambda d: d.update(pairs=[{**_PAIR, "terms": [["skip", "conv3", 1]] * 2}]),
        "'skip' and 'conv3' have two terms",
    ),
    "row of unknown candidate": (
        lambda d: d.update(rows=[{**_ROW, "terms": [["blocks.0", "x", 1]]}]),
        "the row 'few': layer 'blocks.0' has no candidate 'x'",
    ),
    "row without sides": (lambda d: d.update(rows=[{"name": "r", "terms": []}]), "neither 'low' nor 'high'"),
    "row crossed": (lambda d: d.update(rows=[{**_ROW, "low": 2.0}]), "'low' 2.0 is above 'high' 1.0"),
    "row twice": (lambda d: d.update(rows=[_ROW, _ROW]), "two rows are named 'few'"),
    "row term short": (lambda d: d.update(rows=[{**_ROW, "terms": [["blocks.0"]]}]), "has 1 parts"),
}


@pytest.mark.parametrize("fault", _FAULTS)
def test_every_fault_is_named(document: Any, fault: str) -> None:
    """Each way a document can be wrong is refused with a message that names the place."""
    change, message = _FAULTS[fault]
    broken = copy.deepcopy(document)
    load_problem(broken)  # it was sound before
    change(broken)
    with pytest.raises(BadProblem, match=message):
        load_problem(broken)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "a list, not an object"),
        ('{"format": ', "line 1, column"),
        ("\udcff", "not a text file"),
        ('{"a":' * 100_000, "not usable JSON|not JSON"),
        (None, "No such file"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, text: str | None, message: str) -> None:
    """A file that is missing, no text, no JSON or no object is an error with the path, not a traceback."""
    path = tmp_path / "problem.json"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadProblem, match=message):
        load_problem(path)


@pytest.mark.parametrize("budget", [NAN, INF, -INF, "much", None])
def test_budgets_are_finite_numbers(document: Any, budget: Any) -> None:
    """A budget that is no finite number is refused, with the cost's name."""
    with pytest.raises(BadProblem, match="budget on 'params'"):
        solve(load_problem(document), {"params": budget})


def test_budget_on_an_unknown_cost_lists_the_known(document: Any) -> None:
    """A budget no candidate carries is refused, with those they do carry."""
    with pytest.raises(BadProblem, match="'latency_s@gpu'; known: latency_s@cpu, params"):
        solve(load_problem(document), {"latency_s@gpu": 1.0})


def test_numpy_numbers_are_budgets(document: Any) -> None:
    """Budgets come from arrays, too."""
    assert solve(load_problem(document), {"params": np.float64(1e4)}).proved
