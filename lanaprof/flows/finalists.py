"""Finalists: several diverse architectures within the budget, of which the best on held-out data is selected.

The sum of scores is a proxy: it ranks networks nearly, not exactly, as their own output does, and training them as a
whole changes the order once more. So the best sum and architectures unlike it are timed, judged by their own divergence
from the teacher, and the best of those once more after a short fine-tune (Puzzle, arXiv 2411.19146, and DONNA,
arXiv 2012.08859, pick likewise). Needs no torch: a :class:`Judge` says how good a network is.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from lanaprof.errors import BadInput
from lanaprof.flows.choosing import Chosen, Question
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.proving import Held, Proof
from lanaprof.flows.selecting import choices_of
from lanaprof.lut import Measurement
from lanaprof.solver import solve_diverse

__all__ = [
    "Finalist",
    "Judge",
    "Quality",
    "Rules",
    "finalists_to_json",
    "hold_finalists",
    "read_finalists",
    "winner_of",
    "write_finalists",
]

_FOLDER = "finalists"

Timing = Callable[[Sequence[Choices]], Mapping[Choices, Held]]
Tell = Callable[[str], None]
Advance = Callable[[str, float, float], None]  # stage, units done, units in all


@dataclass(frozen=True, slots=True)
class Rules:
    """How finalists are held.

    Attributes:
        count: diverse architectures beside the answer of the ordinary selection.
        overlap: share of layers two of them may have in common.
        tuned: so many of the best are fine-tuned shortly; 0 for none.
        time_limit_s: of finding them.
    """

    count: int
    overlap: float = 0.7
    tuned: int = 3
    time_limit_s: float = 60.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.tuned < 0:
            raise BadInput(
                f"{self.count} finalists, of which {self.tuned} are fine-tuned, cannot be held",
                hint="--finalists 8 --tuned 3",
            )


@dataclass(frozen=True, slots=True)
class Quality:
    """A network's divergence from the teacher on held-out images, in nats; less is better.

    Attributes:
        per_image: KL(teacher ‖ network) of each image, the same images in the same order for every network.
    """

    per_image: tuple[float, ...]

    @property
    def kl(self) -> float:
        """Return the mean; infinite where the network gives no numbers."""
        mean = sum(self.per_image) / len(self.per_image)
        return mean if math.isfinite(mean) else math.inf

    @property
    def standard_error(self) -> float:
        """Return the standard error of the mean over images."""
        return _standard_error(self.per_image)

    def behind(self, other: Quality) -> tuple[float, float]:
        """Return how much further from the teacher than another network, paired by image, with standard error."""
        differences = [own - its for own, its in zip(self.per_image, other.per_image, strict=True)]
        return sum(differences) / len(differences), _standard_error(differences)


class Judge(Protocol):
    """Says how good networks of the project are; results are kept, so that asking again is cheap."""

    def assembled(self, choices: Choices) -> Quality:
        """Return how good the network of trained candidates is, batch norm re-estimated."""

    def tuned(self, choices: Choices, advance: Callable[[float], None]) -> Quality:
        """Return how good it is after a short fine-tune; told the share that is done."""


@dataclass(frozen=True, slots=True)
class Finalist:
    """One architecture that may be selected.

    Attributes:
        choices: its operations.
        score: the sum of its scores.
        predicted_s: its latency by the tables.
        measurement: what it took; None where nothing is timed.
        inside: whether that lies inside the budget; None where nothing is timed.
        quality: as assembled, batch norm re-estimated; None when it is out.
        tuned: after a short fine-tune; None when it was not among the best.
        chosen: whether it won.
    """

    choices: Choices
    score: float
    predicted_s: float
    measurement: Measurement | None = None
    inside: bool | None = None
    quality: Quality | None = None
    tuned: Quality | None = None
    chosen: bool = False


def hold_finalists(
    question: Question,
    chosen: Chosen,
    proof: Proof | None,
    *,
    rules: Rules,
    judge: Judge,
    timing: Timing | None = None,
    tell: Tell = lambda _text: None,
    advance: Advance = lambda _stage, _done, _total: None,
) -> tuple[Finalist, ...]:
    """Return the finalists, the best first, exactly one of them chosen; empty when the budget is not met.

    Args:
        question: what select was asked.
        chosen: the answer by the tables.
        proof: how the proving loop ended; None where nothing is timed.
        rules: how many.
        judge: how good is a network.
        timing: times networks beside each other; needed with a proof.
        tell: told what the user should know.
        advance: told how far it is.
    """
    if proof is not None and proof.status != "verified":
        tell("no finalists: no network inside the budget was found")
        return ()
    entered = _timed(_entered(question, chosen, proof, rules), proof, timing, tell)
    inside = [one for one in entered if one.inside is not False]
    judged = []
    for number, one in enumerate(inside):
        advance("judging finalists", number, len(inside))
        judged.append(replace(one, quality=judge.assembled(one.choices)))
    advance("judging finalists", len(inside), len(inside))
    ranked = sorted(judged, key=_kl)  # stable: at a tie the better sum stays in front
    best, rest = ranked[: rules.tuned], ranked[rules.tuned :]
    tuned = []
    for number, one in enumerate(best):

        def told(share: float, number: int = number) -> None:
            advance("fine-tuning finalists", number + share, len(best))

        tuned.append(replace(one, tuned=judge.tuned(one.choices, told)))
    order = [*sorted(tuned, key=_kl), *rest]
    order[0] = replace(order[0], chosen=True)
    return (*order, *(one for one in entered if one.inside is False))


def winner_of(finalists: Iterable[Finalist]) -> Finalist | None:
    """Return the one that was chosen; None without finalists."""
    return next((one for one in finalists if one.chosen), None)


def _kl(one: Finalist) -> float:
    judged = one.tuned or one.quality
    assert judged is not None
    return judged.kl


def _entered(question: Question, chosen: Chosen, proof: Proof | None, rules: Rules) -> list[Finalist]:
    """Return the answer so far and diverse others, distinct, best sum first after the answer."""
    name = question.predictor.cost_name
    budgets = dict(question.budgets)
    if proof is not None:
        problem, predictor = question.problem(proof.corrected), proof.corrected
        budgets[name] = proof.allowed_s
        answer = Finalist(proof.choices, proof.score, proof.predicted_s, proof.measurement, inside=True)
    else:
        problem, predictor = question.problem(), question.predictor
        if name in budgets:
            budgets[name] -= chosen.margin_s
        answer = Finalist(chosen.choices, chosen.solution.score, chosen.prediction.latency_s)
    found = {answer.choices: answer}
    for solution in solve_diverse(
        problem, budgets, top=rules.count, overlap=rules.overlap, time_limit_s=rules.time_limit_s
    ):
        choices = choices_of(question.project, solution)
        found.setdefault(choices, Finalist(choices, solution.score, predictor.predict(choices).latency_s))
    return list(found.values())


def _timed(
    entered: Sequence[Finalist], proof: Proof | None, timing: Timing | None, tell: Tell
) -> list[Finalist]:
    """Return them with what they took; those over the budget are told."""
    if proof is None:
        return list(entered)
    assert timing is not None
    new = [one.choices for one in entered if one.measurement is None]
    held = timing(new) if new else {}
    found = []
    for number, one in enumerate(entered, start=1):
        timed = held.get(one.choices)
        if timed is None and one.measurement is None:
            continue  # refused, as was told
        if timed is not None:
            one = replace(one, measurement=timed.measurement, inside=timed.inside)  # noqa: PLW2901
            if not timed.inside:
                tell(
                    f"finalist {number} of {len(entered)} is out: timed, it takes "
                    f"{timed.held_s / timed.budget_s:.1%} of the budget"
                )
        found.append(one)
    return found


def finalists_to_json(project: Project, finalists: Sequence[Finalist]) -> list[dict[str, Any]]:
    """Return finalists as plain data; what is not known or no number is None.

    ``tuned_difference`` is how much further from the teacher than the chosen one, paired by image.
    """
    winner = winner_of(finalists)
    rows = []
    for one in finalists:
        record = one.measurement
        behind = None
        if winner is not None and winner.tuned is not None and one.tuned is not None:
            behind = one.tuned.behind(winner.tuned)
        rows.append(
            {
                "choices": dict(project.space.named(one.choices)),
                "score": one.score,
                "predicted_s": one.predicted_s,
                "measured_s": record.latency_s if record is not None else None,
                "ci_low_s": record.ci_low_s if record is not None else None,
                "ci_high_s": record.ci_high_s if record is not None else None,
                "inside": one.inside,
                **_with_error("kl", _figures(one.quality)),
                **_with_error("tuned_kl", _figures(one.tuned)),
                **_with_error("tuned_difference", behind),
                "chosen": one.chosen,
            }
        )
    return rows


def _figures(quality: Quality | None) -> tuple[float, float] | None:
    return None if quality is None else (quality.kl, quality.standard_error)


def _with_error(name: str, value: tuple[float, float] | None) -> dict[str, float | None]:
    """Return a number and its standard error by name, None where they are not known or not finite."""
    numbers = value if value is not None else (math.nan, math.nan)
    return {
        key: number if math.isfinite(number) else None
        for key, number in zip((name, f"{name}_standard_error"), numbers, strict=True)
    }


def write_finalists(project: Project, selection: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Keep the finalists of a stored selection for reports."""
    write_json(project.state / _FOLDER / "selections" / f"{selection}.json", list(rows))


def read_finalists(project: Project, selection: str) -> list[dict[str, Any]]:
    """Return the finalists of a stored selection as :func:`finalists_to_json` gives them; empty without any."""
    path = project.state / _FOLDER / "selections" / f"{selection}.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a page can do without
        return []
    return found if isinstance(found, list) else []


def _standard_error(values: Sequence[float]) -> float:
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return math.inf
    return statistics.stdev(values) / math.sqrt(len(values))
