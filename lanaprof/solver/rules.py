"""The optional keys of a problem: fixed costs, combine, spans, pairs, require, forbid and rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from lanaprof.errors import BadProblem
from lanaprof.solver.fields import as_list, as_name, as_number, check_keys, kind_of, read_costs
from lanaprof.solver.problem import Pair, Problem, Row, Span

__all__ = ["OPTIONAL_KEYS", "read_optional"]

OPTIONAL_KEYS = ("fixed", "combine", "spans", "pairs", "require", "forbid", "rows")


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

    def items_of(self, layer: int) -> dict[str, int]:
        """Return the item of each candidate of a layer by its name."""
        start = int(self.problem.starts[layer])
        return {name: start + at for at, name in enumerate(self.problem.candidate_names[layer])}

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
    check_keys(document, (), OPTIONAL_KEYS, "the problem")
    if not document:
        return problem
    known = problem.cost_names
    fixed = _read_per_cost(document.get("fixed", {}), known, "fixed")
    values = [as_number(fixed.get(c, 0.0), f"'fixed' of {c!r}", negative=True) for c in known]
    combine = _read_per_cost(document.get("combine", {}), known, "combine")
    for cost, how in combine.items():
        if how not in ("sum", "max"):
            raise BadProblem(f"'combine' of {cost!r} is {how!r}", hint="known: sum, max")
    problem = replace(
        problem, fixed=np.array(values), is_max=tuple(combine.get(cost) == "max" for cost in known)
    )
    problem = _with_spans(problem, as_list(document.get("spans", []), "'spans'"))
    names = _Names(problem)
    pairs = [_read_pair(names, pair) for pair in as_list(document.get("pairs", []), "'pairs'")]
    rows = [_read_row(names, row) for row in as_list(document.get("rows", []), "'rows'")]
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
        raise BadProblem(f"'{what}' is {kind_of(value)}, not an object")
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
        check_keys(entry, ("first", "last", "name", "score", "costs"), (), where)
        first, last = (names.layer(entry[side], where) for side in ("first", "last"))
        where = f"span {entry['first']}..{entry['last']}, candidate {as_name(entry['name'], where)!r}"
        if last <= first:
            raise BadProblem(
                f"{where}: {entry['last']!r} does not come after {entry['first']!r}",
                hint="a span covers two or more consecutive layers, first before last",
            )
        score = as_number(entry["score"], f"{where}: the score", negative=True)
        costs = read_costs(entry["costs"], problem.cost_names, where, "as every candidate does")
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
    check_keys(entry, ("layers", "cost", "terms"), (), "a pair")
    assert isinstance(entry, Mapping)
    problem = names.problem
    layers = as_list(entry["layers"], "'layers' of a pair")
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
    here, there = names.items_of(a), names.items_of(b)
    for term in as_list(entry["terms"], f"'terms' of {where}"):
        # Spaces of mixed precision have hundreds of thousands of terms: only odd ones are looked at closely.
        is_plain = isinstance(term, (list, tuple)) and len(term) == 3 and type(term[2]) is float
        if is_plain and isinstance(term[0], str) and isinstance(term[1], str) and math.isfinite(term[2]):
            both = (here.get(term[0], -1), there.get(term[1], -1))
            if min(both) >= 0 and both not in terms:
                terms[both] = term[2]
                continue
        _read_term(names, (a, b), term, where, terms)
    return Pair((a, b), index, tuple((i, j, value) for (i, j), value in terms.items()))


def _read_term(
    names: _Names, layers: tuple[int, int], term: object, where: str, terms: dict[tuple[int, int], float]
) -> None:
    """Add a term to the others, or raise BadProblem that says what is wrong with it."""
    parts = as_list(term, f"a term of {where}")
    if len(parts) != 3:
        raise BadProblem(
            f"{where}: the term {parts} has {len(parts)} parts", hint="[candidate, candidate, value]"
        )
    both = (names.candidate(layers[0], parts[0], where), names.candidate(layers[1], parts[1], where))
    if both in terms:
        raise BadProblem(f"{where}: {parts[0]!r} and {parts[1]!r} have two terms", hint="add them up")
    terms[both] = as_number(parts[2], f"{where}: the value of {parts[0]!r} and {parts[1]!r}", negative=True)


def _read_row(names: _Names, entry: object) -> Row:
    check_keys(entry, ("name", "terms"), ("low", "high"), "a row")
    assert isinstance(entry, Mapping)
    where = f"the row {as_name(entry['name'], 'the name of a row')!r}"
    sides = {"low": -math.inf, "high": math.inf}
    for side in sides:
        if entry.get(side) is not None:
            sides[side] = as_number(entry[side], f"{where}: {side!r}", negative=True)
    if math.isinf(sides["low"]) and math.isinf(sides["high"]):
        raise BadProblem(f"{where} has neither 'low' nor 'high'", hint="give one of them")
    if sides["low"] > sides["high"]:
        raise BadProblem(f"{where}: 'low' {sides['low']} is above 'high' {sides['high']}")
    terms: dict[int, float] = {}
    for term in as_list(entry["terms"], f"'terms' of {where}"):
        parts = as_list(term, f"a term of {where}")
        if len(parts) != 3:
            raise BadProblem(
                f"{where}: the term {parts} has {len(parts)} parts", hint="[layer, candidate, coefficient]"
            )
        item = names.item(parts[0], parts[1], where)
        if item in terms:
            raise BadProblem(f"{where}: {parts[0]!r}, {parts[1]!r} has two terms", hint="add them up")
        terms[item] = as_number(parts[2], f"{where}: the coefficient of {parts[1]!r}", negative=True)
    return Row(entry["name"], tuple(terms.items()), sides["low"], sides["high"])


def _read_items(names: _Names, entry: object, what: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    if not isinstance(entry, Mapping):
        raise BadProblem(f"'{what}' is {kind_of(entry)}, not an object")
    found = []
    for key, value in entry.items():
        where = f"'{what}' of {key!r}"
        if key not in names.spans:
            names.layer(key, where)
        items = [names.item(key, name, where) for name in as_list(value, where)]
        if what == "require" and not items:
            raise BadProblem(f"{where} lists no candidate", hint="list those that may stand there")
        found.append((key, tuple(items)))
    return tuple(found)
