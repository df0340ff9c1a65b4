"""lut compare: the same operators in two databases, environments, teams or times, per cache state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from lanaprof.config import parse_device
from lanaprof.errors import BadInput, BadProject
from lanaprof.flows.operators import find_operators
from lanaprof.flows.project import load_project
from lanaprof.flows.sources import choose_in_source, find_config, viewpoint_of
from lanaprof.lut import (
    CACHES,
    Comparison,
    Difference,
    Environment,
    OperatorRatio,
    Source,
    Store,
    Table,
    Viewpoint,
    compare_tables,
    environment_differences,
    open_store,
)
from lanaprof.lut.table import open_tables

__all__ = ["CacheComparison", "SourceComparison", "compare_sources", "difference_text"]

# The fields of an environment in plain words; runtime options keep their names.
_WORDS = {
    "backend": "runtime",
    "backend_version": "runtime version",
    "cpu_model": "processor",
    "gpu_model": "GPU",
    "isa": "instruction sets",
    "cores": "cores used",
    "smt": "hardware threads share cores",
    "driver": "driver",
    "threads": "threads",
}


def difference_text(difference: Difference) -> str:
    """Return a difference for people.

    >>> difference_text(Difference("backend_version", "1.30.0", "1.31.1"))
    'runtime version 1.30.0 → 1.31.1'
    >>> difference_text(Difference("options.denormals", "", "flushed"))
    'option denormals not set → flushed'
    """
    name = _WORDS.get(difference.field, difference.field.replace("options.", "option ", 1).replace("_", " "))
    return f"{name} {difference.a or 'not set'} → {difference.b or 'not set'}"


@dataclass(frozen=True, slots=True)
class CacheComparison:
    """Both sides in one cache state; ``space`` is the space both relayed in, empty but for relay."""

    cache: str
    space: str
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceComparison:
    """Two SOURCEs side by side.

    Attributes:
        a, b: the environment of each side.
        parts: one per cache state and space that both sides have.
        only_a, only_b: operators with a number on one side alone, in the cache states compared.
        descriptions: what each compared operator is, by key.
        candidates: operator key → the project's (layer, operation) it serves; empty outside a project.
        warnings: how environments were found, where the user should know.
        rows: all ratios with the part each is of, those that changed most of their own first.
    """

    a: Environment
    b: Environment
    parts: tuple[CacheComparison, ...]
    only_a: int
    only_b: int
    descriptions: tuple[tuple[str, str], ...]
    candidates: Mapping[str, tuple[tuple[str, str], ...]]
    warnings: tuple[str, ...]
    rows: tuple[tuple[CacheComparison, OperatorRatio], ...] = field(init=False)
    _texts: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        found = [(part, ratio) for part in self.parts for ratio in part.comparison.operators]
        found.sort(key=lambda row: (-abs(math.log(row[1].relative)), -abs(math.log(row[1].ratio))))
        object.__setattr__(self, "rows", tuple(found))
        object.__setattr__(self, "_texts", dict(self.descriptions))

    @property
    def ratios(self) -> tuple[OperatorRatio, ...]:
        """Return the ratios of all cache states, in the order of ``rows``."""
        return tuple(ratio for _, ratio in self.rows)

    @property
    def common_ratio(self) -> float | None:
        """The median ratio over all cache states: what the whole machine did; None when nothing is in common."""
        return median(each.ratio for each in self.ratios) if self.ratios else None

    @property
    def differences(self) -> tuple[Difference, ...]:
        """What the two environments do not share; empty when it is one."""
        return environment_differences(self.a, self.b)

    def name(self, operator: str) -> str:
        """Return an operator for people: the layers and operations it serves, else the kinds of its nodes."""
        places = self.candidates.get(operator, ())
        if not places:
            return self._texts.get(operator, "")
        (layer, operation), rest = places[0], len(places) - 1
        return f"{layer} {operation}" + (f" and {rest} more" if rest else "")

    def deviation(self, level: float) -> float | None:
        """Return a quantile of abs(ratio − 1) over all cache states; None when nothing is in common."""
        return quantile([abs(ratio.ratio - 1.0) for ratio in self.ratios], level)


def quantile(values: Sequence[float], level: float) -> float | None:
    """Return a quantile, linear between neighbours; None of no values.

    >>> quantile([3.0, 1.0, 2.0], 0.25), quantile([], 0.5)
    (1.5, None)
    """
    if not values:
        return None
    ordered = sorted(values)
    place = level * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class _Side:
    environment: Environment
    tables: Mapping[tuple[str, str], Table]
    warning: str


def _side(store: Store, source: Source, folder: Path, viewpoint: Viewpoint, *, cache: str | None) -> _Side:
    choice = choose_in_source(store, source, folder, team=viewpoint.team, cache=cache)
    tables = open_tables(
        store, replace(source, environment=choice.environment.id), cache=cache, viewpoint=viewpoint
    )
    if not tables:
        raise _nothing_of(store, source, choice.environment)
    warning = choice.warning.replace(
        "--environment pins another", f"{source.database}#environment=KEY pins another"
    )
    return _Side(choice.environment, tables, warning)


def _nothing_of(store: Store, source: Source, environment: Environment) -> BadInput:
    """Return the error for a side without measurements: of that team, or in that cache state."""
    held = [each for each in store.holdings() if each.environment == environment.id]
    teams = ", ".join(sorted({team for each in held for team in each.teams})) or "none"
    caches = ", ".join(sorted({each.cache for each in held})) or "none"
    return BadInput(
        f"{store.name} has no such measurements{f' of team {source.team!r}' if source.team else ''} in environment "
        f"{environment.id[:12]}; teams there: {teams}; cache states: {caches}",
        hint="name one of these",
    )


def _candidates(folder: Path, store: Store, device: str) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yield the operators of the folder's project with the (layer, operation) each serves."""
    config = find_config(folder)
    if config is None:
        return
    try:
        project = load_project(folder)
    except BadProject:
        return  # it only names operators here; every command that needs it says what is wrong with it
    found: dict[str, dict[tuple[str, str], None]] = {}
    for text in dict.fromkeys(filter(None, (device, *config.devices))):
        for candidate, key in find_operators(project, parse_device(text, folder), store).candidates.items():
            if key:
                found.setdefault(key, {})[candidate] = None
    for key, places in found.items():
        yield key, tuple(places)


def compare_sources(
    a: Source,
    b: Source,
    folder: Path,
    *,
    team: str = "",
    cache: str | None = None,
    policy: str = "",
    store: Store | None = None,
) -> SourceComparison:
    """Return how SOURCE b differs from SOURCE a: ratios b / a, per cache state.

    Args:
        a: a database with what to take from it.
        b: the same of the other side.
        folder: where devices.yaml may lie.
        team: whose measurements come first.
        cache: only this cache state.
        policy: which of several measurements counts, where a SOURCE does not say.
        store: the database of both, where it is open already.

    Raises:
        BadInput: a SOURCE means no environment, or several; lists them.
        StoreError: a database cannot be opened.
    """
    viewpoint = viewpoint_of(None, team=team, policy=policy)
    with ExitStack() as stack:
        stores = [store or stack.enter_context(open_store(each.database, readonly=True)) for each in (a, b)]
        first, second = (
            _side(opened, each, folder, viewpoint, cache=cache)
            for opened, each in zip(stores, (a, b), strict=True)
        )
        both = sorted(
            first.tables.keys() & second.tables.keys(), key=lambda state: (CACHES.index(state[0]), state[1])
        )
        parts = [
            CacheComparison(*state, compare_tables(first.tables[state], second.tables[state]))
            for state in both
        ]
        compared = sorted({ratio.operator for part in parts for ratio in part.comparison.operators})
        descriptions = stores[1].operator_descriptions(compared)
        candidates = dict(_candidates(folder, stores[1], b.device))
    only_a, only_b = set(), set()
    for state in both:
        one, other = first.tables[state], second.tables[state]
        only_a |= {each.operator for each in one if each.operator not in other}
        only_b |= {each.operator for each in other if each.operator not in one}
    return SourceComparison(
        a=first.environment,
        b=second.environment,
        parts=tuple(parts),
        only_a=len(only_a),
        only_b=len(only_b),
        descriptions=tuple((key, descriptions.get(key, "")) for key in compared),
        candidates=candidates,
        warnings=tuple(dict.fromkeys(side.warning for side in (first, second) if side.warning)),
    )
