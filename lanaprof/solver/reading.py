"""Problems read from and written to JSON (``lanaprof-problem/1``), with every fault named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from lanaprof.errors import BadProblem
from lanaprof.solver.problem import (
    Pair,
    Problem,
    Row,
    Span,
    check_names,
    check_numbers,
    frozen,
)

__all__ = ["PROBLEM_FORMAT", "load_problem", "problem_to_json", "read_optional"]

PROBLEM_FORMAT = "lanaprof-problem/1"
_OPTIONAL = ("fixed", "combine", "spans", "pairs", "require", "forbid", "rows")
_CANDIDATE_KEYS = frozenset(("name", "score", "costs"))


def load_problem(source: str | Path | Mapping[str, Any]) -> Problem:
    """Return the checked problem in a file, in a JSON text (it starts with a brace), or in a parsed document.

    Raises:
        BadProblem: the source cannot be read, or is no sound problem; layer and candidate are named.
    """
    document = _document_from_source(source)
    _check_keys(document, ("format", "layers"), _OPTIONAL, "the problem")
    if document["format"] != PROBLEM_FORMAT:
        raise BadProblem(
            f"the problem's format is {document['format']!r}; this version reads {PROBLEM_FORMAT!r}",
            hint=f'write "format": "{PROBLEM_FORMAT}"',
        )
    bare = _read_layers(document["layers"])
    return frozen(read_optional(bare, {k: v for k, v in document.items() if k in _OPTIONAL}))


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
        raise BadProblem(f"{where} holds {_kind(document)}, not an object", hint='begin with {"format": …}')
    return document


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _check_keys(value: object, needed: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    if not isinstance(value, Mapping):
        raise BadProblem(f"{where} is {_kind(value)}, not an object")
    for key in needed:
        if key not in value:
            raise BadProblem(f"{where} has no key {key!r}", hint=f"needed: {', '.join(needed)}")
    for key in value:
        if key not in needed and key not in optional:
            known = ", ".join((*needed, *optional))
            raise BadProblem(f"{where} has the unknown key {key!r}", hint=f"known: {known}")


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise BadProblem(f"{where} is {_kind(value)}, not a list")
    return list(value)


def _number(value: object, where: str, *, negative: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadProblem(f"{where} is {_kind(value)}, not a number")
    try:
        number = float(value)
    except OverflowError as error:
        raise BadProblem(f"{where} is too large") from error
    if not math.isfinite(number):
        raise BadProblem(f"{where} is {number}, not a finite number")
    if number < 0 and not negative:
        raise BadProblem(f"{where} is {number}; it may not be negative")
    return number


def _read_layers(layers: object) -> Problem:
    """Read all layers at once; only when something is odd, walk through them to name the fault."""
    entries = _list(layers, "'layers'")
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
        _check_keys(layer, ("name", "candidates"), (), f"layer number {position + 1}")
        name = _name(layer["name"], f"the name of layer number {position + 1}")
        candidates = _list(layer["candidates"], f"'candidates' of layer {name!r}")
        for number, candidate in enumerate(candidates):
            where = f"candidate number {number + 1} of layer {name!r}"
            _check_keys(candidate, ("name", "score", "costs"), (), where)
            where = f"layer {name!r}, candidate {_name(candidate['name'], f'the name of {where}')!r}"
            _number(candidate["score"], f"{where}: the score", negative=True)
            costs = candidate["costs"]
            if not isinstance(costs, Mapping):
                raise BadProblem(f"{where}: 'costs' is {_kind(costs)}, not an object")
            first = first or (where, tuple(costs))
            _read_costs(costs, first[1], where, f"as {first[0]} does")
    if first is None:
        raise BadProblem(f"layer {entries[0]['name']!r} has no candidates", hint="give it at least one")
    raise BadProblem(
        "the layers cannot be read as numbers", hint="compare them with the format's description"
    )


def _name(value: object, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadProblem(f"{where} is {value!r}, not a text", hint="name it by a text that is not empty")
    return value


def _read_costs(costs: object, names: tuple[str, ...], where: str, why: str) -> tuple[float, ...]:
    """Return one cost a name, in the order of the names."""
    if not isinstance(costs, Mapping):
        raise BadProblem(f"{where}: 'costs' is {_kind(costs)}, not an object")
    for name in names:
        if name not in costs:
            raise BadProblem(f"{where}: the cost {name!r} is missing", hint=f"give it a value, {why}")
    for name in costs:
        if name not in names:
            raise BadProblem(
                f"{where}: the cost {name!r} is not carried by all candidates",
                hint=f"every candidate carries the same costs: {', '.join(names) or 'none'}",
            )
    return tuple(_number(costs[n], f"{where}: the cost {n!r}", negative=False) for n in names)


class _Names:
    """Looks up layers, spans and their items by name."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.layers = {name: i for i, name in enumerate(problem.layer_names)}
        self.spans: dict[str, dict[str, int]] = {}
        for number, span in enumerate(problem.spans):
            key = problem.span_key(span)
            self.spans.setdefault(key, {})[span.name] = problem.candidate_count + number

    def layer(self, name: object, where: str) -> int:
        if not isinstance(name, str) or name not in self.layers:
            raise BadProblem(
                f"{where}: there is no layer {name!r}", hint=f"known: {_some(self.problem.layer_names)}"
            )
        return self.layers[name]

    def candidate(self, layer: int, name: object, where: str) -> int:
        known = self.problem.candidate_names[layer]
        if not isinstance(name, str) or name not in known:
            raise BadProblem(
                f"{where}: layer {self.problem.layer_names[layer]!r} has no candidate {name!r}",
                hint=f"known: {_some(known)}",
            )
        return int(self.problem.starts[layer]) + known.index(name)

    def item(self, key: object, name: object, where: str) -> int:
        """Return the item of a layer's candidate, or of a span under its key ``first..last``."""
        if isinstance(key, str) and key in self.spans:
            if name not in self.spans[key]:
                raise BadProblem(
                    f"{where}: span {key!r} has no candidate {name!r}",
                    hint=f"known: {_some(tuple(self.spans[key]))}",
                )
            return self.spans[key][str(name)]
        return self.candidate(self.layer(key, where), name, where)


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:8])
    return shown if len(names) <= 8 else f"{shown}, … ({len(names)} in all)"


def read_optional(problem: Problem, document: Mapping[str, Any]) -> Problem:
    """Return the problem with the optional keys of the format added.

    Raises:
        BadProblem: a key is unknown, or names what the layers do not have.
    """
    _check_keys(document, (), _OPTIONAL, "the problem")
    if not document:
        return problem
    known = problem.cost_names
    fixed = _read_per_cost(document.get("fixed", {}), known, "fixed")
    values = [_number(fixed.get(c, 0.0), f"'fixed' of {c!r}", negative=True) for c in known]
    combine = _read_per_cost(document.get("combine", {}), known, "combine")
    for cost, how in combine.items():
        if how not in ("sum", "max"):
            raise BadProblem(f"'combine' of {cost!r} is {how!r}", hint="known: sum, max")
    problem = replace(
        problem, fixed=np.array(values), is_max=tuple(combine.get(cost) == "max" for cost in known)
    )
    problem = _with_spans(problem, _list(document.get("spans", []), "'spans'"))
    names = _Names(problem)
    pairs = [_read_pair(names, pair) for pair in _list(document.get("pairs", []), "'pairs'")]
    rows = [_read_row(names, row) for row in _list(document.get("rows", []), "'rows'")]
    titles = [row.name for row in rows]
    for title in titles:
        if titles.count(title) > 1:
            raise BadProblem(f"two rows are named {title!r}", hint="give every row its own name")
    return replace(
        problem,
        pairs=tuple(pairs),
        rows=tuple(rows),
        require=_read_items(names, document.get("require", {}), "require"),
        forbid=_read_items(names, document.get("forbid", {}), "forbid"),
    )


def _read_per_cost(value: object, known: tuple[str, ...], what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadProblem(f"'{what}' is {_kind(value)}, not an object")
    for cost in value:
        if cost not in known:
            raise BadProblem(
                f"'{what}' names the cost {cost!r}, which no candidate carries",
                hint=f"known: {', '.join(known) or 'none'}",
            )
    return value


def _with_spans(problem: Problem, entries: list[Any]) -> Problem:
    names = _Names(problem)
    spans: list[Span] = []
    for number, entry in enumerate(entries):
        where = f"span number {number + 1}"
        _check_keys(entry, ("first", "last", "name", "score", "costs"), (), where)
        first, last = (names.layer(entry[side], where) for side in ("first", "last"))
        where = f"span {entry['first']}..{entry['last']}, candidate {_name(entry['name'], where)!r}"
        if last <= first:
            raise BadProblem(
                f"{where}: {entry['last']!r} does not come after {entry['first']!r}",
                hint="a span covers two or more consecutive layers, first before last",
            )
        score = _number(entry["score"], f"{where}: the score", negative=True)
        costs = _read_costs(entry["costs"], problem.cost_names, where, "as every candidate does")
        spans.append(Span(first, last, entry["name"], score, costs))
    seen = set()
    for span in spans:
        key = problem.span_key(span)
        if key in names.layers:
            raise BadProblem(f"a layer has the name of the span {key!r}", hint="rename the layer")
        if (key, span.name) in seen:
            raise BadProblem(f"two spans {key!r} are named {span.name!r}", hint="give each its own name")
        seen.add((key, span.name))
    if not spans:
        return problem
    return replace(
        problem,
        spans=tuple(spans),
        scores=np.concatenate([problem.scores, [span.score for span in spans]]),
        costs=np.hstack([problem.costs, np.array([span.costs for span in spans]).T]),
    )


def _read_pair(names: _Names, entry: object) -> Pair:
    _check_keys(entry, ("layers", "cost", "terms"), (), "a pair")
    assert isinstance(entry, Mapping)
    problem = names.problem
    layers = _list(entry["layers"], "'layers' of a pair")
    where = f"the pair {layers}"
    if len(layers) != 2:
        raise BadProblem(f"{where} names {len(layers)} layers", hint="a pair has two layers")
    a, b = (names.layer(layer, where) for layer in layers)
    if a == b:
        raise BadProblem(f"{where} names one layer twice", hint="a pair has two layers")
    cost = entry["cost"]
    if cost not in problem.cost_names:
        raise BadProblem(f"{where}: no candidate carries the cost {cost!r}", hint=_some(problem.cost_names))
    index = problem.cost_names.index(cost)
    if problem.is_max[index]:
        raise BadProblem(f"{where}: {cost!r} combines by maximum", hint="pairs correct summed costs only")
    terms: dict[tuple[int, int], float] = {}
    for term in _list(entry["terms"], f"'terms' of {where}"):
        parts = _list(term, f"a term of {where}")
        if len(parts) != 3:
            raise BadProblem(
                f"{where}: the term {parts} has {len(parts)} parts", hint="[candidate, candidate, value]"
            )
        both = (names.candidate(a, parts[0], where), names.candidate(b, parts[1], where))
        if both in terms:
            raise BadProblem(f"{where}: {parts[0]!r} and {parts[1]!r} have two terms", hint="add them up")
        terms[both] = _number(parts[2], f"{where}: the value of {parts[0]!r} and {parts[1]!r}", negative=True)
    return Pair((a, b), index, tuple((i, j, value) for (i, j), value in terms.items()))


def _read_row(names: _Names, entry: object) -> Row:
    _check_keys(entry, ("name", "terms"), ("low", "high"), "a row")
    assert isinstance(entry, Mapping)
    where = f"the row {_name(entry['name'], 'the name of a row')!r}"
    sides = {"low": -math.inf, "high": math.inf}
    for side in sides:
        if entry.get(side) is not None:
            sides[side] = _number(entry[side], f"{where}: {side!r}", negative=True)
    if math.isinf(sides["low"]) and math.isinf(sides["high"]):
        raise BadProblem(f"{where} has neither 'low' nor 'high'", hint="give one of them")
    if sides["low"] > sides["high"]:
        raise BadProblem(f"{where}: 'low' {sides['low']} is above 'high' {sides['high']}")
    terms: dict[int, float] = {}
    for term in _list(entry["terms"], f"'terms' of {where}"):
        parts = _list(term, f"a term of {where}")
        if len(parts) != 3:
            raise BadProblem(
                f"{where}: the term {parts} has {len(parts)} parts", hint="[layer, candidate, coefficient]"
            )
        item = names.item(parts[0], parts[1], where)
        if item in terms:
            raise BadProblem(f"{where}: {parts[0]!r}, {parts[1]!r} has two terms", hint="add them up")
        terms[item] = _number(parts[2], f"{where}: the coefficient of {parts[1]!r}", negative=True)
    return Row(entry["name"], tuple(terms.items()), sides["low"], sides["high"])


def _read_items(names: _Names, entry: object, what: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(entry, Mapping):
        raise BadProblem(f"'{what}' is {_kind(entry)}, not an object")
    found = []
    for key, value in entry.items():
        where = f"'{what}' of {key!r}"
        if key not in names.spans:
            names.layer(key, where)
        items = [names.item(key, name, where) for name in _list(value, where)]
        if what == "require" and not items:
            raise BadProblem(f"{where} lists no candidate", hint="list those that may stand there")
        found.append((key, tuple(items)))
    return tuple(found)
