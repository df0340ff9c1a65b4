"""Scores of candidates for several layers, on the scale on which those of single layers are added up.

A sum of scores mostly promises more loss than comes: what its layers lose is not independent, and roots are added. The
score of a span is the loss of a whole run at once, hence too kind beside such sums. How much too kind is measured:
random candidates stand in all layers of a run, and what their scores add up to is held against what the network loses.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lanaprof.errors import BadInput
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project
from lanaprof.flows.selecting import Scores, find_score_records
from lanaprof.lut import Score, Store, utc_now
from lanaprof.ops import TEACHER
from lanaprof.space import Architecture, place_ends

if TYPE_CHECKING:
    from lanaprof.distill import Progress
    from lanaprof.flows.finalists import Quality

__all__ = ["SPANNED", "RunFactor", "fit_spans", "networks_of_run", "run_factor"]

SPANNED = "+spans"  # behind the metric's name of the scores that were put on one scale
_LEAST = 0.5  # a factor below would be noise: spans would look twice as good as they were measured
_TRIES = 50  # draws per network that is wanted


@dataclass(frozen=True, slots=True)
class RunFactor:
    """By how much the sum of a run's layers exceeds what they lose together.

    Attributes:
        run: ``first..last``.
        factor: what scores of its spans are multiplied by.
        networks: that were judged.
    """

    run: str
    factor: float
    networks: int


def networks_of_run(project: Project, scores: Scores, run: str, count: int) -> tuple[Choices, ...]:
    """Return networks that replace all layers of a run, one by one, and nothing else; fewer where there are fewer."""
    layers = project.space.covered(run)
    offered = {
        name: [
            op for op in project.space.get_layer(name).candidates if op != TEACHER and (name, op) in scores
        ]
        for name in layers
    }
    if not all(offered.values()):
        return ()
    rng = random.Random(f"{project.config.seed} {run}")
    found: dict[Choices, None] = {}
    for _ in range(_TRIES * count):
        if len(found) >= count:
            break
        named = tuple((name, rng.choice(operations)) for name, operations in offered.items())
        found.setdefault(Architecture("", named).complete(project.space))
    return tuple(found)


def run_factor(promised: Sequence[float], lost: Sequence[float], layers: int) -> float:
    """Return the factor of a run.

    Args:
        promised: sizes of the summed scores of networks.
        lost: sizes of the scores that these networks themselves have.
        layers: how many the run has; as much as their sum may exceed what equal losses come to.

    >>> run_factor([0.6, 0.4], [0.5, 0.3], 2)
    1.25
    """
    total = math.fsum(lost)
    if not total > 0 or not math.isfinite(total):
        return 1.0
    return min(max(math.fsum(promised) / total, _LEAST), float(layers))


def fit_spans(
    project: Project,
    store: Store,
    metric: str,
    *,
    networks: int,
    judge: Callable[[Choices], Quality],
    team: str,
    progress: Callable[[Progress], None],
) -> tuple[RunFactor, ...]:
    """Judge networks of every run that has scored spans, and store all scores anew, those of spans times their factor.

    Args:
        project: whose scores.
        store: with the scores; those on one scale go there, under the metric's name with SPANNED behind it.
        metric: the scores' name; only ``kl`` is judged here.
        networks: of each run.
        judge: says how far from the teacher a network is, as ``ProjectJudge.assembled``.
        team: whose scores they are then.
        progress: told before every network.

    Raises:
        BadInput: another metric, or no scored span.
        MissingScores: there are none of this metric.
    """
    from lanaprof.distill import Progress
    from lanaprof.distill.rating import KL_POWER
    from lanaprof.distill.runtime import Pace

    if metric != "kl":
        raise BadInput(f"scores of spans are put on one scale by KL, not by {metric!r}", hint="--metric kl")
    rows = find_score_records(project, store, metric)
    scores = {(row.layer, row.operation): row.score for row in rows}
    runs = dict.fromkeys(row.layer for row in rows if place_ends(row.layer)[0] != row.layer)
    drawn = {run: networks_of_run(project, scores, run, networks) for run in runs}
    if not any(drawn.values()):
        raise BadInput(
            "no candidate for several layers has a score here, beside scores of those layers",
            hint="lanaprof init --ops lana offers some; then lanaprof distill, lanaprof score",
        )
    pace, total, done = Pace(math.inf), sum(map(len, drawn.values())), 0
    found = []
    for run, choices in drawn.items():
        promised, lost = [], []
        for one in choices:
            progress(Progress(f"judging {total} networks", done, total, pace.seconds_left(done, total)))
            named = project.space.named(one)
            promised.append(-math.fsum(scores[name] for name in named if name[1] != TEACHER))
            lost.append(judge(one).kl ** KL_POWER)
            done += 1
        factor = run_factor(promised, lost, len(project.space.covered(run)))
        found.append(RunFactor(run, factor, len(choices)))
    _store(store, rows, {one.run: one.factor for one in found}, team=team)
    return tuple(found)


def _store(store: Store, rows: Sequence[Score], factors: dict[str, float], *, team: str) -> None:
    now = utc_now()
    records = []
    for row in rows:
        factor = factors.get(row.layer, 1.0)
        error = row.standard_error * factor if row.standard_error is not None else None
        records.append(
            replace(
                row,
                metric=f"{row.metric}{SPANNED}",
                score=row.score * factor,
                standard_error=error,
                team=team,
                time=now,
            )
        )
    store.add(records)
