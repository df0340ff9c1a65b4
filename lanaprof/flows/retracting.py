"""lut retract: from what a user typed to retractions of the team's own measurements."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lanaprof.digest import DIGEST_LENGTH
from lanaprof.errors import BadInput
from lanaprof.lut import Store
from lanaprof.lut.keys import is_digest

__all__ = ["RetractReport", "retract_measurements"]

_LISTED = 8  # measurements of which a text is the beginning that are spelled out
_SHORTEST = 4  # digits: a retraction is never undone, so a slip must not find anything


@dataclass(frozen=True, slots=True, kw_only=True)
class RetractReport:
    """What became of the ids.

    Attributes:
        targets: the whole ids, in the order given.
        absent: those that are not in the database (yet).
        added: new retractions; ``known`` ids were retracted before.
        refused: (id, reason).
    """

    targets: tuple[str, ...]
    absent: tuple[str, ...]
    added: int
    known: int
    refused: tuple[tuple[str, str], ...]


def retract_measurements(store: Store, ids: Iterable[str], *, team: str, reason: str) -> RetractReport:
    """Retract measurements of one's own team; either all ids are sound, or nothing is retracted.

    A whole id may be of a measurement that is not here yet; the beginning of one must stand for one that is.

    Raises:
        BadInput: an id that stands for nothing or for several, another team's measurement, no reason.
    """
    if not reason.strip():
        raise BadInput("the reason is empty", hint='--reason "the fan was broken"')
    targets = tuple(dict.fromkeys(_whole_id(store, text) for text in ids))
    there = store.find_measurements(targets, with_samples=False)
    for row in there.values():
        if row.team != team:
            raise BadInput(
                f"measurement {row.id} is of team {row.team!r}: team {team!r} cannot retract it",
                hint=f"only its own team can: --team {row.team}",
            )
    report = store.retract(targets, team=team, reason=reason)
    return RetractReport(
        targets=targets,
        absent=tuple(target for target in targets if target not in there),
        added=report.added,
        known=report.known,
        refused=tuple((refusal.id, refusal.reason) for refusal in report.refused),
    )


def _whole_id(store: Store, text: str) -> str:
    prefix = text.strip().lower()
    if is_digest(prefix):
        return prefix
    found = store.measurement_ids(prefix) if len(prefix) >= _SHORTEST else ()
    if len(found) == 1:
        return found[0]
    if found:
        more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise BadInput(
            f"{text!r} is the beginning of several measurements in {store.name}: "
            f"{', '.join(found[:_LISTED])}{more}",
            hint="give more digits; nothing was retracted",
        )
    raise BadInput(
        f"{text!r} is no measurement in {store.name}; nothing was retracted",
        hint=f"give an id, or its first {_SHORTEST} digits at least ({DIGEST_LENGTH} where it is not here "
        "yet); `lanaprof lut show OPERATOR` lists them",
    )
