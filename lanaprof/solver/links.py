"""The chain of a problem: which items can matter, what they mean to their neighbours, and where it falls apart."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

import numpy as np

from lanaprof.solver.chain import Chain, Stop
from lanaprof.solver.problem import Bools, Floats, Ints, Problem
from lanaprof.solver.stairs import power_of_two, rises, starts_of, thin

__all__ = ["Terms", "build_chain", "neighbour_terms"]


@dataclass(frozen=True, slots=True)
class Terms:
    """Corrections of one cost, (terms,) each: at which boundary, between which items, how much."""

    boundary: Ints
    before: Ints
    after: Ints
    value: Floats


def neighbour_terms(problem: Problem, k: int) -> Terms | None:
    """Return the pair terms of a cost, boundary by boundary; None when a pair joins layers that are no neighbours."""
    parts: list[tuple[Ints, Ints, Ints, Floats]] = []
    for pair in problem.pairs:
        if pair.cost != k or not pair.terms:
            continue
        first, last = sorted(pair.layers)
        if last != first + 1:
            return None
        # Items are exact as floats; reading all numbers in one go is several times faster than tuple by tuple.
        flat = np.fromiter(itertools.chain.from_iterable(pair.terms), np.float64, 3 * len(pair.terms))
        a, b = flat[0::3].astype(np.int64), flat[1::3].astype(np.int64)
        before, after = (a, b) if pair.layers[0] == first else (b, a)
        parts.append((np.full(len(a), last), before, after, flat[2::3]))
    if not parts:
        none = np.zeros(0, dtype=np.int64)
        return Terms(none, none, none, np.zeros(0))
    boundary, before_, after_, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(boundary, kind="stable")
    return Terms(boundary[order], before_[order], after_[order], value[order])


def build_chain(
    problem: Problem, k: int | None, allowed: Bools, *, terms: Terms, room: float
) -> Chain | None:
    """Return the chain of the allowed items; None when they make no path that costs at most the room.

    Args:
        problem: the problem.
        k: index of the summed cost; None when none matters.
        allowed: (items,).
        terms: the pair terms of the cost.
        room: what all items and terms of a choice may cost; items no such choice has are left out.
    """
    items = np.flatnonzero(allowed)
    first, last = _ends(problem, items)
    usable = _usable(first, last, len(problem.layer_names))
    if usable is None:
        return None
    items, first, last = items[usable], first[usable], last[usable]
    cost = problem.costs[k, items] if k is not None else np.zeros(len(items))
    if len(terms.value):
        better = _unbeaten(items, (first, last), cost, problem.scores[items], terms)
        items, first, last, cost = items[better], first[better], last[better], cost[better]
    raw = _raw_chain(problem, items, (first, last), cost, terms)
    cheapest = -raw.cost[raw.firsts]
    entries, exits = raw.forward(cheapest, 1.0)
    onward = raw.backward(cheapest, 1.0)
    least = -math.fsum(exits[raw.block_exits].tolist())
    detour = entries[raw.entry] + onward[raw.exit] - exits[raw.block_exits][raw.block]
    within = raw.cost - detour[raw.group] <= room - least
    if not within.all():
        if not within.any():
            return None
        fewer = np.zeros(len(allowed), dtype=np.bool_)
        fewer[raw.item[within]] = True
        # With every item its best path is within, so that the second time nothing falls out.
        return build_chain(problem, k, fewer, terms=terms, room=math.inf)
    return _shifted(raw, entries=-entries, exits=-exits, least=least)


def _ends(problem: Problem, items: Ints) -> tuple[Ints, Ints]:
    """Return the first boundary of each item and its last."""
    first = np.searchsorted(problem.starts, items, side="right") - 1
    last = first + 1
    for at in range(int(np.searchsorted(items, problem.candidate_count)), len(items)):
        span = problem.spans[int(items[at]) - problem.candidate_count]
        first[at], last[at] = span.first, span.last + 1
    return first, last


def _usable(first: Ints, last: Ints, layers: int) -> Bools | None:
    """Return which items lie on a path from the first boundary to the last; None when there is no path."""
    is_span = last > first + 1
    single = np.zeros(layers, dtype=np.bool_)
    single[first[~is_span]] = True
    if not is_span.any():
        return np.ones(len(first), dtype=np.bool_) if single.all() else None
    onward: list[list[int]] = [[at + 1] if is_there else [] for at, is_there in enumerate(single.tolist())]
    for a, b in sorted(set(zip(first[is_span].tolist(), last[is_span].tolist(), strict=True))):
        onward[a].append(b)
    reached, leads = np.zeros(layers + 1, dtype=np.bool_), np.zeros(layers + 1, dtype=np.bool_)
    reached[0] = leads[layers] = True
    for a in range(layers):
        reached[onward[a]] |= reached[a]
    for a in range(layers - 1, -1, -1):
        leads[a] = leads[onward[a]].any()
    usable: Bools = reached[first] & leads[last]
    return usable if leads[0] else None


def _unbeaten(items: Ints, ends: tuple[Ints, Ints], cost: Floats, score: Floats, terms: Terms) -> Bools:
    """Return which items no other over the same layers beats, whatever stands before and behind them.

    One beats another when it scores no less and, at its worst neighbours, costs no more than the other at its best.
    """
    least, most = _corrections(items, terms)
    low, high = cost + least, cost + most
    count = len(items)
    rank = np.empty(2 * count, dtype=np.int64)  # whole numbers, so that the groups can be kept apart
    rank[np.argsort(np.concatenate([high, low]), kind="stable")] = np.arange(2 * count)
    order = np.lexsort((high, -score, ends[1], ends[0]))
    starts = np.concatenate([[False], (np.diff(ends[0][order]) != 0) | (np.diff(ends[1][order]) != 0)])
    apart = np.cumsum(starts) * (2 * count + 1)
    lowest = np.minimum.accumulate(rank[:count][order] - apart)
    better = np.ones(count, dtype=np.bool_)
    # Only those ahead in the order count, whose score is as good: so no two ever beat each other.
    better[order[1:]] = starts[1:] | ((rank[count:][order] - apart)[1:] < lowest[:-1])
    return better


def _corrections(items: Ints, terms: Terms) -> tuple[Floats, Floats]:
    """Return the least and the most that the terms may add to each item's cost, (items,)."""
    size = 1 + int(max(items.max(), terms.before.max(), terms.after.max()))
    held = np.zeros(size, dtype=np.bool_)
    held[items] = True
    both = held[terms.before] & held[terms.after]
    least, most = np.zeros(len(items)), np.zeros(len(items))
    position = np.cumsum(held) - 1
    order = np.argsort(items)
    for side in (terms.before, terms.after):
        at = order[position[side[both]]]
        lower, upper = np.zeros((2, len(items)))  # a neighbour without a term adds nothing
        np.minimum.at(lower, at, terms.value[both])
        np.maximum.at(upper, at, terms.value[both])
        least += lower
        most += upper
    return least, most


def _raw_chain(problem: Problem, items: Ints, ends: tuple[Ints, Ints], cost: Floats, terms: Terms) -> Chain:
    """Return the chain with costs and scores as they are."""
    first, last = ends
    boundaries = len(problem.layer_names) + 1
    cost, entry, exit_, tables = _classes(items, ends, cost, terms)
    entry_starts = _state_starts(first, boundaries, {p: t.shape[1] for p, t in tables.items()})
    exit_starts = _state_starts(last, boundaries, {p: t.shape[0] for p, t in tables.items()})
    entry, exit_ = entry + entry_starts[first], exit_ + exit_starts[last]
    key = exit_ * int(entry_starts[-1]) + entry
    order = np.argsort(key, kind="stable")
    group = np.cumsum(np.concatenate([[False], np.diff(key[order]) > 0]))
    score = problem.scores[items]
    group, order, thin_cost, thin_score = thin(group, order, cost[order], score[order])
    by_cost = np.lexsort((-thin_score, thin_cost, group))
    group, order = group[by_cost], order[by_cost]
    keep = rises(group, thin_score[by_cost])
    group, order = group[keep], order[keep]
    firsts = starts_of(group)[:-1]
    head = order[firsts]
    cuts = np.setdiff1d(_cuts(first, last, boundaries), list(tables))
    block = np.searchsorted(cuts, first[head], side="right") - 1
    is_lone = np.diff(cuts) == 1
    chain = Chain(
        item=items[order],
        cost=cost[order],
        score=score[order],
        group=group,
        firsts=firsts,
        entry=entry[head],
        exit=exit_[head],
        block=block,
        block_exits=exit_starts[cuts[1:]],
        lone=is_lone[block],
        entry_starts=entry_starts,
        exit_starts=exit_starts,
        long=tuple((int(cuts[i]), int(cuts[i + 1])) for i in np.flatnonzero(~is_lone)),
        stops={},
        tables=tables,
    )
    return replace(chain, stops=_stops(chain))


def _state_starts(boundary: Ints, boundaries: int, several: dict[int, int]) -> Ints:
    """Return where each boundary's states begin: one where an item touches it, or as many as its table has."""
    counts = np.zeros(boundaries, dtype=np.int64)
    counts[boundary] = 1
    for at, count in several.items():
        counts[at] = count
    return np.concatenate([[0], np.cumsum(counts)])


def _cuts(first: Ints, last: Ints, boundaries: int) -> Ints:
    """Return the boundaries that no item crosses."""
    crossed = np.zeros(boundaries + 1, dtype=np.int64)
    np.add.at(crossed, first + 1, 1)
    np.add.at(crossed, last, -1)
    return np.flatnonzero(np.cumsum(crossed[:-1]) == 0)


def _classes(
    items: Ints, ends: tuple[Ints, Ints], cost: Floats, terms: Terms
) -> tuple[Floats, Ints, Ints, dict[int, Floats]]:
    """Return the items' costs, their classes as entries and exits, and the tables of boundaries with several.

    Where one row or one column is left, its terms are costs of the items and the boundary needs no table.
    """
    entry, exit_ = np.zeros(len(items), dtype=np.int64), np.zeros(len(items), dtype=np.int64)
    tables: dict[int, Floats] = {}
    if len(terms.value) == 0:
        return cost, entry, exit_, tables
    cost = cost.copy()
    size = 1 + max(int(items[-1]), int(terms.before.max()), int(terms.after.max()))
    position = np.full(size, -1)
    position[items] = np.arange(len(items))
    before, after = position[terms.before], position[terms.after]
    held = np.flatnonzero((before >= 0) & (after >= 0))
    beginning, ending = np.bincount(ends[0]), np.bincount(ends[1])
    for run in np.split(held, np.flatnonzero(np.diff(terms.boundary[held])) + 1):
        if len(run) == 0:
            continue
        boundary = int(terms.boundary[run[0]])
        rows, row = np.unique(before[run], return_inverse=True)
        columns, column = np.unique(after[run], return_inverse=True)
        table = np.zeros((len(rows) + 1, len(columns) + 1))  # the first ones are those without terms, if any
        np.add.at(table, (row + 1, column + 1), terms.value[run])
        table = table[int(ending[boundary] == len(rows)) :, int(beginning[boundary] == len(columns)) :]
        row_class, row_heads = _distinct(table)
        column_class, column_heads = _distinct(table.T)
        table = table[row_heads][:, column_heads]
        if table.shape[1] == 1:
            cost[rows] += table[row_class[-len(rows) :], 0]
        elif table.shape[0] == 1:
            cost[columns] += table[0, column_class[-len(columns) :]]
        else:
            exit_[rows], entry[columns] = row_class[-len(rows) :], column_class[-len(columns) :]
            tables[boundary] = table
    return cost, entry, exit_, tables


def _distinct(table: Floats) -> tuple[Ints, list[int]]:
    """Return the class of each row, equal rows sharing one, and the first row of each class."""
    seen: dict[bytes, int] = {}
    heads: list[int] = []
    classes = np.empty(len(table), dtype=np.int64)
    for number, row in enumerate(np.ascontiguousarray(table) + 0.0):  # -0.0 becomes 0.0
        classes[number] = at = seen.setdefault(row.tobytes(), len(seen))
        if at == len(heads):
            heads.append(number)
    return classes, heads


def _stops(chain: Chain) -> dict[int, Stop]:
    """Return the boundaries behind the first of each long block, in order."""
    by_entry = np.argsort(chain.entry, kind="stable")
    ordered_entries = chain.entry[by_entry]
    none = np.zeros(0, dtype=np.int64)
    stops = {}
    for first, last in chain.long:
        for boundary in range(first + 1, last + 1):
            exits = slice(*chain.exit_starts[boundary : boundary + 2].tolist())
            if exits.start == exits.stop:
                continue  # every item spans it
            arriving = slice(*np.searchsorted(chain.exit, [exits.start, exits.stop]).tolist())
            entries = slice(*chain.entry_starts[boundary : boundary + 2].tolist())
            departing = by_entry[slice(*np.searchsorted(ordered_entries, [entries.start, entries.stop]))]
            is_end = boundary == last
            stops[boundary] = Stop(
                boundary=boundary,
                arriving=arriving,
                arriving_entries=chain.entry[arriving],
                arriving_firsts=starts_of(chain.exit[arriving])[:-1],
                exits=exits,
                is_end=is_end,
                entries=entries,
                departing=none if is_end else departing,
                departing_exits=none if is_end else chain.exit[departing],
                departing_firsts=none if is_end else starts_of(chain.entry[departing])[:-1],
            )
    return stops


def _shifted(raw: Chain, *, entries: Floats, exits: Floats, least: float) -> Chain:
    """Return the chain with costs counted from the cheapest path and scores from the best, near 1.

    Args:
        raw: as the problem has it.
        entries: the least cost from the block's beginning to each entry.
        exits: likewise to each exit.
        least: the cheapest path's cost.
    """
    best = np.maximum.reduceat(raw.score, raw.firsts)
    best_entries, best_exits = raw.forward(best, 0.0)
    tops = best_exits.copy()  # the best at the exit's boundary: entries have it already
    for stop in raw.stops.values():
        tops[stop.exits] = best_exits[stop.exits].max()
    cost = raw.cost + (entries[raw.entry] - exits[raw.exit])[raw.group]
    score = raw.score + (best_entries[raw.entry] - tops[raw.exit])[raw.group]
    tables = {
        boundary: np.maximum(
            table + exits[raw.stops[boundary].exits, None] - entries[None, raw.stops[boundary].entries], 0.0
        )
        for boundary, table in raw.tables.items()
    }
    cost, score = np.maximum(cost, 0.0), np.minimum(score, 0.0)
    dearest = max([float(cost.max()), *(float(table.max()) for table in tables.values())])
    cost_scale, score_scale = power_of_two(dearest), power_of_two(-float(score.min()))
    return replace(
        raw,
        cost=cost / cost_scale,
        score=score / score_scale,
        tables={boundary: table / cost_scale for boundary, table in tables.items()},
        least_cost=least,
        top_score=math.fsum(best_exits[raw.block_exits].tolist()),
        cost_scale=cost_scale,
        score_scale=score_scale,
    )
