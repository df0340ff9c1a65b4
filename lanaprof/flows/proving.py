"""The proving loop: solve, build, time, correct the table, solve again, until the measured latency is inside.

A budget is a promise about the device, not about the table. Several neighbouring budgets are proposed per round, so
that one campaign, in which the calibration's networks are timed again beside them, usually brackets the budget.
A proposal that the runtime refuses is ruled out, and the loop goes on with the others.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lanaprof.errors import BackendError, InfeasibleBudget
from lanaprof.flows.attempts import RESERVE, Attempt, Held, Proof, held_of, mean_of, noisy_line, round_line
from lanaprof.flows.bench import Bench
from lanaprof.flows.networks import TimedNetworks, calibration_networks, common_factor, time_networks
from lanaprof.flows.operators import Choices
from lanaprof.flows.predicting import Predictor
from lanaprof.flows.project import Project
from lanaprof.flows.refusing import Refused, find_suspects, refusal_lines, too_few, without
from lanaprof.flows.selecting import choices_of
from lanaprof.lut import Measurement
from lanaprof.ops import TEACHER
from lanaprof.profiler.calibration import fit
from lanaprof.solver import Problem, Solution, solve

__all__ = ["Held", "Proof", "prove", "time_beside"]

_ROUNDS = 6
_MOST_REFUSED = 6  # campaigns of which nothing new came through
_USED = 0.96  # below this share of the budget it is worth trying for more
_NEARLY_USED = 0.94  # from this share on, one round that gains nothing is enough
# Budgets proposed per round, relative to the corrected one.
_SPREAD = (1.0, 0.97, 0.98, 0.99, 1.01, 1.02, 1.03)
_CONFIRMED = 3  # attempts that are timed once more together
_TWICE = 8  # networks built twice per round, to see how well the machine repeats
_OWN_WEIGHT = 4.0  # a proposal says more about its neighbours than a random network does


def prove(
    project: Project,
    bench: Bench,
    predictor: Predictor,
    *,
    problem_of: Callable[[Predictor], Problem],
    budgets: Mapping[str, float],
    fraction: float | None = None,
    anchors: int = 16,
    tell: Callable[[str], None] = lambda _text: None,
) -> Proof:
    """Run the loop.

    Args:
        project: whose networks.
        bench: this machine as the device whose latency is proved.
        predictor: of the same device and environment.
        problem_of: the problem as a predictor sees it.
        budgets: every budget; the device's latency is corrected, the others stay.
        fraction: of the teacher's latency, where that is what the device's budget means: then it is the teacher timed
            beside the others that decides, because the machine is never as fast as when the table was made.
        anchors: calibration networks timed beside the proposals.
        tell: told how it goes.

    Raises:
        InfeasibleBudget: nothing is cheap enough even before timing, or only what the runtime refuses is.
        UserError: the runtime refuses whatever is proposed, or all of the calibration's networks.
        BackendError: the teacher, which a relative budget needs, could not be timed.
    """
    loop = _Loop(
        project,
        bench,
        predictor,
        problem_of,
        budgets,
        calibration_networks(predictor, anchors, project.config.seed),
        tell,
        current=predictor,
        fraction=fraction,
    )
    while True:
        while loop.propose() and not loop.is_near:
            pass
        confirmed = loop.confirm()
        if confirmed is not None:
            return confirmed
        if not loop.goes_on:
            return loop.over_budget()


@dataclass(slots=True)
class _Loop:
    """What the loop knows: attempts so far, the corrected predictor, and how far it still is from the truth."""

    project: Project
    bench: Bench
    predictor: Predictor
    problem_of: Callable[[Predictor], Problem]
    budgets: Mapping[str, float]
    beside: Sequence[Choices]
    tell: Callable[[str], None]
    current: Predictor
    fraction: float | None = None
    teacher_levels_s: list[float] = field(default_factory=list)
    attempts: dict[Choices, Attempt] = field(default_factory=dict)
    anchored: Mapping[Choices, Measurement] = field(default_factory=dict)
    ratio: float = 1.0 + RESERVE
    rounds: int = 0
    refuted: bool = False
    too_noisy: bool = False
    factors: list[float] = field(default_factory=list)
    gained: bool = True
    refused: dict[Choices, str] = field(default_factory=dict)
    refusals: int = 0

    @property
    def budget_s(self) -> float:
        """Return the budget that is proved; a relative one at the machine's usual speed."""
        if self.fraction is None or not self.teacher_levels_s:
            return self.budgets[self.predictor.cost_name]
        return self.fraction * statistics.fmean(self.teacher_levels_s) * self.usual_factor

    @property
    def teacher(self) -> Choices:
        """Return the teacher as a network of the space."""
        return (TEACHER,) * len(self.project.space.layers)

    @property
    def inside(self) -> list[Attempt]:
        """Return the attempts inside the budget, the best first."""
        open_ones = [attempt for attempt in self.attempts.values() if not attempt.refuted]
        found = [attempt for attempt in open_ones if attempt.high_s(self.usual_factor) <= self.budget_s]
        if not found:  # where there is no room for the reserve, what is inside now will have to do
            found = [attempt for attempt in open_ones if attempt.confirmed_high_s <= self.budget_s]
        return sorted(found, key=lambda attempt: -attempt.score)

    @property
    def usual_factor(self) -> float:
        """Return how much slower than at its calibration the machine is, on average over the campaigns so far."""
        return mean_of(self.factors)

    @property
    def is_near(self) -> bool:
        """Say whether more is not worth trying: the budget is used, or nearly and the last round gained nothing."""
        if not self.inside:
            return False
        used = self.inside[0].level_s(self.usual_factor) / self.budget_s
        return used >= _USED or (used >= _NEARLY_USED and not self.gained)

    @property
    def goes_on(self) -> bool:
        """Say whether another round may find what the last confirmation refuted."""
        return self.refuted and self.rounds < _ROUNDS

    @property
    def suspects(self) -> tuple[tuple[str, str], ...]:
        """Return the candidates that every refused network has and no timed one."""
        return find_suspects(self.project.space, self.refused, [*self.attempts, *self.beside])

    def propose(self) -> bool:
        """Solve, build, time and correct; return False when there is nothing new to time."""
        if self.rounds >= _ROUNDS:
            return False
        try:
            proposals = _proposals(
                self.project,
                self._problem(),
                self.budgets,
                self.predictor.cost_name,
                self.budget_s / self.ratio,
            )
        except InfeasibleBudget:
            if not self.attempts:
                raise
            return False  # the table promised more than the device holds
        new = {choices: score for choices, score in proposals.items() if choices not in self.attempts}
        if not new:
            return False
        before = self.inside[0].score if self.inside else -math.inf
        asked = dict.fromkeys([*new, *self.beside, *([self.teacher] if self.fraction is not None else [])])
        timed = self._time(list(asked), twice=_TWICE)
        measured = timed.measurements
        new = {choices: score for choices, score in new.items() if choices in measured}
        if not new:
            self._give_up_after(timed)
            return True
        self.rounds += 1
        if timed.too_noisy:
            self.too_noisy = True
            self.tell(noisy_line(timed.repeatability))
        self._level(measured)
        for choices, score in new.items():
            self.attempts[choices] = Attempt(choices, score, measured[choices], self.factors[-1])
        self._correct(new)
        self.gained = bool(self.inside) and self.inside[0].score > before
        self.tell(round_line(self.rounds, self.attempts.values(), self.inside, self.budget_s))
        return True

    def _problem(self) -> Problem:
        """Return the problem as the corrected predictor sees it, without what the runtime refuses."""
        refused = map(self.project.space.named, self.refused)
        return without(self.problem_of(self.current), refused, self.suspects)

    def _time(self, asked: Sequence[Choices], *, twice: int = 0) -> TimedNetworks:
        """Time networks; tell of those that are refused, and never propose or time them again."""
        timed = time_networks(self.project, self.bench, asked, twice=twice)
        for line in refusal_lines(self.project.space, timed):
            self.tell(line)
        self.refused.update(timed.refused)
        self.beside = [choices for choices in self.beside if choices in timed.measurements]
        if not self.beside:
            raise too_few(
                self.project.space, timed, "none of the calibration's networks is left to compare with"
            )
        return timed

    def _give_up_after(self, timed: TimedNetworks) -> None:
        """Count a campaign of which nothing new came through; after several of them the next would not differ.

        Raises:
            UserError: that was the last.
        """
        self.refusals += 1
        if self.refusals >= _MOST_REFUSED:
            raise too_few(
                self.project.space, timed, f"{self.refusals} times nothing that was proposed could be timed"
            )

    def _level(self, measured: Mapping[Choices, Measurement]) -> None:
        """Note how fast the machine was in a campaign, and what the teacher takes at the speed of its calibration."""
        self.anchored = {choices: measured[choices] for choices in self.beside}
        self.factors.append(common_factor(self.predictor, self.anchored))
        if self.fraction is not None:
            self.teacher_levels_s.append((self._teacher_of(measured).latency_s or 0.0) / self.factors[-1])

    def _teacher_of(self, measured: Mapping[Choices, Measurement]) -> Measurement:
        """Return the teacher's measurement in a campaign.

        Raises:
            BackendError: the runtime refused it.
        """
        if self.teacher not in measured:
            raise BackendError(f"the teacher could not be timed: {self.refused.get(self.teacher)}")
        return measured[self.teacher]

    def _correct(self, newest: Iterable[Choices]) -> None:
        """Fit the calibration to what was timed; what still lies above it must not be proposed again as if inside."""
        usual = self.usual_factor
        now = self.factors[-1]
        timed = {
            choices: (record.latency_s or 0.0) * usual / now for choices, record in self.anchored.items()
        }
        own = {choices: attempt.level_s(usual) for choices, attempt in self.attempts.items()}
        self.current = _corrected(self.predictor, timed, own)
        over = [self.attempts[c].high_s(usual) / self.current.predict(c).latency_s for c in newest]
        self.ratio = max(1.0 + RESERVE, statistics.median(over))

    def confirm(self) -> Proof | None:
        """Time the best again in a fresh process beside the teacher: the loop's own numbers are selected, hence lucky.

        Returns:
            The proof, or None when nothing inside held; what did not is known by its fresh number from then on.
        """
        self.refuted = False
        while best := self.inside[:_CONFIRMED]:
            # Beside as many others as before: among few a small network would find its weights in the caches.
            asked = dict.fromkeys([*(attempt.choices for attempt in best), self.teacher, *self.beside])
            fresh = self._time(list(asked)).measurements
            self._level(fresh)
            teacher = self._teacher_of(fresh)
            for attempt in best:
                if attempt.choices not in fresh:  # built once, refused this time: no promise can rest on it
                    self.attempts[attempt.choices] = replace(attempt, refuted=True)
                    self.refuted = True
                    continue
                again = replace(
                    attempt, measurement=fresh[attempt.choices], factor=self.factors[-1], refuted=True
                )
                held = held_of(
                    again,
                    self.usual_factor,
                    self.budget_s,
                    fraction=self.fraction,
                    teacher=teacher,
                )
                if held.inside:
                    return self._proof("verified", again, held.budget_s, teacher)
                share = held.held_s / held.budget_s
                self.tell(f"timed once more a network takes {share:.1%} of the budget: it is left out")
                self.attempts[again.choices] = again
                self.refuted = True
            self._correct([attempt.choices for attempt in best])
        return None

    def over_budget(self) -> Proof:
        """Return the attempt that comes nearest."""
        nearest = min(self.attempts.values(), key=lambda attempt: attempt.confirmed_high_s)
        return self._proof("over_budget", nearest, self.budget_s, None)

    def _proof(self, status: str, answer: Attempt, budget_s: float, teacher: Measurement | None) -> Proof:
        return Proof(
            status,
            answer.choices,
            answer.score,
            answer.measurement,
            teacher,
            self.rounds,
            self.current,
            self.budget_s / self.ratio,
            tuple(self.factors),
            self.too_noisy,
            budget_s,
            self.fraction,
            tuple(Refused(self.project.space.named(choices), why) for choices, why in self.refused.items()),
            self.suspects,
        )


def time_beside(
    project: Project,
    bench: Bench,
    predictor: Predictor,
    proof: Proof,
    networks: Sequence[Choices],
    *,
    budget_s: float,
    anchors: int = 16,
    tell: Callable[[str], None] = lambda _text: None,
) -> dict[Choices, Held]:
    """Time further networks as the loop confirms its answer: in one campaign, in the same company.

    Args:
        project: whose networks.
        bench: where.
        predictor: the one the loop began with.
        proof: how the loop ended.
        networks: what to time.
        budget_s: what they must lie inside, where the budget is absolute.
        anchors: calibration networks timed beside them.
        tell: told when the machine repeats itself too badly to judge, and what is refused, hence left out.

    Raises:
        UserError: the teacher, or all of the calibration's networks, were refused.
    """
    beside = calibration_networks(predictor, anchors, project.config.seed)
    teacher = (TEACHER,) * len(project.space.layers)
    asked = list(dict.fromkeys([*networks, teacher, *beside]))
    timed = time_networks(project, bench, asked, twice=_TWICE)
    if timed.too_noisy:
        tell(noisy_line(timed.repeatability))
    for line in refusal_lines(project.space, timed):
        tell(line)
    anchored = {choices: timed.measurements[choices] for choices in beside if choices in timed.measurements}
    if teacher not in timed.measurements or not anchored:
        raise too_few(project.space, timed, "nothing is left to compare finalists with")
    now = common_factor(predictor, anchored)
    usual = mean_of((*proof.factors, now))
    found = {}
    for choices in networks:
        if choices not in timed.measurements:
            continue
        attempt = Attempt(choices, 0.0, timed.measurements[choices], now)
        found[choices] = held_of(
            attempt, usual, budget_s, fraction=proof.fraction, teacher=timed.measurements[teacher]
        )
    return found


def _proposals(
    project: Project, problem: Problem, budgets: Mapping[str, float], name: str, budget_s: float
) -> dict[Choices, float]:
    found: dict[Choices, float] = {}
    failure: InfeasibleBudget | None = None
    for factor in _SPREAD:
        try:
            solution: Solution = solve(problem, {**budgets, name: budget_s * factor})
        except InfeasibleBudget as error:
            failure = failure or error
            continue
        found.setdefault(choices_of(project, solution), solution.score)
    if not found and failure is not None:
        raise failure
    return found


def _corrected(
    predictor: Predictor, anchors: Mapping[Choices, float], own: Mapping[Choices, float]
) -> Predictor:
    """Return the predictor with its calibration fitted to what was timed, in seconds, proposals counting more."""
    timed = {**anchors, **own}
    rows = [predictor.features(choices) for choices in timed]
    weights = [_OWN_WEIGHT if choices in own else 1.0 for choices in timed]
    return replace(predictor, fitted=fit(rows, list(timed.values()), weights))
