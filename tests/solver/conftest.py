"""Small problems and the slow, obvious way to solve them."""

from __future__ import annotations

import itertools
import math
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

Document = dict[str, Any]


@dataclass(frozen=True)
class Best:
    """What trying everything finds: best score (None when nothing fits) and least value of each budgeted cost."""

    score: float | None
    least: Mapping[str, float]


def every_choice(document: Document) -> Iterator[list[tuple[str, Document]]]:
    """Yield every way to cover the layers by candidates and spans, as (key, candidate or span)."""
    layers = document["layers"]
    index = {layer["name"]: i for i, layer in enumerate(layers)}

    def from_layer(i: int) -> Iterator[list[tuple[str, Document]]]:
        if i == len(layers):
            yield []
            return
        name = layers[i]["name"]
        options = [(name, c, i + 1) for c in layers[i]["candidates"]]
        for span in document.get("spans", []):
            if span["first"] != name:
                continue
            options.append((f"{name}..{span['last']}", span, index[span["last"]] + 1))
        for key, option, after in options:
            for rest in from_layer(after):
                yield [(key, option), *rest]

    return from_layer(0)


def costs_of_choice(document: Document, choice: list[tuple[str, Document]]) -> dict[str, float]:
    """Return every cost of a choice, straight from the document."""
    names = {key: option["name"] for key, option in choice}
    found = {}
    for cost in document["layers"][0]["candidates"][0]["costs"]:
        values = [document.get("fixed", {}).get(cost, 0.0)] + [o["costs"][cost] for _, o in choice]
        for pair in document.get("pairs", []):
            a, b = pair["layers"]
            if pair["cost"] == cost:
                values += [v for x, y, v in pair["terms"] if names.get(a) == x and names.get(b) == y]
        found[cost] = max(values) if document.get("combine", {}).get(cost) == "max" else math.fsum(values)
    return found


def obeys_rules(document: Document, names: Mapping[str, str]) -> bool:
    """Return whether a choice keeps require, forbid and rows."""
    if any(names.get(key) not in listed for key, listed in document.get("require", {}).items()):
        return False
    if any(names.get(key) in listed for key, listed in document.get("forbid", {}).items()):
        return False
    for row in document.get("rows", []):
        total = math.fsum(v for key, name, v in row["terms"] if names.get(key) == name)
        if not row.get("low", -math.inf) <= total <= row.get("high", math.inf):
            return False
    return True


def try_everything(document: Document, budgets: Mapping[str, float]) -> Best:
    """Return the best of all choices."""
    best, least = None, dict.fromkeys(budgets, math.inf)
    for choice in every_choice(document):
        if not obeys_rules(document, {key: option["name"] for key, option in choice}):
            continue
        costs = costs_of_choice(document, choice)
        least = {name: min(value, costs[name]) for name, value in least.items()}
        if all(costs[name] <= b + 1e-12 * max(1.0, abs(b)) for name, b in budgets.items()):
            score = math.fsum(option["score"] for _, option in choice)
            best = score if best is None else max(best, score)
    return Best(best, least)


def random_number(rng: random.Random, style: str) -> float:
    """Return a number of a style: whole, float, one decimal, or 0 and 1 only (ties everywhere)."""
    if style == "whole":
        return float(rng.randint(0, 6))
    if style == "decimal":
        return rng.randint(0, 9) / 10
    return float(rng.randint(0, 1)) if style == "ties" else rng.random()


STYLES = ("whole", "float", "decimal", "ties")


def random_document(
    rng: random.Random, *, style: str, costs: tuple[str, ...], layers: int, most: int
) -> Document:
    """Return a problem with one to ``most`` candidates a layer and, half of the time, fixed costs of any sign."""

    def candidate(j: int) -> Document:
        score = random_number(rng, style) * (1 if rng.random() < 0.3 else -1)
        return {"name": f"c{j}", "score": score, "costs": {k: random_number(rng, style) for k in costs}}

    rows = [
        {"name": f"l{i}", "candidates": [candidate(j) for j in range(rng.randint(1, most))]}
        for i in range(layers)
    ]
    document: Document = {"format": "lanaprof-problem/1", "layers": rows}
    if rng.random() < 0.5:
        document["fixed"] = {k: random_number(rng, style) * rng.choice((-1, 1)) for k in costs}
    return document


def random_budgets(rng: random.Random, document: Document, style: str) -> dict[str, float]:
    """Return a budget on each cost, from hopeless to ample, often one that some choice meets exactly."""
    budgets = {}
    for cost in document["layers"][0]["candidates"][0]["costs"]:
        total = sum(random_number(rng, style) for _ in document["layers"]) * rng.choice((0.6, 1.0, 1.5))
        budgets[cost] = round(
            total + document.get("fixed", {}).get(cost, 0.0), 1 if style == "decimal" else 9
        )
    return budgets


def with_rules(rng: random.Random, document: Document, style: str) -> Document:
    """Return the document with some of: spans, pairs, combine, require, forbid, rows."""
    layers, costs = document["layers"], tuple(document["layers"][0]["candidates"][0]["costs"])
    found = dict(document)

    def candidate(i: int) -> str:
        return str(rng.choice(layers[i]["candidates"])["name"])

    if rng.random() < 0.4 and len(layers) > 1:
        ends = [sorted(rng.sample(range(len(layers)), 2)) for _ in range(2)]
        found["spans"] = [
            {
                "first": f"l{first}",
                "last": f"l{last}",
                "name": f"s{n}",
                "score": -random_number(rng, style),
                "costs": {k: 1.5 * random_number(rng, style) for k in costs},
            }
            for n, (first, last) in enumerate(ends)
        ]
    if rng.random() < 0.3:
        found["combine"] = {costs[-1]: "max"}
    if rng.random() < 0.5 and len(layers) > 1 and costs[0] not in found.get("combine", {}):
        i = rng.randrange(len(layers) - 1)
        terms = {(candidate(i), candidate(i + 1)): rng.uniform(-1, 1) for _ in range(4)}
        pair = {"layers": [f"l{i}", f"l{i + 1}"], "cost": costs[0]}
        found["pairs"] = [{**pair, "terms": [[a, b, v] for (a, b), v in terms.items()]}]
    for rule, chance in (("require", 0.3), ("forbid", 0.3)):
        if rng.random() < chance:
            i = rng.randrange(len(layers))
            found[rule] = {f"l{i}": [candidate(i)]}
    if rng.random() < 0.4:
        chosen = {(f"l{i}", candidate(i)): rng.choice((-1.0, 1.0, 2.0)) for i in range(len(layers))}
        row = {"name": "row", "terms": [[a, b, v] for (a, b), v in itertools.islice(chosen.items(), 3)]}
        found["rows"] = [{**row, rng.choice(("low", "high")): float(rng.choice((-1, 0, 1)))}]
    return found


def with_neighbours(rng: random.Random, document: Document, style: str) -> Document:
    """Return the document with spans and with dense pairs between many neighbours, all of the first cost."""
    layers = document["layers"]
    costs = tuple(layers[0]["candidates"][0]["costs"])
    spans: list[Document] = []
    for number in range(rng.randint(0, 3) if len(layers) > 1 else 0):
        first, last = sorted(rng.sample(range(len(layers)), 2))
        span = {"first": f"l{first}", "last": f"l{last}", "name": f"s{number}"}
        worth = {k: (last - first) * random_number(rng, style) for k in costs}
        spans.append({**span, "score": -random_number(rng, style), "costs": worth})
    pairs: list[Document] = []
    for i in range(len(layers) - 1):
        if rng.random() < 0.7:
            sides = (i, i + 1) if rng.random() < 0.8 else (i + 1, i)
            every = [[a["name"], b["name"]] for a in layers[sides[0]]["candidates"]
                     for b in layers[sides[1]]["candidates"]]  # fmt: skip
            some = rng.sample(every, rng.randint(1, len(every)))
            terms = [[*both, rng.choice((-1, 1)) * random_number(rng, style)] for both in some]
            pairs.append({"layers": [f"l{side}" for side in sides], "cost": costs[0], "terms": terms})
    return {**document, "spans": spans, "pairs": pairs}


@pytest.fixture(scope="session")
def cases() -> Any:
    """This module: test files imported by path cannot import from each other."""
    return sys.modules[__name__]


@pytest.fixture
def document() -> Document:
    """A small problem: two layers, a teacher and cheaper candidates, two costs."""
    return {
        "format": "lanaprof-problem/1",
        "layers": [
            {
                "name": "blocks.0",
                "candidates": [
                    {"name": "teacher", "score": 0.0, "costs": {"latency_s@cpu": 1.2e-4, "params": 1200}},
                    {"name": "skip", "score": -0.31, "costs": {"latency_s@cpu": 0.0, "params": 0}},
                ],
            },
            {
                "name": "blocks.1",
                "candidates": [
                    {"name": "teacher", "score": 0.0, "costs": {"latency_s@cpu": 2.0e-4, "params": 900}},
                    {"name": "conv3", "score": -0.1, "costs": {"latency_s@cpu": 0.5e-4, "params": 400}},
                ],
            },
        ],
        "fixed": {"latency_s@cpu": 3.1e-4, "params": 50},
    }
