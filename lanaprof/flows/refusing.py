"""Whole networks that a runtime refuses although it took their operators: named, explained, and not asked for again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lanaprof.errors import UserError
from lanaprof.flows.networks import TimedNetworks
from lanaprof.flows.operators import Choices
from lanaprof.ops import TEACHER
from lanaprof.solver import Problem, Row
from lanaprof.space import Space

__all__ = ["Refused", "find_suspects", "refusal_lines", "refusals", "too_few", "without"]

_SHOWN = 3  # candidates named in a line
_HINT = "offer other candidates (lanaprof init --ops FILE --force), or measure on another device"

Candidate = tuple[str, str]  # (layer or first..last, operation)


@dataclass(frozen=True, slots=True)
class Refused:
    """A network that could not be exported, built or run, and what the runtime said."""

    choices: tuple[Candidate, ...]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"choices": dict(self.choices), "reason": self.reason}


def refusals(space: Space, found: TimedNetworks) -> tuple[Refused, ...]:
    """Return the networks of a campaign that were refused."""
    return tuple(Refused(space.named(choices), reason) for choices, reason in found.refused.items())


def find_suspects(
    space: Space, refused: Iterable[Choices], timed: Iterable[Choices]
) -> tuple[Candidate, ...]:
    """Return the candidates that every refused network has and no timed one; none for a single refused network.

    One network alone accuses all of its rarer candidates, of which one, or two side by side, may be at fault.
    """
    accused = [dict.fromkeys(space.named(choices)) for choices in refused]
    if len(accused) < 2:
        return ()
    cleared = {candidate for choices in timed for candidate in space.named(choices)}
    shared = set(accused[0]).intersection(*accused[1:]) - cleared
    return tuple(candidate for candidate in accused[0] if candidate in shared)


def refusal_lines(space: Space, found: TimedNetworks) -> tuple[str, ...]:
    """Return, for people, which networks of a campaign are left out, why, and what they have in common."""
    lines = [
        f"left out, because the runtime refused it: {_described(space, choices)}: {reason}"
        for choices, reason in found.refused.items()
    ]
    suspects = find_suspects(space, found.refused, found.measurements)
    if suspects:
        lines.append(f"what the {len(found.refused)} refused networks have, and no other: {_some(suspects)}")
    return tuple(lines)


def too_few(space: Space, found: TimedNetworks, wanted: str) -> UserError:
    """Return the error of a campaign that refused so many networks that too few are left.

    Args:
        space: whose networks.
        found: the campaign.
        wanted: what the networks were for, such as ``a calibration needs at least 5``.
    """
    total = len(found.refused) + len(found.measurements)
    last = next(reversed(list(found.refused.items())))
    suspects = find_suspects(space, found.refused, found.measurements)
    common = f"; all of them have {_some(suspects)}" if suspects else ""
    return UserError(
        f"{wanted}; the runtime refused {len(found.refused)} of {total} networks{common}; one of them, "
        f"{_described(space, last[0])}: {last[1]}",
        hint=_HINT,
    )


def without(
    problem: Problem, refused: Iterable[Sequence[Candidate]], suspects: Iterable[Candidate] = ()
) -> Problem:
    """Return the problem without the refused networks and without the candidates suspected.

    A network is ruled out by a row: not all of its candidates at once.
    """
    refused, suspects = tuple(refused), tuple(suspects)
    if not refused:
        return problem
    items = {problem.item_names(item): item for item in range(len(problem.scores))}
    rows = list(problem.rows)
    for candidates in refused:
        known = tuple((items[candidate], 1.0) for candidate in candidates if candidate in items)
        if len(known) == len(candidates):  # else it cannot be proposed anyway
            rows.append(Row(f"refused {len(rows)}", known, -math.inf, len(known) - 1.0))
    barred = dict(problem.forbid)
    for place, operation in suspects:
        if operation != TEACHER and (place, operation) in items:
            barred[place] = (*barred.get(place, ()), items[place, operation])
    return replace(problem, rows=tuple(rows), forbid=tuple(barred.items()))


def _described(space: Space, choices: Choices) -> str:
    other = [candidate for candidate in space.named(choices) if candidate[1] != TEACHER]
    return f"the network of {_some(other)}" if other else "the teacher"


def _some(candidates: Iterable[Candidate]) -> str:
    named = [f"{place} {operation}" for place, operation in candidates]
    more = f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else ""
    return ", ".join(named[:_SHOWN]) + more
