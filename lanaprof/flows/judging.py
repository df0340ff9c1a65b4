"""How far the sum of scores can be trusted: whole networks, fine-tuned shortly, against what their scores promised."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lanaprof.digest import digest
from lanaprof.errors import BadInput, BadProject
from lanaprof.flows.learning import find_trained_candidates
from lanaprof.flows.operators import Choices
from lanaprof.flows.project import Project, write_json
from lanaprof.flows.selecting import Scores, find_score_records, find_scores
from lanaprof.lut import Score, Store, utc_now
from lanaprof.ops import TEACHER
from lanaprof.space import Architecture, random_architecture

if TYPE_CHECKING:
    from lanaprof.distill import Progress
    from lanaprof.distill.combining import Combination, RankCorrelation

__all__ = [
    "FITTED",
    "Correlations",
    "JudgeRules",
    "JudgedNetwork",
    "Trust",
    "correlate",
    "draw_networks",
    "find_trust",
    "judge_networks",
    "judge_scores",
    "predicted",
    "read_judged",
]

FITTED = "+fitted"  # behind the metric's name of the scores that were corrected
_FEWEST = 3  # networks: fewer have no ranking to speak of
_FILE = "judged.json"
_FORMAT = "lanaprof-judged/1"
_TEACHER_SHARES = (0.2, 0.7)  # of the layers of every other network: selections keep some of the teacher


@dataclass(frozen=True, slots=True)
class JudgeRules:
    """Which networks are judged, and how.

    Attributes:
        networks: how many.
        tune_steps: batches of each fine-tune.
        seeds: fine-tunes of each network; from two on it is known how far they agree with each other.
        batch_size: of all batches.
        precision: of the fine-tunes, as in ``FinetuneRecipe``.
    """

    networks: int
    tune_steps: int = 80
    seeds: int = 2
    batch_size: int = 128
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.networks < 2 or self.seeds < 1:
            raise BadInput(
                f"{self.networks} networks fine-tuned {self.seeds} times say nothing about scores",
                hint="--networks 40 --seeds 2",
            )


@dataclass(frozen=True, slots=True)
class JudgedNetwork:
    """A network of trained candidates and its divergence from the teacher on held-out images, in nats.

    Attributes:
        choices: one operation per layer.
        own_kl: as assembled, batch norm re-estimated.
        tuned_kl: after a short fine-tune, one per seed.
    """

    choices: Choices
    own_kl: float
    tuned_kl: tuple[float, ...]

    @property
    def quality(self) -> float:
        """Return minus the mean divergence after the fine-tunes."""
        return -math.fsum(self.tuned_kl) / len(self.tuned_kl)


@dataclass(frozen=True, slots=True)
class Correlations:
    """How the ranking of networks by several predictors agrees with that after a short fine-tune.

    Attributes:
        networks: how many.
        score: of the sum of scores.
        own: of the network's own divergence, batch norm re-estimated: what no sum is likely to beat.
        ceiling: of one fine-tune with another of the same networks; None with one seed.
        of_ceiling: the sum's agreement with single fine-tunes, as a share of that; None with one seed.
    """

    networks: int
    score: RankCorrelation
    own: RankCorrelation
    ceiling: RankCorrelation | None
    of_ceiling: float | None


def draw_networks(project: Project, scores: Scores, count: int) -> tuple[Choices, ...]:
    """Return different networks of scored candidates, always the same first ones.

    Every other one is drawn evenly; the rest keep the teacher's layer in 20 to 70 % of the places, so that
    the qualities spread to where selections lie.
    """
    allowed = {
        layer.name: [op for op in layer.candidates if op == TEACHER or (layer.name, op) in scores]
        for layer in project.space.places
    }
    possible = math.prod(len(allowed[layer.name]) for layer in project.space.layers)
    found: dict[Choices, None] = {}
    number = 0
    while len(found) < min(count, possible):
        rng = random.Random(f"{project.config.seed}/{number}")
        share = rng.uniform(*_TEACHER_SHARES) if number % 2 else 0.0
        drawn = random_architecture(project.space, rng, allowed)
        kept = tuple((name, op) for name, op in drawn.choices if rng.random() >= share)
        found.setdefault(Architecture("", kept).complete(project.space))
        number += 1
    return tuple(found)


def judge_networks(
    project: Project,
    networks: Sequence[Choices],
    rules: JudgeRules,
    *,
    progress: Callable[[Progress], None],
) -> tuple[JudgedNetwork, ...]:
    """Return how good networks are, as assembled and after short fine-tunes; what is known is not judged again.

    Raises:
        BadProject: there is no data to judge by.
    """
    from lanaprof.distill import FinetuneRecipe, Progress
    from lanaprof.distill.runtime import Pace
    from lanaprof.flows.finalist_judge import ProjectJudge
    from lanaprof.flows.learning import load_project_data

    data = load_project_data(project)
    judges = [
        ProjectJudge(
            project,
            data,
            FinetuneRecipe(
                steps=rules.tune_steps,
                batch_size=rules.batch_size,
                evaluations=1,
                seed=project.config.seed + number,
                precision=rules.precision,
            ),
        )
        for number in range(rules.seeds)
    ]
    pace, total = Pace(math.inf), len(networks) * rules.seeds
    stage = f"fine-tuning {len(networks)} networks"
    judged: list[JudgedNetwork] = []
    for number, choices in enumerate(networks):
        tuned = []
        for turn, judge in enumerate(judges):
            begun = number * rules.seeds + turn

            def advance(share: float, begun: int = begun) -> None:
                done = begun + share
                left = pace.seconds_left(round(done * 1000), total * 1000)
                progress(Progress(stage, round(done * 1000), total * 1000, left))

            tuned.append(judge.tuned(choices, advance).kl)
        judged.append(JudgedNetwork(choices, judges[0].assembled(choices).kl, tuple(tuned)))
        _write_judged(project, judged, rules)
    return tuple(judged)


def read_judged(project: Project) -> tuple[tuple[JudgedNetwork, ...], int]:
    """Return the networks judged last and the steps of their fine-tunes; nothing once other weights are trained."""
    path = project.state / _FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["format"] != _FORMAT or found["of"] != _weights_key(project):
            return (), 0
        rows = [
            JudgedNetwork(tuple(row["choices"]), row["own_kl"], tuple(row["tuned_kl"]))
            for row in found["networks"]
        ]
        return tuple(rows), int(found["tune_steps"])
    except FileNotFoundError:
        return (), 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadProject(
            f"{path} cannot be read: {error}", hint="delete it and run: lanaprof score --networks 40"
        ) from error


def _write_judged(project: Project, judged: Sequence[JudgedNetwork], rules: JudgeRules) -> None:
    rows = [
        {"choices": list(one.choices), "own_kl": one.own_kl, "tuned_kl": list(one.tuned_kl)} for one in judged
    ]
    document = {
        "format": _FORMAT,
        "of": _weights_key(project),
        "tune_steps": rules.tune_steps,
        "networks": rows,
    }
    write_json(project.state / _FILE, document)


def _weights_key(project: Project) -> str:
    trained = find_trained_candidates(project)
    return digest(
        {
            "teacher": project.weights_digest,
            "weights": sorted(entry.digest for entry in trained.values()),
        }
    )


def predicted(project: Project, scores: Scores, choices: Choices) -> float | None:
    """Return the sum of a network's scores; None where a candidate has none."""
    names = project.space.named(choices)
    found = [0.0 if operation == TEACHER else scores.get((layer, operation)) for layer, operation in names]
    known = [score for score in found if score is not None]
    return math.fsum(known) if len(known) == len(found) else None


def correlate(judged: Sequence[JudgedNetwork], sums: Sequence[float]) -> Correlations:
    """Return how sums of scores agree with what became of the networks.

    Args:
        judged: at least two networks with as many seeds each.
        sums: the prediction for each.
    """
    from lanaprof.distill.combining import kendall_tau, rank_correlation

    qualities = [one.quality for one in judged]
    ceiling = share = None
    if all(len(one.tuned_kl) > 1 for one in judged):
        first, second = ([-one.tuned_kl[place] for one in judged] for place in (0, 1))
        ceiling = rank_correlation(first, second)
        single = (kendall_tau(sums, first) + kendall_tau(sums, second)) / 2
        share = single / ceiling.tau if ceiling.tau > 0 else None
    return Correlations(
        networks=len(judged),
        score=rank_correlation(sums, qualities),
        own=rank_correlation([-one.own_kl for one in judged], qualities),
        ceiling=ceiling,
        of_ceiling=share,
    )


@dataclass(frozen=True, slots=True)
class Trust:
    """What is known about how far scores can be trusted.

    Attributes:
        metric: the scores' name.
        tune_steps: of the fine-tunes.
        judged: the networks.
        sums: of each, the scores' sum.
        correlations: of these.
        combination: the correction, where one was asked for.
        fitted: how the corrected sum agrees, each network predicted by a fit on the others; None without.
    """

    metric: str
    tune_steps: int
    judged: tuple[JudgedNetwork, ...]
    sums: tuple[float, ...]
    correlations: Correlations
    combination: Combination | None = None
    fitted: RankCorrelation | None = None

    @property
    def fitted_metric(self) -> str:
        """Return the name corrected scores are stored under."""
        return f"{self.metric}{FITTED}"


def find_trust(project: Project, store: Store, metric: str) -> Trust | None:
    """Return what the networks judged last say about the scores of a metric; None where they say nothing."""
    judged, tune_steps = read_judged(project)
    return _trust(project, find_scores(project, store, metric), metric, judged, tune_steps)


def judge_scores(
    project: Project,
    store: Store,
    metric: str,
    rules: JudgeRules,
    *,
    fit: bool,
    team: str,
    progress: Callable[[Progress], None],
) -> Trust:
    """Judge networks, and correct the scores by them if asked to.

    Args:
        project: whose networks.
        store: with the metric's scores; the corrected ones go there.
        metric: the scores' name.
        rules: which networks.
        fit: whether scores are corrected and stored under the metric's name with FITTED behind it.
        team: whose scores they are then.
        progress: called after every step of every fine-tune.

    Raises:
        MissingScores: there are none of this metric.
        BadInput: too few networks are possible.
    """
    from lanaprof.distill.combining import fit_combination, rank_correlation, shaped
    from lanaprof.distill.rating import KL_POWER

    rows = find_score_records(project, store, metric)
    scores = {(row.layer, row.operation): row.score for row in rows}
    networks = draw_networks(project, scores, rules.networks)
    judged = judge_networks(project, networks, rules, progress=progress)
    trust = _trust(project, scores, metric, judged, rules.tune_steps)
    if trust is None:
        raise BadInput(
            f"{len(judged)} networks can be made of the scored candidates: too few to judge scores by",
            hint="lanaprof distill, then lanaprof score",
        )
    if not fit:
        return trust
    names = [layer.name for layer in project.space.places]
    parts = [
        {n: scores[n, op] for n, op in project.space.named(one.choices) if op != TEACHER} for one in judged
    ]
    qualities = [one.quality for one in judged]
    # roots, as the scores are: else the few worst networks would decide
    combination = fit_combination(parts, [shaped(q, KL_POWER) for q in qualities], layers=names)
    _store_fitted(store, rows, combination, team=team)
    return replace(trust, combination=combination, fitted=rank_correlation(combination.left_out, qualities))


def _trust(
    project: Project, scores: Scores, metric: str, judged: Sequence[JudgedNetwork], tune_steps: int
) -> Trust | None:
    known = [(one, predicted(project, scores, one.choices)) for one in judged]
    pairs = [(one, total) for one, total in known if total is not None]
    if len(pairs) < _FEWEST:
        return None
    networks, sums = tuple(one for one, _ in pairs), tuple(total for _, total in pairs)
    return Trust(metric, tune_steps, networks, sums, correlate(networks, sums))


def _store_fitted(store: Store, rows: Sequence[Score], combination: Combination, *, team: str) -> None:
    now = utc_now()
    records = []
    for row in rows:
        error = row.standard_error
        if error is not None:  # a root is steep near 0: the difference across the interval, not its slope
            high, low = (combination.corrected(row.layer, row.score + sign * error) for sign in (1.0, -1.0))
            error = abs(high - low) / 2
        corrected = combination.corrected(row.layer, row.score)
        name = f"{row.metric}{FITTED}"
        records.append(replace(row, metric=name, score=corrected, standard_error=error, team=team, time=now))
    store.add(records)
