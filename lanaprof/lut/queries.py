"""The SQL behind the store's reading methods: which rows count, and which belong to a filtered export."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, false, func, not_, or_, select, true
from sqlalchemy.engine import Connection

from lanaprof.errors import BadInput
from lanaprof.lut.models import TABLES

__all__ = [
    "RecordFilter",
    "comparable_since",
    "kept",
    "part_counts",
    "since_condition",
    "standing_in",
    "visible_retraction",
    "within",
]

_measurements = TABLES["measurement"]
_retractions = TABLES["retraction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records to read or export.

    Measurements, calibrations and selections are chosen by environment, team and time; operators,
    environments, recipes and retractions come along where a chosen record needs or concerns them. Scores
    are of no environment: they are chosen by team and time, and left out when environments are named. Only
    measurements have a protocol: when one is named, scores, calibrations and selections are left out.

    Attributes:
        environments: environment keys; None means all.
        team: empty means all.
        since: from this UTC time or date on, e.g. ``2026-01-31``; empty means all.
        protocol: of measurements, e.g. ``relay/2``; empty means all.
    """

    environments: tuple[str, ...] | None = None
    team: str = ""
    since: str = ""
    protocol: str = ""

    def __bool__(self) -> bool:
        return self.environments is not None or bool(self.team or self.since or self.protocol)


def comparable_since(text: str) -> str:
    """Return a time in the form stored times are compared with.

    Raises:
        BadInput: not an ISO 8601 date or time.

    >>> comparable_since("2026-01-31"), comparable_since("2026-01-31T12:00:00+02:00")
    ('2026-01-31T00:00:00', '2026-01-31T10:00:00')
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is not None:
            moment = moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):  # too much: in the year 1, with an offset
        raise BadInput(f"since {text!r} is not a date or time", hint="write it like 2026-01-31") from None
    return moment.isoformat()


def since_condition(column: ColumnElement[str], since: str) -> ColumnElement[bool]:
    """Return whether a stored time is at or after ``since``."""
    # Without the Z, "…:46" sorts before "…:46.5": text order is time order.
    return func.rtrim(column, "Z") >= comparable_since(since)


def kept() -> ColumnElement[bool]:
    """Return whether a measurement stands: its own team has not retracted it."""
    mine = and_(_retractions.c.target == _measurements.c.id, _retractions.c.team == _measurements.c.team)
    return not_(exists().where(mine))


def standing_in(
    environment: str,
    *,
    cache: str | None = None,
    team: str | None = None,
    since: str | None = None,
    protocol: str | None = None,
) -> ColumnElement[bool]:
    """Return whether a measurement stands and is one of an environment; what is given besides chooses among them.

    Args:
        environment: environment key.
        cache: relay, hot or cold.
        team: who measured.
        since: from this UTC time or date on.
        protocol: such as ``relay/1``.
    """
    given = {"cache": cache, "team": team, "protocol": protocol}
    conditions = [kept(), _measurements.c.environment == environment]
    conditions += [_measurements.c[name] == value for name, value in given.items() if value]
    if since:
        conditions.append(since_condition(_measurements.c.time, since))
    return and_(*conditions)


def visible_retraction() -> ColumnElement[bool]:
    """Return whether a retraction is no other team's of a measurement that is here.

    Such a retraction is refused when the measurement came first, and has no effect when it came before the
    measurement. Hiding it makes the database's content independent of the order of arrival.
    """
    other = _measurements.alias()
    foreign = and_(other.c.id == _retractions.c.target, other.c.team != _retractions.c.team)
    return not_(exists().where(foreign))


def within(kind: str, records: RecordFilter) -> ColumnElement[bool]:
    """Return whether a row of one kind belongs to what a filter chooses."""
    if not records:
        return visible_retraction() if kind == "retraction" else true()
    table = TABLES[kind]
    if kind in ("measurement", "calibration", "selection", "score"):
        return _chosen(kind, records)
    if kind == "retraction":
        # By its target: retractions are few, and what is chosen may be nearly everything.
        target = _measurements.c.id == table.c.target
        concerned: ColumnElement[bool] = exists().where(target, _chosen("measurement", records))
        # Of a measurement that is not here neither environment nor protocol is known.
        if records.environments is None and not records.protocol:
            concerned = or_(concerned, _by_team_and_time(table, records))
        return and_(visible_retraction(), concerned)
    operators = select(_measurements.c.operator).where(_chosen("measurement", records))
    if kind == "operator":
        return table.c.id.in_(operators)
    if kind == "recipe":
        return table.c.operator.in_(operators)
    calibrations = TABLES["calibration"]
    needed = select(_measurements.c.environment).where(_chosen("measurement", records))
    fitted = select(calibrations.c.environment).where(_chosen("calibration", records))
    return or_(table.c.id.in_(needed), table.c.id.in_(fitted))


def part_counts(connection: Connection, records: RecordFilter) -> dict[str, int]:
    """Return how many measurements, operators, environments and recipes a filter chooses, from one look at an index.

    A look for each would take several times as long, and there are as many rows as measurements to look at.
    """
    table, calibrations, recipes = _measurements, TABLES["calibration"], TABLES["recipe"]
    columns = (table.c.environment, table.c.cache, table.c.space, table.c.operator)  # as the index is sorted
    groups = select(*columns, func.count()).where(_chosen("measurement", records)).group_by(*columns)
    found = connection.execute(groups).all()
    operators, environments = {row[3] for row in found}, {row[0] for row in found}
    fitted = select(calibrations.c.environment).where(_chosen("calibration", records)).distinct()
    environments.update(connection.execute(fitted).scalars())
    made = connection.execute(select(recipes.c.operator, func.count()).group_by(recipes.c.operator))
    return {
        "measurement": sum(row[4] for row in found),
        "operator": len(operators),
        "environment": len(environments),
        "recipe": sum(count for operator, count in made if operator in operators),
    }


def _chosen(kind: str, records: RecordFilter) -> ColumnElement[bool]:
    table = TABLES[kind]
    condition = _by_team_and_time(table, records)
    if records.protocol:
        if kind != "measurement":
            return false()
        condition = and_(condition, table.c.protocol == records.protocol)
    if records.environments is None:
        return condition
    if kind == "score":
        return false()
    return and_(condition, table.c.environment.in_(records.environments))


def _by_team_and_time(table: Any, records: RecordFilter) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    if records.team:
        conditions.append(table.c.team == records.team)
    if records.since:
        conditions.append(since_condition(table.c.time, records.since))
    return and_(*conditions)
