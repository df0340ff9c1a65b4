"""lut ls and lut show: what a database holds, and everything it knows of one thing in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lanaprof.errors import BadInput
from lanaprof.flows.sources import find_environments
from lanaprof.lut import (
    Environment,
    Estimate,
    Holding,
    Measurement,
    Operator,
    Retraction,
    Source,
    Store,
    Viewpoint,
)
from lanaprof.lut.policy import estimate_from, why_it_counts

__all__ = [
    "Entry",
    "EnvironmentView",
    "MeasurementView",
    "OperatorView",
    "find_thing",
    "holdings_of",
]

_LISTED = 8  # things of which a text is the beginning that are spelled out


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An operator in one environment, cache state and space: the estimate, and all rows that stand."""

    environment: Environment
    space: str
    estimate: Estimate
    measurements: tuple[Measurement, ...]
    policy: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "environment": self.environment.id,
            "space": self.space,
            **dataclasses.asdict(self.estimate),
            "policy": self.policy,
            "why": self.why,
            "measurements": [summary_of(row) for row in self.measurements],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorView:
    """Everything known of an operator; ``retracted`` measurements count no more."""

    operator: Operator
    description: str
    statistics: tuple[tuple[str, int], ...]
    entries: tuple[Entry, ...]
    retracted: tuple[tuple[Measurement, Retraction], ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, the graph included."""
        return {
            "kind": "operator",
            "operator": self.operator.id,
            "description": self.description,
            "statistics": dict(self.statistics),
            "environments": [entry.to_json() for entry in self.entries],
            "retracted": [
                {"measurement": summary_of(row), "retraction": retraction.to_json()}
                for row, retraction in self.retracted
            ],
            "graph": self.operator.graph,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementView:
    """Everything known of a measurement; ``counts`` says whether it is the one its table would show."""

    measurement: Measurement
    description: str
    environment: Environment
    retractions: tuple[Retraction, ...]
    counts: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values, the samples included."""
        return {
            "kind": "measurement",
            "measurement": self.measurement.to_json(),
            "description": self.description,
            "environment": self.environment.to_json(),
            "retractions": [each.to_json() for each in self.retractions],
            "counts": self.counts,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentView:
    """Everything known of an environment."""

    environment: Environment
    holdings: tuple[Holding, ...]
    calibrations: int

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kind": "environment",
            "environment": self.environment.to_json(),
            "holdings": [holding_json(each) for each in self.holdings],
            "calibrations": self.calibrations,
        }


def summary_of(row: Measurement) -> dict[str, Any]:
    """Return a measurement as JSON values without its samples."""
    return {
        name: value for name, value in row.to_json().items() if name not in ("record", "samples", "rounds")
    }


def holding_json(holding: Holding) -> dict[str, Any]:
    """Return a holding as JSON values."""
    return {
        "environment": holding.environment,
        "cache": holding.cache,
        "space": holding.space,
        "operators": holding.operators,
        "statuses": dict(holding.statuses),
        "teams": list(holding.teams),
        "newest": holding.newest,
    }


def holdings_of(store: Store, source: Source, folder: Path) -> tuple[Holding, ...]:
    """Return what a SOURCE chooses of what is measured, per environment, cache state and space."""
    environments = find_environments(store, source, folder)
    keys = None if environments is None else {each.id for each in environments}
    if source.team or source.since or source.protocol:
        found = _holdings(
            store.measurements(
                team=source.team or None, since=source.since or None, protocol=source.protocol or None
            )
        )
    else:
        found = store.holdings()
    return tuple(each for each in found if keys is None or each.environment in keys)


def _holdings(rows: Iterable[Measurement]) -> tuple[Holding, ...]:
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.environment, row.cache, row.space), []).append(row)
    holdings = []
    for (environment, cache, space), each in sorted(groups.items()):
        states = [row.status for row in each]
        holdings.append(
            Holding(
                environment=environment,
                cache=cache,
                space=space,
                operators=len({row.operator for row in each}),
                statuses=tuple((state, states.count(state)) for state in sorted(set(states))),
                teams=tuple(sorted({row.team for row in each})),
                newest=max((row.time for row in each), key=lambda time: time.rstrip("Z")),
            )
        )
    return tuple(holdings)


def find_thing(
    store: Store, text: str, *, viewpoint: Viewpoint
) -> OperatorView | MeasurementView | EnvironmentView:
    """Return what is known of the operator, measurement or environment whose key starts with a text.

    Raises:
        BadInput: nothing, or several things; lists them.
    """
    prefix = text.strip().lower()
    operators = [key for key in store.operator_keys() if prefix and key.startswith(prefix)]
    measurements = store.measurement_ids(prefix) if prefix else ()
    environments = [each for each in store.environments() if prefix and each.id.startswith(prefix)]
    count = len(operators) + len(measurements) + len(environments)
    if count != 1:
        raise _not_one(store, text, operators, measurements, [each.id for each in environments])
    if operators:
        return _operator_view(store, operators[0], viewpoint)
    if measurements:
        return _measurement_view(store, measurements[0], viewpoint)
    return EnvironmentView(
        environment=environments[0],
        holdings=tuple(each for each in store.holdings() if each.environment == environments[0].id),
        calibrations=len(store.calibrations(environments[0].id)),
    )


def _not_one(
    store: Store,
    text: str,
    operators: Iterable[str],
    measurements: Iterable[str],
    environments: Iterable[str],
) -> BadInput:
    kinds = {"operator": operators, "measurement": measurements, "environment": environments}
    found = [f"{kind} {key}" for kind, keys in kinds.items() for key in keys]
    if not found:
        return BadInput(
            f"nothing in {store.name} has a key that starts with {text!r}",
            hint="`lanaprof lut ls` lists environments, `lanaprof lut coverage` operators",
        )
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return BadInput(
        f"{text!r} is the beginning of several keys in {store.name}: {', '.join(found[:_LISTED])}{more}",
        hint="give more digits",
    )


def _operator_view(store: Store, key: str, viewpoint: Viewpoint) -> OperatorView:
    operator = store.get_operator(key)
    environments = {each.id: each for each in store.environments()}
    groups: dict[tuple[str, str, str], list[Measurement]] = {}
    for row in store.measurements(operators=[key]):
        groups.setdefault((row.environment, row.cache, row.space), []).append(row)
    entries = tuple(
        Entry(
            environment=environments[environment],
            space=space,
            estimate=estimate_from(rows, viewpoint),
            policy=viewpoint.policy,
            why=why_it_counts(rows, viewpoint),
            measurements=tuple(sorted(rows, key=lambda row: (row.time.rstrip("Z"), row.id), reverse=True)),
        )
        for (environment, _, space), rows in sorted(groups.items())
    )
    retractions = {each.target: each for each in store.retractions()}
    gone = store.find_measurements(retractions, with_samples=False)
    statistics = store.operator_statistics([key])[key]
    return OperatorView(
        operator=operator,
        description=store.operator_descriptions([key])[key],
        statistics=tuple((name, getattr(statistics, name)) for name in statistics.__slots__),
        entries=entries,
        retracted=tuple((row, retractions[row.id]) for row in gone.values() if row.operator == key),
    )


def _measurement_view(store: Store, key: str, viewpoint: Viewpoint) -> MeasurementView:
    measurement = store.find_measurements([key])[key]
    rivals = store.measurements(
        environment=measurement.environment,
        operators=[measurement.operator],
        cache=measurement.cache,
        space=measurement.space,
    )
    return MeasurementView(
        measurement=measurement,
        description=store.operator_descriptions([measurement.operator])[measurement.operator],
        environment=store.get_environment(measurement.environment),
        retractions=tuple(each for each in store.retractions() if each.target == key),
        counts=bool(rivals) and key in estimate_from(rivals, viewpoint).measurements,
    )
