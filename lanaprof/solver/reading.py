"""Problems read from and written to JSON (``lanaprof-problem/1``), with every fault named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lanaprof.errors import BadProblem
from lanaprof.solver.fields import as_list, as_name, as_number, check_keys, kind_of, read_costs
from lanaprof.solver.problem import Pair, Problem, Row, Span, check_names, check_numbers, frozen
from lanaprof.solver.rules import OPTIONAL_KEYS, read_optional

__all__ = ["PROBLEM_FORMAT", "load_problem", "problem_to_json"]

PROBLEM_FORMAT = "lanaprof-problem/1"
_CANDIDATE_KEYS = frozenset(("name", "score", "costs"))


def load_problem(source: str | Path | Mapping[str, Any]) -> Problem:
    """Return the checked problem in a file, in a JSON text (it starts with a brace), or in a parsed document.

    Raises:
        BadProblem: the source cannot be read, or is no sound problem; layer and candidate are named.
    """
    document = _document_from_source(source)
    check_keys(document, ("format", "layers"), OPTIONAL_KEYS, "the problem")
    if document["format"] != PROBLEM_FORMAT:
        raise BadProblem(
            f"the problem's format is {document['format']!r}; this version reads {PROBLEM_FORMAT!r}",
            hint=f'write "format": "{PROBLEM_FORMAT}"',
        )
    bare = _read_layers(document["layers"])
    return frozen(read_optional(bare, {k: v for k, v in document.items() if k in OPTIONAL_KEYS}))


def problem_to_json(problem: Problem) -> dict[str, Any]:
    """Return the problem as a document: ``load_problem`` makes the same problem of it again."""
    costs, scores = problem.costs.T.tolist(), problem.scores.tolist()
    layers = []
    for layer, names, start in zip(
        problem.layer_names, problem.candidate_names, problem.starts.tolist(), strict=False
    ):
        rows = [
            {
                "name": name,
                "score": scores[start + i],
                "costs": dict(zip(problem.cost_names, costs[start + i], strict=True)),
            }
            for i, name in enumerate(names)
        ]
        layers.append({"name": layer, "candidates": rows})
    document: dict[str, Any] = {"format": PROBLEM_FORMAT, "layers": layers}
    document["fixed"] = dict(zip(problem.cost_names, problem.fixed.tolist(), strict=True))
    document["combine"] = {n: "max" for n, m in zip(problem.cost_names, problem.is_max, strict=True) if m}
    document["spans"] = [_span_to_json(problem, span) for span in problem.spans]
    document["pairs"] = [_pair_to_json(problem, pair) for pair in problem.pairs]
    document["rows"] = [_row_to_json(problem, row) for row in problem.rows]
    for key, entries in (("require", problem.require), ("forbid", problem.forbid)):
        document[key] = {name: [problem.item_names(i)[1] for i in items] for name, items in entries}
    return {key: value for key, value in document.items() if value or key in ("format", "layers")}


def _span_to_json(problem: Problem, span: Span) -> dict[str, Any]:
    return {
        "first": problem.layer_names[span.first],
        "last": problem.layer_names[span.last],
        "name": span.name,
        "score": span.score,
        "costs": dict(zip(problem.cost_names, span.costs, strict=True)),
    }


def _pair_to_json(problem: Problem, pair: Pair) -> dict[str, Any]:
    names = problem.item_names
    return {
        "layers": [problem.layer_names[i] for i in pair.layers],
        "cost": problem.cost_names[pair.cost],
        "terms": [[names(a)[1], names(b)[1], value] for a, b, value in pair.terms],
    }


def _row_to_json(problem: Problem, row: Row) -> dict[str, Any]:
    sides = {"low": row.low, "high": row.high}
    terms = [[*problem.item_names(item), value] for item, value in row.terms]
    return {"name": row.name, "terms": terms, **{k: v for k, v in sides.items() if math.isfinite(v)}}


def _document_from_source(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(source, Mapping):
        return source
    if isinstance(source, str) and source.lstrip().startswith("{"):
        text, where = source, "the text"
    else:
        where = str(source)
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise BadProblem(
                f"cannot read the problem {where!r}: {reason}", hint="give the path of a JSON file"
            ) from error
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadProblem(
            f"{where} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}",
            hint="write one JSON object",
        ) from error
    except (RecursionError, ValueError) as error:
        raise BadProblem(f"{where} is not usable JSON: {error}", hint="write one JSON object") from error
    if not isinstance(document, dict):
        raise BadProblem(f"{where} holds {kind_of(document)}, not an object", hint='begin with {"format": …}')
    return document


def _read_layers(layers: object) -> Problem:
    """Read all layers at once; only when something is odd, walk through them to name the fault."""
    entries = as_list(layers, "'layers'")
    try:
        names = tuple([layer["name"] for layer in entries])
        rows = [layer["candidates"] for layer in entries]
        flat = [candidate for row in rows for candidate in row]
        candidate_names = tuple([tuple([c["name"] for c in row]) for row in rows])
        cost_names = tuple(flat[0]["costs"]) if flat else ()
        keys = frozenset(cost_names)
        shaped = all(c.keys() == _CANDIDATE_KEYS and c["costs"].keys() == keys for c in flat) and all(
            len(layer) == 2 and isinstance(row, list) for layer, row in zip(entries, rows, strict=True)
        )
        columns = [[c["score"] for c in flat], *([c["costs"][k] for c in flat] for k in cost_names)]
        numeric = all(set(map(type, column)) <= {int, float} for column in columns)
        matrix = np.array(columns, dtype=np.float64) if shaped and numeric else None
    except (KeyError, TypeError, AttributeError, OverflowError):
        matrix = None
    if matrix is None:
        _explain_layers(entries)
    check_names(names, candidate_names)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in candidate_names])]).astype(np.int64)
    problem = Problem(
        layer_names=names,
        candidate_names=candidate_names,
        cost_names=cost_names,
        starts=starts,
        scores=matrix[0].copy(),
        costs=matrix[1:].copy(),
        fixed=np.zeros(len(cost_names)),
        is_max=(False,) * len(cost_names),
    )
    check_numbers(problem)
    return problem


def _explain_layers(entries: list[Any]) -> NoReturn:
    """Raise the BadProblem that names the first fault of the layers."""
    if not entries:
        raise BadProblem("the problem has no layers", hint="give at least one layer with one candidate")
    first: tuple[str, tuple[str, ...]] | None = None
    for position, layer in enumerate(entries):
        check_keys(layer, ("name", "candidates"), (), f"layer number {position + 1}")
        name = as_name(layer["name"], f"the name of layer number {position + 1}")
        candidates = as_list(layer["candidates"], f"'candidates' of layer {name!r}")
        for number, candidate in enumerate(candidates):
            where = f"candidate number {number + 1} of layer {name!r}"
            check_keys(candidate, ("name", "score", "costs"), (), where)
            where = f"layer {name!r}, candidate {as_name(candidate['name'], f'the name of {where}')!r}"
            as_number(candidate["score"], f"{where}: the score", negative=True)
            costs = candidate["costs"]
            if not isinstance(costs, Mapping):
                raise BadProblem(f"{where}: 'costs' is {kind_of(costs)}, not an object")
            first = first or (where, tuple(costs))
            read_costs(costs, first[1], where, f"as {first[0]} does")
    if first is None:
        raise BadProblem(f"layer {entries[0]['name']!r} has no candidates", hint="give it at least one")
    raise BadProblem(
        "the layers cannot be read as numbers", hint="compare them with the format's description"
    )
