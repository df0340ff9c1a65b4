"""Which candidates need no more training: where another of the layer costs no more and does clearly better.

Successive halving (arXiv 1603.06560) drops the worse part at fixed rungs; progressive shrinking of a layer's
operations is PAD-NAS's idea (2020). Here nothing is dropped for its error alone: a candidate with a large error may
be the one that a small budget needs. It goes when another of its layer costs no more, in any of the costs, and leads
by more than noise and what later steps turn around. Then no budget can want it, as far as errors tell of scores.

Needs no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lanaprof.ops import SKIP, TEACHER, parse_operation

__all__ = [
    "Costs",
    "Referee",
    "SpaceCosts",
    "Standing",
    "Verdict",
    "is_no_dearer",
    "rung_steps",
    "standing_at",
]

Costs = tuple[tuple[float, float], ...]  # (low, high) of each cost, in the same order for all candidates
SpaceCosts = Mapping[str, Mapping[str, Costs]]  # layer → operation → costs
Name = tuple[str, str]  # (layer, operation without precision)

# Share of the steps done → how many times its rival's error a candidate must have to be given up there. Candidates
# overtake one another most while they have learnt little, so the lead asked for shrinks (docs/distilling.md).
RUNGS: Mapping[float, float] = {0.125: 2.0, 0.25: 1.5, 0.5: 1.3, 0.75: 1.2}
NOISE_ERRORS = 3.0  # standard errors of the difference that a lead must exceed, too
LEAST_STEPS = 10  # before the first rung: the mean of fewer losses says little
_FRESH_SHARE = (
    1 / 3
)  # of the steps until a rung: their losses are its error; older ones tell of untrained weights


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's error at a rung: the mean of its last losses and how far noise may move it."""

    error: float
    standard_error: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A candidate that needs no more training, and the one that makes it needless."""

    name: Name
    standing: Standing
    rival: str
    rival_standing: Standing


def rung_steps(steps: int) -> dict[int, float]:
    """Return after which steps candidates are judged, and which lead makes one needless there.

    >>> rung_steps(200)
    {25: 2.0, 50: 1.5, 100: 1.3, 150: 1.2}
    >>> rung_steps(24)
    {12: 1.3, 18: 1.2}
    """
    found = {math.ceil(share * steps): lead for share, lead in RUNGS.items()}
    return {step: lead for step, lead in found.items() if LEAST_STEPS <= step < steps}


def standing_at(losses: Sequence[float] | NDArray[np.float64], step: int) -> Standing:
    """Return a candidate's standing after ``step`` steps, from its losses so far.

    >>> standing_at([9.0] * 8 + [1.0, 3.0, 1.0, 3.0], 12).error
    2.0
    """
    last = np.asarray(losses[_fresh_from(step) : step], dtype=np.float64)
    error = float(last.std(ddof=1)) / math.sqrt(len(last)) if len(last) > 1 else math.inf
    return Standing(float(last.mean()), error)


def _fresh_from(step: int) -> int:
    """Return the first step whose loss counts at a rung."""
    return step - max(2, math.ceil(step * _FRESH_SHARE))


def is_no_dearer(costs: Mapping[str, Costs], rival: str, operation: str) -> bool:
    """Return whether the rival costs no more than the operation, in every cost, beyond the intervals.

    Texts may lack the precision: then every precision of the operation has one of the rival that costs no more.
    Unknown costs: False.
    """
    own, others = _variants(costs, operation), _variants(costs, rival)
    return bool(own) and _all_covered(others, own)


def _all_covered(cheap: Sequence[Costs], dear: Sequence[Costs]) -> bool:
    return all(any(_covers(other, one) for other in cheap) for one in dear)


def _covers(cheap: Costs, dear: Costs) -> bool:
    # two candidates of one operator have one interval: neither is dearer
    return all(one == two or one[1] <= two[0] for one, two in zip(cheap, dear, strict=True))


def _variants(costs: Mapping[str, Costs], operation: str) -> list[Costs]:
    if operation in costs:
        return [costs[operation]]
    return [found for text, found in costs.items() if _without_precision(text) == operation]


def _without_precision(operation: str) -> str:
    return operation if "@" not in operation else replace(parse_operation(operation), precision="").text


class Referee:
    """Judges the candidates of a group at the rungs.

    A candidate of unknown cost is never given up and never a rival. The teacher's own layer is a rival without
    error, ``skip`` one whose error needs no training; finished candidates count with what they had at the same rung.
    Whom a rival beats that is beaten itself is beaten by that one's rival, too: it makes no difference whether a
    candidate given up earlier still stands there.

    Args:
        costs: of the space's candidates, those whose costs are known.
        steps: of the recipe.
        finished: candidates trained before → their standings by step.
    """

    def __init__(
        self, costs: SpaceCosts, steps: int, finished: Mapping[Name, Mapping[int, Standing]]
    ) -> None:
        self.rungs = rung_steps(steps)
        self._costs = costs
        self._finished = finished

    def offers_skip(self, layer: str) -> bool:
        """Return whether ``skip`` is a rival in a layer."""
        return SKIP in self._costs.get(layer, {})

    def is_rung(self, step: int) -> bool:
        """Return whether candidates are judged after this step."""
        return step in self.rungs

    def is_fresh(self, step: int) -> bool:
        """Return whether the loss of this step, counted from 0, enters a standing."""
        return any(_fresh_from(rung) <= step < rung for rung in self.rungs)

    def judge(self, step: int, standings: Mapping[Name, Standing]) -> tuple[Verdict, ...]:
        """Return those that need no more training after ``step`` steps.

        Args:
            step: a rung.
            standings: of those in training, and of ``skip`` where it is a rival.
        """
        verdicts: list[Verdict] = []
        for layer in dict.fromkeys(layer for layer, _ in standings):
            known = {TEACHER: Standing(0.0, 0.0)}
            known |= {
                operation: found[step]
                for (where, operation), found in self._finished.items()
                if where == layer and step in found
            }
            training = {name[1]: standing for name, standing in standings.items() if name[0] == layer}
            verdicts += self._judge_layer(layer, step, known | training, set(training) - {SKIP})
        return tuple(verdicts)

    def _judge_layer(
        self, layer: str, step: int, standings: Mapping[str, Standing], judged: set[str]
    ) -> list[Verdict]:
        costs = {text: _variants(self._costs.get(layer, {}), text) for text in standings}
        known = (text for text in standings if costs[text] and math.isfinite(standings[text].error))
        texts = sorted(known, key=lambda text: standings[text].error)
        error = np.array([standings[text].error for text in texts])
        noise = np.array([standings[text].standard_error for text in texts])
        lead = self.rungs[step]
        # [rival, candidate]
        ahead = error[None, :] > lead * error[:, None]
        ahead &= error[None, :] - error[:, None] > NOISE_ERRORS * np.hypot(noise[None, :], noise[:, None])
        verdicts = []
        for place, text in enumerate(texts):
            if text not in judged:
                continue
            rivals = (texts[other] for other in np.flatnonzero(ahead[:, place]))  # the best first
            best = next((rival for rival in rivals if _all_covered(costs[rival], costs[text])), None)
            if best is not None:
                verdicts.append(Verdict((layer, text), standings[text], best, standings[best]))
        return verdicts
